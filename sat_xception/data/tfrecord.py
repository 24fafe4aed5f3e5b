"""Turn a dataset into TFRecord files of `tf.train.Example`, with the feature names that TensorFlow's own tools use."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sat_xception.data.manifest import read_dataset, read_tiles
from sat_xception.data.records import RecordWriter, serialize_example
from sat_xception.data.split import SPLITS
from sat_xception.errors import DataError
from sat_xception.log import track
from sat_xception.markdown import table
from sat_xception.steps import ConvertConfig
from sat_xception.storage import atomic_folder, write_json

__all__ = ["ConvertResult", "convert"]


@dataclass(frozen=True)
class ConvertResult:
    """What convert made.

    Attributes:
        folder: The examples.
        counts: Number of examples by split.
        splits: Count, classes and files by split, as `examples.json` has them.
    """

    folder: Path
    counts: dict[str, int]
    splits: dict[str, Any]

    def markdown(self) -> str:
        """Return a table of the splits, for the Kubeflow UI."""
        rows = []
        for split in (name for name in SPLITS if name in self.splits):
            facts = self.splits[split]
            size = sum((self.folder / split / shard["file"]).stat().st_size for shard in facts["shards"])
            rows.append((split, facts["count"], len(facts["by_class"]), len(facts["shards"]), f"{size / 1e6:.1f}"))
        return "\n".join(table(("split", "tiles", "classes", "files", "MB"), rows, numbers_from=1)) + "\n"

    def summary(self) -> str:
        """Return the counts and where the examples are."""
        counts = "  ".join(f"{split} {number:,}" for split, number in self.counts.items())
        return f"convert   {sum(self.counts.values()):,} examples | {counts}\nwrote     {self.folder}"


def convert(config: ConvertConfig) -> ConvertResult:
    """Write `<split>/examples-00000-of-000NN.tfrecord` and `examples.json`.

    The files hold the dataset's image bytes as they are; the same dataset gives the same bytes again.

    Raises:
        DataError: The dataset is missing or damaged, or doesn't hold the tiles that it says.
    """
    dataset = read_dataset(config.dataset)
    planned = {split: sum(by_class.values()) for split, by_class in dataset["counts"]["by_split"].items()}
    index = {label: number for number, label in enumerate(dataset["classes"])}
    with atomic_folder(config.out, record="examples.json") as work, contextlib.ExitStack() as files:
        writers = {split: _SplitWriter(work / split, config.shard_mb * 10**6, files) for split in planned}
        for tile in track(read_tiles(config.dataset), "convert", sum(planned.values())):
            if tile["split"] not in writers or tile["label"] not in index:
                raise DataError(
                    f"tile {tile['id']} is of a split or a class that {config.dataset}/dataset.json doesn't name"
                )
            writers[tile["split"]].write(_example(tile, index), tile["label"])
        splits = {split: writer.close() for split, writer in sorted(writers.items())}
        written = {split: facts["count"] for split, facts in splits.items()}
        if written != planned:
            raise DataError(
                f"{config.dataset} holds {written} tiles, its dataset.json says {planned}; run assemble again"
            )
        description = {
            "classes": dataset["classes"],
            "positive_label": dataset["positive_label"],
            "dataset_digest": dataset["digest"],
            "source": dataset["name"],
            "synthetic": dataset["synthetic"],
            "slices": [],
            "splits": splits,
            "config": config.resolved(),
        }
        write_json(work / "examples.json", description)
    return ConvertResult(config.out, written, splits)


class _SplitWriter:
    """The files of one split; they are named when their number is known, and closed with `files` after an error."""

    def __init__(self, folder: Path, shard_bytes: int, files: contextlib.ExitStack) -> None:
        self._folder = folder
        self._shard_bytes = shard_bytes
        self._files = files
        self._shards: list[RecordWriter] = []
        self._by_class: collections.Counter[str] = collections.Counter()
        self._shard_is_full = True
        folder.mkdir()

    def write(self, example: bytes, label: str) -> None:
        if self._shard_is_full:
            self._shards.append(RecordWriter(self._folder / f"{len(self._shards):05d}.part"))
            self._files.callback(self._shards[-1].close)
        shard = self._shards[-1]
        shard.write(example)
        self._by_class[label] += 1
        self._shard_is_full = shard.record_bytes >= self._shard_bytes
        if self._shard_is_full:
            shard.close()

    def close(self) -> dict[str, Any]:
        """Name the files; return their count, classes and digests."""
        shards = []
        for index, shard in enumerate(self._shards):
            shard.close()
            file = shard.path.with_name(f"examples-{index:05d}-of-{len(self._shards):05d}.tfrecord")
            shard.path.rename(file)
            shards.append({"file": file.name, "count": shard.count, "sha256": shard.sha256()})
        count = sum(shard.count for shard in self._shards)
        return {"count": count, "by_class": dict(sorted(self._by_class.items())), "shards": shards}


def _example(tile: Mapping[str, Any], index: Mapping[str, int]) -> bytes:
    return serialize_example(
        {
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
    )
