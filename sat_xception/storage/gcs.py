"""Google Cloud Storage as a store, by Google's own client.

The client library is imported by the functions that need it: most runs never see a bucket.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sat_xception.errors import ConfigError
from sat_xception.storage import store
from sat_xception.storage.store import (
    TRANSFER_TIMEOUT_S,
    AbsentError,
    Advice,
    ConflictError,
    Failure,
    Store,
    StoredObject,
    is_of_a_file,
    plain_reason,
)

__all__ = ["GcsStore"]


class GcsStore(Store):
    """A bucket in Google Cloud Storage. The version of an object is its generation."""

    advice = Advice(
        login=(
            "Log in with `gcloud auth application-default login`, or on a cluster give the pod's service account an "
            "identity"
        ),
        reading="roles/storage.objectViewer",
        writing="roles/storage.objectUser",
        listing="gcloud storage ls gs://{bucket}/",
    )

    def __init__(self, address: Path, retries: bool = True, timeout_s: float = TRANSFER_TIMEOUT_S) -> None:
        """Open the bucket; see `Store`."""
        super().__init__(address, retries, timeout_s)
        try:
            from google.cloud import storage

            with self.reporting("open", address):
                self._client = storage.Client()
        except ImportError:
            raise ConfigError(f"{address} needs google-cloud-storage: pip install 'sat-xception[gcs]'") from None
        self._bucket = self._client.bucket(self._bucket_name())

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def find(self, name: str) -> StoredObject | None:
        """Return an object; None if there is none, or no bucket."""
        blob = self._bucket.get_blob(name, timeout=self.timeout_s, retry=self._retry(patient=False))
        return None if blob is None else _found(blob)

    def list(self, below: str) -> Iterator[StoredObject]:
        """Yield every object below a folder's name."""
        yield from map(_found, self._bucket.list_blobs(prefix=below, retry=self._retry(patient=False)))

    def read(self, name: str) -> bytes:
        """Return the content of an object."""
        return self._content(self._bucket.blob(name), checksum="crc32c", timeout=self.timeout_s)

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Return a part of an object's content."""
        from google.api_core.exceptions import RequestRangeNotSatisfiable

        where = {"start": offset, "end": offset + length - 1}
        try:
            return self._content(self._bucket.blob(name), **where, timeout=self.timeout_s)
        except RequestRangeNotSatisfiable:
            return b""

    def read_version(self, name: str) -> tuple[bytes, str] | None:
        """Return the content of an object with its version; None if there is none, or no bucket."""
        while (found := self.find(name)) is not None:
            try:
                blob = self._bucket.blob(name, generation=int(found.version))
                return self._content(blob, timeout=self.timeout_s), found.version
            except AbsentError:
                continue  # Replaced between the two calls.
        return None

    def download(self, name: str, target: Path, version: str = "") -> None:
        """Write the content of an object to a file on this machine."""
        from google.api_core.exceptions import NotFound

        blob = self._bucket.blob(name, generation=int(version) if version else None)
        try:
            blob.download_to_filename(
                str(target), checksum="crc32c", timeout=self.timeout_s, retry=self._retry(patient=True)
            )
        except NotFound as error:
            raise AbsentError(plain_reason(error)) from None

    def put(self, name: str, content: bytes | Path, expected: str | None = None, patient: bool = True) -> str:
        """Write an object in one step."""
        from google.api_core.exceptions import PreconditionFailed

        how: dict[str, Any] = {"checksum": "crc32c", "timeout": self.timeout_s, "retry": self._retry(patient)}
        if expected is not None:
            how["if_generation_match"] = int(expected or 0)
        blob = self._bucket.blob(name)
        try:
            if isinstance(content, bytes):
                kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
                blob.upload_from_string(content, content_type=kind, **how)
            else:
                blob.upload_from_filename(str(content), **how)
        except PreconditionFailed:
            raise ConflictError(name) from None
        return str(blob.generation or "")

    def delete(self, name: str) -> None:
        """Remove an object, unless there is none."""
        from google.api_core.exceptions import NotFound

        try:
            self._bucket.blob(name).delete(timeout=self.timeout_s, retry=self._retry(patient=False))
        except NotFound:
            return

    def failure(self, error: Exception) -> Failure | None:
        """Return the cause of an error of Google's libraries."""
        from google.api_core.exceptions import Forbidden, GoogleAPICallError, GoogleAPIError, NotFound, Unauthorized
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

        reason = plain_reason(error)
        if isinstance(error, GoogleAuthError):
            return Failure("login", reason)
        status = int(error.code or 0) if isinstance(error, GoogleAPICallError) else 0
        if isinstance(error, Forbidden | Unauthorized):
            return Failure("forbidden", reason, status)
        if isinstance(error, NotFound):
            return Failure("absent", reason, status)
        of_the_network = isinstance(error, OSError) and not is_of_a_file(error)
        if of_the_network or isinstance(error, GoogleAPIError | DataCorruption | InvalidResponse):
            return Failure("service", reason, status)
        return None

    def _content(self, blob: Any, **how: Any) -> bytes:  # noqa: ANN401 - the library has no types
        from google.api_core.exceptions import NotFound

        try:
            return bytes(blob.download_as_bytes(**how, retry=self._retry(patient=False)))
        except NotFound as error:
            raise AbsentError(plain_reason(error)) from None

    def _retry(self, patient: bool) -> Any:  # noqa: ANN401
        """Return the library's retry policy. Every name is written with one content only, so repeating is safe."""
        from google.cloud.storage.retry import DEFAULT_RETRY

        if not self.retries:
            return None
        policy = DEFAULT_RETRY.with_delay(initial=store.FIRST_PAUSE_S, maximum=30.0, multiplier=2.0)
        return policy.with_timeout(self.patience_s(patient))


def _found(blob: Any) -> StoredObject:  # noqa: ANN401
    return StoredObject(blob.name, int(blob.size or 0), str(blob.generation))
