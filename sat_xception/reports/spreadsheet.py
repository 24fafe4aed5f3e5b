"""Protect CSV cells from formula injection; every CSV table is written through this module.

A spreadsheet takes a cell that begins with `=`, `+`, `-`, `@`, a tab or a carriage return for a formula, unless it is a
plain number. A leading apostrophe makes it text. Cells that begin with an apostrophe get one more, so that removing
the first apostrophe always restores the value. The review page's export does the same in `review/static/record.js`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["as_text", "csv_writer", "write_csv"]

_FORMULA = r"\A['=+\-@\t\r]"
_NUMBER = r"\A[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?\z"
_is_formula, _is_number = re.compile(_FORMULA).match, re.compile(_NUMBER.replace(r"\z", r"\Z")).match


def as_text(value: str) -> str:
    """Return a text that no spreadsheet takes for a formula.

    Example:
        as_text("=1+1")  # "'=1+1"
    """
    return f"'{value}" if _is_formula(value) and not _is_number(value) else value


def csv_writer(file: IO[str]) -> Callable[[Sequence[str | float | None]], object]:
    """Return a function that writes one row."""

    def write(row: Sequence[str | float | None]) -> None:
        line = io.StringIO()
        # The csv module's default line end: with another one, it doesn't quote a carriage return in a cell.
        csv.writer(line).writerow([as_text(value) if isinstance(value, str) else value for value in row])
        file.write(line.getvalue().removesuffix("\r\n") + "\n")

    return write


def write_csv(table: pa.Table, path: Path) -> None:
    """Write a table as CSV, with a header line."""
    import pyarrow as pa
    import pyarrow.csv

    columns = [_as_texts(column) for column in table.columns]
    pyarrow.csv.write_csv(pa.table(columns, [as_text(name) for name in table.column_names]), path)


def _as_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column
    is_number = pc.match_substring_regex(column, _NUMBER)
    runs = pc.and_not(pc.match_substring_regex(column, _FORMULA), is_number)
    none = pa.scalar("", column.type)
    return pc.if_else(runs, pc.binary_join_element_wise(pa.scalar("'", column.type), column, none), column)
