"""Texts of CSV files that a spreadsheet would run: one rule for every table that is written.

A cell that begins with `=`, `+`, `-`, `@`, a tab or a carriage return is a formula to a spreadsheet, unless it is a
plain number. An apostrophe before it makes it text; one is put before an apostrophe as well, so that readers know which
of them to take away. The review page's export does the same in `review/static/record.js`.
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
    """Return a text that no spreadsheet runs.

    Example:
        as_text("=1+1")  # "'=1+1"
    """
    return f"'{value}" if _is_formula(value) and not _is_number(value) else value


def csv_writer(file: IO[str]) -> Callable[[Sequence[str | float | None]], object]:
    """Return a function that writes one row."""

    def write(row: Sequence[str | float | None]) -> None:
        line = io.StringIO()
        # With its own end of lines: with another one, a carriage return in a cell isn't quoted.
        csv.writer(line).writerow([as_text(value) if isinstance(value, str) else value for value in row])
        file.write(line.getvalue().removesuffix("\r\n") + "\n")

    return write


def write_csv(table: pa.Table, path: Path) -> None:
    """Write a table, its head first."""
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
