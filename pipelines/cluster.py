"""A connection to the API server of Kubeflow Pipelines, over its v2beta1 REST interface.

Spoken directly, because kfp's client prints, writes to the home directory, asks for health five times before it gives
up, and knows neither timeouts nor retries. Requests that may be repeated are, when the failure is a passing one; what
creates something never is before it was looked for (`Cluster.create_once`).
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
from pydantic import Field

from sat_xception.config import StepConfig
from sat_xception.errors import ConfigError, ServiceError
from sat_xception.log import get_logger
from sat_xception.serve.addresses import is_loopback

__all__ = ["Cluster", "ClusterConfig", "ClusterError", "equals", "one_of"]

_log = get_logger(__name__)
_API = "/apis/v2beta1"
# Pauses before another try, in seconds: a restarting API server answers again within them.
_PAUSES_S = (1.0, 2.0, 4.0)
_LONGEST_PAUSE_S = 30.0
_PASSING = frozenset({429, 502, 503, 504})
# No answer, or a gateway that gave up on one: the request may still be under way.
_IN_DOUBT = frozenset({0, 502, 504})
_PAGE = 100
_PORT_FORWARD = "kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80"
for _library in ("httpx", "httpcore"):
    logging.getLogger(_library).setLevel(logging.WARNING)


class ClusterConfig(StepConfig):
    """How to reach Kubeflow Pipelines."""

    endpoint: str = Field(
        "", description="Address of Kubeflow Pipelines' UI or API, http(s)://host:port. Default: $KFP_ENDPOINT."
    )
    namespace: str = Field("", description="Namespace, on a multi-user Kubeflow only. Default: $KFP_NAMESPACE.")
    token_env: str = Field(
        "KFP_EXISTING_TOKEN", description="Environment variable that holds the bearer token, where one is needed."
    )
    token_file: Path | None = Field(
        None, description="File that holds the bearer token instead; read anew for each request, as tokens expire."
    )
    request_timeout_s: float = Field(30.0, gt=0, description="Deadline of one request, in seconds.")


class ClusterError(ServiceError):
    """A request to Kubeflow Pipelines failed.

    Attributes:
        reason: What failed, without what to do about it.
        status: HTTP status of the answer; 0 when there was none.
        passing: Whether the same request may succeed a moment later.
        unclear: Whether the server may have done what was asked all the same.
        pause_s: Seconds after which the server wants to be asked again; 0 when it didn't say.
    """

    def __init__(
        self, reason: str, hint: str = "", status: int = 0, passing: bool = False, unclear: bool = False
    ) -> None:
        """Say what failed, and what to do about it."""
        super().__init__(f"{reason}; {hint}" if hint else reason)
        self.reason = reason
        self.status = status
        self.passing = passing
        self.unclear = unclear
        self.pause_s = 0.0


def equals(key: str, value: str) -> str:
    """Return the filter of a list for one value of one field."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "string_value": value}]})


def one_of(key: str, values: Iterable[str]) -> str:
    """Return the filter of a list for several values of one field."""
    return json.dumps({"predicates": [{"operation": "IN", "key": key, "string_values": {"values": sorted(values)}}]})


