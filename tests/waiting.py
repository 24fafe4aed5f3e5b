"""Wait in tests for what happens in another thread or process."""

import time
from collections.abc import Callable

__all__ = ["wait_until"]


def wait_until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until a condition holds; fail if it doesn't in time."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it didn't happen in time"
        time.sleep(0.02)
