"""Turn geometries in any coordinate system of the Earth into longitude and latitude."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import shapely

from sat_xception.errors import DataError

__all__ = ["to_lonlat"]

Geometries = npt.NDArray[np.object_]
Transformer = Any

_LONLAT = ("EPSG:4326", "OGC:CRS84")
# Half the major axis of WGS 84, in metres. Ellipsoids of the Earth differ from it by less than 1 in 1,000.
_EARTH_M = 6_378_137.0
# Number of pieces that an edge is cut into, to find out which way around the Earth it goes.
_PIECES = 256


def to_lonlat(geometry: Geometries, crs: Any, source: str) -> Geometries:  # noqa: ANN401 - whatever pyproj takes
    """Return geometries in longitude and latitude (EPSG:4326); what lies across the antimeridian is cut there.

    Args:
        geometry: Shapely geometries `object [n]`, x (or longitude) first.
        crs: Their coordinate system: a name, WKT or PROJJSON.
        source: Where they come from, for messages.

    Raises:
        DataError: The system isn't known, or has no way to longitude and latitude.
    """
    if crs in _LONLAT:
        return geometry
    try:
        system = pyproj.CRS.from_user_input(crs)
        way = pyproj.Transformer.from_crs(system, "EPSG:4326", always_xy=True)
    except pyproj.exceptions.CRSError as error:
        raise DataError(f"{source} is in a coordinate system that isn't known: {error}") from None
    except pyproj.exceptions.ProjError:
        raise DataError(_no_way(source, system.name, "a local grid or another planet's")) from None
    if not (system.is_geographic or system.is_projected):
        raise DataError(_no_way(source, system.name, "no system of a map"))
    if system.ellipsoid is not None and abs(system.ellipsoid.semi_major_metre / _EARTH_M - 1) > 0.01:
        raise DataError(_no_way(source, system.name, "another planet's"))
    moved: Geometries = shapely.transform(geometry, way.transform, interleaved=False)
    width, width_before = (np.diff(shapely.bounds(some)[:, ::2], axis=1)[:, 0] for some in (moved, geometry))
    wide = width > 180
    if system.is_geographic:
        wide &= width_before <= 180
    for row in np.flatnonzero(wide).tolist():
        moved[row] = _cut_at_antimeridian(geometry[row], way)
    return moved


def _no_way(source: str, name: str, kind: str) -> str:
    return (
        f"{source} is in the coordinate system {name!r}, {kind}, which has no way to longitude and latitude; save it "
        "in one that has, such as EPSG:4326"
    )


def _cut_at_antimeridian(before: shapely.Geometry, way: Transformer) -> shapely.Geometry | None:
    """Return what jumps from one side of the map to the other as its parts on either side; None around a pole."""
    parts = shapely.get_parts(shapely.get_parts(before))
    found = [_cut(part, way) if part.length else _moved(part, way) for part in parts]
    if any(part is None for part in found):
        return None
    return found[0] if len(found) == 1 else shapely.GeometryCollection(found)


def _moved(part: shapely.Geometry, way: Transformer) -> shapely.Geometry:
    return shapely.transform(part, way.transform, interleaved=False)


def _cut(part: shapely.Geometry, way: Transformer) -> shapely.Geometry | None:
    west, south, east, north = part.bounds
    lonlat = _moved(shapely.segmentize(part, max(east - west, north - south) / _PIECES), way)
    area = isinstance(lonlat, shapely.Polygon)
    rings = [
        _unrolled(shapely.get_coordinates(line))
        for line in ([lonlat.exterior, *lonlat.interiors] if area else [lonlat])
    ]
    if not area:
        flat = type(lonlat)(rings[0])
    elif any(abs(ring[0, 0] - ring[-1, 0]) > 180 for ring in rings):
        return None
    else:
        middle = rings[0][:, 0].mean()
        holes = [ring + np.array([360 * np.round((middle - ring[:, 0].mean()) / 360), 0]) for ring in rings[1:]]
        flat = shapely.make_valid(shapely.Polygon(rings[0], holes), method="structure", keep_collapsed=True)
    turns = []
    for turn in (-360, 0, 360):
        here = shapely.intersection(flat, shapely.box(turn - 180, -90, turn + 180, 90))
        turns.append(shapely.transform(here, lambda points, turn=turn: points - np.array([turn, 0])))
    kept = [turn for turn in turns if not turn.is_empty]
    return kept[0] if len(kept) == 1 else shapely.union_all(kept)


def _unrolled(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return points whose longitudes go on beyond 180 degrees where they cross the antimeridian."""
    jumps = np.diff(points[:, 0], prepend=points[0, 0])
    turned = points.copy()
    turned[:, 0] -= 360 * np.cumsum(np.round(jumps / 360))
    return turned
