"""The files of a plan: `plan.json`, and `runs.parquet` with the tiles of each shard as runs of keys.

A key names a tile: of the grid, its index in the order of quadkeys (see `geo.morton`); of a dataset, its row. Runs
keep the plan of a country small, and shards are cut from it without holding it in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sat_xception.bulk.plan_document import BulkPlan, ModelId, PlannedTiles, identity_digest
from sat_xception.errors import ConfigError, DataError
from sat_xception.geo.morton import Keys, tile_ids, tiles_of
from sat_xception.storage import local_folder

__all__ = [
    "IdDigest",
    "Plan",
    "PlanCounts",
    "PlanWriter",
    "dataset_columns",
    "dataset_files",
    "read_plan",
]

_RUNS_FILE = "runs.parquet"
_RUNS_SCHEMA = pa.schema([("shard", pa.int32()), ("first", pa.int64()), ("count", pa.int64())])
_ROW_GROUP = 2**16
# Number of keys in memory at once while ids are made from them.
_PAGE = 2**18


class IdDigest:
    """SHA-256 of the tile ids in the order of the plan, each followed by a newline.

    If the digests of a plan and of its scores are equal, every planned tile is there exactly once.
    """

    def __init__(self) -> None:
        """Start without ids."""
        self._digest = hashlib.sha256()

    def add(self, ids: pa.Array) -> None:
        """Add the next ids, an array of strings."""
        if not len(ids):
            return
        lines = pc.binary_join_element_wise(ids.cast(pa.string()), "", "\n")
        _, offsets, text = lines.buffers()
        ends = np.frombuffer(offsets, np.int32)[lines.offset :]
        self._digest.update(memoryview(text)[ends[0] : ends[len(lines)]])

    def hexdigest(self) -> str:
        """Return the digest of the ids so far."""
        return self._digest.hexdigest()


@dataclass(frozen=True)
class Plan:
    """A plan.

    Attributes:
        folder: Local folder of the plan.
        document: Content of `plan.json`.
    """

    folder: Path
    document: PlannedTiles

    @property
    def planned(self) -> int:
        """Number of tiles."""
        return self.document.planned

    @property
    def shards(self) -> int:
        """Number of shards."""
        return self.document.shards

    @property
    def digest(self) -> str:
        """Digest of the tile ids."""
        return self.document.tile_ids_digest

    def model_under(self, root: str) -> str:
        """Return the folder of the version that the plan was made for, below a model root."""
        model = self._model()
        return f"{root.rstrip('/')}/{model.name}/{model.version}"

    def scores_under(self, root: str) -> str:
        """Return the folder of this plan's scores below `root`; the same plan and model give the same folder."""
        model = self._model()
        digest = identity_digest(self.document.identity, model.content())
        return f"{root.rstrip('/')}/{model.version}-{digest[:12]}"

    def _model(self) -> ModelId:
        model = self.document.model
        if model is None:
            raise ConfigError(f"the plan {self.folder} is for no model; give `sat_xception bulk plan` one with --model")
        return model

    def count(self, shard: int) -> int:
        """Return the number of tiles of a shard; only the last shard may have fewer than `shard_tiles`."""
        return min(self.document.shard_tiles, self.planned - shard * self.document.shard_tiles)

    def keys(self, shard: int) -> Keys:
        """Return the keys of a shard's tiles, `int64 [n]`, ascending.

        Raises:
            DataError: The plan is damaged.
        """
        path = self.folder / _RUNS_FILE
        try:
            runs = pq.read_table(path, columns=["first", "count"], filters=[("shard", "==", shard)])
        except (FileNotFoundError, pa.ArrowInvalid) as error:
            raise DataError(f"{path} can't be read: {error}. Run `sat_xception bulk plan` again") from None
        keys = _expanded(runs["first"].to_numpy(), runs["count"].to_numpy())
        if len(keys) != self.count(shard):
            raise DataError(
                f"{path} has {len(keys):,} tiles in shard {shard}, {BulkPlan.file_name} says {self.count(shard):,}"
            )
        return keys

    def rows(self, keys: Keys) -> pa.Table:
        """Return `tile_id`, `x`, `y` and `z` of keys; the int32 coordinates are null for tiles without any."""
        if self.document.dataset is not None or self.document.zoom is None:
            return _dataset_rows(Path(self.document.dataset or ""), keys)
        x, y = tiles_of(keys)
        z = pa.repeat(pa.scalar(self.document.zoom, pa.int32()), len(keys))
        ids = tile_ids(keys, self.document.zoom)
        places = {"x": pa.array(x, pa.int32()), "y": pa.array(y, pa.int32()), "z": z}
        return pa.table({"tile_id": ids, **places})


def read_plan(place: Path) -> Plan:
    """Return the plan in a local folder, or in a bucket, from which it is downloaded once.

    Raises:
        DataError: The folder holds no plan, or a damaged one.
        ServiceError: The bucket can't be read.
    """
    folder = local_folder(place, BulkPlan.file_name)
    return Plan(folder, BulkPlan.read(folder))


class PlanCounts(NamedTuple):
    """Counts of a plan, and the digest of its tile ids; see `PlannedTiles`."""

    planned: int
    shards: int
    shard_tiles: int
    tile_ids_digest: str


