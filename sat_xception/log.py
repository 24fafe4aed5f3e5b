"""Logging and progress: a progress bar on a terminal, plain lines elsewhere.

Everything here goes to stderr; stdout is reserved for a step's summary.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["duration", "get_logger", "quiet_imports", "set_up_logging", "track"]

T = TypeVar("T")
_LINE_EVERY_S = 5.0


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module, below the package's own."""
    return logging.getLogger(name if name.startswith("sat_xception") else f"sat_xception.{name}")


class _StderrHandler(logging.Handler):
    """Writes to whatever `sys.stderr` is when a line is logged, since notebooks and tests replace it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except Exception:  # logging never ends the program, as in its own handlers
            self.handleError(record)


def set_up_logging(level: int = logging.INFO) -> None:
    """Send the package's log to stderr, one line per message, and silence TensorFlow's start-up messages."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    root = logging.getLogger("sat_xception")
    root.setLevel(level)
    # The host may log the root logger, as kfp's executor does; don't propagate, or every line appears twice.
    printed = {id(getattr(handler, "stream", None)) for handler in logging.getLogger().handlers}
    root.propagate = printed.isdisjoint({id(sys.stdout), id(sys.stderr)})
    if not root.handlers:
        handler = _StderrHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        root.addHandler(handler)


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Suppress what native libraries print to stderr while modules are imported.

    TensorFlow's print a dozen lines before they read their log settings. If the import fails, the output is shown.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def duration(seconds: float) -> str:
    """Format a duration: `8.4 s`, `4 m 02 s`, `1 h 05 m`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    seconds = round(seconds)
    if seconds < 3600:
        return f"{seconds // 60} m {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} m"


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Yield the items while showing progress.

    Args:
        items: Items to pass through.
        what: Name of the work, shown first on the line.
        total: Number of items, for the percentage and the remaining time.

    Yields:
        The items, unchanged.
    """
    if sys.stderr.isatty():
        yield from _track_bar(items, what, total)
    else:
        yield from _track_lines(items, what, total)


def _track_bar(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        for item in items:
            yield item
            progress.advance(task)


def _track_lines(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    log = get_logger("progress")
    started = told = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - told >= _LINE_EVERY_S and done < total:
            told = now
            rate = done / (now - started)
            left = duration((total - done) / rate)
            log.info(
                "%-10s %s/%s (%.0f %%) %.1f/s, %s left", what, f"{done:,}", f"{total:,}", 100 * done / total, rate, left
            )
