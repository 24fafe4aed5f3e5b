"""The files of a dataset: Parquet shards of tiles, and a manifest with one row per tile considered."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sat_xception.dataset.record import DatasetCounts
from sat_xception.errors import DataError
from sat_xception.storage import file_digest

__all__ = [
    "DatasetSummary",
    "ManifestRow",
    "TileWriter",
    "check_shard",
    "write_manifest",
]

_MANIFEST_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.string()),
        ("split", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("sha256", pa.string()),
        ("phash", pa.string()),
        ("source", pa.string()),
        ("source_format", pa.string()),
        ("format", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("bytes", pa.int64()),
        ("mean_luma", pa.float32()),
        ("std_luma", pa.float32()),
        ("x", pa.int64()),
        ("y", pa.int64()),
        ("z", pa.int64()),
        ("lon", pa.float64()),
        ("lat", pa.float64()),
        ("weight", pa.float32()),
    ]
)
_TILE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.string()),
        ("split", pa.string()),
        ("format", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("bytes", pa.int64()),
        ("mean_luma", pa.float32()),
        ("std_luma", pa.float32()),
        ("weight", pa.float32()),
        ("image", pa.binary()),
    ]
)
_ROW_GROUP = 256
_MANIFEST_ROW_GROUP = 2048
_SHARD_BYTES = 256 * 2**20
# Columns of the tile coordinates in the shards, by the row's attribute.
_PLACE = {"x": pa.int64(), "y": pa.int64(), "z": pa.int64(), "lon": pa.float64(), "lat": pa.float64()}


@dataclass(frozen=True)
class ManifestRow:
    """A tile that was considered, and the result.

    Attributes:
        id: Tile id, unique in the dataset.
        label: Class name.
        split: "train", "valid" or "test"; "" while undecided, and for tiles that are left out of unsplit data.
        status: "ok", "blank", "duplicate" (also a tile with several labels) or "failed".
        reason: Why it isn't ok.
        sha256: SHA-256 of the source bytes; "" if the file couldn't be read.
        phash: Perceptual hash, 16 hexadecimal digits; "" if there is none, see `perceptual_hash`.
        source: Layer that labelled the tile, "random", path of the file, or "drawn" for the sample.
        source_format: Format of the file, such as "tiff".
        format: Format of the stored image: "jpeg", "png" or "webp". If TensorFlow can't decode the source, the stored
            image is a PNG with the same pixels; otherwise it has the bytes of the file.
        width: Width in pixels.
        height: Height in pixels.
        bytes: Size of the stored image.
        mean_luma: Mean brightness in [0, 255].
        std_luma: Standard deviation of the brightness.
        x: Column in the grid of tiles; None, like the next four, if the coordinates aren't known.
        y: Row in the grid, from the north.
        z: Zoom.
        lon: Longitude of the centre in degrees.
        lat: Latitude of the centre in degrees.
        weight: Sample weight in training, relative to other tiles of its class.
        slices: Value of each slice column.
    """

    id: str
    label: str
    split: str
    status: str
    reason: str = ""
    sha256: str = ""
    phash: str = ""
    source: str = ""
    source_format: str = ""
    format: str = ""
    width: int = 0
    height: int = 0
    bytes: int = 0
    mean_luma: float = 0.0
    std_luma: float = 0.0
    x: int | None = None
    y: int | None = None
    z: int | None = None
    lon: float | None = None
    lat: float | None = None
    weight: float = 1.0
    slices: Mapping[str, str] = field(default_factory=dict)

    def slice_columns(self) -> dict[str, str]:
        """Return the slices by the name of their column."""
        return {f"slice/{name}": value for name, value in self.slices.items()}


def write_manifest(path: Path, rows: Iterable[ManifestRow], slices: Sequence[str] = ()) -> None:
    """Write the rows as Parquet in their order, with a column `slice/<name>` per slice, in constant memory."""
    schema = _with_slices(_MANIFEST_SCHEMA, slices)
    waiting = iter(rows)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while page := list(islice(waiting, _MANIFEST_ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist([{**vars(row), **row.slice_columns()} for row in page], schema))


def _with_slices(schema: pa.Schema, slices: Sequence[str]) -> pa.Schema:
    return pa.schema([*schema, *((f"slice/{name}", pa.string()) for name in slices)])


class TileWriter:
    """Write tiles to shards `tiles-00000-of-000NN.parquet`, and start a new one when a shard is full.

    Use as a context manager; the files get their final names when the block ends. If tiles have coordinates, the shards
    have columns `tile/x`, `tile/y`, `tile/z`, `tile/lon`, `tile/lat`. Each slice has a column `slice/<name>`.
    """

    def __init__(
        self, folder: Path, shard_bytes: int = _SHARD_BYTES, located: bool = False, slices: Sequence[str] = ()
    ) -> None:
        """Write to `folder`, in shards of about `shard_bytes` bytes of images."""
        self._located = located
        places = [(f"tile/{name}", kind) for name, kind in _PLACE.items()] if located else []
        self._schema = _with_slices(pa.schema([*_TILE_SCHEMA, *places]), slices)
        self._folder = folder
        self._shard_bytes = shard_bytes
        self._pending: list[dict[str, Any]] = []
        self._writer: pq.ParquetWriter | None = None
        self._in_shard = 0
        self._shards: list[Path] = []

    def __enter__(self) -> TileWriter:
        """Return itself."""
        return self

    def add(self, row: ManifestRow, image: bytes) -> None:
        """Append a tile."""
        tile = {name: getattr(row, name) for name in _TILE_SCHEMA.names if name != "image"} | {"bytes": len(image)}
        place = {f"tile/{name}": getattr(row, name) for name in _PLACE} if self._located else {}
        self._pending.append({**tile, **place, **row.slice_columns(), "image": image})
        self._in_shard += len(image)
        if len(self._pending) >= _ROW_GROUP:
            self._flush()
        if self._in_shard >= self._shard_bytes:
            self._close_shard()

    def _flush(self) -> None:
        if not self._pending:
            return
        if self._writer is None:
            self._shards.append(self._folder / f"tiles-{len(self._shards):05d}.part")
            # JPEG and PNG bytes can't be compressed further, and the other columns are small.
            self._writer = pq.ParquetWriter(self._shards[-1], self._schema, compression="none")
        self._writer.write_table(pa.Table.from_pylist(self._pending, schema=self._schema))
        self._pending = []

    def _close_shard(self) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._in_shard = 0

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Finish the last shard and rename all of them; after an error, only close the file."""
        if error is not None:
            # Closing may fail for the same reason, such as a full disk; the original error is raised.
            with contextlib.suppress(OSError, pa.ArrowInvalid):
                if self._writer is not None:
                    self._writer.close()
            return
        self._close_shard()
        for index, part in enumerate(self._shards):
            part.rename(self._folder / f"tiles-{index:05d}-of-{len(self._shards):05d}.parquet")


