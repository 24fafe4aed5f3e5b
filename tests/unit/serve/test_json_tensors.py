from __future__ import annotations

import base64
import json

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from sat_xception.serve.json_tensors import format_response, parse_body, parse_inputs
from sat_xception.serve.protocol import Code, RequestError


def infos(**types: tf.DType) -> dict[str, TensorInfo]:
    return {name: TensorInfo(dtype=dtype.as_datatype_enum) for name, dtype in types.items()}


def parsed(document: dict, **types: tf.DType) -> dict[str, np.ndarray]:
    return parse_inputs(document, infos(**types))[0]


def test_rows_of_several_inputs_become_one_array_each():
    rows = [{"tag": "foo", "signal": [1, 2]}, {"tag": "bar", "signal": [3, 4.5]}]
    arrays, in_rows = parse_inputs({"instances": rows}, infos(tag=tf.string, signal=tf.float32))
    assert in_rows
    assert arrays["tag"].tolist() == [b"foo", b"bar"]
    assert arrays["signal"].dtype == np.float32
    assert arrays["signal"].tolist() == [[1, 2], [3, 4.5]]


def test_columns_may_have_different_lengths():
    arrays, in_rows = parse_inputs({"inputs": {"a": [1, 2, 3], "b": [True]}}, infos(a=tf.int64, b=tf.bool))
    assert not in_rows
    assert arrays["a"].tolist() == [1, 2, 3]
    assert arrays["b"].tolist() == [True]


def test_plain_rows_for_several_inputs_are_refused():
    with pytest.raises(RequestError, match="several inputs"):
        parsed({"instances": [1, 2]}, a=tf.int32, b=tf.int32)
    with pytest.raises(RequestError, match="several inputs"):
        parsed({"inputs": [1, 2]}, a=tf.int32, b=tf.int32)


def test_b64_is_decoded_at_any_depth_and_may_be_wrapped_or_unpadded():
    data = bytes(range(256))
    text = base64.b64encode(data).decode()
    wrapped = "\n".join(text[i : i + 76] for i in range(0, len(text), 76)).rstrip("=")
    value = {"inputs": [[{"b64": text}, "plain"], [{"b64": wrapped}, "é"]]}
    assert parsed(value, x=tf.string)["x"].tolist() == [[data, b"plain"], [data, "é".encode()]]


def test_bytes_that_end_in_zero_keep_it():
    assert parsed({"inputs": [{"b64": base64.b64encode(b"a\0").decode()}]}, x=tf.string)["x"].tolist() == [b"a\0"]


def test_a_scalar_and_an_empty_column_keep_their_shape():
    assert parsed({"inputs": "one"}, x=tf.string)["x"].shape == ()
    empty = parsed({"inputs": []}, x=tf.string)["x"]
    assert (empty.shape, empty.dtype) == ((0,), object)
    assert parsed({"inputs": [[], []]}, x=tf.uint8)["x"].shape == (2, 0)


@pytest.mark.parametrize(
    ("value", "dtype", "reason"),
    [
        ([256], tf.uint8, "256 does not fit type: uint8"),
        ([-1], tf.uint8, "-1 does not fit type: uint8"),
        ([2**70], tf.int64, "not of expected type"),
        ([1.0], tf.int32, "not of expected type: int32"),
        ([True], tf.float32, "not of expected type: float32"),
        ([1], tf.bool, "not of expected type: bool"),
        (["1"], tf.float32, "not of expected type: float32"),
        ([None], tf.float32, "not of expected type: float32"),
        ([{"b64": "AA=="}], tf.float32, "not of expected type: float32"),
        ([1e39], tf.float32, "without loss of precision"),
        ([[1], [1, 2]], tf.float32, "different lengths"),
        ([["a"], ["b", "c"]], tf.string, "different lengths"),
        (["a", ["b"]], tf.string, "different lengths or depths"),
        (["\ud800"], tf.string, "not valid Unicode"),
    ],
)
def test_a_value_that_would_change_is_refused(value, dtype, reason):
    with pytest.raises(RequestError, match=reason) as caught:
        parsed({"inputs": value}, x=dtype)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_lists_that_are_nested_beyond_reason_are_refused():
    with pytest.raises(RequestError, match="nested"):
        parsed(json.loads('{"inputs": ' + "[" * 400 + "]" * 400 + "}"), x=tf.string)


def test_nan_and_infinity_pass_both_ways():
    body = parse_body(b'{"inputs": [NaN, Infinity, -Infinity, 3e38]}')
    array = parsed(body, x=tf.float32)["x"]
    assert format_response({"x": array}, in_rows=False) == b'{"outputs": [NaN, Infinity, -Infinity, 3e+38]}'


def test_floats_are_written_in_their_shortest_form():
    array = np.array([0.2, 1, 3e-5, 1 / 3], dtype=np.float32)
    assert format_response({"x": array}, in_rows=True) == b'{"predictions":[0.2,1.0,0.00003,0.33333334]}'


def test_strings_are_plain_unless_the_name_says_bytes():
    array = np.array([b"caf\xc3\xa9"], dtype=object)
    assert json.loads(format_response({"label": array}, in_rows=True)) == {"predictions": ["café"]}
    coded = {"b64": base64.b64encode(b"caf\xc3\xa9").decode()}
    assert json.loads(format_response({"image_bytes": array}, in_rows=True)) == {"predictions": [coded]}


def test_bytes_that_are_no_text_need_a_name_that_says_so():
    array = np.array([b"\xff\xd8"], dtype=object)
    with pytest.raises(RequestError, match="ends in '_bytes'"):
        format_response({"label": array}, in_rows=True)


def test_outputs_of_different_lengths_have_no_row_form():
    outputs = {"a": np.arange(2), "b": np.arange(3)}
    assert json.loads(format_response(outputs, in_rows=False)) == {"outputs": {"a": [0, 1], "b": [0, 1, 2]}}
    with pytest.raises(RequestError, match="different batch sizes"):
        format_response(outputs, in_rows=True)
    with pytest.raises(RequestError, match="different batch sizes"):
        format_response({"a": np.array(1), "b": np.array(2)}, in_rows=True)


def test_several_outputs_make_rows_of_objects():
    outputs = {"a": np.array([[1, 2], [3, 4]]), "b": np.array([True, False])}
    rows = [{"a": [1, 2], "b": True}, {"a": [3, 4], "b": False}]
    assert json.loads(format_response(outputs, in_rows=True)) == {"predictions": rows}
