"""Notice that the machine is about to be taken away: SIGTERM, which Kubernetes sends some seconds before SIGKILL."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from sat_xception.errors import PreemptedError

__all__ = ["StopRequest", "stop_on_sigterm"]


class StopRequest:
    """Whether the process was asked to end; work looks at it where it can stop without loss."""

    def __init__(self) -> None:
        """Begin without one."""
        self.given = False

    def raise_if_given(self, kept: object) -> None:
        """End the work, which is kept.

        Raises:
            PreemptedError: The notice was given.
        """
        if self.given:
            raise PreemptedError(f"stopped by SIGTERM; what was learnt is kept in {kept}: run the same command again")


@contextlib.contextmanager
def stop_on_sigterm() -> Iterator[StopRequest]:
    """Turn SIGTERM into a notice while the block runs. Only in the main thread, where Python handles signals."""
    notice = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield notice
        return

    def give(_: int, __: FrameType | None) -> None:
        notice.given = True

    earlier = signal.signal(signal.SIGTERM, give)
    try:
        yield notice
    finally:
        signal.signal(signal.SIGTERM, earlier)
