"""Read vector layers: what GDAL reads, and tables with positions or tiles in columns.

Whatever is wrong with a file is an error with its name and what to do. A row without a usable place is left out and
counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from sat_xception.errors import ConfigError, DataError
from sat_xception.geo.features import read_features
from sat_xception.geo.layer import Geometries, Layer, parts_of
from sat_xception.geo.tables import read_csv, read_parquet
from sat_xception.geo.text import is_text
from sat_xception.log import get_logger

__all__ = ["Geometries", "Layer", "parts_of", "read_layer"]

_log = get_logger(__name__)
Faults = npt.NDArray[np.object_]

_CSV, _PARQUET = {".csv", ".tsv"}, {".parquet", ".geoparquet", ".pq"}
_PARQUET_MARK = b"PAR1"
# Arithmetic leaves less, and 7 digits after the point are a centimetre.
_ROUNDING_DEGREES = 1e-7
# Of more rows than this with positions that aren't on Earth, the reason isn't a slip in a row.
_MAX_OFF_EARTH = 0.05
_ROWS_NAMED = 5


def read_layer(path: Path, layers: Sequence[str] = (), flag: str = "--labels") -> Layer:
    """Read a GeoJSON, GeoPackage or Shapefile, or another format of GDAL; or a CSV or Parquet table.

    A table has the columns `x`, `y`, `z` of tiles, or `lon` and `lat` (also `longitude` and `latitude`) in degrees, or,
    for Parquet, a column of WKB, as GeoParquet has. Polygons that cross themselves are made valid.

    Args:
        path: The file.
        layers: Layers of it that are read, where it has several.
        flag: The setting that names the file, for messages.

    Raises:
        ConfigError: The file has several layers and none is named, or lacks the named layer.
        DataError: The file can't be read, has no rows with a location, or locations that aren't on Earth.
    """
    if not path.exists():
        raise DataError(f"no file at {path} (seen from {Path.cwd()})")
    if path.is_dir() and path.suffix.casefold() != ".gdb":
        raise DataError(f"{path} is a folder; name one file in it")
    kind = _kind_of(path)
    if layers and kind:
        raise ConfigError(f"{path} is a table and has no layers; leave {flag}-layer out")
    if kind == "parquet":
        parts = [read_parquet(path)]
    elif kind == "csv":
        parts = [read_csv(path)]
    else:
        parts = read_features(path, layers, flag)
    usable = [_usable(path, *part) for part in parts]
    if not any(len(layer.geometry) for layer, _ in usable):
        rows = sum(len(layer.geometry) for layer, _ in parts)
        reason = next((f"; row 1 {faults[0]}" for _, faults in usable if len(faults)), "")
        raise DataError(f"{path} has {rows:,} rows and none with a location; is it the right file?{reason}")
    return _together([layer for layer, _ in usable])


def _kind_of(path: Path) -> str:
    """Return "csv", "parquet", or "" for what GDAL reads. An ending that says nothing leaves it to the content."""
    ending = path.suffix.casefold()
    if ending in _CSV | _PARQUET or path.is_dir():
        return "csv" if ending in _CSV else "parquet" if ending in _PARQUET else ""
    try:
        with path.open("rb") as file:
            begin = file.read(4096)
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}") from None
    if begin.startswith(_PARQUET_MARK):
        return "parquet"
    marked_up = begin.removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"{", b"[", b"<"))
    return "csv" if ending in ("", ".txt") and is_text(path) and not marked_up else ""


def _usable(path: Path, layer: Layer, faults: Faults) -> tuple[Layer, Faults]:
    """Return the rows with a location on Earth, and the faults of the others."""
    geometry, faults = layer.geometry.copy(), faults.copy()
    bounds = shapely.bounds(geometry)  # of no geometry and of an empty one they are NaN
    coordinates, row = shapely.get_coordinates(geometry, return_index=True)
    finite = np.isfinite(bounds).all(axis=1)
    finite[row[~np.isfinite(coordinates).all(axis=1)]] = False
    empty = np.isnan(bounds).all(axis=1)
    faults[empty & (faults == "")] = "has no location"
    faults[~finite & (faults == "")] = "has a position that is no longitude and latitude"
    _clip(geometry, bounds, finite)
    bounds = shapely.bounds(geometry)
    limits = np.array([-180, -90, 180, 90])
    outside = finite & ((bounds[:, :2] < limits[:2]) | (bounds[:, 2:] > limits[2:])).any(axis=1)
    if outside.sum() > _MAX_OFF_EARTH * max(finite.sum(), 1):
        raise DataError(_off_earth(path, bounds[outside], int(np.flatnonzero(outside)[0]), len(geometry)))
    faults[outside] = "reaches beyond longitude 180 or latitude 90"
    polygons = shapely.get_dimensions(geometry) == 2
    crossed = polygons & ~shapely.is_valid(geometry)
    # "structure" unites overlapping parts; the other method turns overlaps into holes.
    geometry[crossed] = shapely.make_valid(geometry[crossed], method="structure", keep_collapsed=True)
    good = faults == ""
    if not good.all():
        _log.warning("left out  %s", _told(path, faults))
    numbers = np.flatnonzero(good) + 1
    return Layer(layer.name, layer.columns.filter(pa.array(good)), geometry[good], layer.zoom, numbers), faults[~good]


def _clip(geometry: Geometries, bounds: npt.NDArray[np.float64], finite: npt.NDArray[np.bool_]) -> None:
    """Clip coordinates that are beyond the antimeridian or a pole by a rounding error."""
    limits = np.array([180, 90, 180, 90])
    beyond = np.abs(bounds) - limits
    near = finite & (beyond > 0).any(axis=1) & (beyond <= _ROUNDING_DEGREES).all(axis=1)
    geometry[near] = shapely.transform(geometry[near], lambda points: np.clip(points, (-180, -90), (180, 90)))


def _off_earth(path: Path, bounds: npt.NDArray[np.float64], first: int, rows: int) -> str:
    west, south = bounds[:, :2].min(axis=0).tolist()
    east, north = bounds[:, 2:].max(axis=0).tolist()
    advice = "are the axes swapped, or is it in another coordinate system that the file doesn't name?"
    if -90 <= south and north <= 90 and -360 <= west and east <= 360:
        advice = "cut it at the 180th meridian, for instance with `ogr2ogr -wrapdateline`, or swap the axes if they are"
    return (
        f"{len(bounds):,} of {rows:,} rows of {path}, the first is row {first + 1}, reach from {west!r}, {south!r} to "
        f"{east!r}, {north!r}, which are no longitudes and latitudes in degrees (-180 to 180, -90 to 90): {advice}"
    )


def _told(path: Path, faults: Faults) -> str:
    rows = defaultdict(list)
    for row in np.flatnonzero(faults != "").tolist():
        rows[faults[row]].append(row + 1)
    parts = []
    for reason, some in rows.items():
        more = ", …" if len(some) > _ROWS_NAMED else ""
        named = ", ".join(map(str, some[:_ROWS_NAMED]))
        parts.append(f"{len(some):,} rows of {path}, each of which {reason} (row {named}{more})")
    return "; ".join(parts)


def _together(layers: list[Layer]) -> Layer:
    if len(layers) == 1:
        return layers[0]
    tables = [layer.columns for layer in layers]
    types = defaultdict(set)
    for field in (field for table in tables for field in table.schema):
        types[field.name].add(field.type)
    # What is a number in one layer and a text in another is a text in both.
    mixed = {name for name, kinds in types.items() if len(kinds) > 1}
    tables = [_with_texts(table, mixed) for table in tables]
    numbers = np.concatenate([layer.numbers for layer in layers])
    return Layer(
        layers[0].name,
        pa.concat_tables(tables, promote_options="default"),
        np.concatenate([layer.geometry for layer in layers]),
        numbers=numbers,
    )


def _with_texts(table: pa.Table, names: set[str]) -> pa.Table:
    for index, name in enumerate(table.column_names):
        if name in names and not pa.types.is_binary(table.column(index).type):
            table = table.set_column(index, name, table.column(index).cast(pa.string()))
    return table
