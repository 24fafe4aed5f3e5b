"""Draw random negatives: tiles without a labelled site, in an area or around the labelled sites.

A tile within the buffer around a labelled site is never drawn, since the site may extend into it. Tiles are sampled
from the set of all that qualify, so the draw fails only if there are too few.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from sat_xception.errors import DataError
from sat_xception.geo.layer import Geometries, parts_of
from sat_xception.geo.morton import Keys, are_in, keys_of, runs_of, tiles_of, united, without
from sat_xception.geo.near import tiles_near
from sat_xception.geo.tile_cover import cover, grid_area, in_grid
from sat_xception.geo.tiles import grid_to_lonlat, tile_width_m

__all__ = ["NegativesConfig", "are_clear", "draw_negatives"]

# Number of draws at a time around sites, and the minimum fraction of new tiles among them to continue this way.
_DRAWS = 4096
_MIN_OF_USE = 0.05
Runs = tuple[Keys, Keys]


@dataclass(frozen=True)
class NegativesConfig:
    """Settings of the draw.

    Attributes:
        count: Number of tiles.
        zoom: Zoom of the tiles.
        buffer_m: Minimum distance between a tile and any labelled site, in metres.
        distance_m: Maximum distance from a labelled site, in metres, if no area is given.
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
    """Draw different tiles; return x and y, `int64 [count, 2]`, in the order drawn.

    Args:
        places: Labelled sites, in longitude and latitude.
        config: Settings of the draw.
        area: Polygons to draw in, uniformly over all tiles that overlap them. None draws around sites, uniformly over
            the sites, so that the negatives are as dense as the sites.
        taken: Tiles to exclude, `int64 [n]`, each as `x << zoom | y`.

    Raises:
        DataError: Fewer tiles qualify.
    """
    rng = np.random.default_rng(config.seed)
    known = np.empty(0, dtype=np.int64) if taken is None else taken
    known = np.unique(keys_of(known >> config.zoom, known & (1 << config.zoom) - 1))
    kept_off = _both(tiles_near(places, config.buffer_m, config.zoom), runs_of(known))
    found = np.empty(0, dtype=np.int64)
    if area is None:
        found = _around(places, config, kept_off, rng)
    if len(found) < config.count:
        free = _free(places, config, area, _both(kept_off, runs_of(np.sort(found))))
        there = int(free[1].sum())
        if len(found) + there < config.count:
            where = "the area" if area is not None else f"{config.distance_m:,g} m around the labels"
            raise DataError(
                f"found only {len(found) + there:,} of {config.count:,} negatives in {where}, farther than "
                f"{config.buffer_m:,g} m from every labelled site: there are no more; lower --negatives-ratio or "
                "--negatives-buffer-m, or widen the area"
            )
        found = np.concatenate([found, _sample(free, config.count - len(found), rng)])
    return np.stack(tiles_of(found), axis=1)


def are_clear(tiles: npt.NDArray[np.int64], places: Geometries, zoom: int, buffer_m: float) -> npt.NDArray[np.bool_]:
    """Return for each tile, `int64 [n, 2]` of x and y, whether it is farther than the buffer from all sites."""
    return ~are_in(keys_of(tiles[:, 0], tiles[:, 1]), *tiles_near(places, buffer_m, zoom))


def _both(one: Runs, other: Runs) -> Runs:
    """Return the union of two sets of keys."""
    first, count = (np.concatenate(parts) for parts in zip(one, other, strict=True))
    order = np.argsort(first, kind="stable")
    return united(first[order], count[order])


def _free(places: Geometries, config: NegativesConfig, area: Geometries | None, kept_off: Runs) -> Runs:
    """Return all tiles that qualify."""
    if area is None:
        runs = iter([tiles_near(places, config.distance_m, config.zoom)])
    else:
        runs = cover(grid_area(area, config.zoom), config.zoom)
    parts = [(np.empty(0, np.int64),) * 2, *without((some for some in runs if len(some[0])), *kept_off)]
    first, count = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return first, count


def _sample(runs: Runs, size: int, rng: np.random.Generator) -> Keys:
    """Return a uniform sample of `size` different keys from runs; memory grows with `size`."""
    first, count = runs
    ends = np.cumsum(count)
    total = int(ends[-1]) if len(ends) else 0
    if size > total // 2:
        chosen = rng.permutation(total)[:size]
    else:
        chosen = np.empty(0, dtype=np.int64)
        while len(chosen) < size:
            chosen = _each_once(np.concatenate([chosen, rng.integers(0, total, size)]))[:size]
    run = np.searchsorted(ends, chosen, side="right")
    keys: Keys = first[run] + chosen - (ends - count)[run]
    return keys


def _around(places: Geometries, config: NegativesConfig, kept_off: Runs, rng: np.random.Generator) -> Keys:
    """Return tiles around randomly chosen sites, as long as enough of the draws are new tiles that qualify."""
    centres = shapely.get_coordinates(shapely.centroid(in_grid(parts_of(places)[0], config.zoom)))
    found = np.empty(0, dtype=np.int64)
    of_use = _DRAWS
    while len(found) < config.count and of_use > _MIN_OF_USE * _DRAWS:
        keys = _draw(centres, config, rng)
        before = len(found)
        found = _each_once(np.concatenate([found, keys[~are_in(keys, *kept_off)]]))
        of_use = len(found) - before
    return found[: config.count]


def _draw(centres: npt.NDArray[np.float64], config: NegativesConfig, rng: np.random.Generator) -> Keys:
    """Return tiles of random positions around random centres, uniform by area; positions near a pole are dropped."""
    chosen = centres[rng.integers(0, len(centres), _DRAWS)]
    _, lat = grid_to_lonlat(chosen[:, 0], chosen[:, 1], config.zoom)
    # The square root makes it uniform by area.
    nearest, farthest = config.buffer_m**2, config.distance_m**2
    distance = np.sqrt(rng.uniform(nearest, farthest, _DRAWS)) / tile_width_m(lat, config.zoom)
    bearing = rng.uniform(0, 2 * np.pi, _DRAWS)
    points = chosen + distance[:, None] * np.stack([np.cos(bearing), np.sin(bearing)], axis=1)
    side = 1 << config.zoom
    x, y = np.floor(points).astype(np.int64).T
    inside = (y >= 0) & (y < side)
    return keys_of(x[inside] % side, y[inside])


def _each_once(keys: Keys) -> Keys:
    """Return the keys without repetitions, in order of first occurrence."""
    _, first = np.unique(keys, return_index=True)
    return keys[np.sort(first)]
