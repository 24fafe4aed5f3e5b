"""Read vector layers: what GDAL reads, and tables with positions or tiles in columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pyogrio
import pyproj
import shapely

from sat_xception.errors import DataError
from sat_xception.geo.tiles import grid_to_lonlat
from sat_xception.log import get_logger

__all__ = ["Layer", "read_layer"]

_log = get_logger(__name__)
Geometries = npt.NDArray[np.object_]

_LONGITUDE = ("lon", "longitude", "lng", "long")
_LATITUDE = ("lat", "latitude")
_TABLES = {".csv", ".parquet"}


@dataclass(frozen=True)
class Layer:
    """Rows with a place.

    Attributes:
        name: Name of the file.
        columns: The attributes, one row a feature.
        geometry: Shapely geometries `object [n]` in longitude and latitude (EPSG:4326). Of a row that names a tile, the
            tile's centre.
        zoom: Zoom of the tiles that the rows name; None when they have geometries.
    """

    name: str
    columns: pa.Table
    geometry: Geometries
    zoom: int | None = None


def read_layer(path: Path) -> Layer:
    """Read a GeoJSON, GeoPackage or Shapefile, or whatever else GDAL reads; or a CSV or Parquet table.

    A table has the columns `x`, `y`, `z` of tiles, or `lon` and `lat` (also `longitude` and `latitude`) in degrees, or,
    for Parquet, a `geometry` column of WKB in longitude and latitude, as GeoParquet has.

    Raises:
        DataError: It can't be read, has no rows or no places, or places that aren't on Earth.
    """
    if not path.exists():
        raise DataError(f"no file at {path} (seen from {Path.cwd()})")
    layer = _read_table(path) if path.suffix.lower() in _TABLES else _read_features(path)
    usable = np.isfinite(shapely.bounds(layer.geometry)).all(axis=1)  # of no geometry and of an empty one they are NaN
    if not usable.any():
        raise DataError(f"{path} has {len(layer.geometry):,} rows and none with a place; is it the right file?")
    if not usable.all():
        _log.warning("left out  %s rows of %s, which have no place", f"{(~usable).sum():,}", path)
        layer = Layer(layer.name, layer.columns.filter(pa.array(usable)), layer.geometry[usable], layer.zoom)
    west, south, east, north = shapely.total_bounds(layer.geometry)
    if not (west >= -180 and east <= 180 and south >= -90 and north <= 90):
        raise DataError(
            f"{path} reaches from {west:g}, {south:g} to {east:g}, {north:g}, which are no longitudes and latitudes in "
            "degrees: are the axes swapped, or is it in another coordinate system that the file doesn't name?"
        )
    return layer


def _read_features(path: Path) -> Layer:
    try:
        facts, table = pyogrio.read_arrow(path)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError) as error:
        raise DataError(f"{path} can't be read as a vector layer: {error}") from None
    name = facts["geometry_name"] or "wkb_geometry"
    if name not in table.column_names:
        raise DataError(f"{path} has no geometries; columns: {', '.join(table.column_names)}")
    geometry = shapely.from_wkb(np.asarray(table.column(name).to_pylist(), dtype=object))
    return Layer(path.name, table.drop_columns([name]), _to_lonlat(geometry, facts["crs"], path))


def _to_lonlat(geometry: Geometries, crs: str | None, path: Path) -> Geometries:
    if not crs or crs == "EPSG:4326":
        return geometry
    try:
        transformer = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    except pyproj.exceptions.CRSError as error:
        raise DataError(f"{path} is in a coordinate system that isn't known: {error}") from None
    moved: Geometries = shapely.transform(geometry, transformer.transform, interleaved=False)
    return moved


def _read_table(path: Path) -> Layer:
    try:
        table = pq.read_table(path) if path.suffix.lower() == ".parquet" else pyarrow.csv.read_csv(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} can't be read as a table: {error}") from None
    names = {name.casefold(): name for name in table.column_names}
    if {"x", "y", "z"} <= names.keys():
        return _tiles_of(path, table, names)
    if "geometry" in names and pa.types.is_binary(table.schema.field(names["geometry"]).type):
        geometry = shapely.from_wkb(np.asarray(table.column(names["geometry"]).to_pylist(), dtype=object))
        return Layer(path.name, table.drop_columns([names["geometry"]]), geometry)
    lon = next((names[name] for name in _LONGITUDE if name in names), None)
    lat = next((names[name] for name in _LATITUDE if name in names), None)
    if lon is None or lat is None:
        raise DataError(
            f"{path} says no places: it needs the columns x, y, z, or lon, lat; it has {', '.join(table.column_names)}"
        )
    return Layer(path.name, table, shapely.points(_numbers(table, lon, path), _numbers(table, lat, path)))


def _tiles_of(path: Path, table: pa.Table, names: dict[str, str]) -> Layer:
    x, y, z = (_numbers(table, names[name], path) for name in "xyz")
    zooms = np.unique(z)
    if len(zooms) != 1:
        raise DataError(f"{path} names tiles of {len(zooms)} zooms; a dataset has tiles of one")
    zoom = int(zooms[0])
    if not 0 <= zoom <= 30 or (x < 0).any() or (y < 0).any() or max(x.max(), y.max()) >= 2**zoom:
        raise DataError(f"{path} names tiles that aren't in the grid at zoom {zoom}; are x, y and z mixed up?")
    return Layer(path.name, table, shapely.points(*grid_to_lonlat(x + 0.5, y + 0.5, zoom)), zoom)


def _numbers(table: pa.Table, name: str, path: Path) -> npt.NDArray[np.float64]:
    try:
        numbers: npt.NDArray[np.float64] = table.column(name).cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: column {name!r} doesn't hold numbers: {error}") from None
    return numbers
