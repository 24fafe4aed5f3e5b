"""Client of a served model, over REST or gRPC: TensorFlow Serving, KServe or `sat_xception serve`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from sat_xception.errors import ConfigError, ServiceError
from sat_xception.http_clients import retry
from sat_xception.log import get_logger, quiet_imports
from sat_xception.serve.access import Access
from sat_xception.serve.addresses import is_loopback
from sat_xception.serve.protocol import (
    CLASSIFY_SIGNATURE,
    DEFAULT_SIGNATURE,
    Classification,
    RequestError,
    VersionStatus,
)

__all__ = ["EndpointClient"]

_log = get_logger(__name__)
T = TypeVar("T")
# Long enough for a pod to be replaced behind its Service, short enough for a wrong port to be reported soon. An
# endpoint that sends a Retry-After is asked until the deadline.
_RETRY_DELAYS_S = (0.1, 0.3, 1.0, 2.0)


class _Transport(Protocol):
    def predict(self, signature: str, images: Sequence[bytes], timeout_s: float) -> Mapping[str, npt.NDArray[Any]]: ...

    def status(self, timeout_s: float) -> list[VersionStatus]: ...

    def metadata(self, timeout_s: float) -> dict[str, Any]: ...

    def close(self) -> None: ...


class EndpointClient:
    """A client of one model at one address. It keeps its connection open, and is thread-safe.

    Every method raises `RequestError`, a `ServiceError` with a code: INVALID_ARGUMENT (the images or the request are
    wrong), NOT_FOUND (no such model or version), UNAVAILABLE (no answer, after retries), RESOURCE_EXHAUSTED (too large,
    or too busy until the deadline), UNAUTHENTICATED and PERMISSION_DENIED (the token), DEADLINE_EXCEEDED.

    Example:
        with EndpointClient("http://127.0.0.1:8501", "school-classifier") as client:
            client.predict([Path("tile.jpg").read_bytes()])  # float32 [1, classes]
    """

    def __init__(
        self,
        address: str,
        name: str,
        version: int | None = None,
        timeout_s: float = 60.0,
        access: Access = Access(),  # noqa: B008 - it never changes
        tries_again: bool = True,
        as_new_client: bool = False,
    ) -> None:
        """Create the client; nothing is sent yet.

        Args:
            address: `http://host:port`, `https://host:port` (a path before /v1 may follow), `grpc://host:port` or
                `grpcs://host:port`.
            name: Name of the model.
            version: Version to pin. Default: the one that is served.
            timeout_s: Deadline of one call including retries, in seconds.
            access: Token, CA certificates and host name.
            tries_again: Whether a request that the server hasn't processed is sent again, until the deadline.
            as_new_client: Whether each request looks like one from a new client, with its own connection and without
                cookies. REST only.

        Raises:
            ConfigError: The address has another form, or the CA file can't be used.
        """
        self.address, self.name, self.version = address, name, version
        self._timeout_s, self._tries_again = timeout_s, tries_again
        self._access, self._as_new_client = access, as_new_client
        self._transport = _transport(address, name, version, access, as_new_client)
        if access.token_file and not _is_private(address):
            _log.warning("warning   the token goes to %s without TLS; use https:// or grpcs://", address)

    def __enter__(self) -> EndpointClient:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def at_version(self, version: int) -> EndpointClient:
        """Return another client of the same address, pinned to a version."""
        return EndpointClient(
            self.address, self.name, version, self._timeout_s, self._access, self._tries_again, self._as_new_client
        )

    def predict(self, images: Sequence[bytes]) -> npt.NDArray[np.float32]:
        """Return the probabilities of encoded images, float32 [n, classes]."""
        outputs = self._retried(lambda left_s: self._transport.predict(DEFAULT_SIGNATURE, images, left_s))
        return self._probabilities(outputs, len(images))

    def classify(self, images: Sequence[bytes]) -> Classification:
        """Return the probabilities, the most probable label and its score of encoded images."""
        outputs = self._retried(lambda left_s: self._transport.predict(CLASSIFY_SIGNATURE, images, left_s))
        probabilities = self._probabilities(outputs, len(images))
        if not {"label", "score"} <= outputs.keys():
            raise self._other_contract(f"signature 'classify' answers with {sorted(outputs)}, not with label and score")
        labels = [label.decode() if isinstance(label, bytes) else str(label) for label in outputs["label"]]
        try:
            scores = np.asarray(outputs["score"], dtype=np.float32)
        except (TypeError, ValueError):
            raise self._other_contract("its output 'score' isn't numbers") from None
        if len(labels) != len(images) or scores.shape != (len(images),):
            raise self._other_contract(
                f"{len(labels)} labels and scores of shape {list(scores.shape)} for {len(images)} images"
            )
        return Classification(probabilities, labels, scores)

    def status(self) -> list[VersionStatus]:
        """Return the state of the pinned version, or of all versions that the endpoint knows."""
        return self._retried(self._transport.status)

    def metadata(self) -> dict[str, Any]:
        """Return the model's signatures, as TensorFlow Serving's REST interface shows them."""
        return self._retried(self._transport.metadata)

    def _retried(self, call: Callable[[float], T]) -> T:
        """Call, and retry until the deadline if the server didn't process the request."""
        deadline = time.monotonic() + self._timeout_s
        asked_before = False

        def ask() -> T:
            nonlocal asked_before
            left_s = max(deadline - time.monotonic(), 0.001) if asked_before else self._timeout_s
            asked_before = True
            return call(left_s)

        return retry(
            ask,
            _RETRY_DELAYS_S if self._tries_again else (),
            lambda error: error.retry_after_s if isinstance(error, RequestError) else None,
            deadline=deadline,
            jitter=(1.0, 1.25),
            # Without a Retry-After, it isn't known whether there is a server at all.
            as_often_as_asked=True,
            before_wait=lambda error, wait_s: _log.debug("endpoint  %s; again in %.1f s", error, wait_s),
        )

    def _probabilities(self, outputs: Mapping[str, npt.NDArray[Any]], count: int) -> npt.NDArray[np.float32]:
        try:
            values = np.asarray(outputs["probabilities"], dtype=np.float32)
        except (KeyError, TypeError, ValueError):
            raise self._other_contract(
                f"no numbers named 'probabilities' among its outputs {sorted(outputs)}"
            ) from None
        if values.ndim != 2 or len(values) != count or values.shape[1] < 2:
            raise self._other_contract(
                f"probabilities of shape {list(values.shape)} for {count} images, expected two or more for each"
            )
        return values

    def _other_contract(self, what: str) -> ServiceError:
        return ServiceError(
            f"{self.address} doesn't answer as a model of `sat_xception package` does: {what}. "
            "Check --endpoint and --name"
        )


def _is_private(address: str) -> bool:
    """Return whether requests can't be read on the way: by TLS, or because they stay on this machine."""
    parts = urlsplit(address)
    return parts.scheme in ("https", "grpcs") or is_loopback(parts.hostname or "")


def _transport(address: str, name: str, version: int | None, access: Access, as_new_client: bool) -> _Transport:
    parts = urlsplit(address)
    try:
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"endpoint {address!r}: {error}") from None
    if parts.scheme in ("http", "https") and parts.hostname:
        from sat_xception.serve.rest_transport import RestTransport

        return RestTransport(address, name, version, access, as_new_client)
    if as_new_client:
        raise ConfigError(f"endpoint {address!r} must be http:// or https:// to be asked as a new client each time")
    if parts.scheme in ("grpc", "grpcs") and parts.hostname and port and parts.path in ("", "/"):
        # Imported here: the gRPC stubs import TensorFlow, which a REST client doesn't need.
        with quiet_imports():
            from sat_xception.serve.grpc_transport import GrpcTransport

        return GrpcTransport(address, name, version, access)
    raise ConfigError(
        f"endpoint {address!r} must be http://host:port, https://host:port, grpc://host:port or grpcs://host:port"
    )
