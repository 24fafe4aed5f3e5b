"""Read tables with places in columns: CSV in any usual dialect, and Parquet, GeoParquet too."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import shapely
from pydantic import BaseModel, ValidationError

from sat_xception.errors import DataError, faults_of
from sat_xception.geo.crs import to_lonlat
from sat_xception.geo.layer import Geometries, Layer
from sat_xception.geo.text import read_utf8
from sat_xception.geo.tiles import grid_to_lonlat
from sat_xception.geo.wkb import parse_wkb
from sat_xception.log import get_logger

__all__ = ["read_csv", "read_parquet", "valid_texts"]

_log = get_logger(__name__)
Faults = npt.NDArray[np.object_]
Floats = npt.NDArray[np.floating[Any]]

_LONGITUDE = ("lon", "longitude", "lng", "long")
_LATITUDE = ("lat", "latitude")
_DELIMITERS = ",;\t|"
_NO_PLACE = "has no location"


def read_csv(path: Path) -> tuple[Layer, Faults]:
    """Return the rows of a CSV file, and why each has no location; "" if it has one. All columns are texts.

    Raises:
        DataError: It is no table, or none of places.
    """
    content = read_utf8(path)
    delimiter = _delimiter(content)
    content = re.sub(rb"\Asep=.\r?\n", b"", content)
    reader = csv.reader(io.StringIO(content[: 2**20].decode(errors="backslashreplace")), delimiter=delimiter)
    try:
        names = next(reader)
        lines = reader.line_num
    except StopIteration:
        raise DataError(f"{path} is empty") from None
    except csv.Error as error:
        raise DataError(f"{path} can't be read as a table: {error}") from None
    # Arrow decodes a row of other columns as UTF-8 before it hands it over, and drops one where that fails.
    foreign = not _is_utf8(content)
    if foreign:
        content = content.decode("latin-1").encode()
    torn: list[pyarrow.csv.InvalidRow] = []

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        torn.append(row)
        return "skip"

    # Numbers stay texts: 007 isn't 7, and NA may be Namibia. Columns may share a name.
    numbers = [str(number) for number in range(len(names))]
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(content),
            pyarrow.csv.ReadOptions(use_threads=False, skip_rows=lines, column_names=numbers),
            pyarrow.csv.ParseOptions(
                delimiter=delimiter,
                newlines_in_values=True,
                invalid_row_handler=skip,
            ),
            pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(numbers, pa.binary()), strings_can_be_null=False),
        )
    except pa.ArrowException as error:
        # Without a row after the header, Arrow takes the file for an empty one.
        if "Empty CSV" not in str(error):
            raise DataError(f"{path} can't be read as a table: {error}") from None
        table = pa.table({number: pa.array([], pa.binary()) for number in numbers})
    if torn:
        first = torn[0]
        _log.warning(
            "left out  %s rows of %s, which have other columns than the header; the first has %s and not %s: %.60s",
            f"{len(torn):,}", path, first.actual_columns, first.expected_columns, first.text,
        )  # fmt: skip
    columns = pa.table(table.columns, [name.strip() for name in names])
    if foreign:
        columns = _in_latin_1(columns)
    return _with_places(path, valid_texts(columns))


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _in_latin_1(table: pa.Table) -> pa.Table:
    """Return texts as the bytes that they were in the file."""
    columns = [pa.array([text.decode().encode("latin-1") for text in column.to_pylist()]) for column in table.columns]
    return pa.table([column.cast(pa.binary()) for column in columns], table.column_names)


def read_parquet(path: Path) -> tuple[Layer, Faults]:
    """Return the rows of a Parquet file, and why each has no location; "" if it has one.

    Raises:
        DataError: The file can't be read, or no row has a location.
    """
    try:
        table = pq.read_table(path)
        schema_metadata = table.schema.metadata or {}
        names = {name.casefold(): name for name in table.column_names}
        wkb, crs, named = _geo_column(path, schema_metadata, table.schema, names)
        values = table.column(wkb).to_pylist() if wkb else []
    except ValidationError as error:
        first = faults_of(error)[0]
        raise DataError(
            f"{path} can't be read as GeoParquet: {first.field}: {first.why}, got {first.value!r}"
        ) from None
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise DataError(f"{path} can't be read as a Parquet table: {error}") from None
    if not wkb:
        return _with_places(path, valid_texts(table))
    geometry, reasons = parse_wkb(values)
    reasons[shapely.is_missing(geometry) & (reasons == "")] = _NO_PLACE
    if b"geo" not in schema_metadata:
        crs = _srid(path, geometry) or crs
    if not named:
        _log.warning("%s names no coordinate system; it is taken for longitude and latitude", path)
    there = ~shapely.is_missing(geometry)
    geometry[there] = to_lonlat(geometry[there], crs, str(path))
    return Layer(path.name, valid_texts(table.drop_columns([wkb])), geometry), reasons


class _GeoColumn(BaseModel):
    encoding: str | None = None
    crs: Any = "OGC:CRS84"


class _GeoParquet(BaseModel):
    primary_column: str
    columns: dict[str, _GeoColumn]


def _geo_column(
    path: Path, metadata: dict[bytes, bytes], schema: pa.Schema, names: dict[str, str]
) -> tuple[str, Any, bool]:
    """Return the column of WKB, "" when there is none, its coordinate system, and whether the file names one."""
    if b"geo" in metadata:
        # GeoParquet 1.1; a system that isn't there is OGC:CRS84, and null is one that isn't known.
        geo = _GeoParquet.model_validate_json(metadata[b"geo"])
        column = geo.primary_column
        facts = geo.columns[column]
        if str(facts.encoding).upper() != "WKB" or column not in schema.names:
            raise DataError(f"{path} keeps its geometries as {facts.encoding!r} in {column!r}; write them as WKB")
        crs = facts.crs
        return column, crs or "OGC:CRS84", crs is not None
    column = names.get("geometry", "")
    if not column or (not pa.types.is_binary(kind := schema.field(column).type) and not pa.types.is_large_binary(kind)):
        return "", None, False
    return column, "OGC:CRS84", True


def _srid(path: Path, geometry: Geometries) -> str:
    """Return the coordinate system that EWKB, as PostGIS writes it, names in every geometry; "" when it names none."""
    found = np.unique(shapely.get_srid(geometry[~shapely.is_missing(geometry)]))
    found = found[found > 0]
    if len(found) > 1:
        raise DataError(f"{path} has geometries of {len(found)} coordinate systems; write them in one")
    return f"EPSG:{found[0]}" if len(found) else ""


def valid_texts(table: pa.Table) -> pa.Table:
    """Return a table whose columns of text are UTF-8; those that aren't are binary."""
    for index, column in enumerate(table.columns):
        text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        if text or pa.types.is_binary(column.type):
            try:
                column = column.cast(pa.binary()).cast(pa.string())  # looks at every byte
            except pa.ArrowInvalid:
                column = column.cast(pa.binary())
            table = table.set_column(index, table.column_names[index], column)
    return table


