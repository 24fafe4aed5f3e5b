"""Folders on this machine as a store. The name of an object is the file's path."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from sat_xception.errors import ConfigError, SatXceptionError
from sat_xception.storage.lock import lock_open_file
from sat_xception.storage.scratch import partial_file
from sat_xception.storage.store import AbsentError, Advice, ConflictError, Failure, Store, StoredObject
from sat_xception.storage.writing import write_error

__all__ = ["LocalStore"]

_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


class LocalStore(Store):
    """Files on this machine. The version of a file is its inode with the time of its last change and its size."""

    advice: ClassVar[Advice] = Advice(login="", reading="", writing="", listing="ls -l")

    def find(self, name: str) -> StoredObject | None:
        """Return a file; None if there is none."""
        try:
            found = os.stat(name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return StoredObject(name, found.st_size, _version(found))

    def list(self, below: str) -> Iterator[StoredObject]:
        """Yield every file below a folder, sorted."""
        for path in sorted(path for path in Path(below).rglob("*") if path.is_file()):
            if found := self.find(str(path)):  # It may be gone by now.
                yield found

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        try:
            return Path(name).read_bytes()
        except FileNotFoundError as error:
            raise AbsentError(str(error)) from None

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Return a part of a file's content."""
        with self._opened(name) as file:
            return os.pread(file, length, offset)

    def read_version(self, name: str) -> tuple[bytes, str] | None:
        """Return the content of a file with its version; None if there is none."""
        try:
            with self._opened(name) as file, open(file, "rb", closefd=False) as stream:
                return stream.read(), _version(os.fstat(file))
        except AbsentError:
            return None

    def download(self, name: str, target: Path, version: str = "") -> None:
        """Copy a file."""
        with self._opened(name) as file, open(file, "rb", closefd=False) as stream, target.open("wb") as copy:
            if version and version != _version(os.fstat(file)):
                raise AbsentError(f"{name} was replaced")
            shutil.copyfileobj(stream, copy)

    def put(self, name: str, content: bytes | Path, expected: str | None = None, patient: bool = True) -> str:
        """Write a file atomically. Parent folders are created."""
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if expected is None:
            return _write(path, content)
        if expected == "":
            if path.exists():
                raise ConflictError(name)
            try:
                return _write(path, content, new=True)
            except FileExistsError:
                raise ConflictError(name) from None
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
        with _only_one(path.parent):
            found = self.find(name)
            if (found.version if found else "") != expected:
                raise ConflictError(name)
            return _write(path, content)

    def delete(self, name: str) -> None:
        """Remove a file, unless there is none."""
        Path(name).unlink(missing_ok=True)

    def delete_below(self, below: str) -> None:
        """Remove a folder with all that is in it, unless there is none."""
        if Path(below).exists():
            shutil.rmtree(below)

    def close(self) -> None:
        """Do nothing: there are no connections."""

    def failure(self, error: Exception) -> Failure | None:
        """Return None: errors of files aren't errors of a service."""
        return None

    @contextlib.contextmanager
    def reporting(self, action: Literal["open", "read", "write"], address: Path) -> Iterator[None]:
        """Raise the system's errors as a `SatXceptionError`.

        Raises:
            ConfigError: The file can't be read or written.
            ServiceError: The disk is full or read-only.
        """
        try:
            yield
        except SatXceptionError:
            raise
        except AbsentError as error:
            raise ConfigError(f"can't {action} {address}: {error}") from None
        except OSError as error:
            if action == "write":
                raise write_error(error, address) from None
            raise ConfigError(f"can't read {address}: {error.strerror}") from None

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        try:
            file = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise AbsentError(str(error)) from None
        try:
            yield file
        finally:
            os.close(file)


def _version(found: os.stat_result) -> str:
    return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"


def _write(path: Path, content: bytes | Path, new: bool = False) -> str:
    with partial_file(path, new) as file:
        if isinstance(content, bytes):
            file.write(content)
        else:
            with content.open("rb") as source:
                shutil.copyfileobj(source, file)
        file.flush()
        os.fchmod(file.fileno(), 0o644)
        return _version(os.fstat(file.fileno()))


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, so that no other process compares and swaps in it meanwhile."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not lock_open_file(handle, wait=True):
            raise ConfigError(f"can't lock {folder}; name a folder on a file system with locks (flock)")
        yield
    finally:
        os.close(handle)
