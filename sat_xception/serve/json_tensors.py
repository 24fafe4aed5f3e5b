"""TensorFlow Serving's JSON form of tensors: requests in rows or columns, `b64` objects, responses.

The rules are those of its REST documentation (api_rest.md) and of json_tensor.cc. Two are stricter here: a whole number
that doesn't fit the input's type is refused instead of wrapped around, and strings in a response must be UTF-8.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import pybase64
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from sat_xception.serve.models import Array
from sat_xception.serve.protocol import Code, RequestError

__all__ = ["format_response", "parse_body", "parse_inputs"]

_Json = Any  # any nesting of JSON values
_BYTES_SUFFIX = "_bytes"
_MAX_SHOWN = 80
_MAX_DEPTH = 16


def parse_body(body: bytes) -> dict[str, Any]:
    """Return a request's JSON object; NaN and Infinity are legal, as they are for TensorFlow Serving.

    Raises:
        RequestError: INVALID_ARGUMENT, empty, not JSON, not an object, or nested too deeply.
    """
    if not body.strip():
        raise _invalid("JSON Parse error: The document is empty")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = _parse_slowly(body)
    if not isinstance(document, dict):
        raise _invalid(f"JSON Value: {_shown(document)} Is not object")
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise _invalid(f"'signature_name' key must be a string value, got {_shown(name)}")
    return document


def _parse_slowly(body: bytes) -> object:
    """Return what orjson, which holds to the standard, doesn't read: NaN, Infinity, lone surrogates."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _invalid(f"JSON Parse error: {error}") from None


def parse_inputs(document: Mapping[str, Any], infos: Mapping[str, TensorInfo]) -> tuple[dict[str, Array], bool]:
    """Return a request's tensors.

    Args:
        document: The request's JSON object.
        infos: TensorInfo of each input of the signature.

    Returns:
        One array an input, strings as object arrays of bytes; and whether the request was in row form (`instances`).

    Raises:
        RequestError: INVALID_ARGUMENT, with what is wrong and where.
    """
    if "instances" in document and "inputs" in document:
        raise _invalid("Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist")
    if "instances" in document:
        return _from_rows(document["instances"], infos), True
    if "inputs" in document:
        return _from_columns(document["inputs"], infos), False
    raise _invalid("Missing 'inputs' or 'instances' key")


def format_response(outputs: Mapping[str, Array], in_rows: bool) -> bytes:
    """Return the JSON of a response; the name of a single output is left out.

    Raises:
        RequestError: INVALID_ARGUMENT, outputs of different lengths in row form, or a string that JSON can't hold.
    """
    # orjson writes NaN and Infinity, which the standard lacks, as null.
    finite = all(value.dtype == object or bool(np.isfinite(value).all()) for value in outputs.values())
    columns = {name: _to_json(name, value, finite) for name, value in outputs.items()}
    answer: object
    if len(columns) == 1:
        (answer,) = columns.values()
    elif not in_rows:
        answer = columns
    else:
        lengths = {name: value.shape[:1] for name, value in outputs.items()}
        if len(set(lengths.values())) != 1 or () in lengths.values():
            raise _invalid(
                f"outputs have different batch sizes, so they have no row form: {lengths}; send 'inputs' instead"
            )
        answer = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    content = {"predictions" if in_rows else "outputs": answer}
    if finite:
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps(content, ensure_ascii=False).encode()


def _from_rows(instances: object, infos: Mapping[str, TensorInfo]) -> dict[str, Array]:
    if not isinstance(instances, list):
        raise _invalid(f"Expecting 'instances' to be a list/array, got {_shown(instances)}")
    if not instances:
        raise _invalid("No values in 'instances' array")
    if not _is_named(instances[0]):
        (name, info), *more = infos.items()
        if more:
            raise _invalid(
                f"instances is a plain list, but objects of {sorted(infos)} are expected: it takes several inputs"
            )
        for position, instance in enumerate(instances):
            if _is_named(instance):
                raise _invalid(f"Expecting value/list but got object at item {position} of input list")
        return {name: _to_array(instances, name, info)}
    for position, instance in enumerate(instances):
        if not _is_named(instance):
            raise _invalid(f"Expecting object but got {_shown(instance)} at item {position} of input list")
        if instance.keys() != infos.keys():
            raise _invalid(
                f"Failed to process element: {position} of 'instances' list. It has keys {sorted(instance)}, "
                f"keys must be equal to: {','.join(sorted(infos))}"
            )
    return {name: _to_array([instance[name] for instance in instances], name, info) for name, info in infos.items()}


