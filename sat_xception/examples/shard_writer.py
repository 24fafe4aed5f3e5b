"""Write one TFRecord file of a plan: atomically, once, in any process with access to the dataset and the folder.

Beside a finished file lies a note with its size and digest. A file with a note that is right is never written again,
so a run that was killed goes on with the files it hadn't finished.
"""

from __future__ import annotations

import itertools
import os
import socket
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sat_xception.errors import DataError, ServiceError
from sat_xception.examples.index import Shard
from sat_xception.examples.shard_plan import PlannedShard, open_shard
from sat_xception.examples.tfrecord_writer import RecordWriter, serialize_example
from sat_xception.storage import file_digest
from sat_xception.storage.document import Part
from sat_xception.storage.files import json_text

__all__ = [
    "FAILED",
    "NOTE",
    "PART",
    "RUN",
    "ShardFailure",
    "ShardJob",
    "ShardNote",
    "finished_shard",
    "write_shard",
]

# In the folder of a run: its id, and why it stopped.
RUN, FAILED = "run.txt", "failed.json"
# What the names of notes and of unfinished files end with.
NOTE, PART = ".note.json", ".part"
# Features by the column that they come from.
_TEXTS = {"id": "tile/id", "label": "image/class/text", "format": "image/format"}
_NUMBERS = {
    "height": "image/height",
    "width": "image/width",
    "mean_luma": "image/mean_luma",
    "std_luma": "image/std_luma",
}
# A dataset may lack these columns, and a tile may lack their values.
_OPTIONAL = {
    "tile/x": "tile/x",
    "tile/y": "tile/y",
    "tile/z": "tile/z",
    "tile/lon": "tile/lon",
    "tile/lat": "tile/lat",
    "weight": "tile/weight",
}
_COLUMNS = (*_TEXTS, *_NUMBERS, "split", "image")
_Values = Sequence[bytes | memoryview | float | None]


class ShardNote(Shard):
    """Note next to a finished file; `size` is in bytes."""

    size: int


class ShardFailure(Part):
    """Why a run stopped; `errno` is that of an error of the operating system, and None of others."""

    error: str
    errno: int | None


@dataclass(frozen=True)
class ShardJob:
    """Settings that all files of a run share.

    Attributes:
        files: Shards of the dataset, in order, each with its number of rows.
        classes: Classes, in the order of their index.
        folder: Where the run's files are written, in a folder for each split.
        run: Id of the run; the folder may be another's by now, if this one was killed and started again.
    """

    files: tuple[tuple[Path, int], ...]
    classes: tuple[str, ...]
    folder: Path
    run: str


def write_shard(shard: PlannedShard, job: ShardJob) -> None:
    """Write a file and its note, unless they exist already or the run has failed in another process.

    Errors that a user can act on are written to the run's folder, where the main process reads them: Beam doesn't
    preserve exceptions.

    Raises:
        ServiceError: This process doesn't see the run's folder.
    """
    if not (job.folder / RUN).is_file():
        raise ServiceError(
            f"a worker on {socket.gethostname()} doesn't see {job.folder}: a runner on other machines needs --dataset "
            "and --out in a folder that all of them mount at the same path"
        )
    path = job.folder / shard.path
    if (job.folder / FAILED).exists() or _is_sound(path):
        return
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PART}")
    try:
        _write(shard, job, part, path)
    except (DataError, OSError) as error:
        part.unlink(missing_ok=True)
        _log_progress(job, error)


def finished_shard(path: Path) -> ShardNote | None:
    """Return the note of a finished file, after comparing the file's size with it; None when it isn't finished."""
    try:
        note = ShardNote.model_validate_json(path.with_name(path.name + NOTE).read_bytes())
        return note if path.stat().st_size == note.size else None
    except (FileNotFoundError, ValueError):
        return None


def _is_sound(path: Path) -> bool:
    """Return whether a file of an earlier run is finished, and matches its note."""
    note = finished_shard(path)
    return note is not None and file_digest(path) == note.sha256


