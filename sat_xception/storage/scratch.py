"""Temporary folders that are gone when their work is, and those of killed runs when the next one begins.

A run holds a lock on its folder, which the system lets go of when the run ends, however it ends. Where a folder is
shared between machines the locks may not be, so the name holds the machine's mark: those of others are old before they
are removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sat_xception.log import get_logger

__all__ = ["new_folder", "scratch_folder", "sweep"]

_log = get_logger(__name__)
_OLD_S = 24 * 3600
_RANDOM = "[a-z0-9_]{8}"


@contextlib.contextmanager
def scratch_folder(prefix: str = "sat-xception-", parent: Path | None = None) -> Iterator[Path]:
    """Yield an empty folder, which is removed afterwards; what killed runs left of the same name is removed first.

    Args:
        prefix: What its name begins with.
        parent: Where it is. Default: the system's folder for temporary files.

    Raises:
        OSError: It can't be made.
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
        # Another run may have taken it for one that nobody has, before the lock was.
        if folder.exists():
            return folder, lock
        if lock is not None:
            os.close(lock)


def new_folder(prefix: str, parent: Path) -> Path:
    """Make an empty folder that `sweep` removes one day, if nobody else does.

    Raises:
        OSError: It can't be made.
    """
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{_mark()}-", dir=parent))


def sweep(parent: Path, prefix: str) -> None:
    """Remove the folders of runs that are no more; what can't be removed is left."""
    name = re.compile(re.escape(prefix) + r"(?P<machine>[0-9a-f]{6})-" + _RANDOM)
    try:
        found = [Path(entry) for entry in os.scandir(parent) if entry.name.startswith(prefix)]
    except OSError:
        return
    for folder in found:
        match = name.fullmatch(folder.name)
        if match and _is_ours(folder) and _is_left(folder, match["machine"] == _mark()):
            _log.info("removed   %s, which a run that was killed had left", folder)


def _is_ours(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.getuid()
    return False


def _is_left(folder: Path, of_this_machine: bool) -> bool:
    """Remove a folder that nobody works in; return whether it is gone."""
    lock = _locked(folder)
    try:
        if (lock is None or not of_this_machine) and not _is_old(folder):
            return False
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()
    finally:
        if lock is not None:
            os.close(lock)


def _locked(folder: Path, wait: bool = False) -> int | None:
    """Return an open lock on a folder; None where another process has it, or the file system has no locks."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(lock)
        return None
    return lock


def _is_old(folder: Path) -> bool:
    """Return whether nothing in a folder was changed for a day."""
    newest = 0.0
    for place, _, files in os.walk(folder):
        for path in (place, *(os.path.join(place, name) for name in files)):
            with contextlib.suppress(OSError):
                newest = max(newest, os.lstat(path).st_mtime)
    return time.time() - newest > _OLD_S


def _mark() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]
