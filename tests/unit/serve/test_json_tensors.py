from __future__ import annotations

import base64
import json

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from sat_xception.serve.json_document import parse_body
from sat_xception.serve.json_tensors import format_response, parse_inputs
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
        ([2**70], tf.int64, "does not fit type: int64"),
        ([1.8446744073709552e19], tf.uint64, "not of expected type: uint64"),
        ([-1, 2**63], tf.uint64, "-1 does not fit type: uint64"),
        ([1.0], tf.int32, "not of expected type: int32"),
        ([True], tf.float32, "True is not of expected type: float32"),
        ([1, True], tf.int32, "True is not of expected type: int32"),
        ([[2, 3], [False, 4]], tf.uint8, "False is not of expected type: uint8"),
        ([0.5, True], tf.float64, "True is not of expected type: float64"),
        ([1], tf.bool, "not of expected type: bool"),
        ([True, 1], tf.bool, "1 is not of expected type: bool"),
        ([1, 0.5], tf.int32, "0.5 is not of expected type: int32"),
        ([1, "1"], tf.int32, "'1' is not of expected type: int32"),
        ([1, None], tf.float32, "None is not of expected type: float32"),
        ([1, [1]], tf.int32, "different lengths or depths"),
        ([[1, 2], [3, 4], [[5, 6]]], tf.int32, "different lengths or depths"),
        ([[], [1]], tf.int32, "different lengths or depths"),
        ([[[]], [[1]]], tf.int32, "different lengths or depths"),
        ([{"a": 1}], tf.int32, "not of expected type: int32"),
        ([10**400], tf.float32, "too large for float64"),
        (["1"], tf.float32, "not of expected type: float32"),
        ([None], tf.float32, "not of expected type: float32"),
        ([{"b64": "AA=="}], tf.float32, "not of expected type: float32"),
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


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2**63, 2**64 - 1, 0], tf.uint64),
        ([2**63 + 1], tf.uint64),
        ([2**53 + 1, -(2**63), 2**63 - 1], tf.int64),
        ([2**32 - 1, 0], tf.uint32),
        ([-(2**31), 2**31 - 1], tf.int32),
        ([-32768, 32767], tf.int16),
        ([0, 65535], tf.uint16),
        ([-128, 127], tf.int8),
        ([True, False], tf.bool),
    ],
)
@pytest.mark.parametrize("form", ["inputs", "instances"])
def test_whole_numbers_arrive_as_they_were_sent(form, values, dtype):
    array = parsed(parse_body(json.dumps({form: [values, values]}).encode()), x=dtype)["x"]
    assert array.dtype == dtype.as_numpy_dtype
    assert array.tolist() == [values, values]


@pytest.mark.parametrize(
    ("number", "wanted"),
    [
        (1.7976931348623157e308, np.inf),
        (-1.7976931348623157e308, -np.inf),
        (1e39, np.inf),
        (2.2250738585072014e-308, 0.0),
        (1435774380, 1435774336.0),
        (1435774380.0, 1435774336.0),
        (2**70, 2.0**70),
        (2**64 - 1, 2.0**64),
    ],
)
def test_a_number_is_rounded_to_float32_as_tensorflow_serving_rounds_it(number, wanted):
    array = parsed({"instances": [number, 1]}, x=tf.float32)["x"]
    assert array.dtype == np.float32
    assert array.tolist() == [wanted, 1]


@pytest.mark.parametrize("dtype", [tf.complex64, tf.qint8, tf.resource, tf.variant])
def test_a_type_that_json_lacks_is_unimplemented(dtype):
    with pytest.raises(RequestError, match="no form in JSON") as caught:
        parsed({"inputs": [1]}, x=dtype)
    assert caught.value.code is Code.UNIMPLEMENTED


def test_one_b64_object_may_be_a_whole_column():
    hello = {"b64": "aGVsbG8="}
    assert parsed({"inputs": hello}, x=tf.string)["x"].tolist() == b"hello"
    columns = {"numbers": [[[1, 2], [3, 4], [5, 6]]], "texts": ["foo", "bar"], "data": hello, "unknown": 1}
    arrays = parsed({"inputs": columns}, numbers=tf.int32, texts=tf.string, data=tf.string)
    assert arrays.keys() == {"numbers", "texts", "data"}
    assert arrays["numbers"].shape == (1, 3, 2)
    assert arrays["texts"].tolist() == [b"foo", b"bar"]
    assert arrays["data"].shape == () and arrays["data"].tolist() == b"hello"


