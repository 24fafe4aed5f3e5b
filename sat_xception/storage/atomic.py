"""Read and atomically replace small files, local or in a bucket."""

from __future__ import annotations

import contextlib
from pathlib import Path

from sat_xception.errors import SatXceptionError
from sat_xception.log import get_logger
from sat_xception.storage.address import is_remote
from sat_xception.storage.store import AbsentError, ConflictError, open_store

__all__ = ["list_files", "read_stored_bytes", "remove_empty_folder", "remove_files", "write_stored_bytes"]

_log = get_logger(__name__)


def read_stored_bytes(path: Path) -> bytes | None:
    """Return the content of a file, or None if the file or the bucket doesn't exist.

    Raises:
        ConfigError: It can't be read.
        ServiceError: The bucket can't be read.
    """
    with open_store(path) as store, store.reporting("read", path):
        try:
            return store.read(store.name_of(path))
        except AbsentError:
            return None


def write_stored_bytes(content: bytes, path: Path, keep_earlier: bool = False) -> None:
    """Write a file atomically: readers see the old content or the new one. Parent folders are created.

    Args:
        content: Content of the file.
        path: File or address in a bucket.
        keep_earlier: Do nothing if the file exists already.

    Raises:
        ConfigError: It can't be written, or there is no such bucket.
        ServiceError: The disk is full or read-only, or the bucket can't be written.
    """
    kept = contextlib.suppress(ConflictError) if keep_earlier else contextlib.nullcontext()
    with open_store(path) as store, store.reporting("write", path), kept:
        store.put(store.name_of(path), content, expected="" if keep_earlier else None)


def list_files(folder: Path) -> list[Path]:
    """Return every file below a folder, sorted; none if the folder doesn't exist.

    Raises:
        ConfigError: There is no such bucket, or the folder can't be read.
        ServiceError: The bucket can't be read.
    """
    with open_store(folder) as store, store.reporting("read", folder):
        return sorted(store.address_of(found.name) for found in store.list(f"{store.name_of(folder)}/"))


def remove_files(folder: Path) -> None:
    """Remove a folder that isn't needed any more; files that can't be removed are logged as a warning."""
    try:
        with open_store(folder) as store, store.reporting("write", folder):
            store.delete_below(f"{store.name_of(folder)}/")
    except SatXceptionError as error:
        _log.warning("can't remove %s: %s; remove it by hand", folder, error)


def remove_empty_folder(folder: Path) -> None:
    """Remove a local folder if nothing is in it; a bucket has no empty folders."""
    if not is_remote(folder):
        with contextlib.suppress(OSError):
            folder.rmdir()
