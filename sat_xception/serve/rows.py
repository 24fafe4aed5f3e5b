"""Write rows as CSV or JSON, to stdout or to a file that appears only when it is whole."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from sat_xception.errors import ConfigError
from sat_xception.storage import GcsPath, put_file

__all__ = ["Value", "check_suffix", "open_rows"]

Value = str | float | None
_Write = Callable[[Sequence[Value]], object]


def check_suffix(out: Path | None) -> None:
    """Refuse a file whose suffix names no format.

    Raises:
        ConfigError: The suffix isn't known.
    """
    if out is not None and out.suffix.lower() not in _FORMATS:
        raise ConfigError(f"--out {out} must end in {' or '.join(_FORMATS)}; leave it out for CSV on stdout")


@contextlib.contextmanager
def open_rows(out: Path | None, columns: Sequence[str]) -> Iterator[_Write]:
    """Yield a function that writes one row, its values in the order of the columns.

    Args:
        out: File to write, here or in a bucket, .csv or .json (a list of objects). Default: CSV on stdout.
        columns: Names of the columns.

    Raises:
        ConfigError: The file can't be written, or its suffix isn't known.
        ServiceError: The bucket can't be written.
    """
    check_suffix(out)
    rows = _FORMATS[out.suffix.lower() if out else ".csv"]
    with _open_out(out) as file, rows(file, columns) as write:
        yield write


@contextlib.contextmanager
def _open_out(out: Path | None) -> Iterator[IO[str]]:
    """Yield stdout, or a file that appears at `out` when it is whole."""
    if out is None:
        yield sys.stdout
        return
    if isinstance(out, GcsPath):
        content = io.StringIO(newline="")
        yield content
        put_file(content.getvalue().encode(), out)
        return
    partial = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8", newline="") as file:
            yield file
        os.replace(partial, out)
    except OSError as error:
        raise ConfigError(f"can't write --out {out}: {error}") from None
    finally:
        with contextlib.suppress(OSError):  # it became `out`, or was never made
            partial.unlink()


@contextlib.contextmanager
def _csv_rows(file: IO[str], columns: Sequence[str]) -> Iterator[_Write]:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    yield writer.writerow


@contextlib.contextmanager
def _json_rows(file: IO[str], columns: Sequence[str]) -> Iterator[_Write]:
    separator = "["

    def write(values: Sequence[Value]) -> None:
        nonlocal separator
        file.write(f"{separator}\n{json.dumps(dict(zip(columns, values, strict=True)), ensure_ascii=False)}")
        separator = ","

    yield write
    file.write("\n]\n")


_FORMATS = {".csv": _csv_rows, ".json": _json_rows}
