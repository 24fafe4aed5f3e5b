"""Logging and progress: a progress bar on a terminal, plain lines elsewhere.

Everything here goes to stderr; stdout is reserved for a step's summary.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from sat_xception.native_log import is_filtered, set_library_level, show_held, shows_library_logs

__all__ = ["duration", "get_logger", "quiet_imports", "set_up_logging", "track"]

T = TypeVar("T")
_LINE_EVERY_S = 5.0
# An estimate needs this much work after the first item.
_ENOUGH_S = 1.0
_ENOUGH_ITEMS = 3
# Items that are done so soon after the first one came with it.
_TOGETHER_S = 0.1


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


def set_up_logging(verbose: bool = False) -> None:
    """Send the package's log to stderr, one line per message.

    Args:
        verbose: Whether to show debug messages, and what libraries log in C++, here and in child processes.
    """
    set_library_level(verbose)
    root = logging.getLogger("sat_xception")
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    # The host may log the root logger, as kfp's executor does; don't propagate, or every line appears twice.
    printed = {id(getattr(handler, "stream", None)) for handler in logging.getLogger().handlers}
    root.propagate = printed.isdisjoint({id(sys.stdout), id(sys.stderr)})
    if not root.handlers:
        handler = _StderrHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        root.addHandler(handler)


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Suppress what libraries print to stderr while modules are imported, unless their logs are shown.

    TensorFlow's print a dozen lines before they read their log settings. If the import fails, the output is shown.
    """
    if shows_library_logs():
        yield
    elif is_filtered():  # which also shows the reason if an import ends the process
        with _holding_python_output():
            yield
    else:
        with _holding_output():
            yield


@contextlib.contextmanager
def _holding_python_output() -> Iterator[None]:
    held, stderr = io.StringIO(), sys.stderr
    try:
        with contextlib.redirect_stderr(held):
            yield
    except BaseException:
        show_held()
        print(held.getvalue(), end="", file=stderr, flush=True)
        raise


@contextlib.contextmanager
def _holding_output() -> Iterator[None]:
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


class _Pace:
    """Rate of the work so far, and the time left at this rate.

    The first item's time is start-up: a connection, a model that is loaded. What comes together with it, such as the
    tiles of a whole shard or those that an earlier run finished, counts as done but not as work.
    """

    def __init__(self, total: int) -> None:
        self.done = 0
        self._total = total
        self._first = self._begun = self._last = 0.0
        self._before = 0

    def advance(self) -> float:
        """Count an item; return the time."""
        now = time.monotonic()
        self.done += 1
        if self.done == 1:
            self._first = now
        if now - self._first <= _TOGETHER_S:
            self._begun, self._before = now, self.done
        self._last = now
        return now

    def rate(self) -> float | None:
        """Return the items per second; None until there was enough work to tell."""
        work, seconds = self.done - self._before, self._last - self._begun
        return work / seconds if work >= _ENOUGH_ITEMS and seconds >= _ENOUGH_S else None

    def seconds_left(self) -> float | None:
        """Return the estimate of the remaining time; None until there was enough work to tell."""
        rate = self.rate()
        return max(0, self._total - self.done) / rate if rate else None


class _TimeLeft(ProgressColumn):
    """Column of a progress bar with the remaining time, once there is an estimate."""

    max_refresh = 0.5

    def __init__(self, pace: _Pace) -> None:
        super().__init__()
        self._pace = pace

    def render(self, task: Task) -> Text:
        left = self._pace.seconds_left()
        return Text("" if left is None or task.finished else f"{duration(left)} left")


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
    pace = _Pace(total)
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        _TimeLeft(pace),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        for item in items:
            yield item
            pace.advance()
            progress.advance(task)


def _track_lines(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    log = get_logger("progress")
    pace, told = _Pace(total), time.monotonic()
    for item in items:
        yield item
        now = pace.advance()
        if now - told >= _LINE_EVERY_S and pace.done < total:
            told = now
            counts = f"{what:<10} {pace.done:,}/{total:,} ({100 * pace.done / total:.0f} %)"
            rate, left = pace.rate(), pace.seconds_left()
            log.info("%s", counts if rate is None or left is None else f"{counts} {rate:.1f}/s, {duration(left)} left")
