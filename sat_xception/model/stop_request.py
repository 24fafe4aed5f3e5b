"""A stop request by SIGTERM, which Kubernetes sends some seconds before SIGKILL."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from sat_xception.errors import PreemptedError

__all__ = ["StopRequest", "stop_on_sigterm"]


class StopRequest:
    """Whether the process was asked to stop; loops check it at points where they can stop without loss."""

    def __init__(self) -> None:
        """Start without a request."""
        self.given = False

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
def stop_on_sigterm() -> Iterator[StopRequest]:
    """Turn SIGTERM into a stop request while the block runs. Main thread only, since Python handles signals there."""
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
