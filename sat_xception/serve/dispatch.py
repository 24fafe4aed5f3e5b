"""Admit requests within the limits, parse them in threads, and put them into the model's queue.

The event loop itself does no heavy work, so that status and metrics are answered while the model is busy.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from sat_xception.serve.batches import BatchQueue, Call
from sat_xception.serve.image_size import check_images
from sat_xception.serve.metrics import Metrics
from sat_xception.serve.models import Array, SavedModelSession
from sat_xception.serve.protocol import Code, RequestError
from sat_xception.serve.settings import ServeConfig
from sat_xception.serve.versions import ModelVersions, ServedVersion

__all__ = ["Dispatcher"]

T = TypeVar("T")
_CORES = os.cpu_count() or 1
# Retry-After of refused requests. The clients' jitter keeps them from retrying all at once.
_RETRY_AFTER_S = 1.0
_MB = 2**20


class Dispatcher:
    """Runs predictions on leased versions; used from one event loop.

    Attributes:
        versions: Versions of the model.
        metrics: Counters of the server.
    """

    def __init__(self, versions: ModelVersions, metrics: Metrics, config: ServeConfig) -> None:
        """Start the threads.

        Args:
            versions: Versions of the model.
            metrics: Counters of the server.
            config: Limits.
        """
        self.versions, self.metrics = versions, metrics
        self._config = config
        self._readers = ThreadPoolExecutor(max(2, _CORES), thread_name_prefix="read")
        threads = config.batch_threads or _CORES
        self._queue = BatchQueue(versions, metrics, config.batch_size, config.batch_wait_ms / 1000, threads)
        self._under_way = self._bytes = 0

    @asynccontextmanager
    async def admitted(self, size: int | None, deadline_s: float | None = None) -> AsyncIterator[None]:
        """Admit a request, and cancel its work at its deadline.

        Args:
            size: Size of the body in bytes; None if unknown, which counts as the maximum.
            deadline_s: The client's deadline; the server's applies if it is shorter.

        Raises:
            RequestError: RESOURCE_EXHAUSTED, with a Retry-After, if too many requests are in progress;
                DEADLINE_EXCEEDED.
        """
        config = self._config
        size = config.max_body_mb * _MB if size is None else size
        # A request that is larger than the total limit is admitted if it is the only one.
        if self._under_way and (self._under_way >= config.max_queue or self._bytes + size > config.max_queue_mb * _MB):
            self.metrics.count_refusal()
            raise RequestError(
                Code.RESOURCE_EXHAUSTED,
                f"{self._under_way} requests of {self._bytes / _MB:.0f} MB are in progress already; try again later",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._count(1, size)
        timeout_s = config.timeout_s if deadline_s is None else min(config.timeout_s, deadline_s)
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError:
            raise RequestError(
                Code.DEADLINE_EXCEEDED,
                f"the request wasn't answered within {timeout_s:g} s; send fewer images at once, or serve with a "
                "larger --timeout-s",
            ) from None
        finally:
            self._count(-1, -size)

    async def predict(
        self,
        name: str,
        version: int | None,
        read: Callable[[SavedModelSession], Call],
        write: Callable[[ServedVersion, Call, Mapping[str, Array]], T],
    ) -> T:
        """Run a prediction, and return its response. `read` and `write` run in threads.

        Args:
            name: Requested model.
            version: Pinned version, or None.
            read: Parses the request into a call.
            write: Turns the outputs into a response.

        Raises:
            RequestError: NOT_FOUND, INVALID_ARGUMENT, or the code of an error in the model.
        """
        loop = asyncio.get_running_loop()
        with self.versions.lease(name, version) as served:
            with self._queue.reading():
                call = await loop.run_in_executor(self._readers, self._read, served.model, read)
            outputs = await self._queue.run(served, call)
            return await loop.run_in_executor(self._readers, write, served, call, outputs)

    async def stop(self) -> None:
        """Wait for running work, and end the threads."""
        await self._queue.stop()
        await asyncio.to_thread(self._readers.shutdown, True, cancel_futures=True)

    def _read(self, model: SavedModelSession, read: Callable[[SavedModelSession], Call]) -> Call:
        call = read(model)
        inputs = model.checked(call.signature, call.inputs, call.output_filter)
        rows = model.rows(call.signature, inputs)
        if rows is not None and rows > self._config.max_batch_size:
            raise RequestError(
                Code.INVALID_ARGUMENT,
                f"the request has {rows:,} images, the limit is {self._config.max_batch_size:,}; send fewer at once, "
                "or serve with a larger --max-batch-size",
            )
        for array in inputs.values():
            if array.dtype == object:
                check_images(array.ravel(), self._config.max_image_pixels)
        return Call(call.signature, inputs, call.output_filter)

    def _count(self, requests: int, size: int) -> None:
        self._under_way += requests
        self._bytes += size
        self.metrics.under_way.set(self._under_way)
