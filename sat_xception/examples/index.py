"""`examples.json`: the description of the examples, and the check of their files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from sat_xception.errors import DataError
from sat_xception.storage import file_digest
from sat_xception.storage.document import Document, Part

__all__ = ["ExamplesIndex", "Shard", "SplitIndex", "check_shards", "shard_files"]


class Shard(Part):
    """A TFRecord file of a split: its name, its number of examples, its digest."""

    file: str
    count: int
    sha256: str


class SplitIndex(Part):
    """A split: its number of examples, in all and by class, and its files in order."""

    count: int
    by_class: Mapping[str, int]
    shards: tuple[Shard, ...]


class ExamplesIndex(Document):
    """Content of `examples.json`.

    Attributes:
        classes: Names in index order.
        positive_label: The positive class; "" without one.
        dataset_digest: Digest of the dataset.
        slices: Names of the slices.
        block_zoom: Zoom of the blocks that share a split; None where it isn't known.
        source: Name of the data.
        synthetic: Whether the data is the synthetic sample.
        splits: Splits by name.
        config: Settings of convert that change the result.
    """

    file_name: ClassVar[str] = "examples.json"
    made_by: ClassVar[str] = "convert"

    classes: tuple[str, ...] = Field(min_length=1)
    positive_label: str = ""
    dataset_digest: str
    slices: tuple[str, ...]
    block_zoom: int | None = None
    source: str
    synthetic: bool
    splits: Mapping[str, SplitIndex]
    config: Mapping[str, Any] = Field(default_factory=dict)

    def count(self, split: str) -> int:
        """Return the number of examples of a split; 0 if it is missing."""
        return self.splits[split].count if split in self.splits else 0

    def shard_digests(self) -> dict[str, list[str]]:
        """Return the digests of the files of each split."""
        return {name: [shard.sha256 for shard in split.shards] for name, split in self.splits.items()}


def shard_files(folder: Path, split: str) -> list[Path]:
    """Return the TFRecord files of a split, in order, without reading them.

    Raises:
        DataError: The split is absent, or a file is missing.
    """
    splits = ExamplesIndex.read(folder).splits
    if split not in splits:
        raise DataError(f"{folder} has no {split} split; it has {', '.join(splits)}")
    files = [folder / split / shard.file for shard in splits[split].shards]
    for file in files:
        if not file.is_file():
            raise DataError(f"{file} is missing; run `sat_xception convert` again")
    return files


def check_shards(folder: Path, index: ExamplesIndex) -> dict[str, tuple[Path, ...]]:
    """Return the TFRecord files of each split, after comparing every file with its digest.

    Raises:
        DataError: A file is missing, cut off or changed, or a split's folder holds a TFRecord file that isn't listed.
    """
    again = "Run `sat_xception convert` again"
    files = {
        split: tuple(folder / split / shard.file for shard in facts.shards) for split, facts in index.splits.items()
    }
    for split, facts in index.splits.items():
        for path, shard in zip(files[split], facts.shards, strict=True):
            if not path.is_file():
                raise DataError(f"{path} is missing, but examples.json lists it. {again}")
            digest = file_digest(path)
            if digest != shard.sha256:
                raise DataError(
                    f"{path} was cut off or changed after it was written: {path.stat().st_size:,} bytes with SHA-256 "
                    f"{digest[:12]}…, examples.json says {shard.sha256[:12]}…. {again}"
                )
        unlisted = sorted(set((folder / split).glob("*.tfrecord")) - set(files[split]))
        if unlisted:
            raise DataError(
                f"{unlisted[0]} isn't listed in examples.json: left from another run? Remove it, or: {again.lower()}"
            )
    return files