def _delimiter(content: bytes) -> str:
    header = content.split(b"\n", 1)[0].decode(errors="replace")
    if header.startswith("sep=") and len(header.rstrip()) == 5:  # Excel's own line
        return header[4]
    return max(_DELIMITERS, key=header.count)


def _with_places(path: Path, table: pa.Table) -> tuple[Layer, Faults]:
    names = {name.casefold(): name for name in table.column_names}
    for name in table.column_names:
        if names[name.casefold()] != name and name.casefold() in (*"xyz", *_LONGITUDE, *_LATITUDE):
            raise DataError(f"{path} has the columns {name!r} and {names[name.casefold()]!r}; rename one of them")
    if {"x", "y", "z"} <= names.keys():
        return _named_tiles(path, table, [names[axis] for axis in "xyz"])
    lon = next((names[name] for name in _LONGITUDE if name in names), None)
    lat = next((names[name] for name in _LATITUDE if name in names), None)
    if lon is None or lat is None:
        raise DataError(
            f"{path} has no locations: it needs columns x, y, z, or lon, lat; it has {', '.join(table.column_names)}"
        )
    layer = Layer(path.name, table, np.empty(0, dtype=object))
    (east, wrong_east), (north, wrong_north) = _numbers(layer, lon), _numbers(layer, lat)
    faults = np.where(wrong_east == "", wrong_north, wrong_east)
    faults[(np.isnan(east) | np.isnan(north)) & (faults == "")] = _NO_PLACE
    return Layer(path.name, table, _points(east, north, faults == "")), faults


def _points(east: Floats, north: Floats, usable: npt.NDArray[np.bool_]) -> Geometries:
    points: Geometries = np.empty(len(east), dtype=object)
    points[usable] = shapely.points(east[usable], north[usable])
    return points


def _named_tiles(path: Path, table: pa.Table, axes: Sequence[str]) -> tuple[Layer, Faults]:
    layer = Layer(path.name, table, np.empty(0, dtype=object))
    found = [_numbers(layer, name) for name in axes]
    x, y, z = (values for values, _ in found)
    faults = next((wrong for _, wrong in found if (wrong != "").any()), found[0][1]).copy()
    for values, wrong in found:
        faults = np.where(faults == "", wrong, faults)
        whole = np.isnan(values) | (values == np.floor(values))
        faults[~whole & (faults == "")] = "names a tile by a number that isn't whole"
        faults[np.isnan(values) & (faults == "")] = _NO_PLACE
    usable = faults == ""
    zooms = np.unique(z[usable])
    if not len(zooms):
        return Layer(path.name, table, _points(x, y, usable), 0), faults
    if len(zooms) != 1:
        raise DataError(f"{path} names tiles of {len(zooms)} zooms; a dataset has tiles of one")
    zoom = int(zooms[0])
    last = max(x[usable].max(), y[usable].max())
    if not 0 <= zoom <= 30 or min(x[usable].min(), y[usable].min()) < 0 or last >= 2**zoom:
        raise DataError(f"{path} names tiles that aren't in the grid at zoom {zoom}; are x, y and z mixed up?")
    lon, lat = grid_to_lonlat(x + 0.5, y + 0.5, zoom)
    return Layer(path.name, table, _points(lon, lat, usable), zoom), faults


def _numbers(layer: Layer, name: str) -> tuple[Floats, Faults]:
    """Return a column as numbers, NaN for missing ones, and the fault of each value."""
    faults = np.full(len(layer.columns), "", dtype=object)
    texts = pc.replace_with_mask(
        texts := layer.texts(name, "--labels"), pc.equal(texts, ""), pa.scalar(None, pa.string())
    )
    try:
        return texts.cast(pa.float64()).to_numpy(zero_copy_only=False), faults
    except pa.ArrowInvalid:
        numbers = np.full(len(texts), np.nan)
    for row, text in enumerate(texts.to_pylist()):
        try:
            numbers[row] = float(text) if text is not None else np.nan
        except ValueError:
            faults[row] = f"has a {name} that isn't a number, such as {text[:20]!r}"
    return numbers, faults
