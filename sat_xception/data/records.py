"""TFRecord files of `tf.train.Example`, written without TensorFlow, whose import takes longer than small datasets do.

The messages are declared here with the field numbers of tensorflow/core/example/{feature,example}.proto, so their bytes
are those that TensorFlow's own classes serialize to.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["RecordWriter", "serialize_example"]

_FIELD = descriptor_pb2.FieldDescriptorProto
# Lists by the Python type of their values: name of the message, of its field in Feature, and type of its values.
_LISTS = {
    bytes: ("BytesList", "bytes_list", _FIELD.TYPE_BYTES),
    float: ("FloatList", "float_list", _FIELD.TYPE_FLOAT),
    int: ("Int64List", "int64_list", _FIELD.TYPE_INT64),
}
# tensorflow/core/lib/hash/crc32c.h: a checksum of data that holds checksums is rotated and shifted by this.
_MASK_DELTA = 0xA282EAD8


def serialize_example(features: Mapping[str, bytes | float | int]) -> bytes:
    """Return the bytes of a `tf.train.Example` with one value a feature; the same features give the same bytes.

    Args:
        features: Value by name: bytes for a `bytes_list`, float for a `float_list`, int for an `int64_list`.
    """
    example = _Example()
    for name, value in features.items():
        getattr(example.features.feature[name], _LISTS[type(value)][1]).value.append(value)
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized


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
        for part in (length, _masked_checksum(length), record, _masked_checksum(record)):
            self._digest.update(part)
            self._file.write(part)
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


def _declare_example() -> Any:  # noqa: ANN401 - a message class made at run time
    """Return the class of `tensorflow.Example`, in a pool of its own: TensorFlow, where it is, declares it too."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")
    feature = descriptor_pb2.DescriptorProto(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, kind in enumerate((bytes, float, int), start=1):
        message, field, type_number = _LISTS[kind]
        values = file.message_type.add(name=message)
        values.field.add(name="value", number=1, label=_FIELD.LABEL_REPEATED, type=type_number)
        feature.field.add(
            name=field,
            number=number,
            label=_FIELD.LABEL_OPTIONAL,
            type=_FIELD.TYPE_MESSAGE,
            type_name=f".tensorflow.{message}",
            oneof_index=0,
        )
    file.message_type.append(feature)
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry", options={"map_entry": True})
    entry.field.add(name="key", number=1, label=_FIELD.LABEL_OPTIONAL, type=_FIELD.TYPE_STRING)
    _add_message(entry, "value", 2, "Feature")
    _add_message(features, "feature", 1, "Features.FeatureEntry", _FIELD.LABEL_REPEATED)
    _add_message(file.message_type.add(name="Example"), "features", 1, "Features")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


def _add_message(
    message: descriptor_pb2.DescriptorProto,
    name: str,
    number: int,
    type_name: str,
    label: _FIELD.Label.ValueType = _FIELD.LABEL_OPTIONAL,
) -> None:
    message.field.add(
        name=name, number=number, label=label, type=_FIELD.TYPE_MESSAGE, type_name=f".tensorflow.{type_name}"
    )


_Example = _declare_example()
