"""`dataset.json`: classes, counts and settings of a dataset, and the digests of its files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from sat_xception.storage.document import Document, Part

__all__ = ["DatasetCounts", "DatasetRecord"]


class DatasetCounts(Part):
    """Numbers of tiles.

    Attributes:
        considered: Number of rows of the manifest.
        by_status: Number of rows by status.
        by_split: Number of usable tiles by split and class.
        by_slice: Number of usable tiles by slice column and value.
    """

    considered: int
    by_status: Mapping[str, int]
    by_split: Mapping[str, Mapping[str, int]]
    by_slice: Mapping[str, Mapping[str, int]] = Field(default_factory=dict)

    @property
    def usable(self) -> int:
        """Number of usable tiles."""
        return self.by_status.get("ok", 0)


class DatasetRecord(Document):
    """Content of `dataset.json`.

    Attributes:
        name: Name of the data.
        synthetic: Whether the data is the synthetic sample.
        classes: Names in index order.
        positive_label: The positive class; "" without one.
        attribution: Attribution required by the imagery's licence; "" if there is none.
        counts: Numbers of tiles.
        digest: Digest of id, label, split, content, weight and slices of the usable tiles.
        shards: SHA-256 of each shard, by file name.
        config: Settings of assemble.
    """

    file_name: ClassVar[str] = "dataset.json"
    made_by: ClassVar[str] = "assemble"

    name: str
    synthetic: bool
    classes: tuple[str, ...]
    positive_label: str
    attribution: str = ""
    counts: DatasetCounts
    digest: str
    shards: Mapping[str, str]
    config: Mapping[str, Any] = Field(default_factory=dict)

    @property
    def block_zoom(self) -> int | None:
        """Zoom of the blocks that share a split; None if unknown."""
        return self.config.get("block_zoom")
