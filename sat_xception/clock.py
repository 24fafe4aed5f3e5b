"""The time of day, always in UTC, and the ways in which it is written into files and names.

How long something takes is measured with `time.monotonic`, which nobody sets.
"""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["run_stamp", "timestamp", "utc_now", "version_of"]


def utc_now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


def timestamp(moment: datetime | None = None) -> str:
    """Return a moment, by default now, as RFC 3339 in UTC with whole seconds.

    Example:
        >>> timestamp(datetime(2026, 11, 30, 9, 5, tzinfo=UTC))
        '2026-11-30T09:05:00Z'
    """
    return (moment or utc_now()).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def run_stamp(moment: datetime | None = None) -> str:
    """Return a moment, by default now, as the names of runs have it.

    Example:
        >>> run_stamp(datetime(2026, 11, 30, 9, 5, tzinfo=UTC))
        '20261130-090500'
    """
    return (moment or utc_now()).astimezone(UTC).strftime("%Y%m%d-%H%M%S")


def version_of(moment: datetime | None = None) -> int:
    """Return a moment, by default now, as the number of a model's version.

    Example:
        >>> version_of(datetime(2026, 11, 30, 9, 5, tzinfo=UTC))
        20261130090500
    """
    return int((moment or utc_now()).astimezone(UTC).strftime("%Y%m%d%H%M%S"))
