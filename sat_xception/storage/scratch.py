"""Temporary folders and files that are removed after use; those of killed runs are removed by the next run.

A run holds a lock on its folder or file, which the system releases when the run ends, even if it is killed. In a folder
that several machines share, locks may not work between machines. So the name contains an id of the machine, and those
of other machines are removed only when they are old.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from sat_xception.clock import utc_now
from sat_xception.log import get_logger
from sat_xception.storage.lock import lock_open_file

__all__ = ["new_folder", "partial_file", "scratch_folder", "sweep"]

_log = get_logger(__name__)
_OLD_S = 24 * 3600
_MARK, _RANDOM, _PART = "(?P<machine>[0-9a-f]{6})", "[a-z0-9_]{8}", ".part"


@contextlib.contextmanager
def scratch_folder(prefix: str = "sat-xception-", parent: Path | None = None) -> Iterator[Path]:
    """Yield an empty folder, which is removed afterwards; those that killed runs left are removed first.

    Args:
        prefix: Beginning of its name.
        parent: Its parent folder. Default: the system's folder for temporary files.

    Raises:
        OSError: It can't be created.
    """
    parent = parent or Path(tempfile.gettempdir())
    sweep(parent, prefix)
    folder, lock = _made(prefix, parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _made(prefix: str, parent: Path) -> tuple[Path, int | None]:
    while True:
        folder = new_folder(prefix, parent)
        lock = _locked(folder, wait=True)
        # Before the lock, another run may have taken it for an abandoned one, and removed it.
        if folder.exists():
            return folder, lock
        if lock is not None:
            os.close(lock)


def new_folder(prefix: str, parent: Path) -> Path:
    """Create an empty folder that a later `sweep` removes, if nothing else does.

    Raises:
        OSError: It can't be made.
    """
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{_mark()}-", dir=parent))


@contextlib.contextmanager
def partial_file(path: Path, new: bool = False) -> Iterator[BinaryIO]:
    """Yield a file next to `path`, which is renamed to it if the block ends without an error, else removed.

    Files that killed runs left in the same folder are removed first, once per process.

    Args:
        path: The file to write.
        new: Whether to fail if the file exists already.

    Raises:
        FileExistsError: `new` is set, and the file exists.
        OSError: It can't be written; or `new` is set, and the file system has no hard links.
    """
    _sweep_files(path.parent)
    handle, lock, partial = _made_file(path)
    try:
        with open(handle, "wb") as file:
            yield file
        os.chmod(partial, 0o644)
        if new:
            os.link(partial, path)
            os.unlink(partial)
        else:
            os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    finally:
        os.close(lock)


def _made_file(path: Path) -> tuple[int, int, Path]:
    """Return an open file, another handle that holds its lock until both are closed, and its path."""
    while True:
        handle, name = tempfile.mkstemp(_PART, f".{path.name}-{_mark()}-", path.parent)
        lock_open_file(handle, wait=True)
        # Before the lock, another run may have taken it for an abandoned one, and removed it.
        if os.fstat(handle).st_nlink:
            return handle, os.dup(handle), Path(name)
        os.close(handle)


@functools.lru_cache(maxsize=1024)
def _sweep_files(parent: Path) -> None:
    _sweep(parent, ".", re.compile(rf"\..+-{_MARK}-{_RANDOM}{re.escape(_PART)}"), stat.S_ISREG)


def sweep(parent: Path, prefix: str) -> None:
    """Remove the folders of runs that have ended; those that can't be removed are left."""
    _sweep(parent, prefix, re.compile(f"{re.escape(prefix)}{_MARK}-{_RANDOM}"), stat.S_ISDIR)


def _sweep(parent: Path, prefix: str, name: re.Pattern[str], of_the_kind: Callable[[int], bool]) -> None:
    try:
        found = [Path(entry) for entry in os.scandir(parent) if entry.name.startswith(prefix)]
    except OSError:
        return
    for place in found:
        match = name.fullmatch(place.name)
        if match and _is_ours(place, of_the_kind) and _is_left(place, match["machine"] == _mark()):
            _log.info("removed   %s, which a run that was killed had left", place)


def _is_ours(place: Path, of_the_kind: Callable[[int], bool]) -> bool:
    with contextlib.suppress(OSError):
        found = place.lstat()
        return of_the_kind(found.st_mode) and found.st_uid == os.getuid()
    return False


def _is_left(place: Path, of_this_machine: bool) -> bool:
    """Remove a folder or file that no process uses; return whether it is gone."""
    lock = _locked(place)
    try:
        if (lock is None or not of_this_machine) and not _is_old(place):
            return False
        if place.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                place.unlink()
        return not place.exists()
    finally:
        if lock is not None:
            os.close(lock)


def _locked(place: Path, wait: bool = False) -> int | None:
    """Return an open lock on a folder or file; None if another process holds it, or without file locks."""
    try:
        lock = os.open(place, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    if lock_open_file(lock, wait):
        return lock
    os.close(lock)
    return None


def _is_old(place: Path) -> bool:
    """Return whether a file, or a folder and everything in it, wasn't changed for a day."""
    newest = 0.0
    inside = (os.path.join(folder, name) for folder, below, files in os.walk(place) for name in (*below, *files))
    for path in (str(place), *inside):
        with contextlib.suppress(OSError):
            newest = max(newest, os.lstat(path).st_mtime)
    return utc_now().timestamp() - newest > _OLD_S


def _mark() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]
