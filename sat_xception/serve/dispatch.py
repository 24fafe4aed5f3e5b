"""Run requests on the model in a bounded pool of threads, so that the event loop stays free for health and status."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sat_xception.serve.protocol import Code, RequestError
from sat_xception.serve.versions import ModelVersions, ServedVersion

__all__ = ["Dispatcher", "Traffic"]

T = TypeVar("T")
# TensorFlow spreads one run over all cores, so more runs at once than cores only share them out.
_WORKERS = max(2, os.cpu_count() or 2)
# Beyond this a client is told to come back (503, UNAVAILABLE): its deadline would pass in the queue.
_MAX_WAITING = 256


class Traffic:
    """How many predictions were answered and how many were not."""

    def __init__(self) -> None:
        """Start at zero."""
        self._lock = threading.Lock()
        self.answered = 0
        self.failed = 0

    def count(self, answered: bool) -> None:
        """Count one request."""
        with self._lock:
            self.answered += answered
            self.failed += not answered


class Dispatcher:
    """Runs work on leased versions; used from one event loop."""

    def __init__(self, versions: ModelVersions) -> None:
        """Start the threads.

        Args:
            versions: Where models are leased.
        """
        self.versions = versions
        self.traffic = Traffic()
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="predict")
        self._waiting = 0

    async def run(self, name: str, version: int | None, work: Callable[[ServedVersion], T]) -> T:
        """Return `work(served version)`, done in a thread while the version is leased.

        Args:
            name: Model that the request asks for.
            version: The version it pins, or None.
            work: Reads the request, runs the model and makes the response.

        Raises:
            RequestError: NOT_FOUND, UNAVAILABLE when too many requests wait, or whatever `work` raises.
        """
        if self._waiting >= _MAX_WAITING:
            raise RequestError(Code.UNAVAILABLE, f"{self._waiting} requests are waiting already; try again later")

        # The lease is taken in the thread: if the client gives up, the version must stay until the thread is done.
        def leased() -> T:
            with self.versions.lease(name, version) as served:
                return work(served)

        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, leased)
        finally:
            self._waiting -= 1

    def stop(self) -> None:
        """Wait for what is running, and end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)
