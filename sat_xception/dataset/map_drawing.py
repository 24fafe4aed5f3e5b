"""Draw the map of a dataset: Web Mercator, with meridians and parallels, a scale bar, and the blocks of the split.

It is plain SVG without network or script. Colours show the split, shapes the class.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sat_xception.dataset.split import SPLITS
from sat_xception.dataset.tile_map import MapMark, TileMap
from sat_xception.geo.tiles import grid_to_lonlat, lonlat_to_grid, tile_width_m

__all__ = ["MapDrawing", "Mark", "draw_map"]

_WIDTH = 1000.0
_MIN_HEIGHT, _MAX_HEIGHT = 350.0, 800.0
_MARGIN = 0.05
# Candidates for the distance between lines, in degrees, and the maximum number of lines.
_STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 90, 180)
_MAX_LINES = 6
# Maximum number of outlines: more would be a grey area, and a megabyte of page.
_MAX_BLOCKS = 3_000
# Area of a mark for one tile, and of the largest mark, in units of the drawing.
_SMALLEST, _LARGEST = 9.0, 22.0


@dataclass(frozen=True)
class Mark:
    """A mark: centre and size in units of the drawing, split and class as numbers, and a title."""

    x: float
    y: float
    size: float
    split: int
    label: int
    title: str


@dataclass(frozen=True)
class MapDrawing:
    """The parts of the drawing, for the template; the drawing is 1,000 units wide.

    Attributes:
        height: Height of the drawing.
        marks: Marks in drawing order; later ones are on top.
        blocks: Outlines of the blocks, as an SVG path; "" if there are too many, or none.
        meridians: Position from the left and name of each meridian.
        parallels: Position from the top and name of each parallel.
        scale: Length and label of the scale bar.
        span: Extent of the map as text.
    """

    height: float
    marks: list[Mark]
    blocks: str
    meridians: list[tuple[float, str]]
    parallels: list[tuple[float, str]]
    scale: tuple[float, str]
    span: str


def draw_map(tiles: TileMap, block_zoom: int) -> MapDrawing | None:
    """Return the drawing; None if no tile has coordinates.

    Args:
        tiles: Tiles to draw.
        block_zoom: Zoom of the blocks that share a split.
    """
    marks = tiles.marks()
    if not marks:
        return None
    frame = _Frame(marks, tiles.zoom)
    longitudes, latitudes = frame.corners()
    return MapDrawing(
        height=round(frame.height, 1),
        marks=list(_marks(marks, tiles.classes, frame)),
        blocks=_outlines(marks, tiles.zoom, min(block_zoom, tiles.zoom), frame),
        meridians=[(round(frame.across(lon), 1), _degrees(lon, "EW")) for lon in _lines(*longitudes)],
        parallels=[(round(frame.down(lat), 1), _degrees(lat, "NS")) for lat in _lines(*latitudes)],
        scale=_scale(frame.metres()),
        span=f"{_degrees(longitudes[0], 'EW')} to {_degrees(longitudes[1], 'EW')}, "
        f"{_degrees(latitudes[0], 'NS')} to {_degrees(latitudes[1], 'NS')}",
    )


class _Frame:
    """The part of the grid that is drawn: all marks, with a margin, and extended to a moderate aspect ratio."""

    def __init__(self, marks: Sequence[MapMark], zoom: int) -> None:
        self._zoom = zoom
        left, right = min(mark.x for mark in marks), max(mark.x for mark in marks) + 1
        top, bottom = min(mark.y for mark in marks), max(mark.y for mark in marks) + 1
        width, height = right - left, bottom - top
        wide = max(width, height * _WIDTH / _MAX_HEIGHT) * (1 + 2 * _MARGIN)
        high = max(height * (1 + 2 * _MARGIN), wide * _MIN_HEIGHT / _WIDTH)
        self._left, self._top = (left + right - wide) / 2, (top + bottom - high) / 2
        self.unit = _WIDTH / wide
        self.height = high * self.unit

    def place(self, x: float, y: float) -> tuple[float, float]:
        return (x - self._left) * self.unit, (y - self._top) * self.unit

    def across(self, lon: float) -> float:
        return self.place(float(lonlat_to_grid(np.array([lon]), np.zeros(1), self._zoom)[0][0]), 0)[0]

    def down(self, lat: float) -> float:
        return self.place(0, float(lonlat_to_grid(np.zeros(1), np.array([lat]), self._zoom)[1][0]))[1]

    def corners(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return west and east, south and north."""
        across = np.array([self._left, self._left + _WIDTH / self.unit])
        down = np.array([self._top + self.height / self.unit, self._top])
        lon, lat = grid_to_lonlat(across, down, self._zoom)
        return (max(-180.0, float(lon[0])), min(180.0, float(lon[1]))), (float(lat[0]), float(lat[1]))

    def metres(self) -> float:
        """Return the length on the ground of one unit, in metres, at the centre of the drawing."""
        latitudes = self.corners()[1]
        return float(tile_width_m(np.array([sum(latitudes) / 2]), self._zoom)[0]) / self.unit


def _marks(marks: Sequence[MapMark], classes: Sequence[str], frame: _Frame) -> Iterator[Mark]:
    most = max(mark.tiles for mark in marks)
    # Training first, so that the smaller validation and test splits are on top.
    for mark in sorted(marks, key=lambda mark: (SPLITS.index(mark.split), mark)):
        x, y = frame.place(mark.x + 0.5, mark.y + 0.5)
        size = max(frame.unit, _SMALLEST + (_LARGEST - _SMALLEST) * math.sqrt((mark.tiles - 1) / most))
        title = f"{mark.label}, {mark.split}" + (f": {mark.tiles:,} tiles" if mark.tiles > 1 else "")
        split, label = SPLITS.index(mark.split), classes.index(mark.label)
        yield Mark(round(x, 1), round(y, 1), round(size, 1), split, label, title)


def _outlines(marks: Sequence[MapMark], zoom: int, block_zoom: int, frame: _Frame) -> str:
    above = zoom - block_zoom
    blocks = sorted({(mark.x >> above, mark.y >> above) for mark in marks})
    if len(blocks) > _MAX_BLOCKS or above == 0:
        return ""
    side = frame.unit * (1 << above)
    corners = (frame.place(x << above, y << above) for x, y in blocks)
    return "".join(f"M{x:.1f} {y:.1f}h{side:.1f}v{side:.1f}h-{side:.1f}z" for x, y in corners)


def _lines(low: float, high: float) -> list[float]:
    step = next((step for step in _STEPS if (high - low) / step <= _MAX_LINES), _STEPS[-1])
    return [round(number * step, 3) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _degrees(value: float, letters: str) -> str:
    letter = "" if value == 0 else letters[value < 0]
    return f"{abs(round(value, 3)):g}°{letter}"


def _scale(metres: float) -> tuple[float, str]:
    """Return the length of a scale bar of about a fifth of the drawing, and its label, a round number."""
    about = metres * _WIDTH / 5
    power = 10 ** math.floor(math.log10(about))
    length = max(factor * power for factor in (1, 2, 5) if factor * power <= about)
    name = f"{length / 1000:,g} km" if length >= 1000 else f"{length:,g} m"
    return round(length / metres, 1), name
