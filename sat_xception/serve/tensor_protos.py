"""Convert TensorProtos to arrays and back, in the form that TensorFlow Serving uses."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto

from sat_xception.serve.models import Array
from sat_xception.serve.protocol import Code, RequestError

__all__ = ["array_to_proto", "proto_to_array"]

# Fields that TensorFlow Serving fills (Tensor::AsProtoField). Clients read these fields, and not `tensor_content`.
_VALUE_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int8: "int_val",
    tf.uint8: "int_val",
    tf.int16: "int_val",
    tf.uint16: "int_val",
    tf.int32: "int_val",
    tf.uint32: "uint32_val",
    tf.int64: "int64_val",
    tf.uint64: "uint64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
}
# A 32-bit varint has at most five bytes of seven bits each.
_MAX_SHIFT = 28


def proto_to_array(proto: TensorProto, max_bytes: int) -> Array:
    """Return a TensorProto's values.

    Args:
        proto: Proto from the client.
        max_bytes: Maximum size of the array: a small proto may have a huge shape and one value to fill it with.

    Raises:
        RequestError: INVALID_ARGUMENT: the proto is inconsistent or larger than allowed.
    """
    sizes = [dimension.size for dimension in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in sizes):
        raise RequestError(Code.INVALID_ARGUMENT, f"a tensor's shape must be known, got {sizes}")
    try:
        dtype = tf.dtypes.as_dtype(proto.dtype)
        if dtype.base_dtype != dtype or not dtype.is_numpy_compatible:
            raise RequestError(Code.INVALID_ARGUMENT, f"a tensor of type {dtype.name} can't be sent in a request")
        needed = math.prod(sizes) * max(1, dtype.size or 1)
        if needed > max_bytes:
            raise RequestError(
                Code.INVALID_ARGUMENT, f"a tensor of shape {sizes} takes {needed:,} bytes, the limit is {max_bytes:,}"
            )
        if dtype == tf.string and proto.tensor_content:
            return _strings(proto.tensor_content, sizes)
        array: Array = tf.make_ndarray(proto)
    except (TypeError, ValueError) as error:
        raise RequestError(Code.INVALID_ARGUMENT, f"a tensor can't be read: {error}") from error
    return array


def _strings(content: bytes, sizes: list[int]) -> Array:
    """Return the strings in `tensor_content`: the length of each as a varint, then all strings joined.

    This is the form of TensorFlow's EncodeStringList (tensor_coding.cc).

    Raises:
        ValueError: The content doesn't match the shape.
    """
    count = math.prod(sizes)
    lengths: list[int] = []
    at = 0
    while len(lengths) < count:
        length, shift = 0, 0
        while True:
            if at == len(content) or shift > _MAX_SHIFT:
                raise ValueError(f"its content is cut after the lengths of {len(lengths):,} of {count:,} strings")
            byte = content[at]
            length |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                break
        lengths.append(length)
    if sum(lengths) != len(content) - at:
        raise ValueError(
            f"its {count:,} strings have {sum(lengths):,} bytes together, its content has {len(content) - at:,}"
        )
    strings = np.empty(count, dtype=object)
    for number, length in enumerate(lengths):
        strings[number] = content[at : at + length]
        at += length
    return strings.reshape(sizes)


def array_to_proto(array: Array) -> TensorProto:
    """Return an array as a TensorProto with its values in the typed field."""
    dtype = tf.dtypes.as_dtype(tf.string if array.dtype == object else array.dtype)
    field = _VALUE_FIELDS.get(dtype)
    if field is None:
        return tf.make_tensor_proto(array)
    proto = TensorProto(dtype=dtype.as_datatype_enum, tensor_shape=tf.TensorShape(array.shape).as_proto())
    getattr(proto, field).extend(np.ravel(array).tolist())
    return proto
