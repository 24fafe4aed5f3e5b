"""Shared parts of all clients of servers: the retry policy, the Retry-After header, no addresses in the log."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception

from sat_xception.clock import utc_now

__all__ = ["quiet_http_clients", "retry", "retry_after_s"]

T = TypeVar("T")


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
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - utc_now()).total_seconds())


def retry(
    call: Callable[[], T],
    delays_s: Sequence[float],
    asked_s: Callable[[BaseException], float | None],
    *,
    deadline: float = math.inf,
    jitter: tuple[float, float] = (0.75, 1.25),
    as_often_as_asked: bool = False,
    before_wait: Callable[[BaseException, float], object] | None = None,
) -> T:
    """Call a function, and again after transient errors; return its result.

    Args:
        call: Sends the request.
        delays_s: Seconds to wait before the second call, the third and so on. The number of calls is one more.
        asked_s: Returns the seconds of the error's Retry-After, or 0 without one; None if the error isn't transient.
        deadline: Value of `time.monotonic` after which no call starts. If the wait would pass it, the error is raised
            at once.
        jitter: Range of the random factor of each wait, so that clients don't all retry at once. No wait is shorter
            than the server asked for.
        as_often_as_asked: Whether to repeat the last delay, up to the deadline, while the server sends Retry-After.
        before_wait: Called with the error and the seconds before each wait, for logging.

    Raises:
        Exception: The error of the last call, unchanged.

    Example:
        >>> retry(lambda: "answer", (1.0, 4.0), lambda error: 0.0 if isinstance(error, OSError) else None)
        'answer'
    """

    def asked(state: RetryCallState) -> float:
        error = _error_of(state)
        return (asked_s(error) if error is not None else None) or 0.0

    def wait_s(state: RetryCallState) -> float:
        if not delays_s:
            return 0.0
        wanted, delay_s = asked(state), delays_s[min(state.attempt_number, len(delays_s)) - 1]
        return max(wanted, max(wanted, delay_s) * random.uniform(*jitter))

    def stop(state: RetryCallState) -> bool:
        spent = state.attempt_number > len(delays_s)
        if spent and not (as_often_as_asked and delays_s and asked(state)):
            return True
        return time.monotonic() + state.upcoming_sleep >= deadline

    def before_sleep(state: RetryCallState) -> None:
        error = _error_of(state)
        if before_wait is not None and error is not None:
            before_wait(error, state.upcoming_sleep)

    mends = retry_if_exception(lambda error: asked_s(error) is not None)
    policy = Retrying(retry=mends, stop=stop, wait=wait_s, before_sleep=before_sleep, sleep=time.sleep, reraise=True)
    return policy(call)


def _error_of(state: RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()
