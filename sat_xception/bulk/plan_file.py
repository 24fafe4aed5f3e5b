"""A plan on disk: `plan.json`, and `runs.parquet` with the tiles of each shard as runs of keys.

A key says which tile it is: its place in the order of quadkeys for tiles of the grid (see `order`), its row for tiles
of a dataset. Runs keep the plan of a country small, and shards are cut from it without holding it in memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sat_xception.errors import ConfigError, DataError
from sat_xception.geo.morton import Keys, tile_ids, tiles_of
from sat_xception.storage import GcsPath, facts_digest, fetch_folder, read_json

__all__ = [
    "PLAN_FILE",
    "IdDigest",
    "Plan",
    "PlanWriter",
    "dataset_columns",
    "dataset_files",
    "imagery_identity",
    "read_plan",
]

PLAN_FILE = "plan.json"
_RUNS_FILE = "runs.parquet"
_RUNS_SCHEMA = pa.schema([("shard", pa.int32()), ("first", pa.int64()), ("count", pa.int64())])
_ROW_GROUP = 2**16
# Of the imagery: how it is asked for and whom it is from, not what its pictures are.
_WITHOUT_A_SAY = ("attribution", "token_env", "contact")
# Keys that are held at once while ids are made of them.
_PAGE = 2**18


class IdDigest:
    """SHA-256 of tile ids in the order of the plan, each with a line's end after it.

    Equal digests of a plan and of its scores prove that every planned tile is there exactly once.
    """

    def __init__(self) -> None:
        """Begin with no ids."""
        self._digest = hashlib.sha256()

    def add(self, ids: pa.Array) -> None:
        """Take the next ids, an array of strings."""
        if not len(ids):
            return
        lines = pc.binary_join_element_wise(ids.cast(pa.string()), "", "\n")
        _, offsets, text = lines.buffers()
        ends = np.frombuffer(offsets, np.int32)[lines.offset :]
        self._digest.update(memoryview(text)[ends[0] : ends[len(lines)]])

    def hexdigest(self) -> str:
        """Return the digest of what was added so far."""
        return self._digest.hexdigest()


@dataclass(frozen=True)
class Plan:
    """What is to be scored.

    Attributes:
        folder: Where it is, on this machine.
        facts: `plan.json`: `planned`, `shards`, `shard_tiles`, `zoom`, `imagery` or `dataset`, the digest of tile ids.
    """

    folder: Path
    facts: dict[str, Any]

    @property
    def planned(self) -> int:
        """Number of tiles."""
        return int(self.facts["planned"])

    @property
    def shards(self) -> int:
        """Number of shards."""
        return int(self.facts["shards"])

    @property
    def digest(self) -> str:
        """Digest of the tile ids."""
        return str(self.facts["digest of tile ids"])

    @property
    def identity(self) -> dict[str, Any]:
        """All of the plan that has a say in the scores: its tiles, how they are dealt out, and how images are read."""
        names = ("digest of tile ids", "planned", "shards", "shard_tiles", "zoom", "dataset digest")
        facts = {name: self.facts[name] for name in names if name in self.facts}
        return facts | {"imagery": imagery_identity(self.facts["imagery"])}

    def model_under(self, root: str) -> str:
        """Return the place of the version that the plan was made for, below a model root."""
        model = self._model()
        return f"{root.rstrip('/')}/{model['name']}/{model['version']}"

    def scores_under(self, root: str) -> str:
        """Return the folder of this plan's scores among those of other runs: the same for the same plan and model."""
        model = self._model()
        return f"{root.rstrip('/')}/{model['version']}-{facts_digest([self.identity, model])[:12]}"

    def _model(self) -> dict[str, Any]:
        model: dict[str, Any] | None = self.facts.get("model")
        if not model:
            raise ConfigError(f"the plan {self.folder} is for no model; give `sat_xception bulk plan` one with --model")
        return model

    def count(self, shard: int) -> int:
        """Return the number of tiles of a shard; only the last one has fewer than the others."""
        return min(int(self.facts["shard_tiles"]), self.planned - shard * int(self.facts["shard_tiles"]))

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
            raise DataError(f"{path} has {len(keys):,} tiles in shard {shard}, {PLAN_FILE} says {self.count(shard):,}")
        return keys

    def rows(self, keys: Keys) -> pa.Table:
        """Return `tile_id`, and `x`, `y`, `z` int32 that are null where tiles have no place, of keys."""
        if "dataset" in self.facts:
            return _dataset_rows(Path(self.facts["dataset"]), keys)
        x, y = tiles_of(keys)
        z = pa.repeat(pa.scalar(self.facts["zoom"], pa.int32()), len(keys))
        ids = tile_ids(keys, self.facts["zoom"])
        places = {"x": pa.array(x, pa.int32()), "y": pa.array(y, pa.int32()), "z": z}
        return pa.table({"tile_id": ids, **places})


