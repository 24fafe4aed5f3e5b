"""Addresses in buckets, as paths that are no local files, and the settings that accept them.

Another kind of bucket is one more subclass of `RemotePath`, listed in `_REMOTE`, and its store in `store.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PosixPath
from typing import Any, ClassVar, Literal, TypeGuard

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from sat_xception.errors import ConfigError

__all__ = [
    "AzurePath",
    "GcsPath",
    "MinioPath",
    "RemotePath",
    "S3Path",
    "Stored",
    "is_address",
    "is_plain_address",
    "is_remote",
    "remote_path",
    "schemes",
    "stored_path",
]

# https://cloud.google.com/storage/docs/buckets#naming, without its special cases.
_BUCKET = re.compile(r"[a-z0-9][-_.a-z0-9]{1,220}[a-z0-9]")


class RemotePath(PosixPath):
    """`scheme://bucket/path/to/it`, with the operations of a path that need no file.

    Nothing on this machine has this path: whatever would open it is an error of ours, not a missing file.
    """

    __slots__ = ()
    scheme: ClassVar[str]

    def __str__(self) -> str:
        """Return the address."""
        # As a path it has one slash, and that is also how an address comes out of a plain Path.
        return self.scheme + super().__str__().removeprefix(self.scheme.rstrip("/")).lstrip("/")

    def __fspath__(self) -> str:
        """Refuse: it isn't a local file."""
        raise TypeError(f"{self} is in a bucket; fetch or publish it through sat_xception.storage")

    @property
    def bucket(self) -> str:
        """Name of the bucket."""
        return str(self).removeprefix(self.scheme).partition("/")[0]

    @property
    def object(self) -> str:
        """Name of the object, or of the folder of objects, without a slash at its end."""
        return str(self).removeprefix(self.scheme).partition("/")[2]


class GcsPath(RemotePath):
    """An address in Google Cloud Storage, `gs://bucket/path/to/it`."""

    __slots__ = ()
    scheme = "gs://"


class S3Path(RemotePath):
    """An address in S3, or in a store that speaks its language, `s3://bucket/path/to/it`."""

    __slots__ = ()
    scheme = "s3://"


class MinioPath(RemotePath):
    """An address in the S3 store of a Kubeflow installation, `minio://bucket/path/to/it`, as Kubeflow Pipelines has it.

    Pods of a pipeline have the endpoint and keys of that store beside those of `s3://`.
    """

    __slots__ = ()
    scheme = "minio://"


class AzurePath(RemotePath):
    """An address in Azure's Blob Storage, `az://container/path/to/it`, of the account that the environment names."""

    __slots__ = ()
    scheme = "az://"


_REMOTE: tuple[type[RemotePath], ...] = (GcsPath, S3Path, AzurePath, MinioPath)
# What an address begins with. One letter is a drive of Windows.
_ANY_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def stored_path(value: str | Path) -> Path:
    """Return the path of a folder or file by its name: an address in a bucket, or a local path.

    Raises:
        ConfigError: It is an address of another kind.

    Example:
        >>> is_remote(stored_path("gs://bucket/models")), is_remote(stored_path("models"))
        (True, False)
    """
    path = remote_path(value)
    if path is None and _ANY_SCHEME.match(str(value)):
        raise ConfigError(_unknown_scheme(value))
    return path or Path(value)


def remote_path(value: str | Path) -> RemotePath | None:
    """Return an address in a bucket as a path; None for a local path."""
    kind = next((kind for kind in _REMOTE if re.match(f"{kind.scheme.rstrip('/')}(/|$)", str(value))), None)
    return None if kind is None else kind(str(value))


def is_remote(path: object) -> TypeGuard[RemotePath]:
    """Return whether a path is an address in a bucket, as settings and `stored_path` return it."""
    return isinstance(path, RemotePath)


def is_address(value: object) -> bool:
    """Return whether a setting's value is an address in a bucket; in a plain Path, `//` has become `/`."""
    return isinstance(value, str | Path) and remote_path(value) is not None


def is_plain_address(value: object) -> bool:
    """Return whether a setting's value is a Path that is written like an address, of a setting that takes none."""
    return isinstance(value, Path) and is_address(value) and not is_remote(value)


@dataclass(frozen=True)
class Stored:
    """Marks a setting that may be an address in a bucket, as in `dataset: Annotated[Path, Stored("folder", ...)]`.

    Attributes:
        kind: "folder" or "file" for what a step reads, which is fetched before the step starts; "result" for the folder
            that it writes, which `atomic_folder` publishes; "place" for what it reads or writes where it is.
        record: File that a folder must hold; "" for none.
        only: Files of the folder that the step reads. Default: all.
    """

    kind: Literal["folder", "file", "result", "place"]
    record: str = ""
    only: tuple[str, ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401
        """Return the schema of the setting's own type, with a check of addresses after it."""
        return core_schema.no_info_after_validator_function(_checked, handler(source))


def _checked(value: Any) -> Any:  # noqa: ANN401 - a setting of any type goes in and out
    if isinstance(value, tuple):
        return tuple(_checked(item) for item in value)
    path = remote_path(value) if isinstance(value, str | Path) else None
    if path is None:
        # A plain Path has lost a slash of it.
        text = str(value).replace(":/", "://", 1) if isinstance(value, Path) and "://" not in str(value) else value
        if isinstance(text, str) and _ANY_SCHEME.match(text):
            raise ValueError(_unknown_scheme(text))
        return value
    if not _BUCKET.fullmatch(path.bucket) or not path.object or ".." in path.parts:
        raise ValueError(f"expected {path.scheme}bucket/path/to/folder")
    return str(path) if isinstance(value, str) else path


def _unknown_scheme(value: object) -> str:
    scheme = str(value).partition("://")[0]
    if scheme == "pvc":
        return "pvc:// is how KServe's pods address a claim; expected the path at which it is mounted here"
    return f"{scheme}:// isn't known; expected a path on this machine, or an address at {schemes()}"


def schemes() -> str:
    """Return what addresses in buckets begin with, for messages."""
    *most, last = (kind.scheme for kind in _REMOTE)
    return f"{', '.join(most)} or {last}" if most else last
