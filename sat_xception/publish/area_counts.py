"""Count tiles and sites by area, such as a province, with the number of scored tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from sat_xception.errors import DataError
from sat_xception.geo.sites import Sites
from sat_xception.geo.tiles import grid_to_lonlat
from sat_xception.geo.vectors import Layer
from sat_xception.publish.known_places import KnownPlaceMatches
from sat_xception.publish.publication import AreaRow

__all__ = ["OUTSIDE", "AreaCounts"]

OUTSIDE = "outside all areas"
Integers = npt.NDArray[np.int64]


@dataclass
class _Counts:
    scored: Integers
    failed: Integers


class AreaCounts:
    """Counts of tiles by area; tiles in no area are counted too, so that the sums are complete."""

    def __init__(self, layer: Layer, name_column: str) -> None:
        """Start at zero.

        Args:
            layer: Polygons.
            name_column: Column of their names. Polygons of one name are one area.

        Raises:
            ConfigError: There is no such column.
            DataError: A name is missing, or something isn't a polygon.
        """
        names = layer.texts(name_column, "--area-name").to_pylist()
        if "" in names:
            row = layer.number(names.index(""))
            raise DataError(f"row {row} of {layer.name} has no {name_column!r}; fill it in, or name another column")
        flat = np.flatnonzero(shapely.get_dimensions(layer.geometry) != 2).tolist()
        if flat:
            row = layer.number(flat[0])
            raise DataError(f"row {row} of {layer.name} is no polygon, but a point or a line; --areas takes polygons")
        self.names: list[str] = sorted(set(names))
        place = {name: index for index, name in enumerate(self.names)}
        self._area_of = np.array([place[name] for name in names], dtype=np.int64)
        geometry = layer.geometry.copy()
        shapely.prepare(geometry)
        self._tree = shapely.STRtree(geometry)
        self._tiles = _Counts(*(np.zeros(len(self.names) + 1, dtype=np.int64) for _ in range(2)))

    def areas_of(self, lon: npt.NDArray[np.floating[Any]], lat: npt.NDArray[np.floating[Any]]) -> Integers:
        """Return the index of the area that each position lies in; the last index stands for none.

        On a border it is the first polygon's, in the file's order.
        """
        points, polygons = self._tree.query(shapely.points(lon, lat), predicate="intersects")
        order = np.lexsort((polygons, points))
        which, first = np.unique(points[order], return_index=True)
        found = np.full(len(lon), len(self.names), dtype=np.int64)
        found[which] = self._area_of[polygons[order][first]]
        return found

    def look_at(self, x: Integers, y: Integers, scored: npt.NDArray[np.bool_], zoom: int) -> None:
        """Count tiles by the area of their centres."""
        areas = self.areas_of(*grid_to_lonlat(x + 0.5, y + 0.5, zoom))
        self._tiles.scored += np.bincount(areas[scored], minlength=len(self.names) + 1)
        self._tiles.failed += np.bincount(areas[~scored], minlength=len(self.names) + 1)

    def table(self, sites: Sites, areas: Integers, comparison: KnownPlaceMatches | None) -> list[AreaRow]:
        """Return one row per area; the last one counts tiles in no area.

        Args:
            sites: The candidates.
            areas: The area of each site, as `areas_of` has it.
            comparison: Which of them are known.
        """
        size = len(self.names) + 1
        columns = {
            "tiles": self._tiles.scored + self._tiles.failed,
            "scored": self._tiles.scored,
            "failed": self._tiles.failed,
            "candidates": np.bincount(areas, minlength=size),
        }
        if comparison is not None:
            columns["known"] = np.bincount(areas[comparison.known], minlength=size)
            columns["new"] = np.bincount(areas[~comparison.known], minlength=size)
        names = [*self.names, OUTSIDE]
        return [
            AreaRow(area=name, **{key: int(values[index]) for key, values in columns.items()})
            for index, name in enumerate(names)
        ]