@pytest.mark.parametrize(
    ("instances", "shape"),
    [
        ([{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}], (2,)),
        ([[{"b64": "aGVsbG8="}], [{"b64": "d29ybGQ="}]], (2, 1)),
        ([{"x": [[{"b64": "aGVsbG8="}], [{"b64": "d29ybGQ="}]]}], (1, 2, 1)),
    ],
)
def test_b64_rows_keep_the_shape_of_their_lists(instances, shape):
    array = parsed({"instances": instances}, x=tf.string)["x"]
    assert array.shape == shape
    assert array.ravel().tolist() == [b"hello", b"world"]


@pytest.mark.parametrize(
    ("instances", "reason"),
    [
        ([{"n": [[1, 2]], "t": ["a"]}, {"n": [[[1, 2]]], "t": ["b"]}], "different lengths or depths"),
        ([{"n": [[1, 2]], "t": ["a"]}, {"n": [[1, 2], [3, 4]], "t": ["b"]}], "different lengths or depths"),
        ([{"n": 1, "t": "a"}, [1, 20, 30]], "Expecting object but got"),
        ([{"n": 1, "t": "a"}, {"n": 1}], "keys must be equal to: n,t"),
        ([{"n": 1, "t": "a", "u": 2}], "keys must be equal to: n,t"),
        ([{"b64": "AA=="}], "several inputs"),
    ],
)
def test_rows_that_differ_are_refused(instances, reason):
    with pytest.raises(RequestError, match=reason):
        parsed({"instances": instances}, n=tf.int32, t=tf.string)


def test_an_object_among_plain_rows_is_refused():
    with pytest.raises(RequestError, match="Expecting value/list but got object"):
        parsed({"instances": [["a", "b"], {"x": ["a", "b"]}]}, x=tf.string)


@pytest.mark.parametrize("dtype", [tf.string, tf.int32, tf.float32, tf.bool])
@pytest.mark.parametrize("depth", [65, 400, 1100, 20_000])
@pytest.mark.parametrize("form", ["inputs", "instances"])
def test_values_that_are_nested_beyond_any_tensor_are_refused(form, depth, dtype):
    body = b'{"%s": ' % form.encode() + b"[" * depth + b"1" + b"]" * depth + b"}"
    with pytest.raises(RequestError, match=r"nested|different lengths or depths"):
        parsed(parse_body(body), x=dtype)


def test_an_error_shows_little_of_a_large_value():
    names = {f"name {number}": 1 for number in range(10_000)}
    for document in ({"instances": [names]}, {"inputs": names}, {"inputs": [names]}, {"inputs": [["a" * 9**6]]}):
        with pytest.raises(RequestError) as caught:
            parsed(document, x=tf.int32)
        assert len(str(caught.value)) < 1000


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


def test_outputs_without_a_batch_dimension_have_no_row_form():
    for outputs in ({"a": np.array(1)}, {"a": np.array(1), "b": np.array(2)}, {"a": np.array(1), "b": np.arange(2)}):
        json.loads(format_response(outputs, in_rows=False))
        with pytest.raises(RequestError, match="no row form"):
            format_response(outputs, in_rows=True)


@pytest.mark.parametrize("array", [np.ones(2, np.complex64), np.zeros(2, tf.qint8.as_numpy_dtype)])
def test_an_output_that_json_lacks_is_refused(array):
    for in_rows in (True, False):
        with pytest.raises(RequestError, match=r"has tensor type: .* no form in JSON"):
            format_response({"x": array}, in_rows)


@pytest.mark.parametrize("dtype", [np.float16, tf.bfloat16.as_numpy_dtype])
def test_half_floats_are_written_as_numbers(dtype):
    assert format_response({"x": np.array([0.5, 3], dtype)}, in_rows=True) == b'{"predictions":[0.5,3.0]}'


def test_a_batch_of_none_is_an_empty_list():
    outputs = {"a": np.zeros((0, 1, 2), dtype=object), "b": np.zeros((0, 3, 4), np.float32)}
    assert format_response(outputs, in_rows=True) == b'{"predictions":[]}'
    assert format_response({"a": np.zeros((0, 2), np.int32)}, in_rows=True) == b'{"predictions":[]}'


def test_several_outputs_make_rows_of_objects():
    outputs = {"a": np.array([[1, 2], [3, 4]]), "b": np.array([True, False])}
    rows = [{"a": [1, 2], "b": True}, {"a": [3, 4], "b": False}]
    assert json.loads(format_response(outputs, in_rows=True)) == {"predictions": rows}