def _log_progress(job: ShardJob, error: DataError | OSError) -> None:
    if (job.folder / RUN).read_text(encoding="utf-8") != job.run:
        return
    failure = ShardFailure(error=str(error), errno=error.errno if isinstance(error, OSError) else None)
    _replace(job.folder / FAILED, json_text(failure.content()))


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PART}")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def _write(shard: PlannedShard, job: ShardJob, part: Path, path: Path) -> None:
    by_class: Counter[str] = Counter()
    index = {label: number for number, label in enumerate(job.classes)}
    writer = RecordWriter(part)
    try:
        for rows in _row_groups(shard, job):
            if (job.folder / FAILED).exists():
                part.unlink()
                return
            tiles = rows.filter(pc.equal(rows.column("split"), shard.split))
            for example in _examples(tiles, index):
                writer.write(example)
            by_class.update(tiles.column("label").to_pylist())
    finally:
        writer.close()
    if by_class != shard.by_class:
        raise DataError(f"the dataset changed while {path.name} was written from it; run assemble again")
    os.replace(part, path)
    note = ShardNote(file=path.name, count=writer.count, sha256=writer.sha256(), size=path.stat().st_size)
    _replace(path.with_name(path.name + NOTE), json_text(note.content()))


def _row_groups(shard: PlannedShard, job: ShardJob) -> Iterator[pa.Table]:
    """Yield the rows of a shard's range, a row group at a time, with tiles of other splits among them."""
    start = 0
    for file, rows in job.files:
        if start < shard.last and start + rows > shard.first:
            with open_shard(file, _COLUMNS) as parquet:
                names = parquet.schema_arrow.names
                columns = [*_COLUMNS, *(name for name in names if name in _OPTIONAL or name.startswith("slice/"))]
                begin = start
                for number in range(parquet.num_row_groups):
                    end = begin + parquet.metadata.row_group(number).num_rows
                    first, last = max(begin, shard.first), min(end, shard.last)
                    if first < last:
                        table = parquet.read_row_group(number, columns=columns, use_threads=False)
                        yield table.slice(first - begin, last - first)
                    begin = end
        start += rows


def _examples(tiles: pa.Table, index: Mapping[str, int]) -> Iterator[bytes]:
    """Yield the serialized examples of tiles; their images are views of the table's memory."""
    features = _features(tiles, index)
    names = tuple(features)
    for values in zip(*features.values(), strict=True):
        yield serialize_example({name: value for name, value in zip(names, values, strict=True) if value is not None})


def _features(tiles: pa.Table, index: Mapping[str, int]) -> dict[str, _Values]:
    """Return the values of each feature, in the order of the tiles; None where a tile lacks an optional one."""

    def values(column: str) -> list[Any]:
        if tiles.column(column).null_count:
            raise DataError(f"a tile of the dataset has no {column}; run assemble again")
        found: list[Any] = tiles.column(column).to_pylist()
        return found

    images = _images(tiles)
    features: dict[str, _Values] = {
        "image/encoded": images,
        "image/bytes": [len(image) for image in images],
        "image/class/label": [index[label] for label in values("label")],
    }
    features |= {feature: [text.encode() for text in values(column)] for column, feature in _TEXTS.items()}
    features |= {feature: values(column) for column, feature in _NUMBERS.items()}
    for column in tiles.column_names:
        if column.startswith("slice/"):
            features[column] = [(value or "").encode() for value in tiles.column(column).to_pylist()]
        elif column in _OPTIONAL:
            features[_OPTIONAL[column]] = tiles.column(column).to_pylist()
    return features


def _images(tiles: pa.Table) -> list[memoryview]:
    images = pa.concat_arrays(tiles.column("image").chunks or [pa.array([], pa.binary())])
    if images.null_count:
        raise DataError("a tile of the dataset has no image; run assemble again")
    # Slices of the column's memory: a list of bytes objects would be one copy more.
    _, offsets, data = images.buffers()
    ends = np.frombuffer(offsets, np.int32)[images.offset : images.offset + len(images) + 1].tolist()
    view = memoryview(data or b"")
    return [view[begin:end] for begin, end in itertools.pairwise(ends)]
