"""Datasets and indices of examples as assemble and convert write them, of what a test makes up."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from sat_xception.dataset.manifest import DatasetSummary, ManifestRow, TileWriter, check_shard
from sat_xception.dataset.record import DatasetRecord
from sat_xception.examples.index import ExamplesIndex, SplitIndex
from sat_xception.storage import file_digest


def write_dataset(
    folder: Path,
    tiles: Iterable[tuple[ManifestRow, bytes]],
    classes: Sequence[str],
    shard_bytes: int,
    located: bool = False,
) -> Path:
    """Write a dataset of rows and images, without its manifest and its page."""
    folder.mkdir()
    summary = DatasetSummary()
    with TileWriter(folder, shard_bytes, located) as writer:
        for row, image in tiles:
            summary.add(row)
            writer.add(row, image)
    record = DatasetRecord(
        name=folder.parent.name,
        synthetic=False,
        classes=tuple(classes),
        positive_label=classes[0],
        counts=summary.counts(),
        digest=summary.digest(),
        shards={path.name: file_digest(path) for path in sorted(folder.glob("tiles-*.parquet"))},
        config={"block_zoom": 12},
    )
    record.write(folder)
    return folder


def read_tiles(folder: Path) -> Iterator[dict]:
    """Yield the tiles of a dataset in stored order, each shard after a look at its digest."""
    for name, digest in sorted(DatasetRecord.read(folder).shards.items()):
        check_shard(folder / name, digest)
        for batch in pq.ParquetFile(folder / name).iter_batches(batch_size=100):
            yield from batch.to_pylist()


def write_index(
    folder: Path, splits: Mapping[str, tuple[Sequence[Mapping], list[dict]]], classes: Sequence[str], slices: list[str]
) -> Path:
    """Write `examples.json` of features and files by split."""
    described = {}
    for split, (rows, shards) in splits.items():
        labels = [row["image/class/text"].decode() for row in rows]
        by_class = {label: labels.count(label) for label in sorted(set(labels))}
        described[split] = SplitIndex(count=len(rows), by_class=by_class, shards=shards)
    index = ExamplesIndex(
        classes=tuple(classes),
        positive_label="school",
        dataset_digest="0" * 64,
        source="drawn numbers",
        synthetic=True,
        slices=slices,
        splits=described,
    )
    index.write(folder)
    return folder
