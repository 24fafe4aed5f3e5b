"""S3 and Azure as stores, by obstore; see docs/decisions/0029-storage-anywhere.md.

The client library is imported by the functions that need it: most runs never see a bucket.
"""

from __future__ import annotations

import contextlib
import dataclasses
import mimetypes
import os
import re
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from sat_xception.errors import ConfigError
from sat_xception.storage import store
from sat_xception.storage.probe import swaps
from sat_xception.storage.store import (
    TRANSFER_TIMEOUT_S,
    AbsentError,
    Advice,
    ConflictError,
    Failure,
    Store,
    StoredObject,
    plain_reason,
)

if TYPE_CHECKING:
    import obstore.store

__all__ = ["INSTALLATION_KEYS", "VARIABLES", "AzureStore", "MinioStore", "S3Store"]

R = TypeVar("R")
# Variables of the environment that a Secret may hold, for docs/storage.md; the library reads more.
VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_CA_BUNDLE",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_STORAGE_SAS_TOKEN",
    "MINIO_ENDPOINT_URL",
)
# Keys of the Secret `mlpipeline-minio-artifact` of Kubeflow Pipelines, and the variables that its pods get them as.
# They have names of their own: a variable that a pod's definition has twice is one from the second Secret alone.
INSTALLATION_KEYS = {"accesskey": "MINIO_ACCESS_KEY", "secretkey": "MINIO_SECRET_KEY"}
# The endpoint that the launcher of Kubeflow Pipelines 2.16 and 2.17 has for minio:// (v2/objectstore/config.go).
_INSTALLATION_ENDPOINT = "http://seaweedfs.kubeflow:9000"
# Files are written in parts of this size; S3 takes 10,000 parts.
_PART_BYTES = 8 << 20
_MAX_PARTS = 9_000
# Parts of one file at once; several files are on their way as well.
_PARALLEL_PARTS = 3
_MAX_PAUSE_S = 30.0
# A request ends by standing still, and not because its body is large.
_LONGEST = timedelta(days=1)
_STATUS = re.compile(r"status code: (\d{3}) ?([A-Za-z ]*)")
_MESSAGE = re.compile(r"<Message>(.*?)</Message>", re.DOTALL)
_LOGIN = re.compile(r"169\.254\.169\.254|credential|WebIdentity|oauth2", re.IGNORECASE)


