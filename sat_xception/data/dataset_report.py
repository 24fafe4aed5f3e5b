"""The page that shows what assemble gathered: counts, what was left out and why, and a few tiles of each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sat_xception.data.manifest import ManifestRow
from sat_xception.data.split import SPLITS
from sat_xception.page import render_page, thumbnail

__all__ = ["SampleTiles", "dataset_page"]

# What keeps the page below 1 MB however many classes and failures there are.
_MOST_CLASSES = 100
_CLASSES_WITH_TILES = 12
_TILES_OF_A_CLASS = 6
_MOST_REASONS = 20
_MOST_LEFT_OUT = 50
_LONGEST_TEXT = 200


class SampleTiles:
    """The first few tiles of each class, in stored order, which is mixed: as good as drawn by lot, and repeatable."""

    def __init__(self, classes: Sequence[str]) -> None:
        """Collect tiles of these classes; of the first dozen, when there are more."""
        self.by_class: dict[str, list[dict[str, str]]] = {label: [] for label in classes[:_CLASSES_WITH_TILES]}

    def offer(self, row: ManifestRow, image: bytes) -> None:
        """Take the tile, if its class still lacks some."""
        taken = self.by_class.get(row.label)
        if taken is not None and len(taken) < _TILES_OF_A_CLASS:
            taken.append({"id": _cut(row.id), "split": row.split, "image": thumbnail(image)})


def dataset_page(description: Mapping[str, Any], rows: Sequence[ManifestRow], samples: SampleTiles) -> str:
    """Return the page.

    Args:
        description: Content of `dataset.json`.
        rows: The manifest.
        samples: Tiles to show.
    """
    counts, classes = description["counts"], description["classes"]
    splits = [split for split in SPLITS if split in counts["by_split"]]
    left_out = [row for row in rows if row.status != "ok"]
    left_out.sort(key=lambda row: row.status != "failed")  # failures first: they are what somebody must look at
    reasons = Counter(_cut(row.reason) for row in left_out if row.status == "failed")
    return render_page(
        "dataset",
        synthetic=description["synthetic"],
        name=description["name"],
        digest=description["digest"],
        positive_label=description["positive_label"],
        attribution=description["attribution"],
        slices=list(counts["by_slice"].items()),
        considered=counts["considered"],
        statuses=counts["by_status"],
        splits=splits,
        classes=[
            (label, [counts["by_split"][split].get(label, 0) for split in splits]) for label in classes[:_MOST_CLASSES]
        ],
        more_classes=max(0, len(classes) - _MOST_CLASSES),
        totals=[sum(counts["by_split"][split].values()) for split in splits],
        reasons=reasons.most_common(_MOST_REASONS),
        left_out=[(_cut(row.id), row.label, row.status, _cut(row.reason)) for row in left_out[:_MOST_LEFT_OUT]],
        more_left_out=max(0, len(left_out) - _MOST_LEFT_OUT),
        samples=samples.by_class,
    )


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
