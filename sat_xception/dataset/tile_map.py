"""Count the tiles of a dataset for its map, in squares that are enlarged until there are few enough to draw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from sat_xception.dataset.manifest import ManifestRow

__all__ = ["OTHER_CLASSES", "MapMark", "TileMap"]

OTHER_CLASSES = "other classes"
# Maximum number of marks: each takes about 70 bytes of the page, and a screen can't show more.
_MAX_MARKS = 8_000
# Number of classes with marks that colour-blind people can distinguish.
_MAX_CLASSES = 7


class MapMark(NamedTuple):
    """Tiles of one split and class in one square of the grid: column, row (from the north) and number of tiles."""

    x: int
    y: int
    split: str
    label: str
    tiles: int


class TileMap:
    """Counts usable tiles by square, split and class, in constant memory.

    The squares are the tiles themselves if there are few enough, else their ancestors at the highest zoom with few
    enough marks. The order of the tiles doesn't matter.

    Attributes:
        classes: Classes with marks of their own, in order; the last may stand for all others.
        zoom: Zoom of the squares; 0 without tiles.
        tiles: Number of tiles with coordinates.
        tile_zoom: Highest zoom of a tile.
    """

    def __init__(self, classes: Sequence[str], most_marks: int = _MAX_MARKS) -> None:
        """Start to count tiles of these classes, for at most `most_marks` marks; further classes are merged."""
        self.classes = [*classes[:_MAX_CLASSES], *([OTHER_CLASSES] if len(classes) > _MAX_CLASSES else [])]
        self.zoom = self.tile_zoom = self.tiles = 0
        self._own = frozenset(classes[:_MAX_CLASSES])
        self._most_marks = most_marks
        self._counts: Counter[tuple[int, int, str, str]] = Counter()

    @property
    def is_exact(self) -> bool:
        """Whether every tile is drawn separately."""
        return self.zoom == self.tile_zoom and len(self._counts) == self.tiles

    def offer(self, row: ManifestRow) -> None:
        """Count a tile, if it is usable and has coordinates."""
        if row.status != "ok" or row.x is None or row.y is None or row.z is None:
            return
        if not self._counts:
            self.zoom = row.z
        self.tile_zoom = max(self.tile_zoom, row.z)
        while self.zoom > row.z:
            self._coarsen()
        shift = row.z - self.zoom
        label = row.label if row.label in self._own else OTHER_CLASSES
        self._counts[row.x >> shift, row.y >> shift, row.split, label] += 1
        self.tiles += 1
        while len(self._counts) > self._most_marks and self.zoom > 0:
            self._coarsen()

    def marks(self) -> list[MapMark]:
        """Return the marks, by column and row; every counted tile is in one of them."""
        return [MapMark(*square, tiles) for square, tiles in sorted(self._counts.items())]

    def _coarsen(self) -> None:
        coarser: Counter[tuple[int, int, str, str]] = Counter()
        for (x, y, split, label), tiles in self._counts.items():
            coarser[x >> 1, y >> 1, split, label] += tiles
        self._counts = coarser
        self.zoom -= 1
