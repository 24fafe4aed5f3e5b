"""Read a folder of scores: GeoParquet shards that are streamed, and `scores.json` that describes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sat_xception.bulk.run_document import BulkScores
from sat_xception.bulk.score_files import count_values, present_column, probability_column, stored_columns
from sat_xception.errors import DataError
from sat_xception.log import track
from sat_xception.storage import scratch_folder

__all__ = ["ScoreFolder", "TileBounds", "check_scores", "open_score_folder"]

_COLUMNS = ("tile_id", "x", "y", "z", "label", "model_version", "status", "reason")
_SHARD = re.compile(r"scores-(\d{5})-of-(\d{5})\.parquet")
_ROWS = 65_536
# Number of bucket files for finding duplicate tiles; memory is that of one bucket.
_BUCKETS = 64
_AGAIN = "run `sat_xception bulk predict` again"


@dataclass(frozen=True)
class ScoreFolder:
    """A folder that `bulk predict` wrote, of tiles in the grid.

    Attributes:
        folder: The folder.
        shards: GeoParquet files, in order.
        document: Content of `scores.json`.
        positive: The positive class.
        zoom: Zoom of all tiles.
    """

    folder: Path
    shards: Sequence[Path]
    document: BulkScores
    positive: str
    zoom: int

    def batches(self, columns: Sequence[str], what: str) -> Iterator[pa.RecordBatch]:
        """Yield the rows of all shards, at most 65,536 at a time, while showing progress.

        Args:
            columns: Columns to read.
            what: Name of the work, for the progress line.

        Raises:
            DataError: A shard is damaged.
        """
        groups = [
            (shard, group, pq.read_metadata(shard).row_group(group).num_rows)
            for shard in self.shards
            for group in range(pq.read_metadata(shard).num_row_groups)
        ]
        total = sum(-(-rows // _ROWS) for _, _, rows in groups)
        yield from track(self._rows(groups, columns), what, total)

    def _rows(self, groups: list[tuple[Path, int, int]], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for shard, group, _ in groups:
            try:
                with pq.ParquetFile(shard) as file:
                    stored = stored_columns(file.schema_arrow.names, columns)
                    for rows in file.iter_batches(_ROWS, row_groups=[group], columns=stored):
                        yield rows.rename_columns(list(map(present_column, rows.schema.names)))
            except (pa.ArrowInvalid, OSError) as error:
                raise DataError(f"{shard} is damaged: {error}; {_AGAIN}") from None


@dataclass(frozen=True)
class TileBounds:
    """Bounds of tiles in the grid: first and last column and row, inclusive."""

    left: int
    top: int
    right: int
    bottom: int


def open_score_folder(folder: Path) -> ScoreFolder:
    """Return the scores in a folder, after a look at its description and at the shards' columns and row counts.

    Raises:
        DataError: A file is missing, damaged or doesn't fit the others.
    """
    content = BulkScores.read(folder)
    if content.positive_label is None or content.positive_label not in content.classes:
        raise DataError(
            f"{folder}/{BulkScores.file_name} looks for {content.positive_label!r}, which isn't one of its classes: "
            f"{', '.join(content.classes)}"
        )
    if content.planned != content.scored + content.failed:
        raise DataError(
            f"{folder}/{BulkScores.file_name} has {content.planned:,} tiles planned, {content.scored:,} scored and "
            f"{content.failed:,} failed, which doesn't add up: `sat_xception bulk predict` isn't finished"
        )
    if content.zoom is None:
        raise DataError(f"the tiles of {folder} have no coordinates: only tiles with x, y and z can be put on a map")
    scores = ScoreFolder(folder, _shards_of(folder), content, content.positive_label, content.zoom)
    _check_shards(scores)
    return scores


def _shards_of(folder: Path) -> list[Path]:
    found = {path.name: path for path in folder.glob("scores-*.parquet")}
    matches = [match for match in map(_SHARD.fullmatch, sorted(found)) if match]
    if not matches:
        raise DataError(f"{folder} has a scores.json and no scores-*.parquet; {_AGAIN}")
    totals = {match[2] for match in matches}
    if len(totals) > 1:
        raise DataError(f"{folder} holds shards of several runs (of {' and of '.join(sorted(totals))}); {_AGAIN}")
    total = int(totals.pop())
    wanted = [f"scores-{index:05d}-of-{total:05d}.parquet" for index in range(total)]
    if missing := [name for name in wanted if name not in found]:
        raise DataError(f"{folder} lacks {len(missing):,} of {total:,} shards, the first is {missing[0]}; {_AGAIN}")
    return [found[name] for name in wanted]


def _check_shards(scores: ScoreFolder) -> None:
    wanted = {*_COLUMNS, *map(probability_column, scores.document.classes)}
    rows = 0
    for shard in scores.shards:
        try:
            metadata, schema = pq.read_metadata(shard), pq.read_schema(shard)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{shard} is damaged: {error}; {_AGAIN}") from None
        if missing := sorted(wanted - set(map(present_column, schema.names))):
            raise DataError(f"{shard} has no column {missing[0]!r}; {_AGAIN}")
        rows += metadata.num_rows
    if rows != scores.document.planned:
        raise DataError(
            f"the shards of {scores.folder} have {rows:,} rows and scores.json says {scores.document.planned:,}; "
            f"{_AGAIN}"
        )


def check_scores(scores: ScoreFolder) -> TileBounds | None:
    """Check every row's coordinates and status; return the bounds of the tiles, or None without tiles.

    Memory doesn't grow with the number of tiles: their keys are distributed to bucket files, which are checked one by
    one.

    Raises:
        DataError: A tile has no coordinates, another zoom, an unknown status, or is duplicate; or the counts don't add
            up.
    """
    corners: list[tuple[int, int, int, int]] = []
    by_status = {"scored": 0, "failed": 0}
    with scratch_folder() as folder:
        buckets = [folder / str(index) for index in range(_BUCKETS)]
        for batch in scores.batches(["tile_id", "x", "y", "z", "status"], "check"):
            if not batch.num_rows:
                continue
            x, y = _places(batch, scores)
            corners.append((int(x.min()), int(y.min()), int(x.max()), int(y.max())))
            for status, count in count_values(batch.column("status")).items():
                if status not in by_status:
                    raise DataError(f"{scores.folder} has tiles with the status {status!r}; {_AGAIN}")
                by_status[status] += count
            _deal(x << scores.zoom | y, buckets)
        for bucket in buckets:
            _check_unique(bucket, scores)
    if by_status != {"scored": scores.document.scored, "failed": scores.document.failed}:
        raise DataError(
            f"the shards of {scores.folder} have {by_status['scored']:,} scored and {by_status['failed']:,} failed "
            f"tiles; scores.json says {scores.document.scored:,} and {scores.document.failed:,}; {_AGAIN}"
        )
    if not corners:
        return None
    every = np.array(corners)
    return TileBounds(*every[:, :2].min(axis=0).tolist(), *every[:, 2:].max(axis=0).tolist())


def _places(batch: pa.RecordBatch, scores: ScoreFolder) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    columns = [batch.column(axis) for axis in "xyz"]
    known = pc.and_(pc.and_(*(pc.is_valid(column) for column in columns[:2])), pc.is_valid(columns[2]))
    if (first := pc.index(known, False).as_py()) >= 0:
        raise DataError(
            f"tile {batch.column('tile_id')[first].as_py()!r} of {scores.folder} has no coordinates: only tiles "
            "with x, y and z can be put on a map. `sat_xception predict` scores files and folders into a table"
        )
    x, y, z = (column.to_numpy(zero_copy_only=False).astype(np.int64) for column in columns)
    wrong = (z != scores.zoom) | (x < 0) | (y < 0) | (x >= 1 << scores.zoom) | (y >= 1 << scores.zoom)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"tile {z[first]}/{x[first]}/{y[first]} of {scores.folder} isn't in the grid at zoom {scores.zoom}, which "
            f"scores.json names; {_AGAIN}"
        )
    return x, y


def _deal(keys: npt.NDArray[np.int64], buckets: Sequence[Path]) -> None:
    keys = np.sort(keys)
    bucket_of = keys % len(buckets)
    for index in np.unique(bucket_of).tolist():
        with buckets[index].open("ab") as file:
            keys[bucket_of == index].tofile(file)


def _check_unique(bucket: Path, scores: ScoreFolder) -> None:
    if not bucket.exists():
        return
    keys, counts = np.unique(np.fromfile(bucket, dtype=np.int64), return_counts=True)
    if (counts > 1).any():
        key = int(keys[counts > 1][0])
        x, y = key >> scores.zoom, key & (1 << scores.zoom) - 1
        raise DataError(
            f"tile {scores.zoom}/{x}/{y} is there {counts.max()} times in {scores.folder}: are these the shards of "
            f"one run? Make the plan again with `sat_xception bulk plan`, and {_AGAIN}"
        )
