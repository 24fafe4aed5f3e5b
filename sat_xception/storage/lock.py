"""Locks between processes on one machine. The system releases a lock when its process ends, even by SIGKILL.

If the file system has no locks, `file_lock` raises an error, since results could be damaged. `lock_open_file`, which
guards temporary files, reports the file as locked by another process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import lock_descriptor

from sat_xception.errors import ConfigError
from sat_xception.storage.writing import write_error

__all__ = ["file_lock", "lock_open_file"]


@contextlib.contextmanager
def file_lock(path: Path, held: str | None, place: object = None, advice: str | None = None) -> Iterator[None]:
    """Hold a lock file while the block runs. The file is created if it doesn't exist, and is kept afterwards.

    Args:
        path: The lock file. Its folder must exist.
        held: Error message if another process holds the lock; None waits for it.
        place: Name of the output in the message if the lock file can't be written. Default: the lock file.
        advice: Advice in the message if the disk is full or read-only.

    Raises:
        ConfigError: Another process holds it, it can't be written, or the file system has no locks.
        ServiceError: The disk is full or read-only.

    Example:
        with file_lock(out / ".lock", f"another run is writing {out}; wait for it, or name another --out"):
            write(out)
    """
    try:
        # Append mode keeps the content: convert's lock file also holds the id of its run.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise write_error(error, place or path, *(() if advice is None else (advice,))) from None
    try:
        try:
            taken = lock_descriptor(descriptor, blocking=held is None)
        except OSError as error:
            raise ConfigError(
                f"can't lock {path}: {error.strerror or error}; name a folder on a file system with locks (flock)"
            ) from None
        if not taken:
            raise ConfigError(held)
        yield
    finally:
        os.close(descriptor)


def lock_open_file(descriptor: int, wait: bool = False) -> bool:
    """Lock an open file or folder until all its descriptors are closed.

    Args:
        descriptor: File descriptor of the file or folder.
        wait: Whether to wait if another process holds the lock.

    Returns:
        True if locked now; False if another process holds the lock, or the file system has no locks.
    """
    try:
        return lock_descriptor(descriptor, blocking=wait)
    except OSError:
        return False
