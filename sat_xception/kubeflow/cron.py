"""Check cron expressions for Kubeflow's scheduler, and convert them exactly to UTC.

The scheduler parses them with github.com/robfig/cron: six fields, seconds first, days of the week 0-6 from Sunday. It
accepts five fields too, but as seconds to months, so that the usual `0 3 * * *` runs every hour: here that is an error.
All schedules of a cluster share one time zone, $CRON_SCHEDULE_TIMEZONE of its scheduler, by default UTC; the API has no
field for another (kubeflow/pipelines, backend/src/crd/controller/scheduledworkflow/util).
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sat_xception.clock import utc_now

__all__ = ["check_cron", "cron_in_utc"]

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
# Name, lowest, highest and names of each field.
_FIELDS = (
    ("seconds", 0, 59, ()),
    ("minutes", 0, 59, ()),
    ("hours", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 6, _DAYS),
)
_ANY = ("*", "?")
_RANGE = re.compile(r"(\*|\?|\w+)(?:-(\w+))?(?:/(\d+))?")
_DAY_MINUTES = 24 * 60


def check_cron(cron: str) -> str:
    """Return the expression with single spaces.

    Raises:
        ValueError: The scheduler would refuse the expression, or interpret it in an unexpected way.
    """
    fields = cron.split()
    if len(fields) == 5:
        raise ValueError(
            f"{cron!r} has 5 fields; Kubeflow would read the first one as seconds, not as minutes: write '0 {cron}'"
        )
    if len(fields) != 6:
        raise ValueError(f"{cron!r} has {len(fields)} fields; 6 are needed: seconds minutes hours day month weekday")
    for index, field in enumerate(fields):
        _values(field, index)
    return " ".join(fields)


def cron_in_utc(cron: str, timezone: str, now: datetime | None = None) -> str:
    """Convert a time zone's cron expression to one in UTC that fires at the same moments.

    Args:
        cron: Six fields, checked.
        timezone: IANA name, such as America/Bogota.
        now: Time from which on the zone's offset to UTC must be constant.

    Raises:
        ValueError: There is no such expression: the zone has summer time, or only some of the days would move.
    """
    shift = -_offset_minutes(timezone, now or utc_now())
    if shift == 0:
        return cron
    second, minute, hour, day, month, weekday = cron.split()
    moments = {
        divmod(hours * 60 + minutes + shift, _DAY_MINUTES)
        for hours in _values(hour, 2)
        for minutes in _values(minute, 1)
    }
    days = {moved for moved, _ in moments}
    hours, minutes = {at // 60 for _, at in moments}, {at % 60 for _, at in moments}
    every_day = all(field in _ANY for field in (day, month, weekday))
    if len({at for _, at in moments}) != len(hours) * len(minutes) or (len(days) > 1 and not every_day):
        raise ValueError(f"{cron!r} in {timezone} is no single cron expression in UTC; split it, or give it in UTC")
    if days != {0} and not every_day:
        if day not in _ANY or month not in _ANY:
            raise ValueError(
                f"{cron!r} in {timezone} falls on another day in UTC, which months of unequal length rule out"
            )
        weekday = _listed({(value + min(days)) % 7 for value in _values(weekday, 5)}, 5)
    return f"{second} {_listed(minutes, 1)} {_listed(hours, 2)} {day} {month} {weekday}"


def _values(field: str, index: int) -> set[int]:
    """Return the values that a field matches."""
    name, lowest, highest, names = _FIELDS[index]
    found: set[int] = set()
    for part in field.split(","):
        match = _RANGE.fullmatch(part)
        if not match:
            raise ValueError(f"the {name}, {field!r}, can't be read")
        first, last, stride = match.groups()
        step = int(stride or 1)
        if first in _ANY:
            low, high = lowest, highest
        else:
            low = _number(first, lowest, names)
            # As in the scheduler: N/step continues to the highest value.
            high = _number(last, lowest, names) if last else (highest if stride else low)
        if not lowest <= low <= high <= highest or step < 1:
            raise ValueError(f"the {name}, {field!r}, must be within {lowest}-{highest}")
        found.update(range(low, high + 1, step))
    return found


def _number(text: str, lowest: int, names: tuple[str, ...]) -> int:
    if text.lower() in names:
        return names.index(text.lower()) + lowest
    if not text.isdecimal():
        raise ValueError(f"{text!r} is no number")
    return int(text)


def _listed(values: set[int], index: int) -> str:
    _, lowest, highest, _ = _FIELDS[index]
    return "*" if len(values) == highest - lowest + 1 else ",".join(map(str, sorted(values)))


def _offset_minutes(timezone: str, now: datetime) -> int:
    """Return a zone's offset to UTC in minutes, if it is constant for the next three years by today's rules."""
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{timezone!r} is no time zone that this machine knows; names are as America/Bogota") from None
    offsets = {(now + timedelta(days=day)).astimezone(zone).utcoffset() for day in range(0, 3 * 366, 7)}
    if len(offsets) != 1:
        raise ValueError(f"{timezone} changes its clocks and Kubeflow's scheduler can't follow; give the times in UTC")
    seconds = (offsets.pop() or timedelta()).total_seconds()
    return int(seconds // 60)
