"""Read the layers of vector files with GDAL: the only layer, or an error that lists the layers."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from xml.parsers import expat
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyogrio
import shapely
from pydantic import BaseModel

from sat_xception.errors import ConfigError, DataError, SatXceptionError
from sat_xception.geo.crs import to_lonlat
from sat_xception.geo.layer import Layer
from sat_xception.geo.tables import valid_texts
from sat_xception.geo.text import UTF16_MARKS
from sat_xception.geo.wkb import parse_wkb
from sat_xception.log import get_logger

__all__ = ["read_features"]

_log = get_logger(__name__)
Faults = npt.NDArray[np.object_]

_TABLES = (".csv", ".tsv", ".parquet")
# What may hold places in a zip archive; what belongs to a Shapefile or says how to read another isn't among them.
_IN_ARCHIVES = (
    *_TABLES, ".shp", ".geojson", ".geojsonl", ".geojsons", ".json", ".topojson", ".gpkg", ".kml", ".kmz", ".gpx",
    ".gml", ".fgb", ".tab", ".mif", ".sqlite", ".db", ".osm", ".pbf", ".dxf", ".xlsx", ".ods",
)  # fmt: skip
# Dates and numbers in them stay as they are written.
_OPEN_OPTIONS = {"GeoJSON": {"DATE_AS_STRING": "YES"}, "GeoJSONSeq": {"DATE_AS_STRING": "YES"}}
# They have no word for a coordinate system.
_ALWAYS_LONLAT = ("TopoJSON",)
_JSON = ("GeoJSON", "GeoJSONSeq", "TopoJSON", "ESRIJSON")
# ArcGIS servers say so of an answer that was cut off at their limit of rows.
_ONE_PAGE = re.compile(rb'"exceededTransferLimit"\s*:\s*true')
# GML without a schema: GDAL takes codes that look like numbers for numbers. It's a setting of the process.
pyogrio.set_gdal_config_options({"GML_FIELDTYPES": "ALWAYS_STRING"})


@dataclass(frozen=True)
class _Source:
    """A layer of a file: what GDAL opens, its name there, and the name that a person gives."""

    dataset: str
    layer: str
    name: str
    spatial: bool


def read_features(path: Path, layers: Sequence[str], flag: str) -> list[tuple[Layer, Faults]]:
    """Return layers of a file, each with the reasons why rows have no location; "" for rows that have one.

    Args:
        path: Whatever GDAL reads.
        layers: Their names; none takes the only one that has rows with geometries.
        flag: The setting that names the file, for messages; that of layers is the same with -layer.

    Raises:
        ConfigError: There are several layers, or there is no layer of that name.
        DataError: It can't be read, or not to its end.
    """
    if path.is_file():
        with _reporting(path, ""), path.open("rb") as file:
            begin = file.read(4)
        if begin[:2] in UTF16_MARKS and begin[2:].strip(b"\0") in (b"{", b"["):
            raise DataError(
                f"{path} is JSON in UTF-16, as PowerShell's > writes it; write it in UTF-8: iconv -f UTF-16 -t UTF-8"
            )
    return [_read(path, source) for source in _chosen(path, _sources(path), layers, flag)]


@contextmanager
def _reporting(path: Path, what: str) -> Iterator[None]:
    """Raise a library's errors as a `SatXceptionError`, and log each of its warnings once."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            yield
        except SatXceptionError:
            raise
        except Exception as error:  # of GDAL come errors of a dozen unrelated classes
            # What pyogrio and GDAL advise are settings that don't exist here.
            message = str(error).partition("; It might help")[0].partition(" Set SHAPE_RESTORE_SHX")[0]
            if path.suffix.casefold() == ".shp":
                message += " A Shapefile is read with its .shx, .dbf, .prj and .cpg beside it"
            raise DataError(f"{path}{what} can't be read as a vector layer: {message}") from error
    for message in sorted({str(warning.message) for warning in heard}):
        _log.warning("%s%s: %s", path, what, message)


def _sources(path: Path) -> list[_Source]:
    """Return every layer of a file, those of a zip archive too, each with a name of its own."""
    found = [
        _Source(dataset, layer, layer, kind is not None)
        for dataset in _datasets(path)
        for layer, kind in _listed_layers(path, dataset)
    ]
    names = [source.name for source in found]
    return [
        replace(source, name=f"{source.dataset.rpartition('}/')[2]}:{source.name}")
        if names.count(source.name) > 1
        else source
        for source in found
    ]


def _datasets(path: Path) -> list[str]:
    """Return what GDAL opens: the file, or the members of a zip archive that may hold layers."""
    if path.suffix.casefold() != ".zip":
        return [str(path)]
    with _reporting(path, ""), zipfile.ZipFile(path) as archive:
        members = [PurePosixPath(name) for name in archive.namelist() if not name.startswith("__MACOSX/")]
    folders = {parent for member in members for parent in member.parents if parent.suffix.casefold() == ".gdb"}
    files = [member for member in members if member.suffix.casefold() in _IN_ARCHIVES]
    found = [*sorted(folders), *(member for member in files if not folders.intersection(member.parents))]
    if not found:
        raise DataError(f"{path} holds no vector layer, but {', '.join(map(str, members[:8])) or 'nothing'}")
    return [f"/vsizip/{{{path.resolve()}}}/{member}" for member in found]


def _listed_layers(path: Path, dataset: str) -> list[tuple[str, str | None]]:
    if _is_table(dataset):
        return [(dataset.rpartition("}/")[2], "")]
    with _reporting(path, ""):
        return [(str(name), kind) for name, kind in pyogrio.list_layers(dataset).tolist()]