class ObjectStore(Store):
    """A bucket by obstore. The version of an object is its ETag."""

    extra: str

    def __init__(self, address: Path, retries: bool = True, timeout_s: float = TRANSFER_TIMEOUT_S) -> None:
        """Open the bucket; see `Store`."""
        super().__init__(address, retries, timeout_s)
        try:
            import obstore
            from obstore.exceptions import BaseError
        except ImportError:
            raise ConfigError(f"{address} needs obstore: pip install 'sat-xception[{self.extra}]'") from None
        self._library = obstore
        try:
            self._patient, self._brief = (self._opened(self.patience_s(patient)) for patient in (True, False))
        except (BaseError, ValueError) as error:
            raise ConfigError(f"can't open {address}: {_reason(error)}. {self.advice.login}") from None

    @abstractmethod
    def _open(self, client: dict[str, Any], retry: dict[str, Any]) -> obstore.store.ObjectStore:
        """Return the library's store, with settings from the environment."""

    def _opened(self, patience_s: float) -> obstore.store.ObjectStore:
        client = {"timeout": _LONGEST, "read_timeout": timedelta(seconds=self.timeout_s), "allow_http": True}
        pauses = {"init_backoff": timedelta(seconds=store.FIRST_PAUSE_S / 2), "base": 2}
        pauses["max_backoff"] = timedelta(seconds=_MAX_PAUSE_S)
        retry = {"max_retries": 1000 if self.retries else 0, "retry_timeout": timedelta(seconds=patience_s)}
        return self._open(client, {**retry, "backoff": pauses})

    def close(self) -> None:
        """Do nothing: the library closes idle connections."""

    def find(self, name: str) -> StoredObject | None:
        """Return an object; None if there is none, or no bucket."""
        try:
            return _found(self._repeated(lambda: self._library.head(self._brief, name), patient=False))
        except FileNotFoundError:
            return None

    def list(self, below: str) -> Iterator[StoredObject]:
        """Yield every object below a folder's name."""
        for some in self._library.list(self._brief, below):
            for found in some:
                # The library loses the slash at the end of the names that consoles make to show an empty folder.
                if found["size"] or self.find(found["path"]):
                    yield _found(found)

    def read(self, name: str) -> bytes:
        """Return the content of an object."""
        return self._read(name)[0]

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Return a part of an object's content."""
        try:
            return self._read(name, range=(offset, offset + length))[0]
        except Exception as error:
            if _is_behind_the_end(error):
                return b""
            raise

    def read_version(self, name: str) -> tuple[bytes, str] | None:
        """Return the content of an object with its version; None if there is none, or no bucket."""
        try:
            return self._read(name)
        except AbsentError:
            return None

    def download(self, name: str, target: Path, version: str = "") -> None:
        """Write the content of an object to a file on this machine."""

        def write() -> None:
            with _absent_if_gone():
                found = self._library.get(self._patient, name, options={"if_match": version} if version else {})
                with target.open("wb") as file:
                    for part in found.stream(min_chunk_size=1 << 20):
                        file.write(part)

        self._repeated(write, patient=True)

    def prepare(self, below: str) -> None:
        """Find out, before work begins, whether the store compares and swaps."""
        self._swaps(below)

    def put(self, name: str, content: bytes | Path, expected: str | None = None, patient: bool = True) -> str:
        """Write an object in one step; where the store can't compare and swap, in two."""
        if expected is not None and not self._swaps(name.rpartition("/")[0]):
            found = self.find(name)
            if (found.version if found else "") != expected:
                raise ConflictError(name)
            expected = None
        return self._put(name, content, expected, patient)

    def _swaps(self, below: str) -> bool:
        """Return whether the store compares and swaps; the providers' own do."""
        place = self._unproven()
        return not place or swaps(
            self, place, below, lambda name, content, expected: self._put(name, content, expected, patient=False)
        )

    def _unproven(self) -> str:
        """Return the address of a service that isn't known to compare and swap; "" if it is."""
        return ""

    def _put(self, name: str, content: bytes | Path, expected: str | None, patient: bool) -> str:
        how: dict[str, Any] = {}
        if expected is not None:
            how["mode"] = {"e_tag": expected} if expected else "create"
        elif not isinstance(content, bytes):
            how["chunk_size"] = max(_PART_BYTES, content.stat().st_size // _MAX_PARTS)
            how["max_concurrency"] = _PARALLEL_PARTS
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        how["attributes"] = {"Content-Type": kind}
        to = self._patient if patient else self._brief

        def write() -> str:
            from obstore.exceptions import AlreadyExistsError, PreconditionError

            try:
                return _version(self._library.put(to, name, content, **how)["e_tag"])
            except (AlreadyExistsError, PreconditionError):
                raise ConflictError(name) from None

        return self._repeated(write, patient)

    def delete(self, name: str) -> None:
        """Remove an object, unless there is none."""
        with contextlib.suppress(FileNotFoundError):
            self._repeated(lambda: self._library.delete(self._brief, name), patient=False)

    def failure(self, error: Exception) -> Failure | None:
        """Return what an error of the library means."""
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        status = _status(error)
        if isinstance(error, FileNotFoundError) and error.errno is None:
            return Failure("absent", _reason(error), status or 404)
        if not isinstance(error, BaseError):
            return None
        if isinstance(error, PermissionDeniedError | UnauthenticatedError):
            return Failure("forbidden", _reason(error), status)
        if status == 404:
            return Failure("absent", _reason(error), status)
        if _LOGIN.search(str(error)):
            return Failure("login", _reason(error))
        return Failure("service", _reason(error), status)

    def _read(self, name: str, **options: Any) -> tuple[bytes, str]:  # noqa: ANN401 - options of the library
        def read() -> tuple[bytes, str]:
            with _absent_if_gone():
                found = self._library.get(self._brief, name, options=options)
                return bytes(found.bytes()), _version(found.meta["e_tag"])

        return self._repeated(read, patient=False)

    def _repeated(self, function: Callable[[], R], patient: bool) -> R:
        """Return a function's result; broken connections, which the library doesn't repeat for writes, are repeated."""
        from obstore.exceptions import GenericError

        deadline, pause = time.monotonic() + self.patience_s(patient), store.FIRST_PAUSE_S / 2
        while True:
            try:
                return function()
            except GenericError as error:
                if not _passes(error) or time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE_S)


