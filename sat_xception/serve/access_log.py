"""The access log of `serve --access-log`: one line per request, over REST or gRPC."""

from __future__ import annotations

from sat_xception.clock import timestamp
from sat_xception.log import get_logger

__all__ = ["log_access"]

_log = get_logger(__name__)
_MAX_SHOWN = 200


def log_access(
    interface: str, client: str | None, what: str, outcome: str, seconds: float, size: int | None = None
) -> None:
    """Log a request.

    Args:
        interface: "REST" or "gRPC".
        client: Address of the client.
        what: Method and path from the request; all but printable ASCII is escaped.
        outcome: HTTP status or gRPC code.
        seconds: Duration.
        size: Size of the body in bytes, if known.
    """
    shown = ascii(what[:_MAX_SHOWN])[1:-1]
    _log.info(
        "access    %-4s %s %s | %s | %.1f ms | %s bytes | %s",
        interface,
        client or "-",
        shown,
        outcome,
        seconds * 1e3,
        "-" if size is None else size,
        timestamp(),
    )
