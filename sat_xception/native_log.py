"""Keep what libraries log in C++ off the user's terminal, unless they ask for it.

TensorFlow and others write to file descriptor 2 themselves: partly before they read a setting, and again in each child
process. So while a step runs, a small process reads file descriptor 2 of this one and its children, and passes on all
lines but those. It outlives a crash: then the reason is shown, and the lines that were held back before it.

That process runs this file as a program, so nothing here imports more than the standard library.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

__all__ = [
    "LibraryLog",
    "filtered",
    "is_filtered",
    "set_library_level",
    "show_held",
    "shows_library_logs",
]

# TensorFlow's own variable, which children inherit.
_LEVEL_ENV = "TF_CPP_MIN_LOG_LEVEL"
_EVERYTHING, _FATAL_ONLY = "0", "3"
# Device and inode of the pipe to the filter, so that children know that their stderr is filtered.
_FILTER_ENV = "SAT_XCEPTION_STDERR_FILTER"
# Requests to the filter, in the stream that it reads.
_SHOW, _ENDED_WELL = b"\0show\n", b"\0ended well\n"
_HELD_LINES = 100
_EXIT_S, _POLL_S = 5.0, 0.005

_LIBRARY_LOG = re.compile(
    # 2026-11-30 18:20:20.123456: I external/local_xla/xla/tsl/cuda/cudart_stub.cc:31] Could not find cuda drivers
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWE] "
    # I0000 00:00:1780000000.123456   12345 port.cc:153] oneDNN custom operations are on.
    r"|[IWE]\d{4} \d\d:\d\d:\d+\.\d+ +\d+ \S+:\d+\] "
    r"|WARNING: All log messages before absl::InitializeLog\(\) is called"
    # Second line of TensorFlow's note on the processor.
    r"|To enable the following instructions: "
    # Loggers of Python libraries without a handler of their own.
    r"|(DEBUG|INFO|WARNING):(absl|tensorflow|root|apache_beam[\w.]*):"
)
_PYTHON_WARNING = re.compile(r"\S.*:\d+: (\w+\.)*\w*Warning: ")
_FATAL = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: F |F\d{4} \d\d:\d\d:\d+\.\d+ |Fatal Python error: |terminate called "
)


class LibraryLog:
    """Tells lines of libraries' logs below fatal errors, and warnings of Python, from the other lines of a stream.

    Examples:
        >>> log = LibraryLog()
        >>> log.has("I0000 00:00:1780000000.123456   12 port.cc:153] oneDNN custom operations are on.")
        True
        >>> log.has("F0000 00:00:1780000000.123456   12 cpu.cc:9] The library was compiled to use AVX")
        False
        >>> log.has("wrote     model/model.keras")
        False
    """

    def __init__(self) -> None:
        """Start at the beginning of a stream."""
        self._in_warning = False

    def has(self, line: str) -> bool:
        """Whether the stream's next line is one of them."""
        source_of_warning = self._in_warning and line.startswith("  ")
        self._in_warning = bool(_PYTHON_WARNING.match(line))
        return self._in_warning or source_of_warning or bool(_LIBRARY_LOG.match(line))


def set_library_level(verbose: bool = False) -> None:
    """Set the level of TensorFlow's log, here and in child processes: everything, or fatal errors unless it is set."""
    if verbose:
        os.environ[_LEVEL_ENV] = _EVERYTHING
    os.environ.setdefault(_LEVEL_ENV, _FATAL_ONLY)


def shows_library_logs() -> bool:
    """Whether the user asked for the logs of libraries, with `--verbose` or TensorFlow's variable."""
    return os.environ.get(_LEVEL_ENV) == _EVERYTHING


def is_filtered() -> bool:
    """Whether file descriptor 2 leads through a filter, of this process or of a parent."""
    return os.environ.get(_FILTER_ENV) == _identity(2)


