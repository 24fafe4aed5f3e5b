"""Shared parts of all HTTP clients: no addresses in the log, and the Retry-After header."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["quiet_http_clients", "retry_after_s"]


def quiet_http_clients() -> None:
    """Keep httpx from logging the address of each request: an address may hold a token."""
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)


def retry_after_s(header: str) -> float | None:
    """Read a Retry-After header (RFC 9110, 10.2.3).

    Args:
        header: Value of the header: seconds, or a date; "" if absent.

    Returns:
        Seconds to wait from now on, not negative; None if the value can't be parsed.

    Example:
        >>> retry_after_s("120")
        120.0
    """
    if header.strip().isdecimal():
        return float(header)
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
