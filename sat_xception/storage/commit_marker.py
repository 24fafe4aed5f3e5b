"""Folders in a bucket with a commit marker: readers treat a folder as absent until its marker object exists.

TensorFlow Serving and KServe read all files below a version's folder, so a `published.json` can't select some of them.
Instead, one of the folder's own files, the marker, is written last and removed first.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from sat_xception.errors import ConfigError
from sat_xception.log import get_logger, track
from sat_xception.storage.address import RemotePath
from sat_xception.storage.parallel import in_parallel
from sat_xception.storage.store import ConflictError, Store, open_store

__all__ = [
    "check_writable",
    "is_committed",
    "marked_below",
    "prepare_upload",
    "remove_committed",
    "upload_with_marker",
]

_log = get_logger(__name__)


def is_committed(address: RemotePath, marker: str) -> bool:
    """Return whether a folder is complete.

    Raises:
        ConfigError: There is no such bucket.
        ServiceError: The bucket can't be read.
    """
    with open_store(address) as store, store.reporting("read", address):
        return store.find(f"{address.object}/{marker}") is not None


def marked_below(address: RemotePath, marker: str) -> list[RemotePath]:
    """Return the complete folders directly below an address, by name.

    Raises:
        ConfigError: There is no such bucket.
        ServiceError: The bucket can't be read.
    """
    with open_store(address) as store, store.reporting("read", address):
        paths = _paths(store, address)
    names = sorted(path.split("/")[0] for path in paths if path.split("/")[1:] == [marker])
    return [address / name for name in names]


def prepare_upload(address: RemotePath) -> None:
    """Find out, before a folder is made, whether it can be uploaded safely.

    Raises:
        ConfigError: There is no such bucket.
        ServiceError: The bucket can't be read or written.
    """
    with open_store(address) as store, store.reporting("write", address):
        store.prepare(address.object)


def check_writable(address: RemotePath, timeout_s: float) -> None:
    """Write and remove an object below an address, without retries, so that a missing permission is found at once.

    Raises:
        ConfigError: There is no such bucket.
        ServiceError: The bucket can't be reached or written.
    """
    name = f"{address.object}/check-{uuid.uuid4().hex}"
    with open_store(address, retries=False, timeout_s=timeout_s) as store, store.reporting("write", address):
        store.put(name, b"", patient=False)
        store.delete(name)


def upload_with_marker(folder: Path, address: RemotePath, last: tuple[str, ...]) -> None:
    """Upload a folder atomically; remains of an interrupted upload are replaced.

    Args:
        folder: Local folder to upload.
        address: Address of the folder in the bucket.
        last: Files of the folder that are uploaded after all others, in this order; the last one is the marker.

    Raises:
        ConfigError: There is no such bucket, or the folder there is complete already.
        ServiceError: The bucket can't be written.
    """
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    first = [path for path in paths if path not in last]
    with open_store(address) as store, store.reporting("write", address):

        def upload(path: str) -> None:
            store.put(f"{address.object}/{path}", folder / path)

        size = sum((folder / path).stat().st_size for path in paths)
        _log.info("publish   %s: %s files, %.1f MB", address, f"{len(paths):,}", size / 1e6)
        left = set(_paths(store, address))
        if last[-1] in left:
            raise ConfigError(f"{address} is there already, and never changes; name another address")
        _remove(store, address, left - set(paths))
        for _ in track(in_parallel(upload, first), "publish", len(first)):
            pass
        for path in last[:-1]:
            upload(path)
        try:
            store.put(f"{address.object}/{last[-1]}", folder / last[-1], expected="")
        except ConflictError:
            # An answer that got lost is asked for again, and finds our own marker.
            if store.read(f"{address.object}/{last[-1]}") != (folder / last[-1]).read_bytes():
                raise ConfigError(f"somebody else published {address} while this ran; name another address") from None


def remove_committed(address: RemotePath, marker: str) -> None:
    """Remove a folder: its marker first, so that an interrupted removal leaves no folder that seems complete.

    Raises:
        ConfigError: There is no such bucket.
        ServiceError: The bucket can't be written.
    """
    with open_store(address) as store, store.reporting("write", address):
        store.delete(f"{address.object}/{marker}")
        _remove(store, address, set(_paths(store, address)))


def _paths(store: Store, address: RemotePath) -> list[str]:
    below = f"{address.object}/"
    return [found.name.removeprefix(below) for found in store.list(below)]


def _remove(store: Store, address: RemotePath, paths: set[str]) -> None:
    for _ in in_parallel(store.delete, sorted(f"{address.object}/{path}" for path in paths)):
        pass
