"""Dynamic batching: merge waiting requests into one run of the model, and return to each its own rows.

Requests queue up during a run; the next run takes as many as fit, the oldest first. A request to an idle model runs at
once, unless others are being read at that moment: then it waits for them, at most a few milliseconds. If a merged run
fails, its halves run again, so that a bad image fails only its own request.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from sat_xception.serve.metrics import Metrics
from sat_xception.serve.models import Array
from sat_xception.serve.protocol import Code, RequestError
from sat_xception.serve.versions import ModelVersions, ServedVersion

__all__ = ["BatchQueue", "Call"]

Outputs = Mapping[str, Array]


@dataclass(frozen=True)
class Call:
    """One request's call of a signature, checked by `SavedModelSession.checked`.

    Attributes:
        signature: Name of the signature.
        inputs: One array per input.
        output_filter: Names of the outputs to return; none for all.
    """

    signature: str
    inputs: Mapping[str, Array]
    output_filter: Sequence[str] = ()


@dataclass
class _Waiting:
    served: ServedVersion
    call: Call
    rows: int | None  # None if it can't be merged
    answer: asyncio.Future[Outputs]
    since: float = field(default_factory=time.monotonic)

    def merges_with(self, other: _Waiting) -> bool:
        if self.rows is None or other.rows is None or self.served is not other.served:
            return False
        mine, its = self.call, other.call
        return (mine.signature, tuple(mine.output_filter)) == (its.signature, tuple(its.output_filter)) and all(
            array.shape[1:] == its.inputs[name].shape[1:] for name, array in mine.inputs.items()
        )


class BatchQueue:
    """Queue of requests for the model. Used from one event loop; the model runs in separate threads."""

    def __init__(self, versions: ModelVersions, metrics: Metrics, batch_size: int, wait_s: float, threads: int) -> None:
        """Start the threads.

        Args:
            versions: Versions of the model; a version stays loaded during a run.
            metrics: Counters of runs, rows and waiting times.
            batch_size: Maximum number of rows of a merged run.
            wait_s: Maximum wait for requests that are being read, in seconds.
            threads: Number of concurrent runs.
        """
        self._versions, self._metrics = versions, metrics
        self._batch_size, self._wait_s, self._threads = batch_size, wait_s, threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="model")
        self._queue: deque[_Waiting] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._being_read = 0
        self._alarm: asyncio.TimerHandle | None = None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Mark a request as being read while the block runs; the first in the queue may wait shortly for it."""
        self._being_read += 1
        try:
            yield
        finally:
            self._being_read -= 1

    async def run(self, served: ServedVersion, call: Call) -> Outputs:
        """Return the outputs of a call, for its own rows.

        Raises:
            RequestError: The model rejects this call.
        """
        waiting = _Waiting(served, call, served.model.rows(call.signature, call.inputs), _future())
        self._queue.append(waiting)
        self._start_runs()
        return await waiting.answer

    async def stop(self) -> None:
        """Wait for the runs under way and end the threads."""
        if self._alarm is not None:
            self._alarm.cancel()
        await asyncio.gather(*self._running)
        self._pool.shutdown()

    def _start_runs(self) -> None:
        """Start as many runs as allowed, and set a timer if the next one should wait."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        while len(self._running) < self._threads and (batch := self._next_batch()):
            rows = sum(waiting.rows or 0 for waiting in batch)
            left_s = batch[0].since + self._wait_s - time.monotonic()
            if self._being_read and batch[0].rows is not None and rows < self._batch_size and left_s > 0:
                self._alarm = asyncio.get_running_loop().call_later(left_s, self._start_runs)
                break
            taken = set(map(id, batch))
            self._queue = deque(waiting for waiting in self._queue if id(waiting) not in taken)
            task = asyncio.create_task(self._run(batch))
            self._running.add(task)
        self._metrics.waiting.set(len(self._queue))

    def _next_batch(self) -> list[_Waiting]:
        """Return the requests of the next run; cancelled ones are dropped."""
        while self._queue and self._queue[0].answer.done():
            self._queue.popleft()
        if not self._queue:
            return []
        head = self._queue[0]
        batch, rows = [head], head.rows or 0
        for waiting in list(self._queue)[1:]:
            if rows >= self._batch_size:
                break
            if waiting.answer.done() or not head.merges_with(waiting):
                continue
            if rows + (waiting.rows or 0) <= self._batch_size:
                batch.append(waiting)
                rows += waiting.rows or 0
        return batch

    async def _run(self, batch: list[_Waiting]) -> None:
        started = time.monotonic()
        for waiting in batch:
            self._metrics.count_wait(started - waiting.since)
        self._metrics.batch_requests.observe(len(batch))
        try:
            # The run holds the version itself, since all its requests may be cancelled meanwhile.
            with self._versions.hold(batch[0].served):
                answers = await asyncio.get_running_loop().run_in_executor(self._pool, self._answers, batch)
        except Exception as error:  # a bug of ours or of TensorFlow's: all its requests fail, and the queue goes on
            answers = [error] * len(batch)
        self._running.discard(asyncio.current_task())
        for waiting, answer in zip(batch, answers, strict=True):
            if waiting.answer.done():
                continue
            if isinstance(answer, Exception):
                waiting.answer.set_exception(answer)
            else:
                waiting.answer.set_result(answer)
        self._start_runs()

    def _answers(self, batch: list[_Waiting]) -> list[Outputs | Exception]:
        try:
            return list(self._merged(batch))
        except RequestError as error:
            if len(batch) == 1:
                return [error]
            middle = len(batch) // 2
            return self._answers(batch[:middle]) + self._answers(batch[middle:])

    def _merged(self, batch: list[_Waiting]) -> list[Outputs]:
        calls = [waiting.call for waiting in batch]
        first = calls[0]
        inputs = {
            name: array if len(calls) == 1 else np.concatenate([call.inputs[name] for call in calls])
            for name, array in first.inputs.items()
        }
        started = time.monotonic()
        outputs = batch[0].served.model.run(first.signature, inputs, first.output_filter)
        self._metrics.count_run(time.monotonic() - started, next((len(a) for a in inputs.values() if a.ndim), 1))
        if len(calls) == 1:
            return [outputs]
        ends = np.cumsum([waiting.rows or 0 for waiting in batch])
        if any(len(value) != ends[-1] for value in outputs.values()):
            raise RequestError(Code.INTERNAL, "the model answers with other rows than it was asked for")
        parts = {name: np.split(value, ends[:-1]) for name, value in outputs.items()}
        return [{name: part[place] for name, part in parts.items()} for place in range(len(calls))]


def _future() -> asyncio.Future[Outputs]:
    return asyncio.get_running_loop().create_future()
