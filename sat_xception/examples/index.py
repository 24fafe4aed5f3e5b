"""`examples.json`: what the examples are, and whether the files it lists are there and whole."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from sat_xception.errors import DataError
from sat_xception.storage import file_digest, read_json

__all__ = ["ExamplesIndex", "Shard", "SplitIndex", "check_shards", "read_index", "shard_files"]


class Shard(BaseModel):
    """A TFRecord file of a split: its name, its number of examples, its digest."""

    file: str
    count: int
    sha256: str


class SplitIndex(BaseModel):
    """A split: its number of examples, in all and by class, and its files in order."""

    count: int
    by_class: dict[str, int]
    shards: tuple[Shard, ...]


class ExamplesIndex(BaseModel):
    """What convert says about the examples."""

    classes: tuple[str, ...] = Field(min_length=1)
    positive_label: str = ""
    dataset_digest: str
    slices: tuple[str, ...]
    # Zoom of the blocks that share a split, where it is known which tiles of the map the examples are.
    block_zoom: int | None = None
    source: str
    synthetic: bool
    splits: dict[str, SplitIndex]

    def count(self, split: str) -> int:
        """Return the number of examples of a split; 0 when it is absent."""
        return self.splits[split].count if split in self.splits else 0


def read_index(folder: Path) -> ExamplesIndex:
    """Return the index of a folder of examples.

    Raises:
        DataError: Missing, damaged, or not what convert writes.
    """
    path = folder / "examples.json"
    content = read_json(path, made_by="convert")
    try:
        return ExamplesIndex.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{path} isn't what convert writes: {where}: {first['msg'].lower()}. Run `sat_xception convert` again"
        ) from None


def shard_files(folder: Path, split: str) -> list[Path]:
    """Return the TFRecord files of a split, in order, without looking into them.

    Raises:
        DataError: The split is absent, or a file is missing.
    """
    splits = read_index(folder).splits
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
