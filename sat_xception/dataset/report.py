"""The dataset page: counts, a map, tiles that were left out with reasons, and example tiles of each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from sat_xception.dataset.manifest import ManifestRow
from sat_xception.dataset.map_drawing import draw_map
from sat_xception.dataset.record import DatasetRecord
from sat_xception.dataset.split import SPLITS
from sat_xception.dataset.tile_map import TileMap
from sat_xception.reports.page import render_page, thumbnail

__all__ = ["DatasetPage"]

# Limits that keep the page below 3 MB with any number of classes and failures.
_MAX_CLASSES = 100
_CLASSES_WITH_TILES = 12
_TILES_OF_A_CLASS_AND_SPLIT = 6
_MAX_REASONS = 20
_MAX_REASONS_COUNTED = 1000
_MAX_LEFT_OUT = 50
_LONGEST_TEXT = 200


class _Sample(NamedTuple):
    """A tile that the page shows; the image is a `data:` address."""

    id: str
    image: str


class DatasetPage:
    """Collects the content of the page row by row, in constant memory."""

    def __init__(self, classes: Sequence[str], block_zoom: int) -> None:
        """Start the page of a dataset with these classes; example tiles are shown of the first dozen.

        Args:
            classes: Names in index order.
            block_zoom: Zoom of the blocks that share a split.
        """
        self._classes = classes
        self._block_zoom = block_zoom
        self._samples: dict[str, dict[str, list[_Sample]]] = {label: {} for label in classes[:_CLASSES_WITH_TILES]}
        self._map = TileMap(classes)
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._left_out: dict[bool, list[tuple[str, str, str, str]]] = {True: [], False: []}

    def offer_image(self, row: ManifestRow, image: bytes) -> None:
        """Show the tile as an example, if its class and split need more examples.

        Tiles come in stored order, which is shuffled, so the first ones are a random and repeatable sample.
        """
        by_split = self._samples.get(row.label)
        if by_split is None:
            return
        taken = by_split.setdefault(row.split, [])
        if len(taken) < _TILES_OF_A_CLASS_AND_SPLIT:
            taken.append(_Sample(_cut(row.id), thumbnail(image)))

    def offer(self, row: ManifestRow) -> None:
        """Take a row of the manifest."""
        self._map.offer(row)
        if row.status == "ok":
            return
        # The reasons of duplicates and blank tiles contain an id or a figure, so they are counted by status only.
        reason = _cut(row.reason) if row.status == "failed" else ""
        if (row.status, reason) in self._reasons or len(self._reasons) < _MAX_REASONS_COUNTED:
            self._reasons[row.status, reason] += 1
        # Failures come first, since they need attention.
        listed = self._left_out[row.status == "failed"]
        if len(listed) < _MAX_LEFT_OUT:
            listed.append((_cut(row.id), row.label, row.status, _cut(row.reason)))

    def render(self, record: DatasetRecord) -> str:
        """Return the page."""
        counts, classes = record.counts, self._classes
        splits = [split for split in SPLITS if split in counts.by_split]
        left_out = [*self._left_out[True], *self._left_out[False]][:_MAX_LEFT_OUT]
        reasons = self._reasons.most_common(_MAX_REASONS)
        lost = counts.considered - counts.usable
        return render_page(
            "dataset",
            synthetic=record.synthetic,
            name=record.name,
            digest=record.digest,
            positive_label=record.positive_label,
            attribution=record.attribution,
            slices=list(counts.by_slice.items()),
            considered=counts.considered,
            statuses=counts.by_status,
            splits=splits,
            classes=[
                (label, [counts.by_split[split].get(label, 0) for split in splits]) for label in classes[:_MAX_CLASSES]
            ],
            more_classes=max(0, len(classes) - _MAX_CLASSES),
            totals=[sum(counts.by_split[split].values()) for split in splits],
            map=draw_map(self._map, self._block_zoom),
            map_splits=SPLITS,
            map_classes=self._map.classes,
            map_zoom=self._map.zoom,
            map_is_exact=self._map.is_exact,
            mapped=self._map.tiles,
            block_zoom=self._block_zoom,
            reasons=[(status, reason, number) for (status, reason), number in reasons],
            more_reasons=lost - sum(number for _, number in reasons),
            left_out=left_out,
            more_left_out=lost - len(left_out),
            samples={
                label: {split: by_split[split] for split in SPLITS if split in by_split}
                for label, by_split in self._samples.items()
            },
        )


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
