"""Compare sites with known places: which sites are known, which are new, which places were missed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from sat_xception.geo.near import ellipsoid_metres
from sat_xception.geo.sites import Sites
from sat_xception.geo.tile_cover import in_grid
from sat_xception.geo.tiles import lonlat_to_tiles
from sat_xception.geo.vectors import Geometries, Layer, parts_of
from sat_xception.publish.publication import KnownCounts, SiteCounts

__all__ = ["BELOW", "FAILED", "FOUND", "NOT_PLANNED", "KnownPlaceMatches", "KnownPlaces"]

# Outcomes of a known place.
FOUND, BELOW, FAILED, NOT_PLANNED = "found", "below the threshold", "tile failed", "not planned"
Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class KnownPlaceMatches:
    """Matches between sites (the candidates) and known places.

    Attributes:
        known: Whether each site matches a known place, `bool [sites]`.
        distance_m: Distance from each site's nearest tile to the nearest known place, in metres; 0 inside a tile.
        place: Index of that place.
        outcome: Outcome of each known place, `object [places]`: one of this module's constants.
        place_distance_m: Distance from each known place to the nearest tile of a site; NaN without sites.
        place_site: Index of that site; -1 without sites.
    """

    known: npt.NDArray[np.bool_]
    distance_m: Floats
    place: Integers
    outcome: npt.NDArray[np.object_]
    place_distance_m: Floats
    place_site: Integers

    def site_counts(self) -> SiteCounts:
        """Return the numbers of sites, known and new."""
        return SiteCounts(sites=len(self.known), known=int(self.known.sum()), new=int((~self.known).sum()))

    def place_counts(self) -> KnownCounts:
        """Return the numbers of known places by outcome."""
        found, below, failed, not_planned = (
            int((self.outcome == outcome).sum()) for outcome in (FOUND, BELOW, FAILED, NOT_PLANNED)
        )
        return KnownCounts(found=found, below_threshold=below, tile_failed=failed, not_planned=not_planned)


class KnownPlaces:
    """Known places, with the scores of the tiles that they lie in. Each part of a multi-part geometry is a place.

    Attributes:
        layer: The rows, as they were read.
        row: The index of each place's row.
        lon: A position inside each, in degrees.
        lat: Its latitude.
        score: Probability that the tile there got; NaN when it has none.
    """

    def __init__(self, layer: Layer, zoom: int) -> None:
        """Start without tiles."""
        self.layer = layer
        self._zoom = zoom
        self._parts, self.row = parts_of(layer.geometry)
        inside = shapely.point_on_surface(self._parts)
        self.lon, self.lat = shapely.get_x(inside), shapely.get_y(inside)
        self.x, self.y = lonlat_to_tiles(self.lon, self.lat, zoom)
        self._keys = self.x << zoom | self.y
        self._order = np.argsort(self._keys)
        self._seen = np.zeros(len(self._keys), dtype=bool)
        self.score = np.full(len(self._keys), np.nan)

    def look_at(self, x: Integers, y: Integers, score: Floats) -> None:
        """Add tiles and their scores; NaN for failed tiles."""
        keys = x << self._zoom | y
        ordered = self._keys[self._order]
        low, high = np.searchsorted(ordered, keys, "left"), np.searchsorted(ordered, keys, "right")
        for tile in np.flatnonzero(high > low).tolist():
            places = self._order[low[tile] : high[tile]]
            self._seen[places] = True
            self.score[places] = score[tile]

    def compare(self, sites: Sites, distance_m: float) -> KnownPlaceMatches:
        """Match sites with the known places: a place matches a site that has a tile within a distance of it.

        The nearest one is found in the grid, whose scale is the same in all directions; the distance is measured on the
        ellipsoid (WGS 84).
        """
        places = in_grid(self._parts, self._zoom)
        nothing = np.full(len(places), -1, dtype=np.int64)
        if not len(sites):
            away, empty = np.full(len(places), np.nan), np.empty(0)
            none = np.empty(0, dtype=np.int64)
            return KnownPlaceMatches(none.astype(bool), empty, none, self._outcomes(away, distance_m), away, nothing)
        tiles = shapely.box(sites.x, sites.y, sites.x + 1, sites.y + 1)
        nearest, from_tile = _nearest(tiles, places, self._zoom)
        # The tile of each site that is nearest to a place.
        order = np.lexsort((from_tile, sites.site))
        _, first = np.unique(sites.site[order], return_index=True)
        chosen = order[first]
        nearest_tile, from_place = _nearest(places, tiles, self._zoom)
        return KnownPlaceMatches(
            known=from_tile[chosen] <= distance_m,
            distance_m=from_tile[chosen],
            place=nearest[chosen],
            outcome=self._outcomes(from_place, distance_m),
            place_distance_m=from_place,
            place_site=sites.site[nearest_tile],
        )

    def _outcomes(self, distance: Floats, limit_m: float) -> npt.NDArray[np.object_]:
        outcome = np.where(self._seen, np.where(np.isnan(self.score), FAILED, BELOW), NOT_PLANNED).astype(object)
        outcome[np.nan_to_num(distance, nan=np.inf) <= limit_m] = FOUND
        return outcome

    def missed(self, comparison: KnownPlaceMatches) -> pa.Table:
        """Return the places without a matching site: outcome, distance of the nearest site, and the layer's columns."""
        rows = np.flatnonzero(comparison.outcome != FOUND)
        tiles = [f"{self._zoom}/{x}/{y}" for x, y in zip(self.x[rows].tolist(), self.y[rows].tolist(), strict=True)]
        table = pa.table(
            {
                "place": rows + 1,
                "lon": self.lon[rows],
                "lat": self.lat[rows],
                "why": pa.array(comparison.outcome[rows], pa.string()),
                "tile_id": pa.array(tiles, pa.string()),
                "tile_score": pa.array(self.score[rows], from_pandas=True),
                "distance_m": pa.array(np.round(comparison.place_distance_m[rows], 1), from_pandas=True),
            }
        )
        for name, column in zip(self.layer.columns.column_names, self.layer.columns.columns, strict=True):
            if name not in table.column_names and not pa.types.is_nested(column.type):
                table = table.append_column(name, _texts(column.take(pa.array(self.row[rows]))))
        return table


def _texts(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as text; bytes that aren't UTF-8 are written as hexadecimal digits."""
    if not pa.types.is_binary(column.type):
        return column.cast(pa.string()).combine_chunks()
    texts = [value if value is None else value.decode(errors="backslashreplace") for value in column.to_pylist()]
    return pa.array(texts, pa.string())


def _nearest(those: Geometries, others: Geometries, zoom: int) -> tuple[Integers, Floats]:
    """Return for each of some geometries in the grid the index of the nearest other, and how far that is, in metres.

    The grid is a cylinder: what lies beyond the antimeridian is near, too.
    """
    side = 2.0**zoom
    turned = [
        shapely.transform(others, lambda points, by=by: points + np.array([by, 0.0])) for by in (-side, 0.0, side)
    ]
    around = np.concatenate(turned)
    nearest = shapely.STRtree(around).nearest(those)
    return nearest % len(others), ellipsoid_metres(those, around[nearest], zoom)