class PlanWriter:
    """Splits runs of keys into shards and writes them, in the given order. Use as a context manager."""

    def __init__(self, folder: Path, shard_tiles: int, ids: Callable[[Keys], pa.Array]) -> None:
        """Write to `folder`.

        Args:
            folder: Folder of the plan.
            shard_tiles: Number of tiles per shard.
            ids: Returns the ids of keys.
        """
        self.planned = 0
        self._shard_tiles, self._ids = shard_tiles, ids
        self._digest = IdDigest()
        self._waiting: list[pa.Table] = []
        self._writer = pq.ParquetWriter(folder / _RUNS_FILE, _RUNS_SCHEMA, compression="zstd")

    def __enter__(self) -> PlanWriter:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Write the remaining runs, and close the file."""
        self._flush()
        self._writer.close()

    def add(self, first: Keys, count: Keys) -> None:
        """Append runs, each at least one key long."""
        if not len(first):
            return
        ends = np.cumsum(count) + self.planned
        begins = ends - count
        cuts = np.arange(-(-self.planned // self._shard_tiles), -(-ends[-1] // self._shard_tiles)) * self._shard_tiles
        pieces = np.union1d(begins, cuts)
        run = np.searchsorted(begins, pieces, side="right") - 1
        columns = (
            pa.array(pieces // self._shard_tiles, pa.int32()),
            pa.array(first[run] + pieces - begins[run], pa.int64()),
            pa.array(np.diff(pieces, append=ends[-1]), pa.int64()),
        )
        self._waiting.append(pa.table(dict(zip(_RUNS_SCHEMA.names, columns, strict=True)), _RUNS_SCHEMA))
        for keys in _pages(first, count):
            self._digest.add(self._ids(keys))
        self.planned = int(ends[-1])
        if sum(map(len, self._waiting)) >= _ROW_GROUP:
            self._flush()

    def counts(self) -> PlanCounts:
        """Return the counts and the digest."""
        shards = -(-self.planned // self._shard_tiles)
        return PlanCounts(self.planned, shards, self._shard_tiles, self._digest.hexdigest())

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
            self._waiting = []


def _expanded(first: Keys, count: Keys) -> Keys:
    """Return all keys of runs."""
    begins = np.cumsum(count) - count
    keys: Keys = np.arange(count.sum(), dtype=np.int64) + np.repeat(first - begins, count)
    return keys


def _pages(first: Keys, count: Keys) -> Iterator[Keys]:
    """Yield all keys of runs, in chunks."""
    ends = np.cumsum(count)
    for begin in range(0, int(ends[-1]), _PAGE):
        end = min(begin + _PAGE, int(ends[-1]))
        runs = slice(np.searchsorted(ends, begin, side="right"), np.searchsorted(ends, end) + 1)
        before = ends[runs] - count[runs]
        skipped = np.maximum(begin - before, 0)
        yield _expanded(first[runs] + skipped, np.minimum(ends[runs], end) - before - skipped)


def dataset_files(folder: Path) -> tuple[tuple[Path, int, int], ...]:
    """Return the files of a dataset, each with the numbers of its first row and of the row after its last."""
    # Called for each batch: cached, unless another dataset was written to the folder.
    return _dataset_files(folder, (folder / "dataset.json").stat().st_mtime_ns)


@lru_cache(8)
def _dataset_files(folder: Path, changed_ns: int) -> tuple[tuple[Path, int, int], ...]:
    from sat_xception.dataset.record import DatasetRecord

    files, begin = [], 0
    for name in sorted(DatasetRecord.read(folder).shards):
        rows = pq.read_metadata(folder / name).num_rows
        files.append((folder / name, begin, begin + rows))
        begin += rows
    return tuple(files)


def dataset_columns(folder: Path, keys: Keys, columns: Sequence[str]) -> pa.Table:
    """Return columns of a dataset at ascending row numbers; missing columns are null."""
    parts = []
    for path, begin, end in dataset_files(folder):
        wanted = keys[np.searchsorted(keys, begin) : np.searchsorted(keys, end)] - begin
        if not len(wanted):
            continue
        with pq.ParquetFile(path) as file:
            here = [name for name in columns if name in file.schema_arrow.names]
            ends = np.cumsum([file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)])
            groups = np.unique(np.searchsorted(ends, wanted, side="right"))
            for group in groups.tolist():
                start = int(ends[group - 1]) if group else 0
                some = wanted[(wanted >= start) & (wanted < ends[group])] - start
                rows = file.read_row_group(group, columns=here, use_threads=False).take(pa.array(some))
                for name in columns:
                    if name not in here:
                        rows = rows.append_column(name, pa.nulls(len(rows), pa.int64()))
                parts.append(rows.select(list(columns)))
    return pa.concat_tables(parts)


def _dataset_rows(folder: Path, keys: Keys) -> pa.Table:
    found = dataset_columns(folder, keys, ["id", "tile/x", "tile/y", "tile/z"])
    places = {name: found[f"tile/{name}"].cast(pa.int32()) for name in "xyz"}
    return pa.table({"tile_id": found["id"], **places})
