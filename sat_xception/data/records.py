"""TFRecord files of `tf.train.Example`, written without TensorFlow, whose import takes longer than small datasets do.

The messages are put together here, with the field numbers of tensorflow/core/example/{feature,example}.proto in the
protocol buffers' wire format (https://protobuf.dev/programming-guides/encoding/), so their bytes are those that
TensorFlow's own classes serialize to.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import google_crc32c

__all__ = ["RecordWriter", "serialize_example"]

# A field's tag is its number times 8 and the wire type; 2 is a length and so many bytes.
_FIRST, _SECOND, _THIRD = b"\x0a", b"\x12", b"\x1a"
# tensorflow/core/lib/hash/crc32c.h: a checksum of data that holds checksums is rotated and shifted by this.
_MASK_DELTA = 0xA282EAD8


def serialize_example(features: Mapping[str, bytes | memoryview | float | int]) -> bytes:
    """Return the bytes of a `tf.train.Example` with one value a feature, sorted by name.

    Args:
        features: Value by name: bytes for a `bytes_list`, float for a `float_list`, int for an `int64_list`.
    """
    entries = b"".join([_FIRST + _sized(_entry(name, features[name])) for name in sorted(features)])
    return _FIRST + _sized(entries)


def _entry(name: str, value: bytes | memoryview | float | int) -> bytes:
    """Return an entry of the map from names to features."""
    if isinstance(value, int):
        kind, values = _THIRD, _FIRST + _sized(_varint(value & 0xFFFFFFFFFFFFFFFF))
    elif isinstance(value, float):
        kind, values = _SECOND, _FIRST + _sized(struct.pack("<f", value))
    else:
        kind, values = _FIRST, _FIRST + _sized(value)
    return _key(name) + _SECOND + _sized(kind + _sized(values))


@cache
def _key(name: str) -> bytes:
    return _FIRST + _sized(name.encode())


def _sized(data: bytes | memoryview) -> bytes:
    return b"".join((_varint(len(data)), data))


def _varint(number: int) -> bytes:
    """Return a number that isn't negative in groups of seven bits, the lowest first."""
    if number < 0x80:
        return bytes((number,))
    groups = []
    while number >= 0x80:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*groups, number))


class RecordWriter:
    """Write a TFRecord file: length, checksum of the length, record, checksum of the record, each little-endian.

    Attributes:
        path: The file.
        count: Records written.
        record_bytes: Size of the records, without what frames them.
    """

    def __init__(self, path: Path) -> None:
        """Create or empty the file."""
        self.path = path
        self.count = 0
        self.record_bytes = 0
        self._digest = hashlib.sha256()
        self._file = path.open("wb", buffering=2**20)

    def write(self, record: bytes) -> None:
        """Append a record."""
        length = struct.pack("<Q", len(record))
        framed = b"".join((length, _masked_checksum(length), record, _masked_checksum(record)))
        self._digest.update(framed)
        self._file.write(framed)
        self.count += 1
        self.record_bytes += len(record)

    def close(self) -> None:
        """Write out what is left and close the file."""
        self._file.close()

    def sha256(self) -> str:
        """Return the digest of everything written so far, as hexadecimal digits."""
        return self._digest.hexdigest()


def _masked_checksum(data: bytes) -> bytes:
    checksum = google_crc32c.value(data)
    rotated = (checksum >> 15 | checksum << 17) & 0xFFFFFFFF
    return struct.pack("<I", (rotated + _MASK_DELTA) & 0xFFFFFFFF)