def _from_columns(inputs: object, infos: Mapping[str, TensorInfo]) -> dict[str, Array]:
    if not isinstance(inputs, dict) or _is_base64(inputs):
        (name, info), *more = infos.items()
        if more:
            raise _invalid(
                f"inputs is a plain value/list, but an object of {sorted(infos)} is expected: it takes several inputs"
            )
        return {name: _to_array(inputs, name, info)}
    for name in infos:
        if name not in inputs:
            raise _invalid(f"Missing named input: {name} in 'inputs' object; it has {sorted(inputs)}")
    return {name: _to_array(inputs[name], name, info) for name, info in infos.items()}


def _to_array(value: object, name: str, info: TensorInfo) -> Array:
    dtype = tf.dtypes.as_dtype(info.dtype)
    if dtype == tf.string:
        strings, shape = _strings(value, name)
        array = np.empty(len(strings), dtype=object)
        array[:] = strings
        return array.reshape(shape)
    try:
        array = np.array(value)
    except ValueError:
        raise _invalid(f"input {name!r}: lists at one level have different lengths") from None
    except OverflowError as error:
        raise _invalid(f"input {name!r}: {error}") from None
    if array.size == 0:
        return array.astype(dtype.as_numpy_dtype)
    return _cast(array, name, dtype)


def _cast(array: Array, name: str, dtype: tf.DType) -> Array:
    """Return numbers or truth values in the input's type if none is changed by it."""
    allowed = "b" if dtype.is_bool else "iu" if dtype.is_integer else "iuf"
    if array.dtype.kind not in allowed:
        raise _invalid(f"JSON Value: {_shown(array.ravel()[0])} is not of expected type: {dtype.name} (input {name!r})")
    if dtype.is_integer and (array.min() < dtype.min or array.max() > dtype.max):
        wrong = array.min() if array.min() < dtype.min else array.max()
        raise _invalid(
            f"JSON Value: {wrong} does not fit type: {dtype.name} in [{dtype.min}, {dtype.max}] (input {name!r})"
        )
    with np.errstate(over="ignore"):
        cast: Array = array.astype(dtype.as_numpy_dtype)
    if dtype.is_floating and not np.array_equal(np.isinf(array.astype(np.float64)), np.isinf(cast)):
        raise _invalid(f"Cannot convert a JSON value to {dtype.name} without loss of precision (input {name!r})")
    return cast


def _strings(value: object, name: str, depth: int = 0) -> tuple[list[bytes], tuple[int, ...]]:
    """Return nested strings flattened, and the shape they were nested in."""
    if not isinstance(value, list):
        return [_string(value, name)], ()
    if depth == _MAX_DEPTH:
        raise _invalid(f"input {name!r}: lists are nested more than {_MAX_DEPTH} deep")
    parts = [_strings(item, name, depth + 1) for item in value]
    shapes = {shape for _, shape in parts}
    if len(shapes) > 1:
        raise _invalid(f"input {name!r}: lists at one level have different lengths or depths: {sorted(shapes)}")
    return [string for strings, _ in parts for string in strings], (len(value), *(shapes.pop() if shapes else ()))


def _string(value: object, name: str) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise _invalid(
                f"input {name!r}: {_shown(value)} is not valid Unicode; send bytes as {{'b64': ...}}"
            ) from None
    if not _is_base64(value):
        raise _invalid(
            f"JSON Value: {_shown(value)} is not of expected type: string (input {name!r}); bytes go as {{'b64': ...}}"
        )
    text: str = value["b64"]  # type: ignore[index]
    try:
        return pybase64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        text = "".join(text.split())  # it may be wrapped, and its padding may be left out
    try:
        return pybase64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid(f"input {name!r}: Unable to base64 decode {_shown(text)}: {error}") from None


def _to_json(name: str, array: Array, arrays: bool) -> _Json:
    """Return an output as JSON types; numbers as an array where that is allowed."""
    if array.dtype == object:
        encode = _base64_object if name.endswith(_BYTES_SUFFIX) else lambda data: _text(data, name)
        flat = np.empty(array.size, dtype=object)
        flat[:] = [encode(data) for data in array.ravel()]
        return flat.reshape(array.shape).tolist()
    if array.dtype.kind not in "biuf":
        array = array.astype(np.float32)
    if arrays and array.ndim:
        return np.ascontiguousarray(array)
    if array.dtype in (np.float16, np.float32):
        # By way of its shortest decimal form: 0.2, where Python's own float of a float32 prints 0.20000000298023224.
        array = array.astype(np.str_).astype(np.float64)
    return array.tolist()


def _base64_object(data: bytes) -> dict[str, str]:
    return {"b64": pybase64.b64encode_as_string(data)}


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _invalid(
            f"output {name!r} holds bytes that aren't UTF-8; an output whose name ends in '_bytes' is sent as b64"
        ) from None


def _is_base64(value: object) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _is_named(value: object) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def _invalid(message: str) -> RequestError:
    return RequestError(Code.INVALID_ARGUMENT, message)