def imagery_identity(imagery: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a plan says of its imagery, as JSON gives it back, without what has no say in its pictures."""
    facts: dict[str, Any] = json.loads(
        json.dumps({name: value for name, value in imagery.items() if name not in _WITHOUT_A_SAY})
    )
    return facts


def read_plan(place: Path) -> Plan:
    """Return the plan in a folder, here or in a bucket; one in a bucket is downloaded once.

    Raises:
        DataError: It is none, or damaged.
        ServiceError: The bucket can't be read.
    """
    folder = fetch_folder(place, PLAN_FILE) if isinstance(place, GcsPath) else place
    facts = read_json(folder / PLAN_FILE, made_by="bulk plan")
    needed = ("planned", "shards", "shard_tiles", "digest of tile ids", "imagery")
    missing = [key for key in needed if key not in facts]
    if missing:
        raise DataError(f"{folder / PLAN_FILE} has no {missing[0]!r}; run `sat_xception bulk plan` again")
    return Plan(folder, facts)


class PlanWriter:
    """Cuts runs of keys into shards and writes them, in the order in which they come. Use as a context manager."""

    def __init__(self, folder: Path, shard_tiles: int, ids: Callable[[Keys], pa.Array]) -> None:
        """Write to `folder`.

        Args:
            folder: Of the plan.
            shard_tiles: Tiles a shard.
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
        """Write what is left, and close the file."""
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

    def facts(self) -> dict[str, Any]:
        """Return the counts and the digest."""
        return {
            "planned": self.planned,
            "shards": -(-self.planned // self._shard_tiles),
            "shard_tiles": self._shard_tiles,
            "digest of tile ids": self._digest.hexdigest(),
        }

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
            self._waiting = []


def _expanded(first: Keys, count: Keys) -> Keys:
    """Return every key of runs."""
    begins = np.cumsum(count) - count
    keys: Keys = np.arange(count.sum(), dtype=np.int64) + np.repeat(first - begins, count)
    return keys


def _pages(first: Keys, count: Keys) -> Iterator[Keys]:
    """Yield every key of runs, so many at a time."""
    ends = np.cumsum(count)
    for begin in range(0, int(ends[-1]), _PAGE):
        end = min(begin + _PAGE, int(ends[-1]))
        runs = slice(np.searchsorted(ends, begin, side="right"), np.searchsorted(ends, end) + 1)
        before = ends[runs] - count[runs]
        skipped = np.maximum(begin - before, 0)
        yield _expanded(first[runs] + skipped, np.minimum(ends[runs], end) - before - skipped)


def dataset_files(folder: Path) -> tuple[tuple[Path, int, int], ...]:
    """Return the files of a dataset, each with its first row, of all rows, and the row after its last."""
    # It is asked for each batch; another dataset may have come to the same folder.
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
    """Return columns of rows of a dataset, which are ascending; columns that it lacks are null."""
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
