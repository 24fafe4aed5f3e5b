"""Fetch tiles concurrently, within the configured limits; every tile ends in the store.

Workers take the next tile from one iterator, so a million tiles are never a million tasks. A failure that may pass is
asked again after a wait with full jitter
(https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/). When a server says how long to
wait, all workers leave that server alone for so long.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Generic, TypeVar

from sat_xception.errors import ServiceError
from sat_xception.imagery.check import CheckConfig, check_tile
from sat_xception.imagery.source import ImagerySource, TileFailure
from sat_xception.imagery.store import FetchedTile, FetchStore, Status
from sat_xception.log import track
from sat_xception.process import usable_cores

__all__ = ["FetchConfig", "FetchCounts", "FetchStore", "FetchedTile", "TileReader", "fetch_tiles"]

T = TypeVar("T")


@dataclass(frozen=True)
class FetchConfig:
    """Settings of fetching.

    Attributes:
        workers: Tiles in flight at once.
        rate_per_s: Requests a second, retries included; 0 is no limit.
        retries: Number of times that a tile is requested again after a temporary failure.
        backoff_s: Longest first wait; it doubles each time, and a random part of it is waited.
        max_wait_s: Maximum wait in seconds, also with a longer Retry-After.
        give_up_after: The run stops when so many tiles in a row, retries and all, couldn't be had: the server is down.
        check: What a tile must be.
    """

    workers: int = 16
    rate_per_s: float = 0.0
    retries: int = 4
    backoff_s: float = 0.5
    max_wait_s: float = 60.0
    give_up_after: int = 32
    check: CheckConfig = field(default_factory=CheckConfig)


@dataclass
class FetchCounts:
    """Counts of tiles: planned = ok + blank + failed. `resumed` of them were in the store already."""

    planned: int = 0
    ok: int = 0
    blank: int = 0
    failed: int = 0
    resumed: int = 0

    def add(self, status: Status) -> None:
        """Count one tile."""
        self.planned += 1
        setattr(self, status, getattr(self, status) + 1)


def fetch_tiles(
    tiles: Iterable[tuple[int, int, int]], source: ImagerySource, store: FetchStore, config: FetchConfig, total: int
) -> FetchCounts:
    """Fetch the tiles that aren't in the store, and close the source.

    Args:
        tiles: (x, y, z), each once; read as they are needed.
        source: Where they come from.
        store: Store of the fetched tiles. Finished tiles aren't requested again; temporary failures are.
        config: How many, how fast, how patiently.
        total: Number of tiles, for the progress.

    Raises:
        ServiceError: The source is down. Fetched tiles are kept.
    """
    fetch = _Fetch(source, store, config)
    try:
        asyncio.run(fetch.run(iter(tiles), total))
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    return fetch.counts


@cache
def _judges() -> ThreadPoolExecutor:
    """Return the decoding threads, one per core: with more, waiting for each other, bulk runs were a tenth slower."""
    return ThreadPoolExecutor(usable_cores(), "judge")


class TileReader(Generic[T]):
    """Reads tiles of a source concurrently, with retries, in one event loop."""

    def __init__(self, source: ImagerySource, config: FetchConfig, judge: Callable[[bytes], T]) -> None:
        """Take the source.

        Args:
            source: Where tiles come from; it is closed by whoever opened it.
            config: How fast, how patiently.
            judge: Turns a tile's bytes into what is wanted of it, in a thread of its own; raises `TileFailure`.
        """
        self._source, self._config, self._judge = source, config, judge
        self._next_request = 0.0
        self._patience_until: defaultdict[str, float] = defaultdict(float)
        self._unreachable: Counter[str] = Counter()
        self._down_in_a_row = 0

    async def read(self, x: int, y: int, z: int) -> T:
        """Return what `judge` made of a tile.

        Raises:
            TileFailure: There is none, it is no image, or it couldn't be had after all retries; then it is transient.
            ServiceError: It is the last of so many in a row that couldn't be had: the source is down.
        """
        try:
            judged = await self._read(x, y, z)
        except TileFailure as failure:
            self._down_in_a_row = self._down_in_a_row + 1 if failure.transient else 0
            if self._down_in_a_row >= self._config.give_up_after:
                raise ServiceError(
                    f"the imagery can't be fetched: {self._down_in_a_row} tiles in a row failed, the last with "
                    f"{failure.reason}. See whether the server is up, then run again: what is finished is kept"
                ) from None
            raise
        self._down_in_a_row = 0
        return judged

    async def _read(self, x: int, y: int, z: int) -> T:
        host = self._source.host(x, y, z)
        for attempt in range(self._config.retries + 1):
            await self._turn(host)
            try:
                data = await self._source.read(x, y, z)
                self._unreachable[host] = 0
                return await asyncio.get_running_loop().run_in_executor(_judges(), self._judge, data)
            except TileFailure as failure:
                if not failure.transient:
                    raise
                last = failure
                if attempt < self._config.retries:
                    await self._wait(attempt, failure, host)
        raise TileFailure(f"{last.reason}, {attempt + 1} times", transient=True)

    async def _turn(self, host: str) -> None:
        """Wait until a request may be sent: the rate allows it, and the host didn't ask for patience."""
        while (wait := self._patience_until[host] - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        if self._config.rate_per_s:
            slot = max(time.monotonic(), self._next_request)
            self._next_request = slot + 1 / self._config.rate_per_s
            await asyncio.sleep(slot - time.monotonic())

    async def _wait(self, attempt: int, failure: TileFailure, host: str) -> None:
        """Wait before the same tile is asked again; what its host asked for, or is down for, all workers wait."""
        longest = min(self._config.backoff_s * 2**attempt, self._config.max_wait_s)
        wait = random.uniform(0, longest)
        retry_after_s = failure.retry_after_s
        if failure.unreachable:
            # After each consecutive failure to connect, the whole host is left alone for twice as long.
            self._unreachable[host] += 1
            longest = self._config.backoff_s * 2 ** min(self._unreachable[host] // self._config.workers, 10)
            retry_after_s = random.uniform(0, longest)
        if retry_after_s is not None:
            asked = min(retry_after_s, self._config.max_wait_s)
            self._patience_until[host] = max(self._patience_until[host], time.monotonic() + asked)
            wait = min(asked + wait, self._config.max_wait_s)
        await asyncio.sleep(wait)


class _Fetch:
    """One run into a store, and its counts."""

    def __init__(self, source: ImagerySource, store: FetchStore, config: FetchConfig) -> None:
        self.counts = FetchCounts()
        self._source = source
        self._store = store
        self._config = config
        self._reader = TileReader(source, config, self._judge)

    def _judge(self, data: bytes) -> tuple[bytes, str, str]:
        return data, *check_tile(data, self._config.check)

    async def run(self, tiles: Iterator[tuple[int, int, int]], total: int) -> None:
        progress = track(range(total), "fetch", total)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._config.workers):
                    group.create_task(self._work(tiles, progress))
        finally:
            progress.close()  # type: ignore[attr-defined]
            await self._source.close()

    async def _work(self, tiles: Iterator[tuple[int, int, int]], progress: Iterator[int]) -> None:
        for x, y, z in tiles:
            known = self._store.outcome(x, y, z)
            if known and not known[1]:
                self.counts.resumed += 1
                status = known[0]
            else:
                status = await self._fetch(x, y, z)
            self.counts.add(status)
            next(progress, None)

    async def _fetch(self, x: int, y: int, z: int) -> Status:
        try:
            data, kind, blank = await self._reader.read(x, y, z)
            tile = FetchedTile(x, y, z, "blank" if blank else "ok", blank, data, kind)
        except TileFailure as failure:
            tile = FetchedTile(x, y, z, "failed", failure.reason, transient=failure.transient)
        self._store.put(tile)
        return tile.status
