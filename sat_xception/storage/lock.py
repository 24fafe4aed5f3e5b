"""Locks between processes of one machine, which the system lets go of when their process ends, however it ends.

Where a file system has no locks, a lock that keeps results whole is refused with an error; one that only helps to clean
up counts as held by somebody else.
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
    """Hold a lock file, which is made if need be and stays, for the length of a block.

    Args:
        path: The lock file, in a folder that exists.
        held: The error's message where another process holds it; None to wait.
        place: What the error names where the file can't be written. Default: the lock file.
        advice: What to do where the disk is full or read-only.

    Raises:
        ConfigError: Another process holds it, it can't be written, or the file system has no locks.
        ServiceError: The disk is full or read-only.

    Example:
        with file_lock(out / ".lock", f"another run is writing {out}; wait for it, or name another --out"):
            write(out)
    """
    try:
        # As `open(path, "a")` does, for a file system's quota and access lists to apply; what is in it stays.
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
    """Lock an open file or folder until its last descriptor is closed.

    Args:
        descriptor: Its descriptor.
        wait: Whether to wait for a process that holds it.

    Returns:
        Whether it is locked: not where another process holds it, nor where the file system has no locks.
    """
    try:
        return lock_descriptor(descriptor, blocking=wait)
    except OSError:
        return False
