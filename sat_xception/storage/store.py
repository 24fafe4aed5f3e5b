"""One interface to object stores: folders on this machine, and buckets of several providers.

An object has a name, a size and a version. The version is an opaque string: a writer can require that the version that
it has read is still the current one (compare and swap). In stores whose version is a digest of the content (an ETag),
equal contents have equal versions, so objects that are compared and swapped contain a unique id.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from sat_xception.errors import ConfigError, SatXceptionError, ServiceError
from sat_xception.storage.address import RemotePath, is_remote

__all__ = [
    "FIRST_PAUSE_S",
    "TRANSFER_TIMEOUT_S",
    "AbsentError",
    "Advice",
    "ConflictError",
    "Failure",
    "Store",
    "StoredObject",
    "is_of_a_file",
    "open_store",
    "plain_reason",
    "short_digest",
    "version_tag",
]

# How long a bucket is asked again: at first, when little is lost by giving up, and in the middle of a transfer.
_LOOK_S = 15.0
_TRANSFER_S = 120.0
# The mean of the first pause is half of this; each is twice the one before.
FIRST_PAUSE_S = 1.0
# How long a transfer may stand still.
TRANSFER_TIMEOUT_S = 300


class AbsentError(Exception):
    """The object doesn't exist, or not in the requested version."""


class ConflictError(Exception):
    """An object doesn't have the expected version, so nothing was written."""


@dataclass(frozen=True)
class StoredObject:
    """An object in a store.

    Attributes:
        name: Name in the store; for a local file, its path.
        size: Size in bytes.
        version: Opaque string; changes with the content.
    """

    name: str
    size: int
    version: str


@dataclass(frozen=True)
class Failure:
    """Cause of a failed request to a store.

    Attributes:
        kind: The login, the permissions, a missing bucket, or the service or the network.
        reason: The service's message, without secrets.
        status: HTTP status of the response; 0 if there was none.
    """

    kind: Literal["login", "forbidden", "absent", "service"]
    reason: str
    status: int = 0


@dataclass(frozen=True)
class Advice:
    """Advice in error messages, by provider; `{bucket}` stands for the bucket's name.

    Attributes:
        login: How to log in.
        reading: Permission for reading.
        writing: Permission for writing.
        listing: Command that lists the bucket.
    """

    login: str
    reading: str
    writing: str
    listing: str


