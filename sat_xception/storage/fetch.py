"""Make a step's inputs local: files and folders in a bucket are downloaded once, and cached."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from sat_xception.clock import utc_now
from sat_xception.errors import ConfigError, DataError, ServiceError
from sat_xception.log import get_logger, track
from sat_xception.storage.address import GcsPath, RemotePath, Stored, is_address, is_remote, remote_path, stored_path
from sat_xception.storage.files import file_digest
from sat_xception.storage.parallel import in_parallel
from sat_xception.storage.pointer import ResultPointer, is_inside, read_pointer
from sat_xception.storage.scratch import scratch_folder
from sat_xception.storage.store import (
    AbsentError,
    Store,
    is_of_a_file,
    open_store,
    short_digest,
    version_tag,
)
from sat_xception.storage.writing import disk_errno

__all__ = ["fetch_file", "fetch_folder", "fetch_settings", "local_file", "local_folder"]

_log = get_logger(__name__)
# A result that is replaced while it is read is read again from its beginning, but not forever.
_TRIES = 3
# Downloads that no run asked for in this time are removed; no run takes as long.
_KEPT_S = 30 * 86_400


@dataclass(frozen=True)
class _Object:
    """An object to download.

    Attributes:
        path: Where it goes, below the folder.
        name: Its name in the bucket.
        size: In bytes.
        version: Version of the object; "" where its name is written only once.
        sha256: What its content must have; "" if not known.
    """

    path: str
    name: str
    size: int
    version: str = ""
    sha256: str = ""


def fetch_settings(config: BaseModel) -> dict[str, object]:
    """Return local paths for the settings with inputs in a bucket; see `Stored`."""
    local: dict[str, object] = {}
    for name, field in type(config).model_fields.items():
        marks = [mark for mark in field.metadata if isinstance(mark, Stored) and mark.kind in ("folder", "file")]
        value = getattr(config, name)
        values = value if isinstance(value, tuple) else (value,)
        if marks and any(map(is_address, values)):
            here = tuple(_fetch(item, marks[0]) if is_address(item) else item for item in values)
            local[name] = here if isinstance(value, tuple) else here[0]
    return local


def _fetch(value: Path | str, mark: Stored) -> Path | str:
    address = remote_path(value)
    if address is None:
        return value
    path = fetch_file(str(address)) if mark.kind == "file" else fetch_folder(address, mark.record, only=mark.only)
    return str(path) if isinstance(value, str) else path


def local_folder(path: Path, record: str = "", may_be_absent: bool = False) -> Path:
    """Return a folder on this machine: the folder itself, or a download of one in a bucket; see `fetch_folder`.

    Args:
        path: Local folder, which isn't checked, or address in a bucket.
        record: File that a folder in a bucket must contain; "" for none.
        may_be_absent: Return an empty folder if there is nothing at the address, instead of an error.

    Raises:
        ConfigError: There is nothing at the address, or the cache can't be written.
        DataError: The record isn't there, or the folder can't be read as files.
        ServiceError: The bucket can't be read.
    """
    return fetch_folder(path, record, may_be_absent=may_be_absent) if is_remote(path) else path


def local_file(path: Path) -> Path:
    """Return a file on this machine: the file itself, which isn't checked, or a download of one in a bucket.

    Raises:
        ConfigError: There is no such object, or the cache can't be written.
        ServiceError: The bucket can't be read.
    """
    return fetch_file(str(path)) if is_remote(path) else path


def fetch_file(uri: str, cache: Path | None = None) -> Path:
    """Return a local path of a file that is named by a path or the address of an object, as `gs://bucket/object`.

    Args:
        uri: Local path, or object in a bucket, also one inside a published result. Credentials are the environment's
            own.
        cache: Folder for downloads. Default: `sat-xception` in the user's cache folder.

    Returns:
        Path of the file. A download that is complete and unchanged (same version) is used again.

    Raises:
        ConfigError: There is no such file or object, the provider's library isn't installed, or the cache can't be
            written.
        ServiceError: The bucket can't be read.
    """
    address = stored_path(uri)
    if not is_remote(address):
        path = address.expanduser()
        if not path.is_file():
            raise ConfigError(f"no file at {uri} (seen from {Path.cwd()})")
        return path
    if not address.bucket or not address.object or uri.endswith("/") or uri.startswith(f"{address.scheme}/"):
        raise ConfigError(f"{uri} names no object; expected {address.scheme}bucket/path/to/file")
    cache = cache or _cache_folder()
    with open_store(address) as store, store.reporting("read", address):
        found = _find_object(store, address)
        # A version tells the contents of one object apart, not objects: two may share theirs and a part of the name.
        version = version_tag(found.version) if found.version else found.sha256[:16]
        folder = cache / _place(address) / short_digest(found.name) / version
        if not (folder / found.path).is_file():
            _log.info("fetching  %s (%.1f MB)", address, found.size / 1e6)
        with _room_for(address, cache):
            _download(store, found, folder, cache)
            _note_use(folder, cache)
    return folder / found.path


def _find_object(store: Store, address: RemotePath) -> _Object:
    known = store.find(address.object)
    if known is not None:
        return _Object(address.name, known.name, known.size, known.version)
    for parent in list(address.parents)[:-2]:
        published = read_pointer(store, parent) if parent.object else None
        path = str(address).removeprefix(f"{parent}/")
        if published and path in published:
            found = next(item for item in _published_objects(published) if item.path == path)
            return _Object(address.name, found.name, found.size, "", found.sha256)
    raise ConfigError(f"no object at {address}; list what is there with: {store.list_command()}")


def fetch_folder(
    address: RemotePath,
    record: str = "",
    cache: Path | None = None,
    may_be_absent: bool = False,
    only: tuple[str, ...] = (),
) -> Path:
    """Return a local folder with everything below an address.

    A result of `atomic_folder` is read through its `published.json`, so it is always complete. For other folders, every
    object that is listed is downloaded.

    Args:
        address: The folder.
        record: File that must be in it; "" for none.
        cache: Folder for downloads. Default: `sat-xception` in the user's cache folder.
        may_be_absent: Return an empty folder if there is nothing at the address, instead of an error.
        only: Files to download. Default: all.

    Returns:
        A folder with the name of the one in the bucket. Files that an earlier call finished are used again.

    Raises:
        ConfigError: There is nothing at the address, or the cache can't be written.
        DataError: The record isn't there, or the folder can't be read as files.
        ServiceError: The bucket can't be read, or changes all the time.
    """
    cache = cache or _cache_folder()
    with open_store(address) as store, store.reporting("read", address):
        for _ in range(_TRIES):
            published = read_pointer(store, address)
            objects = _published_objects(published) if published.folder else _listed_objects(store, address)
            if objects or not may_be_absent:
                _check_objects(store, address, objects, record)
            version = published.folder or short_digest(*(f"{item.name}\0{item.version}" for item in objects))
            folder = cache / _place(address) / short_digest(address.object) / version / address.name
            try:
                with _room_for(address, cache):
                    folder.mkdir(parents=True, exist_ok=True)
                    wanted = [item for item in objects if not only or item.path in only]
                    _download_all(store, wanted, folder, address, cache)
                    _note_use(folder.parent, cache)
                return folder
            except AbsentError:
                _log.info("fetching  %s changed while it was read; once more", address)
    raise ServiceError(f"{address} changed while it was read, {_TRIES} times; run again when nothing writes to it")


def _published_objects(published: ResultPointer) -> list[_Object]:
    below = f"{published.address.object}/{published.folder}"
    files = (published.files or {}).items()
    return [_Object(path, f"{below}/{path}", facts["size"], "", facts["sha256"]) for path, facts in files]


def _listed_objects(store: Store, address: RemotePath) -> list[_Object]:
    below = f"{address.object}/"
    return [
        _Object(found.name.removeprefix(below), found.name, found.size, found.version)
        for found in store.list(below)
        if not found.name.endswith("/")  # Consoles make such objects to show an empty folder.
    ]


def _check_objects(store: Store, address: RemotePath, objects: list[_Object], record: str) -> None:
    if not objects:
        raise ConfigError(f"nothing at {address}; list what is there with: {store.list_command()}")
    if record and not any(item.path == record for item in objects):
        raise DataError(f"{address}/{record} is missing; give the folder that the step which writes {record} made")
    for item in objects:
        if not is_inside(item.path):
            raise DataError(f"{store.address_of(item.name)} would be written outside its folder; rename it")


def _download_all(store: Store, objects: list[_Object], folder: Path, address: RemotePath, cache: Path) -> None:
    missing = [item for item in objects if not (folder / item.path).is_file()]
    if not missing:
        return
    _log.info("fetching  %s: %s files, %.1f MB", address, f"{len(missing):,}", sum(x.size for x in missing) / 1e6)
    downloads = in_parallel(lambda item: _download(store, item, folder, cache), missing)
    for _ in track(downloads, "fetching", len(missing)):
        pass


def _download(store: Store, item: _Object, folder: Path, cache: Path) -> None:
    """Download an object atomically, unless the file exists."""
    target = folder / item.path
    if target.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not beside the file: whoever lists the folder would take it for one of its files.
    (cache / ".partial").mkdir(exist_ok=True)
    with scratch_folder("download-", cache / ".partial") as folder:
        partial = folder / "file"
        store.download(item.name, partial, item.version)
        if item.sha256 and file_digest(partial) != item.sha256:
            raise DataError(f"{store.address_of(item.name)} isn't what was published; run the step that wrote it again")
        os.replace(partial, target)


def _note_use(version: Path, cache: Path) -> None:
    """Mark a version as used now, and remove those not used for long: `<bucket>/<address>/<version>`."""
    os.utime(version)
    for old in cache.glob("[!.]*/*/*"):
        if utc_now().timestamp() - old.stat().st_mtime > _KEPT_S:
            shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _room_for(address: RemotePath, cache: Path) -> Iterator[None]:
    """Turn errors from writing to the cache into ours."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if not is_of_a_file(error):
            raise
        full = disk_errno(error) is not None
        kind, advice = (ServiceError, "free some, or set") if full else (ConfigError, "set")
        raise kind(
            f"can't keep {address} in {cache}: {error.strerror}; {advice} $XDG_CACHE_HOME to a "
            f"{'folder on another disk' if full else 'writable folder'}"
        ) from None


def _cache_folder() -> Path:
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sat-xception"
    except RuntimeError:
        raise ConfigError(
            "there is no home folder to keep downloads in; set $XDG_CACHE_HOME to a writable folder"
        ) from None


def _place(address: RemotePath) -> str:
    """Return the name of a bucket in the cache; buckets of two providers may share a name."""
    return address.bucket if isinstance(address, GcsPath) else f"{address.scheme.removesuffix('//')}{address.bucket}"
