"""Merge neighbouring candidate tiles into sites, so that an object on the edge of two tiles is found once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sat_xception.geo.tiles import grid_to_lonlat

__all__ = ["Sites", "merge_tiles"]

# One of each pair of opposite neighbours, diagonal ones too.
_NEIGHBOURS = ((1, 0), (0, 1), (1, 1), (1, -1))
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Sites:
    """Sites, the best score first, and the tiles they are made of, site by site, each site's best tile first.

    Attributes:
        zoom: Of the tiles.
        x: Column of every tile, `int64 [tiles]`.
        y: Row of every tile.
        score: Probability of the positive class, `float32 [tiles]`.
        site: Number of every tile's site, `int64 [tiles]`.
        first: Index of every site's first and best tile, `int64 [sites]`.
        count: Number of every site's tiles.
        lon: Longitude of every site's centre, in degrees: the mean of its tiles' centres, weighted by score.
        lat: Its latitude.
    """

    zoom: int
    x: Integers
    y: Integers
    score: npt.NDArray[np.float32]
    site: Integers
    first: Integers
    count: Integers
    lon: Floats
    lat: Floats

    def __len__(self) -> int:
        """Return the number of sites."""
        return len(self.first)

    def ids(self) -> list[str]:
        """Return the name of every site: its best tile's, as z/x/y."""
        best = zip(self.x[self.first].tolist(), self.y[self.first].tolist(), strict=True)
        return [f"{self.zoom}/{x}/{y}" for x, y in best]

    def members(self) -> list[str]:
        """Return the names of every site's tiles, separated by spaces, the best first."""
        names = [f"{self.zoom}/{x}/{y}" for x, y in zip(self.x.tolist(), self.y.tolist(), strict=True)]
        ends = (self.first + self.count).tolist()
        return [" ".join(names[first:end]) for first, end in zip(self.first.tolist(), ends, strict=True)]


def merge_tiles(x: Integers, y: Integers, score: npt.NDArray[np.float32], zoom: int) -> Sites:
    """Return the sites that tiles make: tiles that touch, at a corner too, are of one site.

    The grid is a cylinder: the first column touches the last.

    Args:
        x: Columns, `int64 [n]`; each tile once.
        y: Rows.
        score: Probabilities, `float32 [n]`.
        zoom: Zoom of the tiles.
    """
    label = _components(x, y, zoom)
    # Sites by their best tile; ties by place, so that the order of the rows makes no difference.
    order = np.lexsort((y, x, -score))
    _, best = np.unique(label[order], return_index=True)
    rank = np.empty(len(best), dtype=np.int64)
    rank[np.argsort(best)] = np.arange(len(best))
    site = rank[label]
    order = order[np.argsort(site[order], kind="stable")]
    x, y, score, site = x[order], y[order], score[order], site[order]
    count = np.bincount(site, minlength=len(best)).astype(np.int64)
    first = np.cumsum(count) - count
    lon, lat = _centres(x, y, score, site, first, zoom)
    return Sites(zoom, x, y, score, site, first, count, lon, lat)


def _components(x: Integers, y: Integers, zoom: int) -> Integers:
    """Return the number of the connected group that each tile is in."""
    keys = x << zoom | y
    order = np.argsort(keys)
    ordered = keys[order]
    pairs = []
    for across, down in _NEIGHBOURS:
        beside = (x + across) % (1 << zoom) << zoom | (y + down)
        place = np.minimum(np.searchsorted(ordered, beside), max(len(keys) - 1, 0))
        inside = (y + down >= 0) & (y + down < 1 << zoom)
        found = np.flatnonzero(inside & (ordered[place] == beside)) if len(keys) else np.empty(0, dtype=np.int64)
        pairs.append((found, order[place[found]]))
    one, other = (np.concatenate(sides) for sides in zip(*pairs, strict=True))
    graph = coo_array((np.ones(len(one), dtype=bool), (one, other)), shape=(len(keys), len(keys)))
    labels: Integers = connected_components(graph, directed=False)[1].astype(np.int64) if len(keys) else keys
    return labels


def _centres(
    x: Integers, y: Integers, score: npt.NDArray[np.float32], site: Integers, first: Integers, zoom: int
) -> tuple[Floats, Floats]:
    width = 1 << zoom
    # From the best tile, the short way round: a site may lie across the 180th meridian.
    across = (x - x[first][site] + width // 2) % width - width // 2
    # A threshold of 0 lets tiles with a score of 0 in; they count a little.
    weight = score.astype(np.float64) + 1e-9
    total = np.bincount(site, weight, minlength=len(first))
    middle_x = x[first] + np.bincount(site, weight * across, minlength=len(first)) / total + 0.5
    middle_y = np.bincount(site, weight * y, minlength=len(first)) / total + 0.5
    return grid_to_lonlat(middle_x % width, middle_y, zoom)
