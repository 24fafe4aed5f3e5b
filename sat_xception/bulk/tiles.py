"""Read and decode the images of planned tiles ahead of the model, batch by batch, in bounded memory."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sat_xception.bulk.plan_document import DatasetImages, GridImagery
from sat_xception.bulk.plan_file import Plan, dataset_columns
from sat_xception.dataset.record import DatasetRecord
from sat_xception.errors import ConfigError, DataError
from sat_xception.geo.morton import Keys, tiles_of
from sat_xception.imagery.check import CheckConfig, decode_tile
from sat_xception.imagery.fetch import FetchConfig, TileReader
from sat_xception.imagery.open import open_imagery
from sat_xception.imagery.settings import ImageryConfig, StoredImagery
from sat_xception.imagery.source import ImagerySource, TileFailure
from sat_xception.settings.config import shown

__all__ = ["LoadedBatch", "LoadedTile", "Pixels", "TileSource", "load_batches", "open_tiles"]

Pixels = npt.NDArray[np.uint8]
# Number of batches that are read or wait for the model, in addition to those whose tiles are in flight.
_AHEAD = 4


@dataclass(frozen=True)
class LoadedTile:
    """A tile that was read.

    Attributes:
        data: Encoded image.
        format: Format of the image: "jpeg", "png", …
        pixels: `uint8 [h, w, 3]`.
        reason: Why it can't be scored; "" if it can.
    """

    data: bytes = b""
    format: str = ""
    pixels: Pixels = field(default_factory=lambda: np.empty((0, 0, 3), np.uint8))
    reason: str = ""


@dataclass(frozen=True)
class LoadedBatch:
    """Tiles that go to the model together.

    Attributes:
        begin: Index of the first tile in the shard.
        tiles: All tiles in the shard's order, including those that can't be scored.
    """

    begin: int
    tiles: Sequence[LoadedTile]


@dataclass(frozen=True)
class TileSource:
    """Source of the images of a plan's tiles, usable in any process.

    Attributes:
        imagery: Address of the imagery; "" for a dataset.
        settings: How the plan's images are read.
        workers: Number of tiles in flight at once.
        rate_per_s: Maximum requests per second; 0 is unlimited.
        dataset: Folder of the dataset; "" for imagery.
    """

    imagery: str
    settings: GridImagery | DatasetImages
    workers: int = 16
    rate_per_s: float = 0.0
    dataset: str = ""

    def open(self) -> ImagerySource:
        """Open the imagery.

        Raises:
            ConfigError: It can't be opened.
            ServiceError: It can't be read now.
        """
        return open_imagery(self.imagery, self.source_config())

    def source_config(self) -> ImageryConfig:
        """Return the plan's settings of the source.

        Raises:
            ConfigError: The plan has none.
        """
        settings = self.settings
        if not isinstance(settings, GridImagery):
            raise ConfigError("the plan has no settings of the imagery; run `sat_xception bulk plan` again")
        stored = {name: getattr(settings, name) for name in StoredImagery.model_fields}
        return ImageryConfig(**stored, connections=self.workers)

    def check(self) -> CheckConfig:
        """Return the settings of the check of a tile's image."""
        # Of a dataset, the other settings were applied when it was assembled.
        settings = self.settings
        if isinstance(settings, GridImagery):
            return CheckConfig.of(settings, max_pixels=settings.max_pixels)
        return CheckConfig(tile_size=settings.tile_size, max_pixels=settings.max_pixels)


def open_tiles(plan: Plan, imagery: str = "", workers: int = 16, rate_per_s: float = 0.0) -> TileSource:
    """Return the source of a plan's images.

    Args:
        plan: Plan of the tiles.
        imagery: Address of the plan's imagery, if the plan doesn't store it because it contains a key.
        workers: Number of tiles in flight at once.
        rate_per_s: Maximum requests per second.

    Raises:
        ConfigError: The plan doesn't store the whole address and `imagery` isn't given, or `imagery` doesn't match it.
        DataError: The plan's dataset is missing, or has changed.
    """
    dataset, settings = plan.document.dataset, plan.document.imagery
    if dataset is not None:
        if imagery:
            raise ConfigError(f"--imagery isn't asked: the images of this plan are those of {dataset}")
        if DatasetRecord.read(Path(dataset)).digest != plan.document.dataset_digest:
            raise DataError(f"{dataset} has changed since it was planned; plan it again")
        return TileSource("", settings, workers, 0.0, dataset)
    if not imagery and "***" in settings.url:
        raise ConfigError(
            f"the address of the plan's imagery, {settings.url}, has a key in it, which plans don't keep: give "
            "--imagery again, or plan with {token} instead of the key and --imagery-token-env"
        )
    if imagery and shown(imagery) != settings.url:
        raise ConfigError(
            f"--imagery {shown(imagery)} isn't the imagery of the plan, {settings.url}: only a key may differ. "
            "Leave it out, or plan again with the other imagery"
        )
    return TileSource(imagery or settings.url, settings, workers, rate_per_s)


