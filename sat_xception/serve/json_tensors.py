"""TensorFlow Serving's JSON form of tensors: requests in rows or columns, `b64` objects, responses.

The rules are those of its REST documentation (api_rest.md) and of json_tensor.cc. docs/endpoint.md lists the deliberate
differences.
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

from sat_xception.serve.json_document import invalid, shown
from sat_xception.serve.models import Array
from sat_xception.serve.protocol import Code, RequestError

__all__ = ["format_response", "parse_inputs"]

_Json = Any  # any nesting of JSON values
_BYTES_SUFFIX = "_bytes"
_MAX_DEPTH = 16


def parse_inputs(document: Mapping[str, Any], infos: Mapping[str, TensorInfo]) -> tuple[dict[str, Array], bool]:
    """Return a request's tensors.

    Args:
        document: The request's JSON object.
        infos: TensorInfo of each input of the signature.

    Returns:
        One array per input, with strings as object arrays of bytes; and whether the request was in row form
        (`instances`).

    Raises:
        RequestError: INVALID_ARGUMENT, with the invalid value and its position.
    """
    if "instances" in document and "inputs" in document:
        raise invalid("Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist")
    if "instances" in document:
        return _from_rows(document["instances"], infos), True
    if "inputs" in document:
        return _from_columns(document["inputs"], infos), False
    raise invalid("Missing 'inputs' or 'instances' key")


def format_response(outputs: Mapping[str, Array], in_rows: bool) -> bytes:
    """Return the JSON of a response; the name of a single output is left out.

    Raises:
        RequestError: INVALID_ARGUMENT: outputs of different lengths in row form, or a string that isn't UTF-8.
    """
    outputs = {name: _with_json_form(name, value) for name, value in outputs.items()}
    # orjson writes NaN and Infinity as null, since standard JSON lacks them.
    finite = all(value.dtype == object or bool(np.isfinite(value).all()) for value in outputs.values())
    columns = {name: _to_json(name, value, finite) for name, value in outputs.items()}
    answer: object
    if in_rows and any(value.ndim == 0 for value in outputs.values()):
        raise invalid(f"outputs without a batch dimension have no row form: {sorted(outputs)}; send 'inputs' instead")
    if len(columns) == 1:
        (answer,) = columns.values()
    elif not in_rows:
        answer = columns
    else:
        lengths = {name: value.shape[:1] for name, value in outputs.items()}
        if len(set(lengths.values())) != 1:
            raise invalid(
                f"outputs have different batch sizes, so they have no row form: {lengths}; send 'inputs' instead"
            )
        answer = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    content = {"predictions" if in_rows else "outputs": answer}
    if finite:
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps(content, ensure_ascii=False).encode()


def _from_rows(instances: object, infos: Mapping[str, TensorInfo]) -> dict[str, Array]:
    if not isinstance(instances, list):
        raise invalid(f"Expecting 'instances' to be a list/array, got {shown(instances)}")
    if not instances:
        raise invalid("No values in 'instances' array")
    if not _is_named(instances[0]):
        (name, info), *more = infos.items()
        if more:
            raise invalid(
                f"instances is a plain list, but objects of {sorted(infos)} are expected: it takes several inputs"
            )
        for position, instance in enumerate(instances):
            if _is_named(instance):
                raise invalid(f"Expecting value/list but got object at item {position} of input list")
        return {name: _to_array(instances, name, info)}
    for position, instance in enumerate(instances):
        if not _is_named(instance):
            raise invalid(f"Expecting object but got {shown(instance)} at item {position} of input list")
        if instance.keys() != infos.keys():
            raise invalid(
                f"Failed to process element: {position} of 'instances' list. It has keys {shown(sorted(instance))}, "
                f"keys must be equal to: {','.join(sorted(infos))}"
            )
    return {name: _to_array([instance[name] for instance in instances], name, info) for name, info in infos.items()}


def _from_columns(inputs: object, infos: Mapping[str, TensorInfo]) -> dict[str, Array]:
    if not isinstance(inputs, dict) or _is_base64(inputs):
        (name, info), *more = infos.items()
        if more:
            raise invalid(
                f"inputs is a plain value/list, but an object of {sorted(infos)} is expected: it takes several inputs"
            )
        return {name: _to_array(inputs, name, info)}
    for name in infos:
        if name not in inputs:
            raise invalid(f"Missing named input: {name} in 'inputs' object; it has {shown(sorted(inputs))}")
    return {name: _to_array(inputs[name], name, info) for name, info in infos.items()}


def _to_array(value: object, name: str, info: TensorInfo) -> Array:
    dtype = tf.dtypes.as_dtype(info.dtype)
    if dtype == tf.string:
        strings, shape = _strings(value, name)
        array = np.empty(len(strings), dtype=object)
        array[:] = strings
        return array.reshape(shape)
    return _numbers(value, name, dtype)


def _numbers(value: object, name: str, dtype: tf.DType) -> Array:
    """Return numbers or booleans in the input's type.

    They are checked one by one, before NumPy makes an array: it would turn `true` into 1 and an uint64 into a float64.
    """
    wanted = {bool} if dtype.is_bool else {int} if dtype.is_integer else {int, float} if dtype.is_floating else set()
    if not wanted:
        raise RequestError(
            Code.UNIMPLEMENTED, f"input {name!r} takes {dtype.name}, which has no form in JSON; send it over gRPC"
        )
    nested = np.array(value, dtype=object)
    flat = nested.ravel().tolist()
    kinds = set(map(type, flat))
    if list in kinds:
        raise invalid(f"input {name!r}: lists at one level have different lengths or depths, or are nested too deeply")
    if not kinds <= wanted:
        wrong = next(item for item in flat if type(item) not in wanted)
        raise invalid(f"JSON Value: {shown(wrong)} is not of expected type: {dtype.name} (input {name!r})")
    if dtype.is_integer and flat and (min(flat) < dtype.min or max(flat) > dtype.max):
        wrong = min(flat) if min(flat) < dtype.min else max(flat)
        raise invalid(
            f"JSON Value: {shown(wrong)} does not fit type: {dtype.name} in [{dtype.min}, {dtype.max}] (input {name!r})"
        )
    if not dtype.is_floating:
        return np.array(flat, dtype.as_numpy_dtype).reshape(nested.shape)
    try:
        doubles = np.array(flat, np.float64).reshape(nested.shape)
    except OverflowError:
        raise invalid(f"input {name!r}: a number is too large for float64") from None
    with np.errstate(over="ignore"):  # numbers beyond float32 become infinity, as in TensorFlow Serving
        cast: Array = doubles.astype(dtype.as_numpy_dtype)
    return cast


def _strings(value: object, name: str, depth: int = 0) -> tuple[list[bytes], tuple[int, ...]]:
    """Return nested strings flattened, and the shape they were nested in."""
    if not isinstance(value, list):
        return [_string(value, name)], ()
    if depth == _MAX_DEPTH:
        raise invalid(f"input {name!r}: lists are nested more than {_MAX_DEPTH} deep")
    parts = [_strings(item, name, depth + 1) for item in value]
    shapes = {shape for _, shape in parts}
    if len(shapes) > 1:
        raise invalid(f"input {name!r}: lists at one level have different lengths or depths: {shown(sorted(shapes))}")
    return [string for strings, _ in parts for string in strings], (len(value), *(shapes.pop() if shapes else ()))


def _string(value: object, name: str) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise invalid(
                f"input {name!r}: {shown(value)} is not valid Unicode; send bytes as {{'b64': ...}}"
            ) from None
    if not _is_base64(value):
        raise invalid(
            f"JSON Value: {shown(value)} is not of expected type: string (input {name!r}); bytes go as {{'b64': ...}}"
        )
    text: str = value["b64"]  # type: ignore[index]
    try:
        return pybase64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        text = "".join(text.split())  # lines may be wrapped, and the padding may be missing
    try:
        return pybase64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"input {name!r}: Unable to base64 decode {shown(text)}: {error}") from None


def _with_json_form(name: str, array: Array) -> Array:
    """Return an output in a type that JSON can represent; 16-bit and smaller floats become float32.

    Raises:
        RequestError: INVALID_ARGUMENT: complex or quantized numbers.
    """
    if array.dtype == object or array.dtype.kind in "biuf":
        return array
    if array.dtype.kind == "c" or array.dtype.names:
        raise invalid(f"output {name!r} has tensor type: {array.dtype}, which has no form in JSON; ask over gRPC")
    return array.astype(np.float32)


def _to_json(name: str, array: Array, arrays: bool) -> _Json:
    """Return an output as JSON types; numbers stay an array if `arrays` is set."""
    if array.dtype == object:
        encode = _base64_object if name.endswith(_BYTES_SUFFIX) else lambda data: _text(data, name)
        flat = np.empty(array.size, dtype=object)
        flat[:] = [encode(data) for data in array.ravel()]
        return flat.reshape(array.shape).tolist()
    if arrays and array.ndim:
        return np.ascontiguousarray(array)
    if array.dtype in (np.float16, np.float32):
        # Through the shortest decimal form: 0.2, where a float32 converted to float prints 0.20000000298023224.
        array = array.astype(np.str_).astype(np.float64)
    return array.tolist()


def _base64_object(data: bytes) -> dict[str, str]:
    return {"b64": pybase64.b64encode_as_string(data)}


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise invalid(
            f"output {name!r} holds bytes that aren't UTF-8; an output whose name ends in '_bytes' is sent as b64"
        ) from None


def _is_base64(value: object) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _is_named(value: object) -> bool:
    return isinstance(value, dict) and not _is_base64(value)
