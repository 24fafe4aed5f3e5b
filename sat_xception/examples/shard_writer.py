"""Write one TFRecord file of a plan: whole or not at all, once, in any process that sees the dataset and the folder.

Beside a finished file lies a note with its size and digest. A file with a note that is right is never written again,
so a run that was killed goes on with the files it hadn't finished.
"""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sat_xception.errors import DataError, ServiceError
from sat_xception.examples.shard_plan import PlannedShard, open_shard
from sat_xception.examples.tfrecord_writer import RecordWriter, serialize_example
from sat_xception.storage import file_digest
from sat_xception.storage.files import json_text

__all__ = ["FAILED", "NOTE", "PART", "RUN", "ShardJob", "finished_shard", "write_shard"]

# In the folder of a run: its id, and why it stopped.
RUN, FAILED = "run.txt", "failed.json"
# What the names of notes and of unfinished files end with.
NOTE, PART = ".note.json", ".part"
_COLUMNS = ("id", "label", "split", "format", "width", "height", "mean_luma", "std_luma", "image")
_OPTIONAL = ("tile/x", "tile/y", "tile/z", "tile/lon", "tile/lat", "weight")


@dataclass(frozen=True)
class ShardJob:
    """What the files of a run have in common.

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
    """Write a file and its note, unless they are there already or the run has failed elsewhere.

    What can be acted on ends in the run's folder, where whoever started the run reads it: exceptions don't come back
    through Beam as they were.

    Raises:
        ServiceError: This process doesn't see the run's folder.
    """
    if not (job.folder / RUN).is_file():
        raise ServiceError(
            f"a worker on {socket.gethostname()} doesn't see {job.folder}: a runner on other machines needs --dataset "
            "and --out in a folder that all of them mount at the same path"
        )
    path = job.folder / shard.split / shard.name
    if (job.folder / FAILED).exists() or _is_sound(path):
        return
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PART}")
    try:
        _write(shard, job, part, path)
    except (DataError, OSError) as error:
        part.unlink(missing_ok=True)
        _log_progress(job, error)


def finished_shard(path: Path) -> dict[str, Any]:
    """Return the note of a finished file, after comparing the file's size with it; {} when it isn't finished."""
    note = path.with_name(path.name + NOTE)
    try:
        facts: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        return facts if path.stat().st_size == facts["size"] else {}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


def _is_sound(path: Path) -> bool:
    """Return whether a file that an earlier run left is finished, and is what its note says."""
    note = finished_shard(path)
    return bool(note) and file_digest(path) == note.get("sha256")


def _log_progress(job: ShardJob, error: DataError | OSError) -> None:
    if (job.folder / RUN).read_text(encoding="utf-8") != job.run:
        return
    facts = {"error": str(error), "errno": error.errno if isinstance(error, OSError) else None}
    _replace(job.folder / FAILED, json_text(facts))


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
            for tile in _tiles(rows, shard.split):
                writer.write(_example(tile, index))
                by_class[tile["label"]] += 1
    finally:
        writer.close()
    if by_class != shard.by_class:
        raise DataError(f"the dataset changed while {path.name} was written from it; run assemble again")
    os.replace(part, path)
    facts = {"file": path.name, "count": writer.count, "sha256": writer.sha256(), "size": path.stat().st_size}
    _replace(path.with_name(path.name + NOTE), json_text(facts))


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


def _tiles(rows: pa.Table, split: str) -> Iterator[dict[str, Any]]:
    """Yield the tiles of a split; their images are views of the table's memory."""
    chosen = rows.filter(pc.equal(rows["split"], split))
    images = pa.concat_arrays(chosen["image"].chunks or [pa.array([], pa.binary())])
    if images.null_count:
        raise DataError("a tile of the dataset has no image; run assemble again")
    # Slices of the column's memory: a list of bytes objects would be one copy more.
    _, offsets, data = images.buffers()
    ends = np.frombuffer(offsets, np.int32)[images.offset : images.offset + len(images) + 1].tolist()
    view = memoryview(data or b"")
    tiles = chosen.drop_columns("image").to_pylist()
    for tile, begin, end in zip(tiles, ends, ends[1:], strict=False):
        yield {**tile, "image": view[begin:end]}


def _example(tile: Mapping[str, Any], index: Mapping[str, int]) -> bytes:
    features = {
        "image/encoded": tile["image"],
        "image/format": tile["format"].encode(),
        "image/height": tile["height"],
        "image/width": tile["width"],
        "image/bytes": len(tile["image"]),
        "image/mean_luma": tile["mean_luma"],
        "image/std_luma": tile["std_luma"],
        "image/class/label": index[tile["label"]],
        "image/class/text": tile["label"].encode(),
        "tile/id": tile["id"].encode(),
    }
    for name, value in tile.items():
        if name.startswith("slice/"):
            features[name] = (value or "").encode()
        elif name in _OPTIONAL and value is not None:
            features["tile/weight" if name == "weight" else name] = value
    return serialize_example(features)
