"""Draw tiles that show nothing of what is looked for: at random in an area, or around the labelled places.

A tile is never drawn when it comes closer to any labelled place than the buffer, since what is there may reach into it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from sat_xception.errors import DataError
from sat_xception.geo.tiles import grid_to_lonlat, lonlat_to_grid, tile_width_m
from sat_xception.geo.vectors import Geometries

__all__ = ["NegativesConfig", "are_clear", "draw_negatives"]

# Draws a tile that is wanted before it is given up: at this rate fewer than one tile in a hundred of the area is free.
_MOST_DRAWS = 100
# Draws at a time: what memory they take doesn't depend on how many are wanted.
_DRAWS = 4096


@dataclass(frozen=True)
class NegativesConfig:
    """How negatives are drawn.

    Attributes:
        count: Number of tiles.
        zoom: Their zoom.
        buffer_m: Least distance between a tile and a labelled place, in metres.
        distance_m: Largest distance from a labelled place, in metres, when no area is given.
        seed: The same seed draws the same tiles.
    """

    count: int
    zoom: int
    buffer_m: float
    distance_m: float
    seed: int


def draw_negatives(
    places: Geometries,
    config: NegativesConfig,
    area: Geometries | None = None,
    taken: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.int64]:
    """Return tiles `int64 [count, 2]` of x and y, in the order drawn, each once.

    Args:
        places: Labelled places, in longitude and latitude.
        config: How many and how far.
        area: Polygons to draw in, evenly by tile; None draws around the places, evenly by area.
        taken: Tiles that aren't drawn, `int64 [n]`, each as `x << zoom | y`.

    Raises:
        DataError: There isn't enough room.
    """
    rng = np.random.default_rng(config.seed)
    in_grid = _to_grid(places, config.zoom)
    tree = shapely.STRtree(in_grid)
    polygon = None
    if area is not None:
        polygon = shapely.union_all(_to_grid(area, config.zoom))
        shapely.prepare(polygon)
    known = np.empty(0, dtype=np.int64) if taken is None else taken
    found = np.empty(0, dtype=np.int64)
    drawn = 0
    while len(found) < config.count:
        if drawn >= _MOST_DRAWS * config.count:
            where = "the area" if area is not None else f"{config.distance_m:,g} m around the labels"
            raise DataError(
                f"found only {len(found):,} of {config.count:,} negatives in {where}, {config.buffer_m:,g} m or more "
                "from every labelled place; lower --negatives-ratio or --negatives-buffer-m, or widen the area"
            )
        points = _around(in_grid, _DRAWS, config, rng) if polygon is None else _inside(polygon, _DRAWS, rng)
        drawn += _DRAWS
        tiles = np.floor(points).astype(np.int64)
        tiles = tiles[((tiles >= 0) & (tiles < 2**config.zoom)).all(axis=1)]
        tiles = tiles[_clear_of(tree, tiles, config.zoom, config.buffer_m)]
        keys = tiles[:, 0] << config.zoom | tiles[:, 1]
        found = np.concatenate([found, keys[~np.isin(keys, known)]])
        _, first = np.unique(found, return_index=True)
        found = found[np.sort(first)][: config.count]
    return np.stack([found >> config.zoom, found & (1 << config.zoom) - 1], axis=1)


def _inside(polygon: shapely.Geometry, size: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    west, north, east, south = polygon.bounds
    points = rng.uniform((west, north), (east, south), (size, 2))
    inside: npt.NDArray[np.float64] = points[shapely.contains_xy(polygon, points[:, 0], points[:, 1])]
    return inside


def _around(
    positives: Geometries, size: int, config: NegativesConfig, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    chosen = shapely.centroid(positives)[rng.integers(0, len(positives), size)]
    centres = np.stack([shapely.get_x(chosen), shapely.get_y(chosen)], axis=1)
    _, lat = grid_to_lonlat(centres[:, 0], centres[:, 1], config.zoom)
    # The square root makes it even by area.
    nearest, farthest = config.buffer_m**2, config.distance_m**2
    distance = np.sqrt(rng.uniform(nearest, farthest, size)) / tile_width_m(lat, config.zoom)
    bearing = rng.uniform(0, 2 * np.pi, size)
    points: npt.NDArray[np.float64] = centres + distance[:, None] * np.stack([np.cos(bearing), np.sin(bearing)], axis=1)
    return points


def are_clear(tiles: npt.NDArray[np.int64], places: Geometries, zoom: int, buffer_m: float) -> npt.NDArray[np.bool_]:
    """Return for each tile, `int64 [n, 2]` of x and y, whether it is at least a buffer away from all places."""
    return _clear_of(shapely.STRtree(_to_grid(places, zoom)), tiles, zoom, buffer_m)


def _clear_of(tree: shapely.STRtree, tiles: npt.NDArray[np.int64], zoom: int, buffer_m: float) -> npt.NDArray[np.bool_]:
    _, lat = grid_to_lonlat(tiles[:, 0] + 0.5, tiles[:, 1] + 0.5, zoom)
    boxes = shapely.box(tiles[:, 0], tiles[:, 1], tiles[:, 0] + 1, tiles[:, 1] + 1)
    near, _ = tree.query(boxes, predicate="dwithin", distance=buffer_m / tile_width_m(lat, zoom))
    clear = np.ones(len(tiles), dtype=bool)
    clear[near] = False
    return clear


def _to_grid(geometry: Geometries, zoom: int) -> Geometries:
    moved: Geometries = shapely.transform(geometry, lambda x, y: lonlat_to_grid(x, y, zoom), interleaved=False)
    return moved
