"""What a process may use, and how it ends: after SIGTERM or on a full disk with a message and an exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

from sat_xception.errors import PreemptedError
from sat_xception.storage import reporting_disk_errors

__all__ = ["ending_well", "flush_stdout", "usable_cores"]


class _Terminated(BaseException):
    """SIGTERM came. Like KeyboardInterrupt it is no Exception, so that nothing on its way takes it for a failure."""


@contextlib.contextmanager
def ending_well() -> Iterator[None]:
    """Turn the first SIGTERM, and a disk that is full or read-only, into our errors; steps may heed SIGTERM themselves.

    A second SIGTERM is ignored, so that what is cleaned up is cleaned up whole.

    Raises:
        PreemptedError: SIGTERM came.
        ServiceError: The disk is full or read-only.
    """
    try:
        with reporting_disk_errors(), _raising_on_sigterm():
            yield
    except _Terminated:
        raise PreemptedError("stopped by SIGTERM; run the same command again: what was finished is kept") from None


@contextlib.contextmanager
def _raising_on_sigterm() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def end(number: int, frame: object) -> None:
        if os.getpid() != owner:  # a child by fork, which nobody waits to be told by
            os._exit(128 + number)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _Terminated

    earlier = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def flush_stdout() -> None:
    """Write what is left to be written to stdout; where that fails, nothing more goes there.

    Otherwise Python tries again at its end, and replaces the exit code by its own.
    """
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)


def usable_cores() -> int:
    """Return the number of cores that this process may run on: those of its affinity, where the system has one."""
    if hasattr(os, "sched_getaffinity"):  # Linux; macOS has none
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
