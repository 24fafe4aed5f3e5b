"""Process-wide behaviour: usable cores, and exits with a message and an exit code after SIGTERM or on a full disk."""

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
    """SIGTERM came. Like KeyboardInterrupt it is no Exception, so that no `except Exception` catches it."""


@contextlib.contextmanager
def ending_well() -> Iterator[None]:
    """Turn the first SIGTERM, and a full or read-only disk, into our errors; steps may handle SIGTERM themselves.

    A second SIGTERM is ignored, so that cleaning up isn't interrupted.

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
        if os.getpid() != owner:  # a forked child, whose error would reach no one
            os._exit(128 + number)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _Terminated

    earlier = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def flush_stdout() -> None:
    """Flush stdout; if that fails, discard further output.

    Otherwise Python tries again at exit, and replaces the exit code by its own.
    """
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)


def usable_cores() -> int:
    """Return the number of cores that this process may run on, by its CPU affinity if the system has one."""
    if hasattr(os, "sched_getaffinity"):  # Linux; macOS has none
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
