"""Which tiles come within a distance of places: exact on the ellipsoid, across the antimeridian too, in little memory.

A square of the grid that is near a place as a whole, or far from it, isn't looked into. So what is looked at grows with
the circumference of the near area, and not with its area.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import shapely

from sat_xception.geo.layer import Geometries, parts_of
from sat_xception.geo.morton import Keys, tiles_of, united
from sat_xception.geo.tile_cover import cover, in_grid
from sat_xception.geo.tiles import EQUATOR_M, MAX_LATITUDE, grid_to_lonlat

__all__ = ["ellipsoid_metres", "tiles_near"]

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]

_GEOD = pyproj.Geod(ellps="WGS84")
# Metres on WGS 84 for one on the sphere of Web Mercator, in any direction at any latitude: the radii of curvature are
# 6,335,439 m (along a meridian at the equator) to 6,399,594 m (at the poles), and the sphere's is 6,378,137 m.
_SHORTEST, _LONGEST = 0.99330, 1.00337
_SPHERE_M = 6_378_137.0
# Number of pairs of a square and a piece of a geometry that are processed together.
_PAGE = 2**16
_MUCH = 1.03


def ellipsoid_metres(one: Geometries, other: Geometries, zoom: int) -> Floats:
    """Return the distances between pairs of geometries in the grid, in metres on WGS 84.

    Which points of the two are nearest is looked for in the grid, whose scale is the same in all directions.
    """
    ends = shapely.get_coordinates(shapely.shortest_line(one, other)).reshape(-1, 2, 2)
    return _metres(ends[:, 0], ends[:, 1], zoom)


def tiles_near(places: Geometries, distance_m: float, zoom: int) -> tuple[Keys, Keys]:
    """Return the tiles that come as near as a distance to any place, as runs of keys (see `order`), ascending.

    Args:
        places: Points, lines and polygons in longitude and latitude. Those that lie beyond the grid's latitudes are
            passed over.
        distance_m: In metres on the ellipsoid; 0 is to touch.
        zoom: Of the tiles.
    """
    parts, _ = parts_of(places)
    _, lowest, _, highest = shapely.bounds(parts).T
    parts = in_grid(parts[(lowest <= MAX_LATITUDE) & (highest >= -MAX_LATITUDE)], zoom)
    firsts, counts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    # Of a polygon that no tile fits into, every tile meets an edge.
    west, north, east, south = shapely.bounds(parts).T
    large = (shapely.get_dimensions(parts) == 2) & (east - west > 1) & (south - north > 1)
    inside = shapely.intersection(
        shapely.union_all(shapely.make_valid(parts[large])), shapely.box(0, 0, 2**zoom, 2**zoom)
    )
    if shapely.area(inside):
        for first, count in cover(inside, zoom):
            firsts.append(first)
            counts.append(count)
    begin, end = _pieces(parts)
    finder = _Finder(*_around_the_world(begin, end, distance_m, zoom), distance_m, zoom)
    for first, count in finder.runs():
        firsts.append(first)
        counts.append(count)
    first, count = np.concatenate(firsts), np.concatenate(counts)
    order = np.argsort(first, kind="stable")
    return united(first[order], count[order])


def _pieces(parts: Geometries) -> tuple[Floats, Floats]:
    """Return both ends, each `float64 [n, 2]`, of the points and of the edges of lines and polygons."""
    dimension = shapely.get_dimensions(parts)
    points = shapely.get_coordinates(parts[dimension == 0])
    lines = [shapely.get_rings(parts[dimension == 2]), parts[dimension == 1]]
    corners, line = shapely.get_coordinates(np.concatenate(lines), return_index=True)
    edges = np.flatnonzero(np.diff(line) == 0)
    return np.concatenate([points, corners[edges]]), np.concatenate([points, corners[edges + 1]])


def _around_the_world(begin: Floats, end: Floats, distance_m: float, zoom: int) -> tuple[Floats, Floats]:
    """Return the pieces, and those near the antimeridian once more beyond its other side."""
    side = 2.0**zoom
    north, south = np.minimum(begin[:, 1], end[:, 1]), np.maximum(begin[:, 1], end[:, 1])
    reach = distance_m / _metres_per_tile(north, south, distance_m, zoom)[0]
    east = np.minimum(begin[:, 0], end[:, 0]) <= reach
    west = np.maximum(begin[:, 0], end[:, 0]) >= side - reach
    turn = np.array([side, 0.0])
    return (
        np.concatenate([begin, begin[east] + turn, begin[west] - turn]),
        np.concatenate([end, end[east] + turn, end[west] - turn]),
    )


def _metres_per_tile(north: Floats, south: Floats, distance_m: float, zoom: int) -> tuple[Floats, Floats]:
    """Return the minimum and maximum scale, in metres per tile, within a distance of the band between two rows."""
    margin = np.degrees(distance_m / (_SPHERE_M * _SHORTEST))
    _, top = grid_to_lonlat(np.zeros(1), north, zoom)
    _, bottom = grid_to_lonlat(np.zeros(1), south, zoom)
    top, bottom = np.minimum(top + margin, 89.9), np.maximum(bottom - margin, -89.9)
    farthest = np.maximum(np.abs(top), np.abs(bottom))
    nearest = np.where((top >= 0) & (bottom <= 0), 0.0, np.minimum(np.abs(top), np.abs(bottom)))
    tile = EQUATOR_M / 2**zoom
    return tile * _SHORTEST * np.cos(np.radians(farthest)), tile * _LONGEST * np.cos(np.radians(nearest))


def _metres(one: Floats, other: Floats, zoom: int) -> Floats:
    (lon1, lat1), (lon2, lat2) = (grid_to_lonlat(ends[:, 0], ends[:, 1], zoom) for ends in (one, other))
    metres: Floats = np.asarray(_GEOD.inv(lon1, lat1, lon2, lat2)[2])
    return metres


class _Finder:
    """Descends the quadtree with pairs of a square and a piece of a geometry that may be near it."""

    def __init__(self, begin: Floats, end: Floats, distance_m: float, zoom: int) -> None:
        self._begin, self._end, self._distance_m, self._zoom = begin, end, distance_m, zoom

    def runs(self) -> Iterator[tuple[Keys, Keys]]:
        """Yield runs of keys, in no order; they may overlap."""
        places = np.arange(len(self._begin))
        waiting = [(0, np.zeros(len(some), np.int64), some) for some in self._paged(places)]
        while waiting:
            level, keys, places = waiting.pop()
            above = self._zoom - level
            whole, part = self._split(keys, places, above)
            first = np.unique(keys[whole]) << 2 * above
            yield first, np.full(len(first), 4**above, np.int64)
            # What is whole for one place isn't looked into for another.
            part &= ~np.isin(keys, keys[whole])
            if above:
                below = (keys[part][:, None] * 4 + np.arange(4)).ravel()
                pages = zip(self._paged(below), self._paged(np.repeat(places[part], 4)), strict=True)
                waiting += [(level + 1, some, of) for some, of in pages]

    def _paged(self, values: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
        return [values[begin : begin + _PAGE] for begin in range(0, len(values), _PAGE)]

    def _split(self, keys: Keys, places: npt.NDArray[np.int64], above: int) -> tuple[Bools, Bools]:
        """Return which squares are completely near their site, and which may be partly near.

        A tile of the zoom counts as near if the near area touches it.
        """
        side = 2.0**above
        x, y = tiles_of(keys)
        low = np.stack([x, y], axis=1) * side
        here, there, apart = _nearest(self._begin[places], self._end[places], low, low + side)
        least, most = _metres_per_tile(low[:, 1], low[:, 1] + side, self._distance_m, self._zoom)
        # The far end of a square is no further off than its near end and the diagonal.
        whole = (apart + (side * np.sqrt(2.0) if above else 0.0)) * most <= self._distance_m
        part = ~whole & (apart * least <= self._distance_m)
        unclear, radius = np.flatnonzero(part), np.zeros(1)
        if above:
            # Only where the scale of the grid varies much within the distance; elsewhere the grid is accurate enough.
            unclear = np.flatnonzero(part & (most > _MUCH * least))
            here = low + side / 2
            _, most = _metres_per_tile(low[unclear, 1], low[unclear, 1] + side, 0.0, self._zoom)
            radius = side / np.sqrt(2.0) * most
        metres = _metres(here[unclear], there[unclear], self._zoom)
        whole[unclear] = metres + radius <= self._distance_m
        part[unclear] = ~whole[unclear] & (metres - radius <= self._distance_m)
        return whole, part


def _nearest(begin: Floats, end: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the nearest points of squares and edges, each `float64 [n, 2]`, and their distances, pair by pair."""
    there = begin.copy()
    here = np.clip(begin, low, high)
    apart = np.hypot(*(here - there).T)
    edges = np.flatnonzero((begin != end).any(axis=1))
    if not len(edges):
        return here, there, apart
    a, b, low, high = begin[edges], end[edges], low[edges], high[edges]
    along = b - a
    length = (along**2).sum(axis=1)
    tried = [(np.clip(b, low, high), b)]
    sides = []
    for corner in (low, high, np.stack([low[:, 0], high[:, 1]], axis=1), np.stack([high[:, 0], low[:, 1]], axis=1)):
        share = np.clip(((corner - a) * along).sum(axis=1) / length, 0, 1)
        tried.append((corner, a + share[:, None] * along))
        sides.append(along[:, 0] * (corner - a)[:, 1] - along[:, 1] * (corner - a)[:, 0])
    for on_square, on_edge in tried:
        distance = np.hypot(*(on_square - on_edge).T)
        better = distance < apart[edges]
        some = edges[better]
        here[some], there[some], apart[some] = on_square[better], on_edge[better], distance[better]
    overlap = ((np.minimum(a, b) <= high) & (np.maximum(a, b) >= low)).all(axis=1)
    crossed = overlap & (np.min(sides, axis=0) <= 0) & (np.max(sides, axis=0) >= 0)
    there[edges[crossed]] = here[edges[crossed]]
    apart[edges[crossed]] = 0.0
    return here, there, apart
