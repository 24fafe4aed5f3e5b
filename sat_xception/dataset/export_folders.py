"""Export a dataset as folders of images: `OUT/<split>/<class>/<image>`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from sat_xception.dataset.manifest import check_shard
from sat_xception.dataset.record import DatasetRecord
from sat_xception.dataset.settings import ExportFoldersConfig
from sat_xception.errors import DataError
from sat_xception.log import track
from sat_xception.storage import atomic_folder

__all__ = ["ExportFoldersResult", "export_folders"]

_SUFFIXES = {"jpeg": ".jpg"}
_PAGE = 100
_COLUMNS = ("id", "label", "split", "format", "image")
_ADDRESS = ("tile/x", "tile/y", "tile/z")


class _Tile(NamedTuple):
    id: str
    label: str
    split: str
    format: str
    image: bytes
    address: tuple[int | None, ...]

    @property
    def file_name(self) -> str:
        suffix = _SUFFIXES.get(self.format, f".{self.format}")
        stem = Path(self.id).stem if None in self.address else "-".join(map(str, self.address))
        return f"{stem}{suffix}"


@dataclass(frozen=True)
class ExportFoldersResult:
    """Result of an export.

    Attributes:
        folder: Folder with one folder per split.
        counts: Number of images by split and class.
    """

    folder: Path
    counts: Counter[tuple[str, str]]

    def summary(self) -> str:
        """Return the counts and the folder."""
        counts = "  ".join(f"{split}/{label} {number:,}" for (split, label), number in sorted(self.counts.items()))
        return f"export    {self.counts.total():,} images | {counts}\nwrote     {self.folder}"


def export_folders(config: ExportFoldersConfig) -> ExportFoldersResult:
    """Write the stored bytes of each usable tile as a file.

    A tile with coordinates is named `x-y-z`, from which assemble reads the coordinates. Others keep their original
    name, with a part of their digest if two would have the same name.

    Raises:
        DataError: No dataset, a damaged shard, or a class whose name can't be a folder name.
        ConfigError: `out` can't be written, or isn't empty.

    Example:
        export_folders(ExportFoldersConfig(dataset="dataset", out="folders"))
    """
    dataset = DatasetRecord.read(config.dataset)
    for label in dataset.classes:
        if label in (".", "..") or "/" in label or "\0" in label:
            raise DataError(f"class {label!r} can't be the name of a folder; rename it in the labels")
    counts: Counter[tuple[str, str]] = Counter()
    with atomic_folder(config.out) as work:
        for tile in track(_tiles(config.dataset, dataset.shards), "export", dataset.counts.usable):
            folder = work / tile.split / tile.label
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / tile.file_name
            if path.exists():
                path = path.with_stem(f"{path.stem}-{hashlib.sha256(tile.image).hexdigest()[:12]}")
            path.write_bytes(tile.image)
            counts[tile.split, tile.label] += 1
    return ExportFoldersResult(config.out, counts)


def _tiles(folder: Path, shards: Mapping[str, str]) -> Iterator[_Tile]:
    for name, digest in sorted(shards.items()):
        check_shard(folder / name, digest)
        for batch in pq.ParquetFile(folder / name).iter_batches(batch_size=_PAGE):
            columns = (batch.column(column).to_pylist() for column in _COLUMNS)
            yield from map(_Tile._make, zip(*columns, _addresses(batch), strict=True))


def _addresses(batch: pa.RecordBatch) -> Iterator[tuple[int | None, ...]]:
    """Yield x, y and z of each tile; None if a tile's coordinates aren't known."""
    nothing = [None] * len(batch)
    known = batch.schema.names
    return zip(*(batch.column(name).to_pylist() if name in known else nothing for name in _ADDRESS), strict=True)
