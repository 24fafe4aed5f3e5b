"""Current time in UTC, and its formats in files and names.

Durations are measured with `time.monotonic`, which never jumps.
"""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["run_stamp", "timestamp", "utc_now", "version_of"]


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def timestamp(moment: datetime | None = None) -> str:
    """Return a time, by default the current one, as RFC 3339 in UTC with whole seconds.

    Example:
        >>> timestamp(datetime(2026, 11, 30, 9, 5, tzinfo=UTC))
        '2026-11-30T09:05:00Z'
    """
    return (moment or utc_now()).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def run_stamp(moment: datetime | None = None) -> str:
    """Return a time, by default the current one, in the format of run names.

    Example:
        >>> run_stamp(datetime(2026, 11, 30, 9, 5, tzinfo=UTC))
        '20261130-090500'
    """
    return (moment or utc_now()).astimezone(UTC).strftime("%Y%m%d-%H%M%S")


def version_of(moment: datetime | None = None) -> int:
    """Return a time, by default the current one, as a model version number.

    Example:
        >>> version_of(datetime(2026, 11, 30, 9, 5, tzinfo=UTC))
        20261130090500
    """
    return int((moment or utc_now()).astimezone(UTC).strftime("%Y%m%d%H%M%S"))
