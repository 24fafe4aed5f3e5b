"""When a request is sent again, and what Retry-After says."""

import math
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from sat_xception import http_clients
from sat_xception.http_clients import retry, retry_after_s


class BusyError(Exception):
    def __init__(self, asked_s):
        super().__init__(f"busy, {asked_s}")
        self.asked_s = asked_s


@pytest.fixture
def waits(monkeypatch):
    """The waits of a call, which take no time but on the clock."""
    passed, now = [], time.monotonic()
    monkeypatch.setattr(http_clients.time, "monotonic", lambda: now + sum(passed))
    monkeypatch.setattr(http_clients.time, "sleep", passed.append)
    return passed


def asking(*asked, **settings):
    """Call something that fails once with each of these, and then answers; return the answer and the calls."""
    left, calls = list(asked), []

    def call():
        calls.append(True)
        if left:
            raise BusyError(left.pop(0))
        return "answer"

    settings = {"delays_s": (1.0, 4.0, 16.0), "asked_s": lambda error: error.asked_s} | settings
    return retry(call, **settings), len(calls)


def test_there_is_one_call_more_than_delays(waits):
    assert asking(0.0, 0.0, 0.0, jitter=(1, 1)) == ("answer", 4)
    assert waits == [1.0, 4.0, 16.0]
    with pytest.raises(BusyError):
        asking(0.0, 0.0, 0.0, 0.0)
    with pytest.raises(BusyError):
        asking(0.0, delays_s=())


def test_waits_are_spread_and_never_shorter_than_asked(waits):
    for _ in range(50):
        asking(0.0, 10.0)
    short, asked = waits[::2], waits[1::2]
    assert all(0.75 <= wait <= 1.25 for wait in short) and max(short) - min(short) > 0.1
    assert all(10.0 <= wait <= 12.5 for wait in asked)


def test_an_error_that_stays_is_raised_as_it_came_at_once(waits):
    with pytest.raises(BusyError, match="busy, None") as caught:
        asking(0.0, None)
    assert len(waits) == 1 and caught.value.__cause__ is None
    with pytest.raises(KeyboardInterrupt):
        retry(_interrupted, (1.0,), lambda error: 0.0 if isinstance(error, BusyError) else None)


def _interrupted():
    raise KeyboardInterrupt


def test_no_wait_goes_beyond_the_deadline(waits):
    until = http_clients.time.monotonic() + 6
    assert asking(0.0, 0.0, jitter=(1, 1), deadline=until) == ("answer", 3)
    waits.clear()
    with pytest.raises(BusyError, match="busy, 7"):
        asking(0.0, 7.0, jitter=(1, 1), deadline=until)
    assert waits == [1.0]


def test_while_the_server_says_when_to_come_back_it_is_asked_up_to_the_deadline(waits):
    until = http_clients.time.monotonic() + 60
    assert asking(*[5.0] * 9, jitter=(1, 1), deadline=until, delays_s=(1.0,), as_often_as_asked=True)[1] == 10
    waits.clear()
    with pytest.raises(BusyError):
        asking(*[5.0] * 99, jitter=(1, 1), deadline=until, delays_s=(1.0,), as_often_as_asked=True)
    assert waits == [5.0] * 11
    with pytest.raises(BusyError):
        asking(5.0, 0.0, deadline=math.inf, delays_s=(1.0,), as_often_as_asked=True)


def test_each_wait_is_told_before_it(waits):
    told = []
    asking(0.0, 2.0, jitter=(1, 1), before_wait=lambda error, wait_s: told.append((error.asked_s, wait_s, len(waits))))
    assert told == [(0.0, 1.0, 0), (2.0, 4.0, 1)]


@pytest.mark.parametrize(
    ("header", "seconds"), [("120", 120.0), (" 7 ", 7.0), ("0", 0.0), ("", None), ("-3", None), ("soon", None)]
)
def test_seconds_of_retry_after(header, seconds):
    assert retry_after_s(header) == seconds


def test_a_date_of_retry_after():
    assert 50 < retry_after_s(format_datetime(datetime.now(UTC) + timedelta(minutes=1), usegmt=True)) <= 60
    assert retry_after_s("Fri, 31 Dec 1999 23:59:59 GMT") == 0.0
