"""Results in a bucket: written next to the earlier one; a small pointer object, written last, selects the current one.

A bucket has no folders to rename. So the files of a result are objects below a name of their own,

    gs://bucket/path/1764000000000000-3f9c2a81d0e41b22/dataset.json, …/tiles-00000-of-00001.parquet, …
    gs://bucket/path/published.json

and `published.json` names the folder of the current result, with the size and SHA-256 of every file. It is replaced
atomically, and only if it hasn't changed since the work began. The folder's name contains the version of the pointer at
that time and a digest of the files, so if the work is repeated, an interrupted upload is resumed. The pointer also
contains a random id: in many stores an object's version is a digest of its content, and each write must have another
version.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sat_xception.errors import ConfigError, DataError, ServiceError
from sat_xception.log import get_logger, track
from sat_xception.storage.address import RemotePath
from sat_xception.storage.files import folder_digests, json_text
from sat_xception.storage.parallel import in_parallel
from sat_xception.storage.store import ConflictError, Store, version_tag

__all__ = ["POINTER", "PendingResult", "ResultPointer", "begin_result", "is_inside", "read_pointer"]

_log = get_logger(__name__)
POINTER = "published.json"
_FOLDER = re.compile(r"(\d+|[0-9a-f]{16})-[0-9a-f]{16}")


@dataclass(frozen=True)
class ResultPointer:
    """Content of `published.json`.

    Attributes:
        address: Address of the result.
        version: Version of the object `published.json`; "" if it doesn't exist.
        folder: Name of the folder with the result's files; "" if there is no result.
        files: `{"size", "sha256"}` of every file, by its path below the folder.
    """

    address: RemotePath
    version: str = ""
    folder: str = ""
    files: dict[str, Any] | None = None

    def __contains__(self, path: str) -> bool:
        """Return whether the result has a file."""
        return path in (self.files or {})


@dataclass(frozen=True)
class PendingResult:
    """A result that is about to be written to a bucket.

    Attributes:
        store: The bucket.
        earlier: The pointer when the work began.
        leftovers: Objects of abandoned results, and of the result that this one replaces: size by name.
    """

    store: Store
    earlier: ResultPointer
    leftovers: dict[str, int]

    def publish(self, folder: Path) -> None:
        """Upload every file of a folder, then make them the current result, then remove other results.

        Raises:
            ServiceError: The bucket failed for too long, or another run published here meanwhile.
        """
        address = self.earlier.address
        digests = folder_digests(folder)
        digest = hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:16]
        if self.earlier.folder.endswith(f"-{digest}"):
            _log.info("publish   %s holds this very result already", address)
            self._remove({name for name in self.leftovers if not name.startswith(self._name(self.earlier.folder))})
            return
        name = f"{version_tag(self.earlier.version)}-{digest}"
        files = {path: {"size": (folder / path).stat().st_size, "sha256": sha256} for path, sha256 in digests.items()}
        with self.store.reporting("write", address):
            self._upload(folder, name, files)
            self._point_to(name, files)
        self._remove({left for left in self.leftovers if not left.startswith(self._name(name))})

    def _name(self, *parts: str) -> str:
        return "/".join((self.earlier.address.object, *parts)) + ("/" if len(parts) == 1 else "")

    def _upload(self, folder: Path, name: str, files: dict[str, Any]) -> None:
        wanted = [p for p, facts in files.items() if self.leftovers.get(self._name(name, p)) != facts["size"]]

        def upload(path: str) -> None:
            self.store.put(self._name(name, path), folder / path)

        size = sum(files[path]["size"] for path in wanted)
        _log.info(
            "publish   %s: %s files, %.1f MB%s",
            self.earlier.address,
            f"{len(wanted):,}",
            size / 1e6,
            f" ({len(files) - len(wanted):,} more are there already)" if len(wanted) < len(files) else "",
        )
        for _ in track(in_parallel(upload, wanted), "publish", len(wanted)):
            pass

    def _point_to(self, name: str, files: dict[str, Any]) -> None:
        address = self.earlier.address
        text = json_text({"folder": name, "files": files, "id": uuid.uuid4().hex})
        try:
            self.store.put(f"{address.object}/{POINTER}", text.encode(), expected=self.earlier.version)
        except ConflictError:
            # An answer that got lost is asked for again, and finds our own work done; else somebody was faster.
            if read_pointer(self.store, address).folder != name:
                self._remove({f"{self._name(name, path)}" for path in files})
                raise ServiceError(
                    f"somebody else published to {address} while this ran, and theirs was kept. Run again to replace "
                    "it, or name another --out"
                ) from None

    def _remove(self, names: set[str]) -> None:
        """Remove objects; those that can't be removed are left to the next run."""
        try:
            with self.store.reporting("write", self.earlier.address):
                for _ in in_parallel(self.store.delete, sorted(names)):
                    pass
        except (ServiceError, ConfigError) as error:
            _log.warning("publish   left %d old objects for the next run to remove: %s", len(names), error)


def begin_result(store: Store, address: RemotePath, records: tuple[str, ...]) -> PendingResult:
    """Check the address of a result in a bucket before the work starts.

    Args:
        store: The bucket of the address.
        address: Address of the result.
        records: Files by which an earlier result is recognised; it may be replaced if it contains one of them.

    Raises:
        ConfigError: There is no such bucket, or something else is at the address.
        ServiceError: The bucket can't be read or written.
    """
    with store.reporting("write", address):
        earlier = read_pointer(store, address)
        if earlier.folder and not any(record in earlier for record in records):
            raise _in_the_way(address, next(iter(earlier.files or {}), "nothing"))
        leftovers = {}
        for found in store.list(f"{address.object}/"):
            first = found.name.removeprefix(f"{address.object}/").partition("/")[0]
            if _FOLDER.fullmatch(first):
                leftovers[found.name] = found.size
            elif not earlier.folder and first:
                raise _in_the_way(address, first)
        store.prepare(address.object)
        _check_writable(store, f"{address.object}/{version_tag(earlier.version)}-{'0' * 16}/check")
    return PendingResult(store, earlier, leftovers)


def _in_the_way(address: RemotePath, found: str) -> ConfigError:
    return ConfigError(f"--out {address} isn't an earlier result of this step (it holds {found!r}); name a new folder")


def _check_writable(store: Store, name: str) -> None:
    """Write and remove an object, so that a missing permission is found now and not after hours of work."""
    store.put(name, b"", patient=False)
    store.delete(name)


def read_pointer(store: Store, address: RemotePath) -> ResultPointer:
    """Return the pointer at an address; the caller translates the library's errors.

    Raises:
        DataError: `published.json` is damaged.
    """
    found = store.read_version(f"{address.object}/{POINTER}")
    if found is None:
        return ResultPointer(address)
    text, version = found
    try:
        content = json.loads(text)
        folder, files = content["folder"], content["files"]
        sound = _FOLDER.fullmatch(folder) and all(
            isinstance(facts["size"], int) and isinstance(facts["sha256"], str) and is_inside(path)
            for path, facts in files.items()
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise DataError(f"{address}/{POINTER} is damaged; remove it, and run the step that writes to {address} again")
    return ResultPointer(address, version, folder, files)


def is_inside(path: str) -> bool:
    """Return whether a file of this name stays inside the folder that it is fetched to."""
    return not path.startswith("/") and bool(path) and ".." not in PurePosixPath(path).parts
