"""Read and atomically replace small files, local or in a bucket."""

from __future__ import annotations

import contextlib
import mimetypes
import shutil
from pathlib import Path

from sat_xception.errors import ConfigError, SatXceptionError
from sat_xception.log import get_logger
from sat_xception.storage.address import RemotePath
from sat_xception.storage.gcs import TRANSFER_TIMEOUT_S, open_bucket, query_retry, reporting_gcs_errors, transfer_retry
from sat_xception.storage.scratch import partial_file
from sat_xception.storage.writing import write_error

__all__ = ["list_files", "read_stored_bytes", "remove_empty_folder", "remove_files", "write_stored_bytes"]

_log = get_logger(__name__)


def read_stored_bytes(path: Path) -> bytes | None:
    """Return the content of a file, or None if the file or the bucket doesn't exist.

    Raises:
        ConfigError: It can't be read.
        ServiceError: The bucket can't be read.
    """
    if isinstance(path, RemotePath):
        return _download(path)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}") from None


def write_stored_bytes(content: bytes, path: Path, keep_earlier: bool = False) -> None:
    """Write a file atomically: readers see the old content or the new one. Parent folders are created.

    Args:
        content: What is to be in it.
        path: File or address in a bucket.
        keep_earlier: Leave one that is already there as it is.

    Raises:
        ConfigError: It can't be written, or there is no such bucket.
        ServiceError: The disk is full or read-only, or the bucket can't be written.
    """
    if isinstance(path, RemotePath):
        _upload(content, path, keep_earlier)
    elif not (keep_earlier and path.exists()):
        _replace(content, path)


def list_files(folder: Path) -> list[Path]:
    """Return every file below a folder, sorted; none if the folder doesn't exist.

    Raises:
        ConfigError: There is no such bucket.
        ServiceError: The bucket can't be read.
    """
    if not isinstance(folder, RemotePath):
        return sorted(path for path in folder.rglob("*") if path.is_file())
    with open_bucket(folder) as bucket, reporting_gcs_errors("read", folder):
        blobs = bucket.list_blobs(prefix=f"{folder.object}/", retry=query_retry())
        return sorted(type(folder)(f"{folder.scheme}{folder.bucket}/{blob.name}") for blob in blobs)


def remove_files(folder: Path) -> None:
    """Remove a folder that isn't needed any more; files that can't be removed are logged as a warning."""
    try:
        if isinstance(folder, RemotePath):
            with open_bucket(folder) as bucket, reporting_gcs_errors("write", folder):
                for blob in bucket.list_blobs(prefix=f"{folder.object}/", retry=query_retry()):
                    blob.delete(timeout=TRANSFER_TIMEOUT_S, retry=query_retry())
        elif folder.exists():
            shutil.rmtree(folder)
    except (SatXceptionError, OSError) as error:
        _log.warning("can't remove %s: %s; remove it by hand", folder, error)


def remove_empty_folder(folder: Path) -> None:
    """Remove a local folder if nothing is in it; a bucket has no empty folders."""
    if not isinstance(folder, RemotePath):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _replace(content: bytes, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial_file(path) as file:
            file.write(content)
    except OSError as error:
        raise write_error(error, path) from None


def _download(address: RemotePath) -> bytes | None:
    with open_bucket(address) as bucket, reporting_gcs_errors("read", address):
        from google.api_core.exceptions import NotFound

        try:
            content: bytes = bucket.blob(address.object).download_as_bytes(
                checksum="crc32c", timeout=TRANSFER_TIMEOUT_S, retry=query_retry()
            )
        except NotFound:
            return None
        return content


def _upload(content: bytes, address: RemotePath, keep_earlier: bool) -> None:
    with open_bucket(address) as bucket, reporting_gcs_errors("write", address):
        from google.api_core.exceptions import PreconditionFailed

        kept = contextlib.suppress(PreconditionFailed) if keep_earlier else contextlib.nullcontext()
        with kept:
            bucket.blob(address.object).upload_from_string(
                content,
                content_type=mimetypes.guess_type(address.name)[0] or "application/octet-stream",
                checksum="crc32c",
                timeout=TRANSFER_TIMEOUT_S,
                retry=transfer_retry(),
                if_generation_match=0 if keep_earlier else None,
            )
