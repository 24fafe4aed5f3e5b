"""One JSON object in a file of its own, here or in a bucket, for what is read and replaced from run to run."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from sat_xception.errors import ConfigError, DataError
from sat_xception.storage.address import GcsPath
from sat_xception.storage.files import json_text
from sat_xception.storage.gcs import TRANSFER_TIMEOUT_S, looks_retry, open_bucket, telling_why, transfer_retry

__all__ = ["read_record", "write_record"]


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the object in a file, or None when there is no such file, or no such bucket.

    Raises:
        ConfigError: It can't be read.
        DataError: It holds something else.
        ServiceError: The bucket can't be read.
    """
    text = _read_object(path) if isinstance(path, GcsPath) else _read_file(path)
    if text is None:
        return None
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}; remove it") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, expected an object; remove it")
    return content


def write_record(path: Path, content: dict[str, Any]) -> None:
    """Replace the object in a file in one step; the file and the folders above it are made when they are absent.

    Raises:
        ConfigError: It can't be written, or there is no such bucket.
        ServiceError: The bucket can't be written.
    """
    text = json_text(content)
    if isinstance(path, GcsPath):
        _write_object(path, text)
    else:
        _write_file(path, text)


def _read_file(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}") from None


def _write_file(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with open(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(partial, 0o644)
            os.replace(partial, path)
        except BaseException:
            os.unlink(partial)
            raise
    except OSError as error:
        raise ConfigError(f"can't write {path}: {error.strerror}; name another folder, or make this writable") from None


def _read_object(address: GcsPath) -> bytes | None:
    with open_bucket(address) as bucket, telling_why("read", address):
        from google.api_core.exceptions import NotFound

        try:
            content: bytes = bucket.blob(address.object).download_as_bytes(
                checksum="crc32c", timeout=TRANSFER_TIMEOUT_S, retry=looks_retry()
            )
        except NotFound:
            return None
        return content


def _write_object(address: GcsPath, text: str) -> None:
    with open_bucket(address) as bucket, telling_why("write", address):
        bucket.blob(address.object).upload_from_string(
            text.encode(),
            content_type="application/json",
            checksum="crc32c",
            timeout=TRANSFER_TIMEOUT_S,
            retry=transfer_retry(),
        )
