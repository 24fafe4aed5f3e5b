"""Write rows as CSV or JSON one by one, to stdout or to a file that gets its name only when it is complete."""

from __future__ import annotations

import contextlib
import glob
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from io import FileIO, StringIO
from pathlib import Path
from typing import Protocol

from sat_xception.clock import utc_now
from sat_xception.errors import ConfigError, ServiceError
from sat_xception.log import get_logger
from sat_xception.reports.spreadsheet import csv_writer
from sat_xception.storage import is_remote, lock_open_file, scratch_folder, write_error, write_stored_bytes
from sat_xception.storage.files import dump_json

__all__ = ["Value", "check_suffix", "open_rows"]

_log = get_logger(__name__)
_REST_S = 60
Value = str | float | None
_Write = Callable[[Sequence[Value]], object]


def check_suffix(out: Path | None) -> None:
    """Check that a file's suffix names a known format.

    Raises:
        ConfigError: The suffix is unknown.
    """
    if out is not None and out.suffix.lower() not in _FORMATS:
        raise ConfigError(f"--out {out} must end in {' or '.join(_FORMATS)}; leave it out for CSV on stdout")


@contextlib.contextmanager
def open_rows(out: Path | None, columns: Sequence[str]) -> Iterator[_Write]:
    """Yield a function that writes one row, its values in the order of the columns.

    If the block ends in an error, the rows so far are kept next to `out`, in a file whose name marks it as incomplete.

    Args:
        out: Local file or address in a bucket, .csv or .json (a list of objects). Default: CSV on stdout.
        columns: Names of the columns.

    Raises:
        ConfigError: The file can't be written, or its suffix is unknown.
        ServiceError: The disk is full or read-only, or the bucket can't be written.
    """
    check_suffix(out)
    if out is None:
        yield from _to_stdout(columns)
    elif is_remote(out):
        yield from _to_bucket(out, columns)
    else:
        yield from _to_file(out, columns)


def _to_stdout(columns: Sequence[str]) -> Iterator[_Write]:
    rows = _Csv(columns)

    def write(text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader, such as `head`, has ended
            raise
        except OSError as error:
            raise write_error(error, "standard output", "send it elsewhere, or give --out") from None

    write(rows.head())
    yield lambda values: write(rows.row(values))
    write(rows.tail())


def _to_bucket(out: Path, columns: Sequence[str]) -> Iterator[_Write]:
    with scratch_folder() as folder:
        file = folder / out.name
        place = Path(tempfile.gettempdir()) / f"{out.stem}.partial.{os.getpid()}{out.suffix}"
        yield from _to_file(file, columns, place)
        try:
            write_stored_bytes(file.read_bytes(), out)
        except ServiceError as error:
            os.replace(file, place)
            raise ServiceError(f"{error}. The rows are kept in {place}") from None


def _to_file(out: Path, columns: Sequence[str], kept: Path | None = None) -> Iterator[_Write]:
    kept = kept or out.with_name(f"{out.stem}.partial{out.suffix}")
    partial = out.with_name(f".{out.name}.{os.getpid()}.part")
    rows = _FORMATS[out.suffix.lower()](columns)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _sweep(out)
        file = _Lines(partial)
    except OSError as error:
        raise write_error(error, f"--out {out}") from None
    try:
        file.write(rows.head())
        yield lambda values: file.write(rows.row(values), counts=True)
        file.write(rows.tail())
        file.become(out)
        kept.unlink(missing_ok=True)  # the incomplete file of an earlier run
    except BaseException as error:
        _keep(file, rows.tail(), kept)
        if isinstance(error, OSError) and file.failed is error:
            raise write_error(error, f"--out {out}") from None
        raise


def _sweep(out: Path) -> None:
    """Remove temporary files that killed runs left: those without a lock and unchanged for a minute."""
    for left in out.parent.glob(f".{glob.escape(out.name)}.*.part"):
        with contextlib.suppress(OSError), left.open("rb") as file:
            if lock_open_file(file.fileno()) and utc_now().timestamp() - left.stat().st_mtime > _REST_S:
                left.unlink()


class _Lines:
    """An unbuffered file that always holds complete lines, even after a kill."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = FileIO(path, "w")
        lock_open_file(self._file.fileno())
        self._size = 0
        self.rows = 0
        self.failed: OSError | None = None

    def write(self, text: str, counts: bool = False) -> None:
        """Write a piece; `counts` if it is a row."""
        # A library's message may hold a file name that isn't UTF-8.
        left = memoryview(text.encode("utf-8", "backslashreplace"))
        size = len(left)
        try:
            while left:
                left = left[self._file.write(left) or 0 :]
        except OSError as error:
            self.failed = error
            self._file.truncate(self._size)
            self._file.seek(self._size)
            raise
        self._size += size
        self.rows += counts

    def become(self, path: Path) -> None:
        """Close the file and rename it to its final name."""
        try:
            self._file.close()
            os.replace(self._path, path)
        except OSError as error:
            self.failed = error
            raise

    def close(self) -> None:
        """Close the file if it is open, and remove it unless it has its final name."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink()


def _keep(file: _Lines, tail: str, kept: Path) -> None:
    """Keep the rows so far, if there are any."""
    try:
        if file.rows:
            file.write(tail)
            file.become(kept)
            _log.warning("kept      %s rows that were finished, in %s", f"{file.rows:,}", kept)
    except OSError as error:
        _log.warning("kept      nothing: %s", error)
    finally:
        file.close()


class _Format(Protocol):
    def __init__(self, columns: Sequence[str]) -> None: ...

    def head(self) -> str: ...

    def row(self, values: Sequence[Value]) -> str: ...

    def tail(self) -> str: ...


class _Csv:
    """CSV with a header line, protected against formulas in spreadsheets."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns

    def head(self) -> str:
        return self.row(self._columns)

    def row(self, values: Sequence[Value]) -> str:
        line = StringIO()
        csv_writer(line)(values)
        return line.getvalue()

    def tail(self) -> str:
        return ""


class _Json:
    """A list of objects, one on each line."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self._separator = "["

    def head(self) -> str:
        return ""

    def row(self, values: Sequence[Value]) -> str:
        text = dump_json(dict(zip(self._columns, values, strict=True)), ensure_ascii=False)
        separator, self._separator = self._separator, ","
        return f"{separator}\n{text}"

    def tail(self) -> str:
        return "\n]\n"


_FORMATS: dict[str, type[_Csv | _Json]] = {".csv": _Csv, ".json": _Json}
