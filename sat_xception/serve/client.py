"""Ask a served model, over REST or gRPC: TensorFlow Serving, KServe or `sat_xception serve`."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from sat_xception.errors import ConfigError, ServiceError
from sat_xception.log import get_logger, quiet_imports
from sat_xception.serve.protocol import (
    CLASSIFY_SIGNATURE,
    DEFAULT_SIGNATURE,
    Classification,
    Code,
    RequestError,
    VersionStatus,
)

__all__ = ["EndpointClient"]

_log = get_logger(__name__)
T = TypeVar("T")
# Long enough for a pod to be replaced behind its Service, short enough for a wrong port to be told soon.
_RETRY_DELAYS_S = (0.1, 0.3, 1.0, 2.0)


class _Transport(Protocol):
    def predict(self, signature: str, images: Sequence[bytes]) -> Mapping[str, npt.NDArray[Any]]: ...

    def status(self) -> list[VersionStatus]: ...

    def metadata(self) -> dict[str, Any]: ...

    def close(self) -> None: ...


class EndpointClient:
    """A client of one model at one address. It keeps its connection open; calls may come from several threads.

    Every method raises `RequestError`, a `ServiceError` with a code: INVALID_ARGUMENT (the images or the request are
    wrong), NOT_FOUND (no such model or version), UNAVAILABLE (nobody answered, after retries), DEADLINE_EXCEEDED.

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
        *,
        host: str = "",
        tries_again: bool = True,
    ) -> None:
        """Name the endpoint; nothing is sent yet.

        Args:
            address: `http://host:port`, `https://host:port` (a path before /v1 may follow) or `grpc://host:port`.
            name: The model's name.
            version: Version to ask. Default: the one that is served.
            timeout_s: Deadline of one call, in seconds.
            host: Host header of REST calls, where the address is that of a gateway. Default: the address's own.
            tries_again: Whether a request that wasn't worked on is sent again.

        Raises:
            ConfigError: The address has another form.
        """
        self.address, self.name, self.version = address, name, version
        self._delays_s = _RETRY_DELAYS_S if tries_again else ()
        self._transport = _transport(address, name, version, timeout_s, host)

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

    def predict(self, images: Sequence[bytes]) -> npt.NDArray[np.float32]:
        """Return the probabilities of encoded images, float32 [n, classes]."""
        outputs = self._retried(lambda: self._transport.predict(DEFAULT_SIGNATURE, images))
        return self._probabilities(outputs, len(images))

    def classify(self, images: Sequence[bytes]) -> Classification:
        """Return probabilities, winning labels and their scores of encoded images."""
        outputs = self._retried(lambda: self._transport.predict(CLASSIFY_SIGNATURE, images))
        probabilities = self._probabilities(outputs, len(images))
        if not {"label", "score"} <= outputs.keys():
            raise self._other_contract(f"signature 'classify' answers with {sorted(outputs)}, not with label and score")
        labels = [label.decode() if isinstance(label, bytes) else str(label) for label in outputs["label"]]
        return Classification(probabilities, labels, np.asarray(outputs["score"], dtype=np.float32))

    def status(self) -> list[VersionStatus]:
        """Return the state of the pinned version, or of all versions that the endpoint knows."""
        return self._retried(self._transport.status)

    def metadata(self) -> dict[str, Any]:
        """Return the model's signatures, as TensorFlow Serving's REST interface shows them."""
        return self._retried(self._transport.metadata)

    def _retried(self, call: Callable[[], T]) -> T:
        """Call again after a refused connection, 503 or UNAVAILABLE: the request was never worked on."""
        for delay_s in self._delays_s:
            try:
                return call()
            except RequestError as error:
                if error.code is not Code.UNAVAILABLE:
                    raise
                _log.debug("endpoint  %s; again in %.1f s", error, delay_s)
            # Spread out, so that clients of a server that comes back don't all come at once.
            time.sleep(delay_s * random.uniform(0.75, 1.25))
        return call()

    def _probabilities(self, outputs: Mapping[str, npt.NDArray[Any]], count: int) -> npt.NDArray[np.float32]:
        try:
            values = np.asarray(outputs["probabilities"], dtype=np.float32)
        except (KeyError, TypeError, ValueError):
            raise self._other_contract(
                f"no numbers named 'probabilities' among its outputs {sorted(outputs)}"
            ) from None
        if values.ndim != 2 or len(values) != count:
            raise self._other_contract(f"probabilities of shape {list(values.shape)} for {count} images")
        return values

    def _other_contract(self, what: str) -> ServiceError:
        return ServiceError(
            f"{self.address} doesn't answer as a model of `sat_xception package` does: {what}. "
            "Check --endpoint and --name"
        )


def _transport(address: str, name: str, version: int | None, timeout_s: float, host: str) -> _Transport:
    parts = urlsplit(address)
    try:
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"endpoint {address!r}: {error}") from None
    if parts.scheme in ("http", "https") and parts.hostname:
        from sat_xception.serve.rest_transport import RestTransport

        return RestTransport(address, name, version, timeout_s, host)
    if parts.scheme == "grpc" and parts.hostname and port and parts.path in ("", "/"):
        # Imported here: the gRPC stubs bring TensorFlow, and a REST client doesn't need it.
        with quiet_imports():
            from sat_xception.serve.grpc_transport import GrpcTransport

        return GrpcTransport(parts.netloc, name, version, timeout_s)
    raise ConfigError(f"endpoint {address!r} must be http://host:port, https://host:port or grpc://host:port")