class Store(ABC):
    """The objects of one bucket, or of this machine's folders. Methods may be called by several threads.

    Attributes:
        address: Address that the store was opened for.
        advice: Advice of the provider, for messages.
    """

    advice: ClassVar[Advice]

    def __init__(self, address: Path, retries: bool = True, timeout_s: float = TRANSFER_TIMEOUT_S) -> None:
        """Open the bucket of an address; no request is sent yet.

        Args:
            address: Any address in the bucket.
            retries: Whether failed requests are repeated.
            timeout_s: Maximum time without progress of a request.

        Raises:
            ConfigError: The provider's library isn't installed, or its settings are wrong.
        """
        self.address = address
        self.retries = retries
        self.timeout_s = timeout_s

    @abstractmethod
    def find(self, name: str) -> StoredObject | None:
        """Return an object; None if the object or the bucket doesn't exist."""

    @abstractmethod
    def list(self, below: str) -> Iterator[StoredObject]:
        """Yield every object whose name begins with `below`, a folder's name with a trailing slash."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return the content of an object.

        Raises:
            AbsentError: The object or the bucket doesn't exist.
        """

    @abstractmethod
    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Return a part of an object's content; it is shorter or empty beyond the end of the object.

        Raises:
            AbsentError: The object or the bucket doesn't exist.
        """

    @abstractmethod
    def read_version(self, name: str) -> tuple[bytes, str] | None:
        """Return the content and the version of an object; None if the object or the bucket doesn't exist."""

    @abstractmethod
    def download(self, name: str, target: Path, version: str = "") -> None:
        """Write the content of an object to a file on this machine.

        Args:
            name: Name of the object.
            target: File to write.
            version: Version to read. Default: the current one.

        Raises:
            AbsentError: The object doesn't exist, or this version is no longer the current one.
        """

    @abstractmethod
    def put(self, name: str, content: bytes | Path, expected: str | None = None, patient: bool = True) -> str:
        """Write an object atomically.

        If the response of a request was lost, its retry may find the object as written by that request: after a
        conflict, compare the content.

        Args:
            name: Name of the object.
            content: The content, or a file with the content.
            expected: Version that must still be the current one; "" if the object must not exist. Default: the object
                is replaced, whatever its version.
            patient: Whether to retry for two minutes, as for a transfer, instead of 15 seconds.

        Returns:
            The new version.

        Raises:
            ConflictError: The object doesn't have the expected version.
        """

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove an object; a missing one is no error."""

    @abstractmethod
    def failure(self, error: Exception) -> Failure | None:
        """Return the cause of an error of the provider's library; None for other errors."""

    def prepare(self, below: str) -> None:
        """Before work begins, check whether the store compares and swaps versions, if that isn't known.

        Args:
            below: Name of the folder that will be written to.
        """
        return

    def delete_below(self, below: str) -> None:
        """Remove every object whose name begins with `below`, a folder's name with a trailing slash."""
        for found in self.list(below):
            self.delete(found.name)

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""

    def name_of(self, address: Path) -> str:
        """Return the name of the object at an address."""
        return address.object if is_remote(address) else str(address)

    def address_of(self, name: str) -> Path:
        """Return the address of an object by its name."""
        if is_remote(self.address):
            return type(self.address)(f"{self.address.scheme}{self.address.bucket}/{name}")
        return Path(name)

    def bucket_address(self) -> str:
        """Return the address of the bucket, for messages."""
        return f"{self.address.scheme}{self.address.bucket}" if is_remote(self.address) else str(self.address)

    def patience_s(self, patient: bool) -> float:
        """Return how long a request is retried, in seconds."""
        return (_TRANSFER_S if patient else _LOOK_S) if self.retries else 0.0

    @contextlib.contextmanager
    def reporting(self, action: Literal["open", "read", "write"], address: Path) -> Iterator[None]:
        """Raise errors of the provider's library as a `SatXceptionError`.

        Args:
            action: Action for the message.
            address: Address for the message.

        Raises:
            ConfigError: There is no such bucket.
            ServiceError: No credentials, no permission, or no answer.
        """
        try:
            yield
        except SatXceptionError:
            raise
        except Exception as error:
            failure = Failure("absent", str(error)) if isinstance(error, AbsentError) else self.failure(error)
            if failure is None:
                raise
            raise self._explained(failure, action, address) from None

    def list_command(self) -> str:
        """Return the command that lists the bucket, for messages."""
        return self.advice.listing.format(bucket=self._bucket_name())

    def _bucket_name(self) -> str:
        return self.address.bucket if is_remote(self.address) else ""

    def _explained(self, failure: Failure, action: str, address: Path) -> SatXceptionError:
        if failure.kind == "login":
            return ServiceError(
                f"no credentials to {action} {address}: {failure.reason}. {self.advice.login}; see docs/storage.md"
            )
        if failure.kind == "forbidden":
            permission = self.advice.reading if action == "read" else self.advice.writing
            return ServiceError(
                f"not allowed to {action} {address}: {failure.reason}. Grant {permission} on {self.bucket_address()} "
                "to the account that this runs as; see docs/storage.md"
            )
        if failure.kind == "absent":
            return ConfigError(
                f"can't {action} {address}: {failure.reason}. See whether the bucket is there: {self.list_command()}"
            )
        return ServiceError(
            f"can't {action} {address}: {failure.reason}. Check the network, then run again: finished files are kept"
        )


# Modules are imported when they are needed: most runs never see a bucket.
_STORES = {
    "": ("local", "LocalStore"),
    "gs://": ("gcs", "GcsStore"),
    "s3://": ("object_store", "S3Store"),
    "minio://": ("object_store", "MinioStore"),
    "az://": ("object_store", "AzureStore"),
}


@contextlib.contextmanager
def open_store(address: Path, retries: bool = True, timeout_s: float = TRANSFER_TIMEOUT_S) -> Iterator[Store]:
    """Yield the store of an address, or of a path on this machine; its connections are closed at the end.

    Args:
        address: Address in a bucket, or local path.
        retries: Whether failed requests are repeated.
        timeout_s: Maximum time without progress of a request.

    Raises:
        ConfigError: The provider's library isn't installed, or its settings are wrong.
        ServiceError: There are no credentials.
    """
    module, name = _STORES[address.scheme if isinstance(address, RemotePath) else ""]
    kind = getattr(importlib.import_module(f"sat_xception.storage.{module}"), name)
    store: Store = kind(address, retries, timeout_s)
    with contextlib.closing(store):
        yield store


def version_tag(version: str) -> str:
    """Return a version as part of an object's name: "0" for none, a number unchanged, otherwise a digest."""
    return version if version.isdecimal() else short_digest(version) if version else "0"


def short_digest(*names: str) -> str:
    """Return the first 16 hexadecimal digits of a digest of names."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode() + b"\0")
    return digest.hexdigest()[:16]


def is_of_a_file(error: Exception) -> bool:
    """Return whether an error is about local files; the network library raises OSError too."""
    of_the_network = isinstance(error, ConnectionError | TimeoutError)
    return isinstance(error, OSError) and error.errno is not None and not of_the_network


def plain_reason(error: Exception) -> str:
    """Return the service's message without query strings of URLs: that of an upload is a credential."""
    return re.sub(r"\?\S*", "", " ".join(str(error).split())).rstrip(".:")
