"""TFRecord files of `tf.train.Example`, written without TensorFlow, whose import takes longer than small datasets do.

The messages are put together here, with the field numbers of tensorflow/core/example/{feature,example}.proto in the
protocol buffers' wire format (https://protobuf.dev/programming-guides/encoding/), so their bytes are those that
TensorFlow's own classes serialize to.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import google_crc32c

__all__ = ["RecordWriter", "serialize_example"]

# A field's tag is its number times 8 and the wire type; 2 is a length and so many bytes.
_FIRST, _SECOND, _THIRD = b"\x0a", b"\x12", b"\x1a"
# tensorflow/core/lib/hash/crc32c.h: a checksum of data that holds checksums is rotated and shifted by this.
_MASK_DELTA = 0xA282EAD8


def serialize_example(features: Mapping[str, bytes | memoryview | float | int]) -> bytes:
    """Return the bytes of a `tf.train.Example` with one value per feature, in protobuf's order of names.

    Args:
        features: Value by name: bytes for a `bytes_list`, float for a `float_list`, int for an `int64_list`.
    """
    parts: list[bytes | memoryview] = []
    for name in _in_order(tuple(features)):
        value = features[name]
        if isinstance(value, int):
            payload: bytes | memoryview = _varint(value & 0xFFFFFFFFFFFFFFFF)
            parts += (_head(name, _THIRD, len(payload)), payload)
        elif isinstance(value, float):
            parts += (_head(name, _SECOND, 4), struct.pack("<f", value))
        else:
            parts += (_head(name, _FIRST, len(value)), value)
    return b"".join((_FIRST, _varint(sum(map(len, parts))), *parts))


@lru_cache(2**8)
def _in_order(names: tuple[str, ...]) -> list[str]:
    """Return names as protobuf sorts the keys of a map: by their bytes, but one that begins with another goes first."""
    # No byte of UTF-8 is as large as the one that is added.
    return sorted(names, key=lambda name: name.encode() + b"\xff")


@lru_cache(2**16)
def _head(name: str, kind: bytes, length: int) -> bytes:
    """Return the bytes in front of a value of a given size in the map from names to features."""
    # From the inside out: the value's field in its list, the list in its feature, the feature in an entry of the map.
    before_value = _FIRST + _varint(length)
    before_list = kind + _varint(len(before_value) + length)
    feature = len(before_list) + len(before_value) + length
    key = name.encode()
    entry = b"".join((_FIRST, _varint(len(key)), key, _SECOND, _varint(feature)))
    return b"".join((_FIRST, _varint(len(entry) + feature), entry, before_list, before_value))


@lru_cache(2**12)
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
        """Flush and close the file."""
        self._file.close()

    def sha256(self) -> str:
        """Return the digest of everything written so far, as hexadecimal digits."""
        return self._digest.hexdigest()


def _masked_checksum(data: bytes) -> bytes:
    checksum = google_crc32c.value(data)
    rotated = (checksum >> 15 | checksum << 17) & 0xFFFFFFFF
    return struct.pack("<I", (rotated + _MASK_DELTA) & 0xFFFFFFFF)
