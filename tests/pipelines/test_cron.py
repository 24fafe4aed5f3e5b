"""Cron expressions: what Kubeflow's scheduler reads, and the same moments in UTC."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from sat_xception.kubeflow.cron import check_cron, cron_in_utc


@pytest.mark.parametrize(
    "cron", ["0 0 3 * * *", "0 0 3 ? * 2-6", "*/15 0,30 8-18/2 1 JAN-jun Mon,fri", "  0  0 3  * * 0 ", "0 5/20 * * * *"]
)
def test_what_the_scheduler_takes_is_taken(cron):
    assert check_cron(cron) == " ".join(cron.split())


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("0 3 * * *", r"write '0 0 3 \* \* \*'"),
        ("0 0 3 * *  * *", "7 fields"),
        ("", "0 fields"),
        ("60 0 3 * * *", "seconds, '60', must be within 0-59"),
        ("0 0 24 * * *", "hours"),
        ("0 0 3 0 * *", "day of the month"),
        ("0 0 3 * * 7", "day of the week"),
        ("0 0 3 * foo *", "'foo' is no number"),
        ("0 0 5-3 * * *", "hours"),
        ("0 0 */0 * * *", "hours"),
        ("0 0 1--3 * * *", "can't be read"),
    ],
)
def test_what_the_scheduler_refuses_or_misreads_is_an_error(cron, message):
    with pytest.raises(ValueError, match=message):
        check_cron(cron)


@pytest.mark.parametrize(
    ("cron", "timezone", "utc"),
    [
        ("0 0 3 * * 1", "UTC", "0 0 3 * * 1"),
        ("0 0 3 * * 1", "America/Bogota", "0 0 8 * * 1"),
        ("0 0 22 * * 6", "America/Bogota", "0 0 3 * * 0"),
        ("0 30 1 * * mon-fri", "Africa/Nairobi", "0 30 22 * * 0,1,2,3,4"),
        ("0 15 6 1 * *", "Africa/Nairobi", "0 15 3 1 * *"),
        ("0 0 9 * * *", "Asia/Kolkata", "0 30 3 * * *"),
        ("0 0,30 * * * *", "Asia/Kolkata", "0 0,30 * * * *"),
        ("30 0 */6 * * *", "Africa/Nairobi", "30 0 3,9,15,21 * * *"),
    ],
)
def test_a_zone_that_keeps_its_distance_is_converted(cron, timezone, utc):
    assert cron_in_utc(cron, timezone) == utc


@pytest.mark.parametrize(
    ("cron", "timezone", "message"),
    [
        ("0 0 3 * * *", "Europe/Berlin", "changes its clocks"),
        ("0 0 3 * * *", "Mars/Olympus", "no time zone"),
        ("0 0 22 31 * *", "America/Bogota", "unequal length"),
        ("0 0 */4 * * 1", "America/Bogota", "no single cron expression"),
        ("0 0,45 9 * * *", "Asia/Kolkata", "no single cron expression"),
    ],
)
def test_what_has_no_exact_equal_in_utc_is_an_error(cron, timezone, message):
    with pytest.raises(ValueError, match=message):
        cron_in_utc(cron, timezone)


def fires(cron: str, moment: datetime) -> bool:
    """Return whether an expression fires at a moment of its own zone, told in another way than the code under test."""
    names = {"sun": "0", "wed": "3"}
    at = (moment.minute, moment.hour, moment.day, moment.month, moment.isoweekday() % 7)

    def matches(field: str, value: int) -> bool:
        if field.startswith("*"):
            return value % int(field[2:] or 1) == 0
        return str(value) in [names.get(item, item) for item in field.split(",")]

    return all(map(matches, cron.split()[1:], at))


@pytest.mark.parametrize("timezone", ["America/Bogota", "Asia/Kolkata", "Africa/Nairobi", "Asia/Kathmandu"])
@pytest.mark.parametrize("cron", ["0 45 23 * * 6", "0 10 0 * * sun,wed", "0 0 */12 * * *", "0 30 12 * * *"])
def test_the_converted_one_fires_at_the_very_same_moments(cron, timezone):
    utc = cron_in_utc(cron, timezone)
    start = datetime(2026, 11, 1, tzinfo=UTC)
    for minutes in range(0, 14 * 24 * 60, 5):
        moment = start + timedelta(minutes=minutes)
        assert fires(cron, moment.astimezone(ZoneInfo(timezone))) == fires(utc, moment), moment
