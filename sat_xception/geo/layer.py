"""Rows with geometries, the common form that all readers of vector files and tables return."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from sat_xception.errors import ConfigError, DataError

__all__ = ["Geometries", "Layer", "parts_of"]

Geometries = npt.NDArray[np.object_]

_OTHER_TAGS = "other_tags"


@dataclass(frozen=True)
class Layer:
    """Rows with geometries.

    Attributes:
        name: Name of the file.
        columns: The attributes, one row per feature. A text column that isn't UTF-8 is binary here.
        geometry: Shapely geometries `object [n]` in longitude and latitude (EPSG:4326). For a row with tile
            coordinates, the tile's centre.
        zoom: Zoom of the tiles, if rows have tile coordinates; None if they have geometries.
        numbers: Each row's number in the file, from 1, `int64 [n]`; empty if no row was left out.
    """

    name: str
    columns: pa.Table
    geometry: Geometries
    zoom: int | None = None
    numbers: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def number(self, row: int) -> int:
        """Return the number in the file, from 1, of a row."""
        return int(self.numbers[row]) if len(self.numbers) else row + 1

    def texts(self, column: str, flag: str) -> pa.Array:
        """Return a column as texts without spaces around them, "" where there is nothing. Codes stay as they are.

        Args:
            column: Its name.
            flag: The setting that names it, for messages.

        Raises:
            ConfigError: There is no such column, there are several, or it holds nested values.
            DataError: It isn't UTF-8.
        """
        names = self.columns.column_names
        if column not in names:
            raise ConfigError(
                f"{self.name} has no column {column!r}; its columns are {', '.join(names) or 'none'}. "
                f"Name one with {flag}{self._hint(column)}"
            )
        if names.count(column) > 1:
            raise ConfigError(
                f"{self.name} has the column {column!r} {names.count(column)} times; rename all but one, or name "
                f"another with {flag}"
            )
        values = self.columns.column(column)
        if pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
            # Without such a value, the rows that aren't UTF-8 had no location, or the column really holds bytes.
            for row, value in enumerate(values.to_pylist()):
                if value is not None and not _is_utf8(value):
                    raise DataError(self._not_utf8(column, row, value))
        try:
            texts = pa.nulls(len(values), pa.string()) if pa.types.is_null(values.type) else values.cast(pa.string())
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
            raise ConfigError(
                f"column {column!r} of {self.name} holds {values.type}; name one of texts or numbers with {flag}"
            ) from None
        texts = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
        return pc.utf8_trim_whitespace(pc.fill_null(texts, ""))

    def _hint(self, column: str) -> str:
        if _OTHER_TAGS not in self.columns.column_names:
            return ""
        return (
            f". OpenStreetMap's tags without a column of their own are in {_OTHER_TAGS}; make a column of one: ogr2ogr "
            f"-f GPKG labels.gpkg {self.name} -sql \"SELECT *, hstore_get_value({_OTHER_TAGS}, '{column}') AS "
            f'"{column}" FROM points"'
        )

    def _not_utf8(self, column: str, row: int, value: bytes) -> str:
        stem, _, ending = self.name.rpartition(".")
        advice = "turn the file into UTF-8, for instance with `iconv -f ISO-8859-1 -t UTF-8`"
        if ending.casefold() in ("shp", "dbf", "zip"):
            advice = (
                f"name its encoding in a file {stem}.cpg beside the .dbf, for instance with "
                f"`echo ISO-8859-1 > {stem}.cpg`, or write it anew in UTF-8"
            )
        return f"column {column!r} of {self.name} isn't UTF-8, in row {self.number(row)} {value[:40]!r}; {advice}"


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def parts_of(geometry: Geometries) -> tuple[Geometries, npt.NDArray[np.int64]]:
    """Return the points, lines and polygons that geometries are made of, and the row that each is of, ascending."""
    rows = np.arange(len(geometry))
    while len(geometry) and (shapely.get_type_id(geometry) > 3).any():
        geometry, of = shapely.get_parts(geometry, return_index=True)
        rows = rows[of]
    kept = ~shapely.is_empty(geometry) if len(geometry) else np.zeros(0, dtype=bool)
    return geometry[kept], rows[kept]
