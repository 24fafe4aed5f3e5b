"""Kubernetes client for rollouts: a few kinds of objects, retries, and errors with advice.

It uses the official client's DynamicClient without discovery: the kinds are known, and discovery would need more
permissions and a cache file.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from sat_xception.deploy.k8s_errors import told
from sat_xception.deploy.k8s_kinds import ACCESS_REVIEW, Kind
from sat_xception.deploy.k8s_objects import AccessReview, KubernetesObject, ObjectList, Status
from sat_xception.errors import ConfigError, ServiceError
from sat_xception.http_clients import retry, retry_after_s
from sat_xception.log import get_logger

__all__ = [
    "FIELD_MANAGER",
    "ClusterSettings",
    "KubernetesClient",
    "connect",
]

_log = get_logger(__name__)
T = TypeVar("T")
Object = dict[str, Any]

FIELD_MANAGER = "sat-xception-deploy"
# Timeouts in seconds: to connect, and between two bytes of a response.
_TIMEOUT_S = (5, 30)
# Longer than an API server rejects requests under load (seconds), or takes to restart (under a minute).
_RETRY_DELAYS_S = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_LONGEST_RETRY_AFTER_S = 30.0
_PASSING = (429, 500, 502, 503, 504)


class ClusterSettings(Protocol):
    """Settings that identify a cluster and a namespace."""

    @property
    def namespace(self) -> str:
        """Namespace of the endpoint."""

    @property
    def kubeconfig(self) -> Any:  # noqa: ANN401 - Path | None; a protocol's property can't be narrowed by pydantic
        """Kubeconfig file, or None."""

    @property
    def context(self) -> str:
        """Context in the kubeconfig; "" for the current one."""


@contextlib.contextmanager
def connect(settings: ClusterSettings) -> Iterator[KubernetesClient]:
    """Yield a client for the cluster of a kubeconfig or, in a pod, of the pod; no request is sent yet.

    Raises:
        ConfigError: The client isn't installed, or no cluster is configured.
    """
    try:
        from kubernetes import client, config
        from kubernetes.dynamic import DynamicClient
    except ImportError:
        raise ConfigError("--target kserve needs the Kubernetes client: pip install 'sat-xception[deploy]'") from None
    configuration = client.Configuration()
    named = settings.kubeconfig or settings.context or os.environ.get("KUBECONFIG")
    try:
        if not named and "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(client_configuration=configuration)
        else:
            file = str(settings.kubeconfig) if settings.kubeconfig else None
            config.load_kube_config(file, settings.context or None, client_configuration=configuration)
    except (config.ConfigException, OSError) as error:
        raise ConfigError(
            f"no cluster to deploy to: {str(error).rstrip('.')}. Give --kubeconfig and --context, or log in so that "
            "`kubectl get namespaces` works"
        ) from None
    configuration.retries = False  # our own retries also cover requests that change something
    with client.ApiClient(configuration) as api:
        yield KubernetesClient(DynamicClient(api, discoverer=lambda client, cache_file: None), settings.namespace)


class KubernetesClient:
    """Client for one namespace of a cluster; thread-safe.

    Every method retries after 429, 5xx and lost connections. It raises ConfigError (a missing object or kind, an
    invalid request), ConflictError, or ServiceError (no permission, no response).
    """

    def __init__(self, client: Any, namespace: str) -> None:  # noqa: ANN401 - the library has no types
        """Take a DynamicClient and the namespace to work in."""
        self._client, self.namespace = client, namespace

    @property
    def address(self) -> str:
        """Address of the API server."""
        return str(self._client.configuration.host)

    def server_version(self) -> str:
        """Return the version of the API server, for instance "v1.33.1"."""
        answer = self._object("ask", "its version", lambda **raw: self._client.request("get", "/version", **raw))
        return str(answer.get("gitVersion", "of unknown version"))

    def get(self, kind: Kind, name: str, namespace: str = "") -> Object | None:
        """Return an object, or None if it doesn't exist. Default namespace: the client's."""
        resource = self._resource(kind)
        place = self._place(kind) | ({"namespace": namespace} if namespace else {})
        try:
            return self._object(
                "get", f"{kind} {name}", lambda **raw: self._client.get(resource, name=name, **place, **raw)
            )
        except _NotThereError:
            return None

    def find(self, kind: Kind, labels: str = "", fields: str = "") -> list[Object]:
        """List the objects that match a label selector and a field selector."""
        resource = self._resource(kind)
        selectors = {"label_selector": labels or None, "field_selector": fields or None}
        call = lambda **raw: self._client.get(resource, **self._place(kind), **selectors, **raw)  # noqa: E731
        return ObjectList.of(self._object("list", str(kind), call)).items

    def apply(self, kind: Kind, manifest: Object, *, dry_run: bool = False, force: bool = False) -> Object:
        """Apply a manifest by server-side apply; return the resulting object.

        Args:
            kind: Kind of the object.
            manifest: Desired fields; other fields keep their values and owners.
            dry_run: Only return the result, after validation and admission webhooks.
            force: Take over fields that other managers own.

        Raises:
            ConflictError: Another manager owns a field with another value, and `force` is off.
        """
        body = {"apiVersion": kind.api_version, "kind": kind.kind, **manifest}
        options = {
            "field_manager": FIELD_MANAGER,
            "force_conflicts": force or None,
            "dry_run": "All" if dry_run else None,
        }
        resource, name = self._resource(kind), KubernetesObject.of(manifest).metadata.name
        return self._object(
            "apply",
            f"{kind} {name}",
            lambda **raw: self._client.server_side_apply(resource, body=body, **self._place(kind), **options, **raw),
        )

    def create(self, kind: Kind, body: Object) -> Object:
        """Create an object.

        Raises:
            ConflictError: The object exists already.
        """
        resource, name = self._resource(kind), KubernetesObject.of(body).metadata.name
        body = {"apiVersion": kind.api_version, "kind": kind.kind, **body}
        place = self._place(kind) | {"field_manager": FIELD_MANAGER}
        return self._object(
            "create", f"{kind} {name}", lambda **raw: self._client.create(resource, body=body, **place, **raw)
        )

    def replace(self, kind: Kind, body: Object) -> Object:
        """Replace an object that was read before.

        Raises:
            ConflictError: The object was changed in between.
        """
        resource, name = self._resource(kind), KubernetesObject.of(body).metadata.name
        place = self._place(kind) | {"field_manager": FIELD_MANAGER}
        return self._object(
            "update", f"{kind} {name}", lambda **raw: self._client.replace(resource, body=body, **place, **raw)
        )

    def delete(self, kind: Kind, name: str) -> None:
        """Delete an object and its dependents; a missing object is no error."""
        resource = self._resource(kind)
        with contextlib.suppress(_NotThereError):
            place = self._place(kind) | {"propagation_policy": "Background", "serialize": False}
            # The answer is read, or its connection would stay open.
            self._call("delete", f"{kind} {name}", lambda: self._client.delete(resource, name=name, **place).data)

    def log_tail(self, pod: str, container: str, lines: int, previous: bool) -> str:
        """Return the last lines of a container's log, with `previous` of its previous run; "" if there is none."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log"
        query = [("container", container), ("tailLines", lines), ("previous", str(previous).lower())]
        ask: Callable[..., Any] = self._client.request
        try:
            answer = self._call(
                "get", f"the log of {pod}", lambda: ask("get", path, query_params=list(query), serialize=False)
            )
            return str(answer.data.decode(errors="replace")).strip()
        except (ConfigError, ServiceError) as error:
            _log.debug("no log of %s: %s", pod, error)
            return ""

    def await_change(self, kind: Kind, seen: Object, timeout_s: float) -> None:
        """Wait until an object differs from `seen`, at most until the timeout.

        It may return without a change, after an expired watch (410) or a lost connection; read the object again.
        """
        from kubernetes.client.rest import ApiException
        from kubernetes.watch import Watch
        from urllib3.exceptions import HTTPError

        metadata, started = KubernetesObject.of(seen).metadata, time.monotonic()
        watched = {
            "namespace": self.namespace,
            "field_selector": f"metadata.name={metadata.name}",
            "resource_version": metadata.resource_version,
            "timeout_seconds": max(1, round(timeout_s)),
            "serialize": False,
            # The client's own watch has no deadline: it would wait forever on a dead connection.
            "_request_timeout": (_TIMEOUT_S[0], timeout_s + _TIMEOUT_S[1]),
        }
        try:
            resource = self._resource(kind)
            for _ in Watch().stream(resource.get, **watched):
                return
        except (ApiException, HTTPError, ValueError) as error:
            _log.debug("watch of %s %s ended: %s", kind, metadata.name, error)
            # Pause, so that a server that refuses every watch isn't asked more often than by polling.
            time.sleep(min(1.0, max(0.0, timeout_s - (time.monotonic() - started))))

    def may(self, verb: str, kind: str, group: str, subresource: str = "", name: str = "") -> bool:
        """Return whether this account has a permission in the namespace, or for a named cluster-wide object."""
        namespace = {} if name else {"namespace": self.namespace}
        attributes = {"verb": verb, "group": group, "resource": kind, "subresource": subresource, "name": name}
        attributes = {key: value for key, value in attributes.items() if value or key == "group"} | namespace
        body = {
            "apiVersion": ACCESS_REVIEW.api_version,
            "kind": ACCESS_REVIEW.kind,
            "spec": {"resourceAttributes": attributes},
        }
        resource = self._resource(ACCESS_REVIEW)
        answer = self._object(
            "create", str(ACCESS_REVIEW), lambda **raw: self._client.create(resource, body=body, **raw)
        )
        return AccessReview.of(answer).status.allowed

    def _resource(self, kind: Kind) -> Any:  # noqa: ANN401 - the library has no types
        from kubernetes.dynamic.resource import Resource

        return Resource(
            prefix="apis" if kind.group else "api",
            group=kind.group or None,
            api_version=kind.version,
            kind=kind.kind,
            name=kind.plural,
            namespaced=kind.namespaced,
            client=self._client,
        )

    def _place(self, kind: Kind) -> dict[str, Any]:
        timeout: dict[str, Any] = {"_request_timeout": _TIMEOUT_S}
        return timeout | {"namespace": self.namespace} if kind.namespaced else timeout

    def _object(self, verb: str, what: str, call: Callable[..., Any]) -> Object:
        """Return the object in the response of a call."""
        answer: Object = json.loads(self._call(verb, what, lambda: call(serialize=False).data))
        return answer

    def _call(self, verb: str, what: str, call: Callable[[], T]) -> T:
        from kubernetes.client.rest import ApiException
        from urllib3.exceptions import HTTPError

        def tell(error: BaseException, pause_s: float) -> None:
            problem = f"{error.status} {error.reason}" if isinstance(error, ApiException) else str(error)
            _log.info("cluster   %s %s: %s; again in %.1f s", verb, what, problem, pause_s)

        try:
            return retry(call, _RETRY_DELAYS_S, _asked_s, before_wait=tell)
        except ApiException as error:
            raise self._explained(verb, what, error) from None
        except HTTPError as error:
            raise ServiceError(
                f"the cluster at {self.address} doesn't answer: {error}. Check the network, and --kubeconfig "
                "and --context; then run the same command again"
            ) from None

    def _explained(self, verb: str, what: str, error: Any) -> Exception:  # noqa: ANN401 - ApiException
        try:
            status = Status.of(json.loads(error.body))
        except (TypeError, ValueError, ServiceError):
            status = Status()
        if error.status == 404 and status.details.name and verb in ("get", "delete"):
            return _NotThereError(what)
        return told(verb, what, int(error.status or 0), status, str(error.reason), self.namespace)


class _NotThereError(Exception):
    """The object doesn't exist."""


def _asked_s(error: BaseException) -> float | None:
    """Return how long the server asks to wait, 0 where it doesn't say; None when a second call would be no use."""
    from kubernetes.client.rest import ApiException
    from urllib3.exceptions import HTTPError

    if isinstance(error, HTTPError):
        return 0.0
    if not isinstance(error, ApiException) or error.status not in _PASSING:
        return None
    asked_s = retry_after_s((error.headers or {}).get("Retry-After", "")) or 0.0
    return min(asked_s, _LONGEST_RETRY_AFTER_S)
