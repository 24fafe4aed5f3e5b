"""Digests of files, and the JSON format of steps."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sat_xception.errors import DataError

__all__ = ["dump_json", "facts_digest", "file_digest", "folder_digests", "json_text", "read_json", "write_json"]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by its path relative to the folder, sorted."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}


def dump_json(content: object, **how: Any) -> str:  # noqa: ANN401 - as json.dumps takes it
    """Return standard JSON: NaN and infinity, which Python would write, are refused.

    Args:
        content: What to write. A figure that may be absent is None there.
        **how: Options of `json.dumps`.

    Raises:
        DataError: A number is NaN or infinite; the message names its key.
    """
    try:
        return json.dumps(content, allow_nan=False, **how)
    except ValueError:
        key, value = next(_not_finite(content, ""), ("", math.nan))
        if not key:
            raise
        raise DataError(
            f"{key} is {value}, which JSON can't hold, so the result isn't written; look for what isn't a number in "
            "the inputs that it is computed from"
        ) from None


def _not_finite(content: object, key: str) -> Iterator[tuple[str, float]]:
    """Yield the key of every number that is NaN or infinite, as "metrics.slices[3].recall", with the number."""
    if isinstance(content, float) and not math.isfinite(content):
        yield key or "the content", content
    elif isinstance(content, dict):
        for name, value in content.items():
            yield from _not_finite(value, f"{key}.{name}" if key else str(name))
    elif isinstance(content, list | tuple):
        for index, value in enumerate(content):
            yield from _not_finite(value, f"{key}[{index}]")


def json_text(content: object) -> str:
    """Return JSON in a readable form: sorted keys, two spaces, a final newline.

    Raises:
        DataError: A number is NaN or infinite.
    """
    text = dump_json(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    # Bytes of a file's name that aren't UTF-8 become JSON's own escapes.
    return text.encode("utf-8", "backslashreplace").decode()


def facts_digest(facts: object) -> str:
    """Return the SHA-256 of JSON types as hexadecimal digits; equal facts have equal digests."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, content: object) -> None:
    """Write JSON in the form of `json_text`.

    Raises:
        DataError: A number is NaN or infinite; nothing is written.
    """
    path.write_text(json_text(content), encoding="utf-8")


def read_json(path: Path, made_by: str) -> dict[str, Any]:
    """Read a JSON object that an earlier step wrote.

    Args:
        path: The file.
        made_by: Verb of the step that writes it, for the message when it is missing.

    Raises:
        DataError: Missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is missing: is {path.parent} a folder that `sat_xception {made_by}` wrote?") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error}. Run `sat_xception {made_by}` again") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, expected an object")
    return content