class Cluster:
    """The API server; a context manager, for its connections."""

    def __init__(self, config: ClusterConfig) -> None:
        """Check where it is; nothing is sent yet.

        Raises:
            ConfigError: No address is given, or it is none.
        """
        self.namespace = config.namespace or os.environ.get("KFP_NAMESPACE", "")
        self._config = config
        self.endpoint = (config.endpoint or os.environ.get("KFP_ENDPOINT", "")).rstrip("/")
        if not self.endpoint:
            raise ConfigError(
                f"where is Kubeflow Pipelines? Give --endpoint or $KFP_ENDPOINT; to reach it: {_forward()}"
            )
        try:
            url = httpx.URL(self.endpoint)
        except httpx.InvalidURL:
            url = httpx.URL("")
        if url.scheme not in ("http", "https") or not url.host or url.userinfo:
            raise ConfigError(
                f"--endpoint must be http(s)://host:port without a password in it, as http://localhost:8080; a token "
                f"goes into ${config.token_env}"
            )
        self._client = httpx.Client(timeout=config.request_timeout_s, trust_env=not is_loopback(url.host))

    def __enter__(self) -> Cluster:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self._client.close()

    def link(self, place: str) -> str:
        """Return the address of a place in the UI, for instance `runs/details/<id>`."""
        return f"{self.endpoint}/#/{place}"

    def get(self, path: str, **query: str | int) -> dict[str, Any]:
        """Return a resource."""
        return self._patiently(lambda: self.send("GET", path, query))

    def pages(self, path: str, key: str, **query: str | int) -> Iterator[dict[str, Any]]:
        """Yield every resource of a list, page by page."""
        token = ""
        while True:
            page = self.get(path, **{"page_size": _PAGE, **query, **({"page_token": token} if token else {})})
            yield from page.get(key) or []
            token = page.get("next_page_token") or ""
            if not token:
                return

    def act(self, path: str) -> None:
        """Ask for something that comes to the same when it is asked for twice, as `…:disable`."""
        self._patiently(lambda: self.send("POST", path))

    def delete(self, path: str, **query: str) -> None:
        """Delete a resource; that it is gone already is as good."""
        try:
            self._patiently(lambda: self.send("DELETE", path, query))
        except ClusterError as error:
            if error.status != httpx.codes.NOT_FOUND:
                raise

    def create_once(
        self, what: str, create: Callable[[], dict[str, Any]], find: Callable[[], dict[str, Any] | None]
    ) -> dict[str, Any]:
        """Create a resource, and not twice, whatever happens to the request.

        When the answer is lost or a gateway gives up, the server may have created it. So it is looked for before the
        request is repeated; and where no answer came the request isn't repeated at all, for it may still be under way.

        Args:
            what: Name of the resource, for messages.
            create: Sends the request.
            find: Looks for what was asked for; None when it isn't there.

        Raises:
            ClusterError: It couldn't be created, or it isn't known whether it was; the message says which.
        """
        for pause_s in (*_PAUSES_S, None):
            try:
                return create()
            except ClusterError as error:
                taken = error.status == httpx.codes.CONFLICT
                found = find() if error.unclear or taken else None
                if found is not None:
                    return found
                if error.unclear and error.status in _IN_DOUBT:
                    hint = f"the {what} isn't there yet, but may still be made: look before you try again"
                    raise ClusterError(error.reason, hint) from None
                if pause_s is None or not error.passing:
                    raise
                _wait(error, pause_s)
        raise AssertionError("unreachable")

    def _patiently(self, request: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        for pause_s in _PAUSES_S:
            try:
                return request()
            except ClusterError as error:
                if not error.passing:
                    raise
                _wait(error, pause_s)
        return request()

    def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int] | None = None,
        body: dict[str, Any] | None = None,
        file: bytes | None = None,
    ) -> dict[str, Any]:
        """Send one request, once, and return the JSON that comes back.

        Raises:
            ClusterError: It failed.
        """
        files = {"uploadfile": ("pipeline.yaml", file, "application/yaml")} if file is not None else None
        headers = {"Authorization": f"Bearer {token}"} if (token := self._token()) else {}
        try:
            answer = self._client.request(
                method, f"{self.endpoint}{_API}{path}", params=query, json=body, files=files, headers=headers
            )
        except httpx.HTTPError as error:
            raise self._no_answer(error) from None
        if not answer.is_success:
            raise self._refusal(answer, token)
        try:
            content: dict[str, Any] = answer.json() if answer.content else {}
        except ValueError:
            kind = answer.headers.get("content-type")
            raise ClusterError(
                f"{self.endpoint} doesn't speak Kubeflow Pipelines' API: {path} is {kind}, not JSON",
                f"check --endpoint; if that is a login, put a token into ${self._config.token_env}",
            ) from None
        return content

    def _token(self) -> str:
        """Return the bearer token; "" when there is none."""
        path = self._config.token_file
        origin = f"--token-file {path}" if path else f"${self._config.token_env}"
        try:
            token = path.read_bytes().decode() if path else os.environ.get(self._config.token_env, "")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"can't read the token in {origin}: {type(error).__name__}") from None
        token = token.strip()
        # Checked here, because the HTTP library would show it in its message.
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise ConfigError(f"{origin} holds no token: there is a space, a line break or a letter beyond ASCII in it")
        return token

    def _no_answer(self, error: httpx.HTTPError) -> ClusterError:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            certificate = "CERTIFICATE" in str(error)
            hint = "set $SSL_CERT_FILE to the authority's file" if certificate else f"to reach it: {_forward()}"
            reason = f"Kubeflow Pipelines can't be reached at {self.endpoint} ({error})"
            return ClusterError(reason, hint, passing=not certificate)
        reason = f"{type(error).__name__} {error}".strip()
        return ClusterError(f"{self.endpoint} took a request and didn't answer ({reason})", passing=True, unclear=True)

    def _refusal(self, answer: httpx.Response, token: str) -> ClusterError:
        status = answer.status_code
        said = _message(answer)
        said = said.replace(token, "***") if token else said
        reason = f"Kubeflow Pipelines at {self.endpoint} answered HTTP {status}: {said}"
        hint = ""
        if answer.is_redirect or status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            state = "was sent" if token else "is missing"
            hint = f"a bearer token {state}: it comes from ${self._config.token_env} or --token-file"
        elif status == httpx.codes.NOT_FOUND and "json" not in answer.headers.get("content-type", ""):
            hint = "check --endpoint: is it Kubeflow Pipelines?"
        error = ClusterError(reason, hint, status, passing=status in _PASSING, unclear=status >= 500)
        wanted = answer.headers.get("retry-after", "")
        error.pause_s = min(float(wanted), _LONGEST_PAUSE_S) if wanted.isdecimal() else 0.0
        return error


def _forward() -> str:
    return f"`{_PORT_FORWARD}` in another terminal, then --endpoint http://localhost:8080"


def _message(answer: httpx.Response) -> str:
    """Return what the server said: the message of its JSON, or the beginning of whatever else it sent."""
    try:
        content = answer.json()
        said = str(content.get("message") or content.get("error"))
    except (ValueError, AttributeError):
        said = answer.headers.get("location") or answer.text or answer.reason_phrase
    return " ".join(said.split())[:600]


def _wait(error: ClusterError, pause_s: float) -> None:
    pause_s = error.pause_s or pause_s
    _log.warning("waiting   %s; trying again in %g s", error.reason, pause_s)
    time.sleep(pause_s)
