"""One JSON object in a file, local or in a bucket, that runs read and replace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sat_xception.errors import DataError
from sat_xception.storage.atomic import read_stored_bytes, write_stored_bytes
from sat_xception.storage.files import json_text

__all__ = ["read_json_file", "write_json_file"]


def read_json_file(path: Path) -> dict[str, Any] | None:
    """Return the object in a file, or None if the file or the bucket doesn't exist.

    Raises:
        ConfigError: It can't be read.
        DataError: It holds something else.
        ServiceError: The bucket can't be read.
    """
    text = read_stored_bytes(path)
    if text is None:
        return None
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}; remove it") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, expected an object; remove it")
    return content


def write_json_file(path: Path, content: dict[str, Any]) -> None:
    """Replace the object in a file atomically; the file and its parent folders are created if missing.

    Raises:
        ConfigError: It can't be written, or there is no such bucket.
        ServiceError: The bucket can't be written.
    """
    write_stored_bytes(json_text(content).encode(), path)
