"""Assign the tiles of a dataset to TFRecord files, from its small columns, before an image is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sat_xception.errors import DataError

__all__ = ["PlannedShard", "open_shard", "plan_shards"]

_COLUMNS = ("split", "label", "bytes")


@dataclass(frozen=True)
class PlannedShard:
    """A TFRecord file to be written: the tiles of one split in a range of rows of the dataset.

    Attributes:
        split: The split.
        index: Number of the file in its split, from 0.
        total: Files of the split.
        first: First row of the range, counted through all shards of the dataset.
        last: Row after the last.
        by_class: Number of its tiles by class; only classes that it has.
    """

    split: str
    index: int
    total: int
    first: int
    last: int
    by_class: Mapping[str, int]

    @property
    def name(self) -> str:
        """Name of the file, in the folder of its split."""
        return f"examples-{self.index:05d}-of-{self.total:05d}.tfrecord"

    @property
    def path(self) -> str:
        """Path of the file, in a folder of examples."""
        return f"{self.split}/{self.name}"

    @property
    def count(self) -> int:
        """Number of its tiles."""
        return sum(self.by_class.values())


def plan_shards(
    files: Sequence[Path], splits: Sequence[str], classes: Sequence[str], shard_bytes: int
) -> list[PlannedShard]:
    """Assign the tiles of a dataset to TFRecord files, in stored order and constant memory.

    Args:
        files: Shards of the dataset, in order.
        splits: Splits that tiles may be of.
        classes: Classes that tiles may be of.
        shard_bytes: A file is full when its images have so many bytes.

    Returns:
        The files, by split and index. A split without tiles has none.

    Raises:
        DataError: A tile is of another split or class, or a shard isn't what assemble writes.
    """
    cutters = [_Cutter(shard_bytes, len(classes)) for _ in splits]
    before = 0
    for file in files:
        with open_shard(file, _COLUMNS) as parquet:
            for batch in parquet.iter_batches(batch_size=2**12, columns=list(_COLUMNS)):
                of_split, of_class = _indices(batch["split"], splits), _indices(batch["label"], classes)
                unknown = np.flatnonzero((of_split < 0) | (of_class < 0))
                if len(unknown):
                    raise _unknown(file, batch, int(unknown[0]))
                sizes = batch["bytes"].to_numpy(zero_copy_only=False)
                for number, cutter in enumerate(cutters):
                    rows = np.flatnonzero(of_split == number)
                    cutter.add(rows + before, of_class[rows], sizes[rows])
                before += len(batch)
    return [shard for split, cutter in zip(splits, cutters, strict=True) for shard in cutter.shards(split, classes)]


def open_shard(file: Path, columns: Sequence[str]) -> pq.ParquetFile:
    """Open a shard of a dataset, after checking that it has some columns.

    Raises:
        DataError: It has not, or it is no Parquet file.
    """
    try:
        parquet = pq.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise DataError(f"{file} is no Parquet file: {error}. Run `sat_xception assemble` again") from None
    missing = [name for name in columns if name not in parquet.schema_arrow.names]
    if missing:
        parquet.close()
        raise DataError(f"{file} has no column {missing[0]!r}; run `sat_xception assemble` again")
    return parquet


def _indices(values: pa.Array, known: Sequence[str]) -> Any:  # noqa: ANN401 - an array, int32 [rows]
    """Return the index of each value in a list; -1 if it isn't in it."""
    return pc.index_in(values, value_set=pa.array(known, pa.string())).fill_null(-1).to_numpy(zero_copy_only=False)


def _unknown(file: Path, batch: pa.RecordBatch, row: int) -> DataError:
    split, label = batch["split"][row].as_py(), batch["label"][row].as_py()
    return DataError(
        f"{file} has a tile of split {split!r} and class {label!r}, of which one is a split or a class that "
        "dataset.json doesn't name; run assemble again"
    )


class _Cutter:
    """Cuts the tiles of one split into files."""

    def __init__(self, shard_bytes: int, classes: int) -> None:
        self._shard_bytes = shard_bytes
        self._cuts: list[tuple[int, int, Any]] = []
        self._no_tiles = np.zeros(classes, np.int64)
        self._bytes = self._first = self._last = 0
        self._counts = self._no_tiles.copy()

    def add(self, rows: Any, classes: Any, sizes: Any) -> None:  # noqa: ANN401 - arrays, int [tiles]
        """Append tiles: their rows in the dataset, the indexes of their classes, and their bytes."""
        total, begin = np.cumsum(sizes), 0
        while begin < len(rows):
            before = int(total[begin - 1]) if begin else 0
            end = int(np.searchsorted(total, before + self._shard_bytes - self._bytes)) + 1
            end = min(end, len(rows))
            if not self._counts.any():
                self._first = int(rows[begin])
            self._last = int(rows[end - 1]) + 1
            self._bytes += int(total[end - 1]) - before
            self._counts += np.bincount(classes[begin:end], minlength=len(self._counts))
            if self._bytes >= self._shard_bytes:
                self._cut()
            begin = end

    def _cut(self) -> None:
        self._cuts.append((self._first, self._last, self._counts))
        self._bytes, self._counts = 0, self._no_tiles.copy()

    def shards(self, split: str, classes: Sequence[str]) -> list[PlannedShard]:
        """Return the files, the last of which may not be full."""
        if self._counts.any():
            self._cut()
        return [
            PlannedShard(split, index, len(self._cuts), first, last, _by_class(classes, counts))
            for index, (first, last, counts) in enumerate(self._cuts)
        ]


def _by_class(classes: Sequence[str], counts: Any) -> dict[str, int]:  # noqa: ANN401 - an array, int64 [classes]
    return {label: int(count) for label, count in zip(classes, counts, strict=True) if count}
