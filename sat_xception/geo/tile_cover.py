"""Which tiles cover an area, found by going down the quadtree: whole countries in little memory.

A tile that lies in the area whole is not looked into: it is one run of keys (see `order`). So what is yielded grows
with the length of the border, and not with the area.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from sat_xception.errors import ConfigError, DataError
from sat_xception.geo.layer import Geometries, parts_of
from sat_xception.geo.morton import Keys, merged, tiles_of
from sat_xception.geo.tiles import lonlat_to_grid

__all__ = ["box_area", "cover", "grid_area", "in_grid"]

# Edges are straight in longitude and latitude, and bent in the grid. In pieces of this many degrees they are off by at
# most 0.02 tiles at zoom 18 and 60 degrees north, 0.2 at 80: half the width of the piece squared, times the curvature.
_PIECE_DEGREES = 0.05
# A tile that the area only touches isn't in it. Of the width of a tile.
_TOUCH = 1e-6
# Levels of the tree that are looked at in one go: at most 4,096 tiles. Fewer make it slow, more make it large.
_LEVELS = 6


def box_area(text: str) -> Geometries:
    """Return the rectangle of `west,south,east,north` in degrees; two where it crosses the antimeridian (west > east).

    Raises:
        ConfigError: It is no such rectangle.
    """
    try:
        west, south, east, north = map(float, text.split(","))
    except ValueError:
        raise ConfigError(f"--bbox takes west,south,east,north in degrees; got {text!r}") from None
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90) or west == east:
        raise ConfigError(
            f"--bbox {text}: expected -180 ≤ west, east ≤ 180 and -90 ≤ south < north ≤ 90; are the axes swapped?"
        )
    spans = [(west, east)] if west < east else [(west, 180.0), (-180.0, east)]
    boxes: Geometries = np.array([shapely.box(w, south, e, north) for w, e in spans if w < e], dtype=object)
    return boxes


def in_grid(geometry: Geometries, zoom: int) -> Geometries:
    """Project geometries from degrees to grid coordinates; long edges are split, so that they keep their course."""
    cut = shapely.segmentize(geometry, _PIECE_DEGREES)
    moved: Geometries = shapely.transform(cut, lambda x, y: lonlat_to_grid(x, y, zoom), interleaved=False)
    return moved


def grid_area(places: Geometries, zoom: int) -> Any:  # noqa: ANN401 - shapely has no types
    """Return one geometry in the grid's coordinates at a zoom, of places in degrees.

    Args:
        places: Polygons, lines and points in longitude and latitude. Those beyond the grid's latitudes end at its edge.
        zoom: Of the tiles.

    Returns:
        A polygon or several; a point stands for the tile that holds it.

    Raises:
        DataError: Nothing of it is in the grid.
    """
    # First made valid: cutting edges in pieces loses half of a polygon that crosses itself. Part by part: of two parts
    # that overlap, a hole would be made.
    parts, _ = parts_of(shapely.make_valid(parts_of(places)[0]))
    dimension = shapely.get_dimensions(parts)
    grid = in_grid(parts, zoom)
    grid[dimension == 2] = shapely.make_valid(grid[dimension == 2])
    corners = np.floor(shapely.get_coordinates(grid[dimension == 0]))
    corners = np.clip(corners, 0, 2**zoom - 1)
    grid[dimension == 0] = shapely.box(*corners.T, *(corners + 1).T)
    grid[dimension == 1] = shapely.buffer(grid[dimension == 1], 2 * _TOUCH)
    side = 2.0**zoom
    area = shapely.intersection(shapely.union_all(grid), shapely.box(0, 0, side, side))
    if shapely.is_empty(area) or shapely.area(area) == 0:
        raise DataError("the area is empty: it has no polygon with an area, or lies beyond 85 degrees north or south")
    return area


def cover(area: Any, zoom: int) -> Iterator[tuple[Keys, Keys]]:  # noqa: ANN401 - shapely has no types
    """Yield the tiles that an area covers, each once, as runs of keys: the first keys and the lengths, ascending.

    A tile counts when it shares more than its edge with the area.

    Args:
        area: Result of `grid_area` for this zoom.
        zoom: Of the tiles.
    """
    yield from _descend(shapely.get_parts(area), 0, 0, zoom)


def _descend(parts: Geometries, key: int, level: int, zoom: int) -> Iterator[tuple[Keys, Keys]]:
    """Yield the runs below one tile, of which `parts` are the polygons that cover it."""
    area = shapely.multipolygons(parts)
    shapely.prepare(area)
    below = (zoom - level) % _LEVELS or min(_LEVELS, zoom - level)
    first, count, part = _look_below(area, key, level, below, zoom)
    if level + below == zoom:
        yield merged(first, count)
        return
    begin = 0
    for index in np.flatnonzero(part).tolist():
        if index > begin:
            yield merged(first[begin:index], count[begin:index])
        begin = index + 1
        width = zoom - level - below
        child = int(first[index]) >> 2 * width
        (box,) = _boxes(np.array([child]), width)
        yield from _descend(_inside(parts, box), child, level + below, zoom)
    if begin < len(first):
        yield merged(first[begin:], count[begin:])


def _inside(parts: Geometries, box: Any) -> Geometries:  # noqa: ANN401 - shapely has no types
    """Return what a box has of polygons, as polygons; most of many small ones are elsewhere."""
    west, south, east, north = box.bounds
    bounds = shapely.bounds(parts)
    near = (bounds[:, 0] < east) & (bounds[:, 2] > west) & (bounds[:, 1] < north) & (bounds[:, 3] > south)
    found = shapely.get_parts(shapely.intersection(parts[near], box))
    some: Geometries = found[(shapely.get_dimensions(found) == 2) & ~shapely.is_empty(found)]
    return some


def _look_below(area: Any, key: int, level: int, below: int, zoom: int) -> tuple[Keys, Keys, npt.NDArray[np.bool_]]:  # noqa: ANN401
    """Return runs of tiles in the area so many levels below a tile, sorted, and which of them are so only in part."""
    whole: list[tuple[Keys, Keys]] = []
    some = np.array([key], np.int64)
    for depth in range(level + (below > 0), level + below + 1):
        width = zoom - depth
        some = (some[:, None] * 4 + np.arange(4)).ravel() if depth > level else some
        boxes = _boxes(some, width)
        inside = shapely.contains_properly(area, boxes)
        whole.append((some[inside] << 2 * width, np.full(int(inside.sum()), 4**width, np.int64)))
        some, boxes = some[~inside], boxes[~inside]
        some = some[shapely.intersects(area, _shrunk(some, width))]
    if not below:
        some = some[shapely.intersects(area, _shrunk(some, 0))]
    width = zoom - level - below
    firsts = np.concatenate([*(first for first, _ in whole), some << 2 * width])
    counts = np.concatenate([*(count for _, count in whole), np.full(len(some), 4**width, np.int64)])
    part = np.concatenate([np.zeros(len(firsts) - len(some), bool), np.full(len(some), width > 0)])
    order = np.argsort(firsts)
    return firsts[order], counts[order], part[order]


def _boxes(keys: Keys, width: int, margin: float = 0.0) -> Geometries:
    """Return the squares of tiles `width` levels above the zoom of the grid's coordinates."""
    x, y = tiles_of(keys)
    side = 2.0**width
    boxes: Geometries = shapely.box(
        x * side + margin, y * side + margin, (x + 1) * side - margin, (y + 1) * side - margin
    )
    return boxes


def _shrunk(keys: Keys, width: int) -> Geometries:
    return _boxes(keys, width, _TOUCH)