def _is_table(dataset: str) -> bool:
    return dataset.startswith("/vsizip/") and dataset.casefold().endswith(_TABLES)


def _chosen(path: Path, known: list[_Source], layers: Sequence[str], flag: str) -> list[_Source]:
    names = [source.name for source in known]
    if unknown := [name for name in layers if name not in names]:
        raise ConfigError(f"{path} has no layer {unknown[0]!r}; it has {', '.join(names)}. Name one with {flag}-layer")
    if layers:
        return [source for source in known if source.name in layers]
    spatial = [source for source in known if source.spatial]
    if not spatial:
        raise DataError(f"{path} has no layer with geometries; its layers are {', '.join(names) or 'none'}")
    if len(spatial) == 1:
        return spatial
    rows = [_count(path, source) for source in spatial]
    filled = [source for source, count in zip(spatial, rows, strict=True) if count]
    if len(filled) > 1:
        told = ", ".join(
            f"{source.name} (a table)" if _is_table(source.dataset) else f"{source.name} ({count:,} rows)"
            for source, count in zip(spatial, rows, strict=True)
            if count
        )
        raise ConfigError(
            f"{path} has {len(filled)} layers: {told}. Choose one with {flag}-layer; give it once for each"
        )
    return filled or spatial[:1]


class _Info(BaseModel):
    """A layer, by `pyogrio.read_info`; the number of features is -1 where GDAL would have to count them."""

    driver: str
    features: int


class _Facts(BaseModel):
    """A layer, by `pyogrio.read_arrow`."""

    geometry_name: str | None
    crs: str | None


def _count(path: Path, source: _Source) -> int:
    if _is_table(source.dataset):
        return 1
    with _reporting(path, f", layer {source.name}"):
        return _info(source, force_feature_count=True).features


def _read(path: Path, source: _Source) -> tuple[Layer, Faults]:
    what = f", layer {source.name}" if source.name != path.stem else ""
    if _is_table(source.dataset):
        raise DataError(f"{path} holds the table {source.name}; take it out of the archive")
    with _reporting(path, what):
        driver = _info(source).driver
        expected = _lines(path) if driver == "GeoJSONSeq" else _count(path, source)
        _check_text(path, driver)
        facts, table = _arrow(source, _OPEN_OPTIONS.get(driver, {}))
        column = facts.geometry_name or "wkb_geometry"
        values = table.column(column).to_pylist() if column in table.column_names else None
    if values is None:
        raise DataError(f"{path}{what} has no geometries; columns: {', '.join(table.column_names)}")
    if len(table) < expected:
        raise DataError(
            f"{path}{what} can be read only in part, {len(table):,} of its {expected:,} rows: it is damaged or cut off"
        )
    geometry, faults = parse_wkb(values)
    faults[shapely.is_missing(geometry) & (faults == "")] = "has no location"
    there = ~shapely.is_missing(geometry)
    if not facts.crs and driver not in _ALWAYS_LONLAT and there.any():
        _log.warning("%s%s names no coordinate system; it is taken for longitude and latitude", path, what)
    geometry[there] = to_lonlat(geometry[there], facts.crs or "EPSG:4326", f"{path}{what}")
    return Layer(path.name, valid_texts(table.drop_columns([column])), geometry), faults


def _lines(path: Path) -> int:
    """Return the number of records of GeoJSON in lines: GDAL silently skips a line that isn't JSON."""
    if path.suffix.casefold() == ".zip":
        return 0
    content = path.read_bytes()
    return content.count(b"\x1e") or sum(bool(line.strip()) for line in content.splitlines())


def _check_text(path: Path, driver: str) -> None:
    """Refuse files that GDAL silently reads in part: JSON with zero bytes, one page of a response, truncated GML."""
    if path.suffix.casefold() == ".zip":
        return
    with path.open("rb") as file:
        if driver in _JSON:
            content = file.read()
            if b"\0" in content:
                raise DataError(f"{path} has zero bytes in its text: it is damaged")
            if _ONE_PAGE.search(content):
                raise DataError(
                    f"{path} is a part of a layer, as its server says (exceededTransferLimit); fetch the other parts "
                    "too, and put them together"
                )
        elif driver == "GML":
            try:
                expat.ParserCreate().ParseFile(file)
            except expat.ExpatError as error:
                raise DataError(f"{path} isn't whole: {error}") from None


def _arrow(source: _Source, options: dict[str, str]) -> tuple[_Facts, pa.Table]:
    try:
        facts, table = pyogrio.read_arrow(source.dataset, layer=source.layer, datetime_as_string=True, **options)
    except NotImplementedError:
        # pyogrio refuses layers of curves; one that says nothing of its geometries it reads.
        wrapped = (
            f'<OGRVRTDataSource><OGRVRTLayer name="{escape(source.layer, {chr(34): "&quot;"})}">'
            f"<SrcDataSource>{escape(source.dataset)}</SrcDataSource><SrcLayer>{escape(source.layer)}</SrcLayer>"
            "<GeometryType>wkbUnknown</GeometryType></OGRVRTLayer></OGRVRTDataSource>"
        )
        facts, table = pyogrio.read_arrow(wrapped.encode(), datetime_as_string=True)
    return _Facts.model_validate(facts), table


def _info(source: _Source, **options: bool) -> _Info:
    return _Info.model_validate(pyogrio.read_info(source.dataset, layer=source.layer, **options))