class S3Store(ObjectStore):
    """A bucket of S3, or of a store that speaks its language."""

    extra = "s3"
    advice = Advice(
        login=(
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (`aws configure export-credentials --format env` prints "
            "those of a profile), or on a cluster give the pod's service account a role"
        ),
        reading="s3:GetObject and s3:ListBucket",
        writing="s3:PutObject, s3:DeleteObject and s3:ListBucket",
        listing="aws s3 ls s3://{bucket}/",
    )

    def _open(self, client: dict[str, Any], retry: dict[str, Any]) -> obstore.store.ObjectStore:
        from obstore.store import S3Store as Bucket

        if bundle := os.environ.get("AWS_CA_BUNDLE"):
            try:
                client["root_certificate"] = Path(bundle).read_bytes()
            except OSError as error:
                raise ConfigError(f"can't read $AWS_CA_BUNDLE {bundle}: {error.strerror}") from None
        own = self._own_settings()
        return Bucket(self._bucket_name(), client_options=client, retry_config=retry, **own)  # type: ignore[arg-type]

    def _own_settings(self) -> dict[str, Any]:
        """Return the library's settings that aren't those of the AWS_… variables."""
        return {}

    def _unproven(self) -> str:
        """Return the address of a store that isn't Amazon's own."""
        given = (os.environ.get(name) for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
        place: str = next(filter(None, (self._own_settings().get("endpoint"), *given)), "")
        return "" if urlsplit(place).netloc.endswith(".amazonaws.com") else place


class MinioStore(S3Store):
    """A bucket of the store of a Kubeflow installation; without variables of its own, of the store that s3:// names."""

    advice = dataclasses.replace(
        S3Store.advice,
        login=(
            "Its keys are those of the Secret mlpipeline-minio-artifact in the run's namespace, which tasks of the "
            "pipelines get as MINIO_ACCESS_KEY and MINIO_SECRET_KEY"
        ),
    )

    def _own_settings(self) -> dict[str, Any]:
        """Return the endpoint and the keys of the installation."""
        key, secret = (os.environ.get(name, "") for name in INSTALLATION_KEYS.values())
        endpoint = os.environ.get("MINIO_ENDPOINT_URL") or (key and _INSTALLATION_ENDPOINT)
        if not endpoint:
            return {}
        keys = {"access_key_id": key, "secret_access_key": secret} if key else {}
        return {"endpoint": endpoint, "virtual_hosted_style_request": False, **keys}


class AzureStore(ObjectStore):
    """A container of Azure's Blob Storage; the account is that of the environment."""

    extra = "azure"
    advice = Advice(
        login=(
            "Set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, or on a cluster "
            "use workload identity"
        ),
        reading="the role Storage Blob Data Reader",
        writing="the role Storage Blob Data Contributor",
        listing="az storage blob list --container-name {bucket}",
    )

    def _open(self, client: dict[str, Any], retry: dict[str, Any]) -> obstore.store.ObjectStore:
        from obstore.store import AzureStore as Container

        # The names of Azure's command line, where the library has others.
        given = {"account_name": "AZURE_STORAGE_ACCOUNT", "account_key": "AZURE_STORAGE_KEY"}
        known = {key: os.environ[name] for key, name in given.items() if os.environ.get(name)}
        return Container(self._bucket_name(), client_options=client, retry_config=retry, **known)  # type: ignore


@contextlib.contextmanager
def _absent_if_gone() -> Iterator[None]:
    """Turn the errors of an object that isn't there, or not in this version, into ours."""
    from obstore.exceptions import PreconditionError

    try:
        yield
    except FileNotFoundError as error:
        if error.errno is not None:
            raise
        raise AbsentError(_reason(error)) from None
    except PreconditionError as error:
        raise AbsentError(_reason(error)) from None


def _found(found: Any) -> StoredObject:  # noqa: ANN401 - a dictionary of the library
    return StoredObject(found["path"], found["size"], _version(found["e_tag"]))


def _version(etag: str | None) -> str:
    """Return an ETag in one form; in Azure's listings it has no quotes."""
    return f'"{etag}"' if etag and not etag.endswith('"') else etag or ""


def _passes(error: Exception) -> bool:
    """Return whether the same request may work a little later."""
    status = _status(error)
    lasting = status == 501 or _is_behind_the_end(error) or _LOGIN.search(str(error))
    return not lasting and (status in (0, 408, 429) or status >= 500)


def _is_behind_the_end(error: Exception) -> bool:
    """Return whether a part of an object was asked for that begins behind its end."""
    return _status(error) == 416 or "StartTooLarge" in str(error)


def _status(error: Exception) -> int:
    found = _STATUS.search(str(error))
    return int(found[1]) if found else 0


def _reason(error: Exception) -> str:
    """Return the service's message alone, where there is one."""
    text = str(error).partition("\n\nDebug source")[0]
    status, message = _STATUS.search(text), _MESSAGE.search(text)
    if status is None:
        return plain_reason(Exception(text))
    return plain_reason(Exception(f"HTTP {status[1]} {status[2].strip()}" + (f": {message[1]}" if message else "")))
