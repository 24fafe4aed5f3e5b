"""The time of day in UTC, whatever the zone of the machine or of the moment."""

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from sat_xception import clock
from sat_xception.clock import run_stamp, timestamp, utc_now, version_of

MOMENT = datetime(2026, 12, 31, 20, 5, 7, 999_999, tzinfo=timezone(timedelta(hours=-5)))


def test_moments_of_any_zone_are_written_in_utc_and_whole_seconds():
    assert timestamp(MOMENT) == "2027-01-01T01:05:07Z"
    assert run_stamp(MOMENT) == "20270101-010507"
    assert version_of(MOMENT) == 20270101010507


@pytest.mark.parametrize("write", [timestamp, run_stamp, version_of])
def test_by_default_it_is_now(write, monkeypatch):
    monkeypatch.setattr(clock, "utc_now", lambda: MOMENT)
    assert write() == write(MOMENT)


def test_the_zone_of_the_machine_does_not_matter(monkeypatch):
    monkeypatch.setenv("TZ", "America/Bogota")
    time.tzset()
    try:
        assert utc_now().tzinfo is UTC
        assert abs(utc_now().timestamp() - time.time()) < 60
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_rollouts_lock_is_renewed_at_one_moment(monkeypatch):
    from sat_xception.deploy import lock

    monkeypatch.setattr(lock, "utc_now", lambda: MOMENT.astimezone(UTC))
    assert lock._now() == "2027-01-01T01:05:07.999999Z"
