"""Draw a heat map: squares of tiles, coloured by the highest score in each."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from sat_xception.bulk.score_folder import TileBounds
from sat_xception.geo.tiles import grid_to_lonlat, tile_width_m

__all__ = ["HeatMap"]

# Squares across: each is then some pixels wide, however scattered the tiles are.
_MAX_SQUARES = 320
_WIDTH_IN, _MIN_IN, _MAX_IN = 9.0, 3.0, 10.0
# More circles hide what is below them.
_MAX_CIRCLES = 500
_FAILED, _NOTHING = "#8d99a6", "#f2f4f6"
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]


class HeatMap:
    """The highest score by square, row by row; memory doesn't depend on the number of tiles."""

    def __init__(self, bounds: TileBounds, zoom: int) -> None:
        """Cover these tiles with squares, each of one tile, or of 4, 16, 64 and so on."""
        self._zoom, self._shift = zoom, 0
        while max(bounds.right - bounds.left, bounds.bottom - bounds.top) >> self._shift >= _MAX_SQUARES:
            self._shift += 1
        self._left, self._top = bounds.left >> self._shift, bounds.top >> self._shift
        shape = ((bounds.bottom >> self._shift) - self._top + 1, (bounds.right >> self._shift) - self._left + 1)
        self._highest = np.full(shape, np.nan)
        self._failed = np.zeros(shape, dtype=bool)

    def look_at(self, x: Integers, y: Integers, score: Floats) -> None:
        """Add tiles and their scores; NaN for failed tiles."""
        column, row = (x >> self._shift) - self._left, (y >> self._shift) - self._top
        failed = np.isnan(score)
        self._failed[row[failed], column[failed]] = True
        np.fmax.at(self._highest, (row[~failed], column[~failed]), score[~failed])

    def draw(self, title: str, marks: tuple[Floats, Floats] | None, attribution: str) -> bytes:
        """Return a PNG.

        Args:
            title: Title above the map.
            marks: Columns and rows of the sites in the grid, which get a circle each if there aren't too many.
            attribution: Attribution required by the imagery's licence.
        """
        height, width = self._highest.shape
        side = 2**self._shift
        extent = (self._left * side, (self._left + width) * side, (self._top + height) * side, self._top * side)
        inches = min(max((_WIDTH_IN - 2) * height / width + 1, _MIN_IN), _MAX_IN)
        figure = Figure(figsize=(_WIDTH_IN, inches), layout="constrained")
        axes = figure.subplots()
        axes.set_facecolor(_NOTHING)
        if self._failed.any():
            only_failed = np.where(self._failed & np.isnan(self._highest), 1.0, np.nan)
            axes.imshow(only_failed, extent=extent, cmap=ListedColormap([_FAILED]), interpolation="nearest")
            axes.plot([], [], "s", color=_FAILED, label="failed")
        drawn = axes.imshow(self._highest, extent=extent, vmin=0, vmax=1, cmap="YlOrRd", interpolation="nearest")
        axes.plot([], [], "s", color=_NOTHING, markeredgecolor="#b8c1ca", label="not planned")
        if marks is not None and 0 < len(marks[0]) <= _MAX_CIRCLES:
            axes.plot(*marks, "o", ms=10, mfc="none", mec="#0b4f8a", mew=1.1, label="candidate")
        what = "score of a tile" if side == 1 else f"highest score in a square of {side:,} x {side:,} tiles"
        figure.colorbar(drawn, ax=axes, label=what, shrink=0.85)
        self._finish(axes, title, attribution)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
        return buffer.getvalue()

    def _finish(self, axes: Axes, title: str, attribution: str) -> None:
        # A class may be named with dollar signs, which mean mathematics to matplotlib.
        axes.set_title(title, loc="left", fontsize=11, parse_math=False)
        axes.legend(loc="upper left", fontsize=8, framealpha=0.9)
        names = [
            FuncFormatter(lambda x, _: _degrees(grid_to_lonlat(np.array([x]), np.zeros(1), self._zoom)[0], "EW")),
            FuncFormatter(lambda y, _: _degrees(grid_to_lonlat(np.zeros(1), np.array([y]), self._zoom)[1], "NS")),
        ]
        for axis, formatter in zip((axes.xaxis, axes.yaxis), names, strict=True):
            axis.set_major_locator(MaxNLocator(5))
            axis.set_major_formatter(formatter)
        axes.tick_params(labelsize=8)
        top, bottom = sorted(axes.get_ylim())
        _, lat = grid_to_lonlat(np.zeros(1), np.array([(top + bottom) / 2]), self._zoom)
        left, right = axes.get_xlim()
        metres = float(tile_width_m(lat, self._zoom)[0]) * (right - left)
        wide = f"{metres / 1000:,.0f} km" if metres >= 10_000 else f"{metres:,.0f} m"
        note = f"{wide} across" + (f"; imagery: {attribution}" if attribution else "")
        axes.set_xlabel(note, fontsize=8, parse_math=False)


def _degrees(value: Floats, letters: str) -> str:
    number = f"{abs(value[0]):.4f}".rstrip("0").rstrip(".")
    return f"{number}°{letters[int(value[0] < 0)]}"
