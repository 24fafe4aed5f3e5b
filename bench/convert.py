"""Convert against plain loops, Beam's own writer and a file copy, on one dataset: `python bench/convert.py 100000`.

Tiles are 200 different JPEGs of 256 x 256 pixels, about 12 kB, or of `--pixels`, over and over. Each contender runs in
a process of its own; rates count from after its imports, and in a second column with them. Targets are those of the
design: five times the loop that decodes, half of the file copy. Peak memory is of the largest process.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_SPLITS = ("train",) * 7 + ("valid",) * 2 + ("test",)
_CLASSES = ("not-school", "school")


def main() -> None:
    """Run every contender on each size, or be the run of one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", nargs="*", type=int, default=[1_000, 10_000, 100_000])
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--run", nargs=3, metavar=("CONTENDER", "DATASET", "OUT"))
    arguments = parser.parse_args()
    if arguments.run:
        name, dataset, out = arguments.run
        seconds = _CONTENDERS[name](Path(dataset), Path(out))
        used = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        print(seconds, max(used) / 1024)
        return
    for count in sorted(arguments.counts):
        with tempfile.TemporaryDirectory(prefix="bench-convert-") as folder:
            _compare(Path(folder), count, arguments.pixels)


def _compare(folder: Path, count: int, pixels: int) -> None:
    _write_dataset(folder / "dataset", count, pixels)
    size = sum(path.stat().st_size for path in (folder / "dataset").glob("*.parquet"))
    print(f"\n{count:,} tiles, {size / 1e6:,.0f} MB\n{'':<28}{'tiles/s':>10}{'with start':>12}{'peak MB':>9}")
    rates: dict[str, float] = {}
    for name in _CONTENDERS:
        os.sync()  # what the one before wrote is its own affair
        command = [sys.executable, __file__, "--run", name, str(folder / "dataset"), str(folder / "out")]
        started = time.perf_counter()
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
        whole = time.perf_counter() - started
        seconds, peak = map(float, told.split()[-2:])
        rates[name] = count / seconds
        print(f"{name:<28}{rates[name]:>10,.0f}{count / whole:>12,.0f}{peak:>9,.0f}", flush=True)
        shutil.rmtree(folder / "out")
    ours = max(rates["ours, 1 process"], rates["ours, 2 processes"])
    print(f"ours / loop that decodes: {ours / rates['loop that decodes']:.2f} (target 5)")
    print(f"ours / file copy:         {ours / rates['file copy']:.2f} (target 0.5)")


def _write_dataset(folder: Path, count: int, pixels: int) -> None:
    from sat_xception.dataset.manifest import DatasetSummary, ManifestRow, TileWriter
    from sat_xception.dataset.record import DatasetRecord
    from sat_xception.storage import file_digest

    folder.mkdir()
    # Bytes after its end make each image another: Parquet would store equal ones once.
    images = [_draw(number, pixels) for number in range(200)]
    summary = DatasetSummary()
    with TileWriter(folder) as writer:
        # As assemble stores them: split by split, and classes mixed.
        for number in sorted(range(count), key=lambda number: _SPLITS[number % 10]):
            facts: dict[str, Any] = {"format": "jpeg", "width": pixels, "height": pixels, "mean_luma": 90.0}
            row = ManifestRow(f"{number:07d}", _CLASSES[number // 10 % 2], _SPLITS[number % 10], "ok", **facts)
            summary.add(row)
            writer.add(row, images[number % len(images)] + number.to_bytes(8, "big"))
    record = DatasetRecord(
        name="bench",
        synthetic=True,
        classes=_CLASSES,
        positive_label="school",
        counts=summary.counts(),
        digest=summary.digest(),
        shards={path.name: file_digest(path) for path in sorted(folder.glob("tiles-*"))},
    )
    record.write(folder)


def _draw(number: int, pixels: int) -> bytes:
    coarse = np.random.default_rng(number).integers(0, 255, (pixels // 4, pixels // 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((pixels, pixels)).save(buffer, "JPEG")
    return buffer.getvalue()


def _ours(processes: int) -> Callable[[Path, Path], float]:
    def run(dataset: Path, out: Path) -> float:
        if processes > 1:
            import apache_beam  # noqa: F401 - one process does without it, and others import it when there is work

        from sat_xception.examples.convert import convert
        from sat_xception.examples.settings import ConvertConfig

        started = time.perf_counter()
        convert(ConvertConfig(dataset=dataset, out=out, processes=processes))
        return time.perf_counter() - started

    return run


def _tiles(dataset: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    from sat_xception.dataset.record import DatasetRecord

    for name in sorted(DatasetRecord.read(dataset).shards):
        for batch in pq.ParquetFile(dataset / name).iter_batches(batch_size=256):
            yield from batch.to_pylist()


def _loop(read_size: Callable[[bytes], tuple[int, int]], dataset: Path, out: Path) -> float:
    import tensorflow as tf

    out.mkdir()
    tf.io.decode_image(next(_tiles(dataset))["image"])
    started = time.perf_counter()
    writers = {split: tf.io.TFRecordWriter(str(out / f"{split}.tfrecord")) for split in set(_SPLITS)}
    for tile in _tiles(dataset):
        writers[tile["split"]].write(_example(tf, tile, *read_size(tile["image"])))
    for writer in writers.values():
        writer.close()
    return time.perf_counter() - started


def _decoded_size(image: bytes) -> tuple[int, int]:
    import tensorflow as tf

    height, width, _ = tf.io.decode_image(image).shape
    return height, width


def _header_size(image: bytes) -> tuple[int, int]:
    width, height = Image.open(io.BytesIO(image)).size
    return height, width


def _example(tf: Any, tile: dict[str, Any], height: int, width: int) -> bytes:  # noqa: ANN401 - the module TensorFlow
    def of(value: bytes | int) -> Any:  # noqa: ANN401 - a message
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    features = {
        "image/encoded": of(tile["image"]),
        "image/format": of(tile["format"].encode()),
        "image/height": of(height),
        "image/width": of(width),
        "image/class/label": of(_CLASSES.index(tile["label"])),
        "image/class/text": of(tile["label"].encode()),
        "tile/id": of(tile["id"].encode()),
    }
    serialized: bytes = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    return serialized


def _beam(dataset: Path, out: Path) -> float:
    import apache_beam as beam
    import tensorflow as tf

    started = time.perf_counter()
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        examples = (
            pipeline
            | beam.Create([dataset])
            | beam.FlatMap(_tiles)
            | beam.Map(lambda tile: _example(tf, tile, *_header_size(tile["image"])))
        )
        _ = examples | beam.io.WriteToTFRecord(str(out / "examples"), num_shards=4)
    return time.perf_counter() - started


def _copy(dataset: Path, out: Path) -> float:
    started = time.perf_counter()
    shutil.copytree(dataset, out)
    return time.perf_counter() - started


_CONTENDERS: dict[str, Callable[[Path, Path], float]] = {
    "ours, 1 process": _ours(1),
    "ours, 2 processes": _ours(2),
    "loop that decodes": lambda dataset, out: _loop(_decoded_size, dataset, out),
    "loop that reads the header": lambda dataset, out: _loop(_header_size, dataset, out),
    "Beam, an element a tile": _beam,
    "file copy": _copy,
}

if __name__ == "__main__":
    main()
