"""Read text files: UTF-8, or the encoding that their first bytes name."""

from __future__ import annotations

import codecs
from pathlib import Path

from sat_xception.errors import DataError

__all__ = ["UTF16_MARKS", "is_text", "read_text", "read_utf8"]

UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    *((mark, "utf-16") for mark in UTF16_MARKS),
)


def is_text(path: Path) -> bool:
    """Return whether a file begins as text does; False of one that can't be read."""
    try:
        with path.open("rb") as file:
            begin = file.read(4096)
    except OSError:
        return False
    return begin.startswith(tuple(mark for mark, _ in _MARKS)) or (bool(begin.strip()) and b"\0" not in begin)


def read_utf8(path: Path) -> bytes:
    """Return a text file as UTF-8 without a byte order mark; whether it is valid UTF-8 isn't looked at.

    UTF-16 and UTF-32 with a byte order mark, as PowerShell and Excel write them, are turned into UTF-8.

    Raises:
        DataError: It can't be read, or is no text.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"no file at {path} (seen from {Path.cwd()})") from None
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}") from None
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "")
    if encoding:
        try:
            content = content.decode(encoding).encode()
        except UnicodeError as error:
            raise DataError(f"{path} begins as {encoding.upper()} and isn't: {error}; save it as UTF-8") from None
    content = content.removeprefix(codecs.BOM_UTF8)
    if (zero := content.find(b"\0")) >= 0:
        raise DataError(
            f"{path} has a zero byte at {zero:,}: it is damaged, no text, or UTF-16 without a byte order mark; save it "
            "as UTF-8"
        )
    return content


def read_text(path: Path) -> str:
    """Return a text file's content.

    Raises:
        DataError: It can't be read, is no text, or is in another encoding than UTF-8, UTF-16 and UTF-32.
    """
    content = read_utf8(path)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: {content[error.start : error.start + 12]!r} isn't UTF-8; turn the file into UTF-8, "
            f"for instance with `iconv -f ISO-8859-1 -t UTF-8 {path.name}`"
        ) from None
