"""Where the tiles of a dataset are: counted as they come, in squares that grow until there are few enough to draw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from sat_xception.dataset.manifest import ManifestRow

__all__ = ["OTHER_CLASSES", "MapMark", "TileMap"]

OTHER_CLASSES = "other classes"
# A mark takes about 70 bytes of the page, and a screen hasn't room for more of them.
_MAX_MARKS = 8_000
# As many as have colours of their own that people who see few colours can tell apart.
_MAX_CLASSES = 7


class MapMark(NamedTuple):
    """Tiles of one split and class in one square of the grid: its column and row (from the north), and how many."""

    x: int
    y: int
    split: str
    label: str
    tiles: int


class TileMap:
    """Counts usable tiles by square, split and class; memory stays flat however many there are.

    The squares are the tiles themselves while there is room for a mark each, else their ancestors at the highest zoom
    that has few enough marks. The order in which tiles come makes no difference.

    Attributes:
        classes: Classes that are told apart, in order; the last may be all others.
        zoom: Zoom of the squares; 0 while nothing was offered.
        tiles: How many tiles have a place.
        tile_zoom: Highest zoom of a tile.
    """

    def __init__(self, classes: Sequence[str], most_marks: int = _MAX_MARKS) -> None:
        """Draw tiles of these classes, with at most so many marks; classes beyond the seventh are one."""
        self.classes = [*classes[:_MAX_CLASSES], *([OTHER_CLASSES] if len(classes) > _MAX_CLASSES else [])]
        self.zoom = self.tile_zoom = self.tiles = 0
        self._own = frozenset(classes[:_MAX_CLASSES])
        self._most_marks = most_marks
        self._counts: Counter[tuple[int, int, str, str]] = Counter()

    @property
    def is_exact(self) -> bool:
        """Whether every tile has a mark of its own."""
        return self.zoom == self.tile_zoom and len(self._counts) == self.tiles

    def offer(self, row: ManifestRow) -> None:
        """Count a tile, if it is usable and has a place."""
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
        """Return what to draw, by column and row; the tiles of all marks are all tiles."""
        return [MapMark(*square, tiles) for square, tiles in sorted(self._counts.items())]

    def _coarsen(self) -> None:
        coarser: Counter[tuple[int, int, str, str]] = Counter()
        for (x, y, split, label), tiles in self._counts.items():
            coarser[x >> 1, y >> 1, split, label] += tiles
        self._counts = coarser
        self.zoom -= 1