@contextlib.contextmanager
def filtered(until_exit: bool = False) -> Iterator[None]:
    """Filter what libraries log in C++ while the block runs, in child processes too.

    `sys.stderr` writes past the filter meanwhile, so that it is a terminal where it was one.

    Args:
        until_exit: Whether the filter stays after the block, until the process ends.
    """
    set_library_level()
    if shows_library_logs() or sys.stderr is None or is_filtered():
        yield
        return
    shown, python_stderr = os.dup(2), sys.stderr
    process = _start(shown)
    if process is None:
        os.close(shown)
        yield
        return
    os.environ[_FILTER_ENV] = _identity(2)
    unfiltered = open(
        shown, "w", buffering=1, encoding=python_stderr.encoding, errors="backslashreplace", closefd=False
    )
    if _leads_to(python_stderr, 2):
        sys.stderr = unfiltered
    try:
        yield
    except Exception:
        show_held()
        raise
    finally:
        _request(_ENDED_WELL)
        if not until_exit:
            sys.stderr = python_stderr
            os.dup2(shown, 2)
            del os.environ[_FILTER_ENV]
            unfiltered.close()
            os.close(shown)
            _wait(process)


def show_held() -> None:
    """Show the last lines that were held back: a child process crashed, or an error has no message of ours."""
    if is_filtered():
        _request(_SHOW)


def _start(shown: int) -> int | None:
    """Start the filter between file descriptor 2 and `shown`; None if no process can be started here."""
    sys.stderr.flush()
    reader, writer = os.pipe()
    # Isolated and without site-packages, it starts in 20 ms.
    command = [sys.executable, "-I", "-S", __file__]
    places = [(os.POSIX_SPAWN_DUP2, reader, 0), (os.POSIX_SPAWN_DUP2, shown, 1), (os.POSIX_SPAWN_DUP2, shown, 2)]
    try:
        process = os.posix_spawn(sys.executable, command, os.environ, file_actions=places)
    except OSError:
        return None
    else:
        os.dup2(writer, 2)
        return process
    finally:
        os.close(reader)
        os.close(writer)


def _wait(process: int) -> None:
    until = time.monotonic() + _EXIT_S  # a child that still runs holds the pipe open
    while os.waitpid(process, os.WNOHANG) == (0, 0) and time.monotonic() < until:
        time.sleep(_POLL_S)


def _identity(descriptor: int) -> str:
    status = os.fstat(descriptor)
    return f"{status.st_dev}:{status.st_ino}"


def _leads_to(stream: TextIO, descriptor: int) -> bool:
    try:
        return stream.fileno() == descriptor
    except (OSError, ValueError):  # a notebook's or a test's
        return False


def _request(what: bytes) -> None:
    with contextlib.suppress(OSError):
        os.write(2, what)


class _Filter:
    """Takes lines and writes those that are for the user; keeps the last of the others."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._held: collections.deque[bytes] = collections.deque(maxlen=_HELD_LINES)
        self._library_log = LibraryLog()

    def take(self, line: bytes) -> None:
        """Take a line, with its end."""
        text = line.decode("utf-8", "replace")
        if line.endswith(_ENDED_WELL):
            self._pass_on(line.removesuffix(_ENDED_WELL))
            self._held = collections.deque(maxlen=0)
        elif line.endswith(_SHOW):
            self._pass_on(line.removesuffix(_SHOW))
            self.show_held()
        elif self._library_log.has(text):
            self._held.append(line)
        else:
            if _FATAL.match(text):
                self.show_held()
            self._pass_on(line)

    def show_held(self) -> None:
        """Write the lines that were held back."""
        self._pass_on(b"".join(self._held))
        self._held.clear()

    def _pass_on(self, data: bytes) -> None:
        if data:
            self._write(data)


def _main() -> None:
    """Filter stdin to stderr until all writers have ended."""
    # The writers' last lines come after a signal to all.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    lines = _Filter(lambda data: os.write(2, data))
    with contextlib.suppress(BrokenPipeError), open(0, "rb") as source:
        for line in source:
            lines.take(line)
        lines.show_held()  # there are none if the process ended well


if __name__ == "__main__":
    _main()