def check_shard(shard: Path, digest: str) -> None:
    """Check a shard against its digest in `dataset.json`.

    Raises:
        DataError: The shard is missing or was changed.
    """
    if not shard.is_file():
        raise DataError(f"{shard} is missing; run `sat_xception assemble` again")
    if file_digest(shard) != digest:
        raise DataError(f"{shard} is damaged: it isn't the file that assemble wrote. Run `sat_xception assemble` again")


class DatasetSummary:
    """Counts and digest of a dataset, updated row by row in the order of ids.

    Attributes:
        considered: Number of rows.
        by_status: Number of rows by status.
        by_split: Number of usable rows by split and class.
        by_slice: Number of usable rows by slice column and value.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self.considered = 0
        self.by_status: Counter[str] = Counter()
        self.by_split: dict[str, Counter[str]] = {}
        self.by_slice: dict[str, Counter[str]] = {}
        self._digest = hashlib.sha256()

    def add(self, row: ManifestRow) -> None:
        """Add a row; rows must be sorted by id."""
        self.considered += 1
        self.by_status[row.status] += 1
        if row.status != "ok":
            return
        self.by_split.setdefault(row.split, Counter())[row.label] += 1
        for name, value in row.slices.items():
            self.by_slice.setdefault(name, Counter())[value] += 1
        weight = [f"weight={row.weight:g}"] if row.weight != 1 else []
        slices = [f"{name}={value}" for name, value in sorted(row.slices.items())]
        line = "\t".join([row.id, row.label, row.split, row.sha256, *weight, *slices])
        self._digest.update(f"{line}\n".encode())

    def counts(self) -> DatasetCounts:
        """Return the counts for `dataset.json`."""
        return DatasetCounts(
            considered=self.considered,
            by_status=_sorted(self.by_status),
            by_split={split: _sorted(counts) for split, counts in sorted(self.by_split.items())},
            by_slice={name: _sorted(counts) for name, counts in sorted(self.by_slice.items())},
        )

    def digest(self) -> str:
        """Return a digest of id, label, split, content, weight and slices of the usable tiles."""
        return self._digest.hexdigest()


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))