def load_batches(
    source: TileSource, plan: Plan, keys: Keys, batch_size: int, fit: Callable[[Pixels], Pixels]
) -> Iterator[LoadedBatch]:
    """Yield the images of tiles in batches, in the order of completion.

    Batches depend only on the order of the tiles, so a repeated run scores the same batches. Reading and decoding
    continue in other threads while the caller works, with a limit on the number of batches in memory.

    Args:
        source: Source of the plan's images.
        plan: Plan of the tiles.
        keys: Keys of the tiles, `int64 [n]`.
        batch_size: Number of tiles per batch; only the last batch may have fewer.
        fit: Turns a tile's pixels into the model's input; called from the threads that decode.

    Raises:
        ConfigError: The imagery can't be opened.
        ServiceError: The imagery is down.
    """
    ahead = _AHEAD + -(-source.workers // batch_size)
    with _Loading(source, plan, keys, batch_size, ahead, fit) as loading:
        yield from loading


class _Loading:
    """A thread with an event loop that reads batches, and the queue of the batches that are ready."""

    def __init__(
        self,
        source: TileSource,
        plan: Plan,
        keys: Keys,
        batch_size: int,
        ahead: int,
        fit: Callable[[Pixels], Pixels],
    ) -> None:
        self._source, self._plan, self._keys, self._size, self._fit = source, plan, keys, batch_size, fit
        self._ready: queue.SimpleQueue[LoadedBatch | BaseException] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._room = asyncio.Semaphore(ahead)
        self._in_flight = asyncio.Semaphore(source.workers)
        self._missing = -(-len(keys) // batch_size)
        self._thread = threading.Thread(target=self._run, name="tiles", daemon=True)

    def __enter__(self) -> _Loading:
        self._main: asyncio.Task[None] = self._loop.create_task(self._read_all())
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        # When all batches are read, only the imagery is being closed: a cancellation would leave connections open.
        if self._missing:
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join()

    def __iter__(self) -> Iterator[LoadedBatch]:
        while self._missing:
            item = self._ready.get()
            if isinstance(item, BaseException):
                raise item
            self._missing -= 1
            yield item
            with contextlib.suppress(RuntimeError):  # the loop has ended: all tiles are read
                self._loop.call_soon_threadsafe(self._room.release)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._wait())
        except BaseException as error:  # raised again in the thread that waits for batches
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            self._ready.put(error)

    async def _wait(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await self._main

    async def _read_all(self) -> None:
        if self._source.dataset:
            async with asyncio.TaskGroup() as group:
                await self._start_batches(group, self._from_dataset)
            return
        imagery = self._source.open()
        fetching = FetchConfig(workers=self._source.workers, rate_per_s=self._source.rate_per_s)
        try:
            self._reader = TileReader(imagery, fetching, self._decoded)
            async with asyncio.TaskGroup() as group:
                await self._start_batches(group, self._from_imagery)
        finally:
            await imagery.close()

    async def _start_batches(self, group: asyncio.TaskGroup, read: Any) -> None:  # noqa: ANN401 - a coroutine function
        for begin in range(0, len(self._keys), self._size):
            await self._room.acquire()
            group.create_task(read(begin, self._keys[begin : begin + self._size]))

    async def _from_imagery(self, begin: int, keys: Keys) -> None:
        x, y = (axis.tolist() for axis in tiles_of(keys))
        tiles = await asyncio.gather(*map(self._fetch, x, y, itertools.repeat(self._plan.document.zoom or 0)))
        self._ready.put(LoadedBatch(begin, tiles))

    async def _fetch(self, x: int, y: int, zoom: int) -> LoadedTile:
        async with self._in_flight:
            try:
                return await self._reader.read(x, y, zoom)
            except TileFailure as failure:
                return LoadedTile(reason=failure.reason)

    async def _from_dataset(self, begin: int, keys: Keys) -> None:
        self._ready.put(LoadedBatch(begin, await asyncio.to_thread(self._read_rows, keys)))

    def _read_rows(self, keys: Keys) -> list[LoadedTile]:
        images: pa.ChunkedArray = dataset_columns(Path(self._source.dataset), keys, ["image"])["image"]
        if len(images) != len(keys):
            raise DataError(f"{self._source.dataset} has other tiles than when it was planned; plan again")
        tiles = []
        for image in images:
            try:
                tiles.append(self._decoded(image.as_py() or b""))
            except TileFailure as failure:
                tiles.append(LoadedTile(reason=failure.reason))
        return tiles

    def _decoded(self, data: bytes) -> LoadedTile:
        tile = decode_tile(data, self._source.check())
        if tile.blank:
            return LoadedTile(data, tile.format, tile.pixels, f"blank: {tile.blank}")
        return LoadedTile(data, tile.format, self._fit(tile.pixels))
