"""Types that the server and its clients share: status codes, errors, version states and classifications.

The codes are gRPC's, which TensorFlow Serving maps to HTTP as below (`ToHTTPStatusCode` in its http_server.cc).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from sat_xception.errors import ServiceError

__all__ = [
    "CLASSIFY_SIGNATURE",
    "DEFAULT_SIGNATURE",
    "RETRY_PUSHBACK",
    "Classification",
    "Code",
    "RequestError",
    "VersionStatus",
]

DEFAULT_SIGNATURE = "serving_default"
CLASSIFY_SIGNATURE = "classify"
# gRPC's counterpart of HTTP's Retry-After, in milliseconds (proposal A6, "Pushback").
RETRY_PUSHBACK = "grpc-retry-pushback-ms"


class Code(IntEnum):
    """Canonical status codes, by their gRPC numbers."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @property
    def http_status(self) -> int:
        """HTTP status that TensorFlow Serving answers with."""
        return _HTTP_STATUS.get(self, 500)

    @classmethod
    def from_http(cls, status: int) -> Code:
        """Return the code for an HTTP status."""
        return _FROM_HTTP.get(status, cls.UNKNOWN)


_HTTP_STATUS = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}
# Proxies and our server return 413 for a request that gRPC refuses as RESOURCE_EXHAUSTED.
_FROM_HTTP = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    413: Code.RESOURCE_EXHAUSTED,
    429: Code.RESOURCE_EXHAUSTED,
    500: Code.INTERNAL,
    501: Code.UNIMPLEMENTED,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}


class RequestError(ServiceError):
    """A request that a model or an endpoint didn't answer.

    Attributes:
        code: Status code; INVALID_ARGUMENT means that the same request will always fail.
        http_status: HTTP status of the response. Default: that of the code.
        retry_after_s: Seconds after which to retry; None if a retry is useless. The server hasn't processed the
            request, so a retry is safe.
        said: The endpoint's own message over REST, without its address; "" without a response.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        http_status: int | None = None,
        retry_after_s: float | None = None,
        said: str = "",
    ) -> None:
        """Create the error; see the attributes."""
        super().__init__(message)
        self.code, self.said = code, said
        self.http_status = http_status or code.http_status
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class VersionStatus:
    """State of a version of a model, in TensorFlow Serving's terms.

    Attributes:
        version: Number of the version; None if the endpoint doesn't report it (a KServe model server).
        state: START, LOADING, AVAILABLE, UNLOADING or END.
        error_code: "OK", or the code of the error that ended it.
        error_message: Message of that error.
    """

    version: int | None
    state: str
    error_code: str = "OK"
    error_message: str = ""


@dataclass(frozen=True)
class Classification:
    """Output of the `classify` signature for n images.

    Attributes:
        probabilities: `float32 [n, classes]`.
        labels: Name of the most probable class of each image.
        scores: Probability of that class, `float32 [n]`.
    """

    probabilities: npt.NDArray[np.float32]
    labels: list[str]
    scores: npt.NDArray[np.float32]
