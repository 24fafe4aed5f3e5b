"""Process-wide behaviour: usable cores, signals, and exits with a message and an exit code.

All handlers of SIGTERM and SIGINT are set in this module. Each is restored when its block ends. None acts in a forked
child, which inherits them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

from sat_xception.errors import PreemptedError
from sat_xception.log import get_logger
from sat_xception.storage import reporting_disk_errors

if TYPE_CHECKING:
    import asyncio

__all__ = [
    "StopRequest",
    "Terminated",
    "ending_well",
    "flush_stdout",
    "ignore_signals",
    "stop_event",
    "stop_on_signals",
    "undisturbed",
    "usable_cores",
]


_log = get_logger(__name__)


class Terminated(BaseException):
    """SIGTERM came. Like KeyboardInterrupt it is no Exception, so that no `except Exception` catches it."""

    def __str__(self) -> str:
        """Return the message for the user."""
        return "stopped by SIGTERM; run the same command again"


class StopRequest:
    """Whether the process was asked to stop; loops check it at points where they can stop without loss.

    Attributes:
        signal_number: The last signal received, such as `signal.SIGTERM`; None before the first.
    """

    def __init__(self) -> None:
        """Start without a request."""
        self.signal_number: int | None = None

    @property
    def given(self) -> bool:
        """Whether the process was asked to stop."""
        return self.signal_number is not None

    def raise_if_given(self, kept: object) -> None:
        """Raise an error if the process was asked to stop.

        Args:
            kept: Folder of the saved state, for the message.

        Raises:
            PreemptedError: The process was asked to stop.
        """
        if self.given:
            raise PreemptedError(f"stopped by SIGTERM; what was learnt is kept in {kept}: run the same command again")


@contextlib.contextmanager
def ending_well() -> Iterator[None]:
    """Turn the first SIGTERM, and a full or read-only disk, into our errors; steps may handle SIGTERM themselves.

    Until the outermost block ends, a second SIGTERM is ignored, so that cleaning up isn't interrupted.

    Raises:
        PreemptedError: SIGTERM came.
        ServiceError: The disk is full or read-only.
    """
    try:
        with reporting_disk_errors(), _raising_on_sigterm():
            yield
    except Terminated as stopped:
        raise PreemptedError(f"{stopped}: what was finished is kept") from None


@contextlib.contextmanager
def stop_on_signals(*numbers: int, second_ends: bool = False, announce: str = "") -> Iterator[StopRequest]:
    """Turn signals into a stop request while the block runs. Main thread only, since Python handles signals there.

    Args:
        numbers: The signals, such as `signal.SIGTERM`.
        second_ends: Whether the second signal goes to the earlier handler, which usually ends the process.
        announce: Message to log when a signal arrives; "" logs nothing.
    """
    request = StopRequest()
    earlier: _Handlers = {}

    def note(number: int) -> None:
        request.signal_number = number
        if announce:
            _log.info("%s", announce)
        if second_ends:
            _restore(earlier)

    with _handling(note, *numbers) as found:
        earlier.update(found)
        yield request


@contextlib.contextmanager
def stop_event() -> Iterator[asyncio.Event]:
    """Yield an event of the running asyncio loop that SIGINT or SIGTERM sets."""
    import asyncio  # slow to import, and only servers need it

    event, loop = asyncio.Event(), asyncio.get_running_loop()
    with _handling(lambda _: loop.call_soon_threadsafe(event.set), signal.SIGINT, signal.SIGTERM):
        yield event


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore SIGINT and SIGTERM while the block runs."""
    with _handling(lambda _: None, signal.SIGTERM, signal.SIGINT):
        yield


def ignore_signals(*numbers: int) -> None:
    """Ignore signals until the process ends: if its exit code is decided, or if another process stops it."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


class _RaiseOnce:
    """Action of `ending_well`: raise on the first signal, ignore the others."""

    def __init__(self) -> None:
        self._came = False

    def __call__(self, number: int) -> None:
        if not self._came:
            self._came = True
            raise Terminated


@contextlib.contextmanager
def _raising_on_sigterm() -> Iterator[None]:
    present = signal.getsignal(signal.SIGTERM)
    if isinstance(present, _Handler) and isinstance(present.act, _RaiseOnce) and present.owner == os.getpid():
        yield  # an outer block handles it, and may be cleaning up already
        return
    with _handling(_RaiseOnce(), signal.SIGTERM):
        yield


class _Handler:
    """A signal handler that acts only in the process that set it."""

    def __init__(self, act: Callable[[int], object]) -> None:
        self.act, self.owner = act, os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.owner:  # a forked child, whose error would reach no one
            os._exit(128 + number)
        self.act(number)


# As `signal.getsignal` returns them.
_Handlers = dict[int, Callable[[int, FrameType | None], object] | int | None]


@contextlib.contextmanager
def _handling(act: Callable[[int], object], *numbers: int) -> Iterator[_Handlers]:
    """Handle signals while the block runs, in the main thread only; yield the earlier handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield {}
        return
    handler = _Handler(act)
    earlier: _Handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        for number in numbers:
            signal.signal(number, handler)
        yield earlier
    finally:
        _restore(earlier)


def _restore(handlers: _Handlers) -> None:
    for number, handler in handlers.items():
        # None: not set from Python, so it can't be restored.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


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
