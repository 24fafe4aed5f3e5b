"""TensorFlow Serving's contract over real HTTP and gRPC, held by the server that tests/serving_fixtures.py names."""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Iterator

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
)
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from sat_xception.serve.server import RunningServer
from tests.serving_fixtures import (
    CLASSES,
    NAME,
    VERSION,
    Contract,
    encoded,
    expected,
    pixels_of,
    pngs,
    serve_config,
    write_echo_version,
)

pytest_plugins = ["tests.serving_fixtures"]
PIXELS = pixels_of(3)
IMAGES = pngs(3)


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def named(images: list[bytes]) -> list[dict]:
    return [{"image_bytes": b64(data)} for data in images]


def post(contract: Contract, body: object, path: str = ":predict") -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(contract.model_url + path, content=content)


def predictions(response: httpx.Response) -> list:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["predictions"]
    return response.json()["predictions"]


def outputs(response: httpx.Response) -> object:
    assert response.status_code == 200, response.text
    assert list(response.json()) == ["outputs"]
    return response.json()["outputs"]


# Predict over REST


def test_rows_of_named_inputs_give_a_list_of_lists_equal_to_keras(contract):
    rows = predictions(post(contract, {"instances": named(IMAGES)}))
    np.testing.assert_allclose(rows, expected(PIXELS), atol=1e-5)


def test_rows_of_bare_values_stand_for_the_only_input(contract):
    rows = predictions(post(contract, {"instances": [b64(data) for data in IMAGES]}))
    np.testing.assert_allclose(rows, expected(PIXELS), atol=1e-5)


def test_a_single_row_works(contract):
    rows = predictions(post(contract, {"instances": named(IMAGES[:1])}))
    np.testing.assert_allclose(rows, expected(PIXELS[:1]), atol=1e-5)


def test_named_columns_give_one_bare_output(contract):
    values = outputs(post(contract, {"inputs": {"image_bytes": [b64(data) for data in IMAGES]}}))
    np.testing.assert_allclose(values, expected(PIXELS), atol=1e-5)


def test_bare_columns_stand_for_the_only_input(contract):
    values = outputs(post(contract, {"inputs": [b64(data) for data in IMAGES]}))
    np.testing.assert_allclose(values, expected(PIXELS), atol=1e-5)


def test_several_outputs_in_rows_are_a_list_of_objects(contract):
    rows = predictions(post(contract, {"signature_name": "classify", "instances": named(IMAGES)}))
    assert all(row.keys() == {"probabilities", "label", "score"} for row in rows)
    wanted = expected(PIXELS)
    np.testing.assert_allclose([row["probabilities"] for row in rows], wanted, atol=1e-5)
    np.testing.assert_allclose([row["score"] for row in rows], wanted.max(axis=1), atol=1e-5)
    assert [row["label"] for row in rows] == [CLASSES[i] for i in wanted.argmax(axis=1)]


def test_several_outputs_in_columns_are_an_object_of_lists(contract):
    columns = outputs(post(contract, {"signature_name": "classify", "inputs": [b64(data) for data in IMAGES]}))
    wanted = expected(PIXELS)
    np.testing.assert_allclose(columns["probabilities"], wanted, atol=1e-5)
    assert columns["label"] == [CLASSES[i] for i in wanted.argmax(axis=1)]
    assert columns.keys() == {"probabilities", "label", "score"}


@pytest.mark.parametrize("form", ["instances", "inputs"])
def test_pixels_go_as_nested_lists(contract, form):
    response = post(contract, {"signature_name": "images", form: PIXELS.tolist()})
    values = predictions(response) if form == "instances" else outputs(response)
    np.testing.assert_allclose(values, expected(PIXELS), atol=1e-5)


def test_jpeg_is_decoded_as_exactly_as_pillow_decodes_it(contract):
    jpeg = encoded(PIXELS[0], "JPEG")
    with Image.open(io.BytesIO(jpeg)) as image:
        pixels = np.asarray(image)[None]
    np.testing.assert_allclose(predictions(post(contract, {"instances": named([jpeg])})), expected(pixels), atol=1e-5)


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded", None])
def test_the_content_type_does_not_matter(contract, content_type):
    headers = {"Content-Type": content_type} if content_type else {}
    content = json.dumps({"instances": named(IMAGES[:1])})
    predictions(httpx.post(f"{contract.model_url}:predict", content=content.encode(), headers=headers))


def test_nan_and_infinity_are_legal_tokens(contract):
    body = json.dumps({"instances": named(IMAGES[:1]), "ignored": [float("nan"), float("-inf")]})
    predictions(post(contract, body.encode()))


def test_the_pinned_version_answers(contract):
    rows = predictions(post(contract, {"instances": named(IMAGES)}, f"/versions/{VERSION}:predict"))
    np.testing.assert_allclose(rows, expected(PIXELS), atol=1e-5)


def test_paths_ignore_case(contract):
    response = httpx.post(f"{contract.rest_url}/V1/Models/{NAME}:Predict", json={"instances": named(IMAGES[:1])})
    assert response.status_code == 200


BAD_BODIES = {
    "empty": b"",
    "cut short": b'{"instances": [',
    "not an object": b"[1, 2]",
    "not UTF-8": b'{"instances": "\xff"}',
    "nested too deeply": b'{"instances": ' + b"[" * 100_000,
    "a key twice": b'{"signature_name": "images", "instances": [[[[1, 2, 3]]]], "instances": [[[[4, 5, 6]]]]}',
    "an input twice": b'{"signature_name": "images", "inputs": {"images": [[[[1, 2, 3]]]], "images": [[[[4, 5, 6]]]]}}',
    "pixels nested too deeply": b'{"signature_name": "images", "instances": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "true for a pixel": b'{"signature_name": "images", "instances": [[[[1, true, 3]]]]}',
    "a pixel beyond any integer": b'{"signature_name": "images", "instances": [[[[1, 2, 1%s]]]]}' % (b"0" * 400),
    "one image without a list": {"inputs": b64(IMAGES[0])},
    "one named image without a list": {"inputs": {"image_bytes": b64(IMAGES[0])}},
    "neither form": {"images": []},
    "both forms": {"instances": named(IMAGES[:1]), "inputs": [b64(IMAGES[0])]},
    "no instances": {"instances": []},
    "instances not a list": {"instances": named(IMAGES[:1])[0]},
    "unknown input": {"instances": [{"bytes": b64(IMAGES[0])}]},
    "an input too many": {"instances": [{"image_bytes": b64(IMAGES[0]), "key": "1"}]},
    "objects and values mixed": {"instances": [*named(IMAGES[:1]), b64(IMAGES[0])]},
    "values and objects mixed": {"instances": [b64(IMAGES[0]), *named(IMAGES[:1])]},
    "missing column": {"inputs": {"bytes": [b64(IMAGES[0])]}},
    "number for a string": {"instances": [{"image_bytes": 7}]},
    "null for a string": {"instances": [None]},
    "object that is not b64": {"instances": [{"image_bytes": {"b64": 7}}]},
    "bad base64": {"instances": [{"image_bytes": {"b64": "!!!"}}]},
    "rank too high": {"instances": [[b64(IMAGES[0])]]},
    "string for pixels": {"signature_name": "images", "instances": ["dog"]},
    "fraction for pixels": {"signature_name": "images", "instances": [[[[0.5, 1, 2]]]]},
    "ragged pixels": {"signature_name": "images", "instances": [[[[1, 2, 3]], [[1, 2]]]]},
    "wrong channels": {"signature_name": "images", "instances": [[[[1, 2]]]]},
    "unknown signature": {"signature_name": "detect", "instances": named(IMAGES[:1])},
    "signature name not a string": {"signature_name": 7, "instances": named(IMAGES[:1])},
    "not an image": {"instances": named([b"this is no image"])},
    "no bytes": {"instances": named([b""])},
    "plain text": {"instances": [{"image_bytes": "tile.jpg"}]},
    "image cut short": {"instances": named([IMAGES[0][:60]])},
    "one bad image among good ones": {"instances": named([IMAGES[0], b"junk", IMAGES[1]])},
}


@pytest.mark.parametrize("case", BAD_BODIES)
def test_a_bad_request_is_a_400_with_a_reason_and_the_server_lives_on(contract, case):
    response = post(contract, BAD_BODIES[case])
    assert response.status_code == 400, response.text
    assert list(response.json()) == ["error"]
    assert len(response.json()["error"]) > 10
    predictions(post(contract, {"instances": named(IMAGES[:1])}))


def test_an_undecodable_image_is_named_as_such(contract):
    error = post(contract, {"instances": named([b"this is no image"])}).json()["error"]
    assert "Unknown image file format" in error


@pytest.mark.parametrize(
    "path",
    ["/v1/models/other:predict", f"/v1/models/{NAME}/versions/77:predict", "/v1/models/other/versions/1:predict"],
)
def test_predicting_with_an_unknown_model_or_version_is_a_404(contract, path):
    response = httpx.post(contract.rest_url + path, json={"instances": named(IMAGES[:1])})
    assert response.status_code == 404
    assert "Servable not found for request" in response.json()["error"]


def test_a_packed_body_that_is_cut_is_a_400_even_when_its_beginning_is_whole_json(contract):
    packed = gzip.compress(json.dumps({"instances": named(IMAGES)}).encode(), mtime=0)
    for size, status in ((len(packed), 200), (len(packed) - 4, 400), (len(packed) - 8, 400), (len(packed) // 2, 400)):
        headers = {"Content-Encoding": "gzip"}
        response = httpx.post(f"{contract.model_url}:predict", content=packed[:size], headers=headers)
        assert response.status_code == status, response.text
    assert "is cut after" in response.json()["error"]


def test_what_is_not_read_may_be_nested_to_any_depth(contract):
    deep = b"[" * 500_000 + b"]" * 500_000
    predictions(post(contract, json.dumps({"instances": named(IMAGES[:1])}).encode()[:-1] + b', "x": ' + deep + b"}"))


@pytest.mark.parametrize("version", [2**63, 2**64 - 1, 10**30, "9" * 5000])
def test_a_version_beyond_int64_is_a_400_that_says_so(contract, version):
    path = f"/versions/{version}"
    answers = [post(contract, {"instances": named(IMAGES[:1])}, f"{path}:predict")]
    answers += [httpx.get(contract.model_url + path), httpx.get(f"{contract.model_url}{path}/metadata")]
    for response in answers:
        assert response.status_code == 400
        assert "Failed to convert version" in response.json()["error"]
        assert len(response.json()["error"]) < 200


def test_the_largest_version_is_looked_for_and_zeros_before_a_version_are_nothing(contract):
    assert httpx.get(f"{contract.model_url}/versions/{2**63 - 1}").status_code == 404
    assert httpx.get(f"{contract.model_url}/versions/{'0' * 30}{VERSION}").status_code == 200


@pytest.mark.parametrize("path", ["/v1/models/other", f"/v1/models/{NAME}/versions/77"])
@pytest.mark.parametrize("verb", ["classify", "regress"])
def test_verbs_for_tf_example_are_a_404_where_there_is_no_model(contract, verb, path):
    response = httpx.post(f"{contract.rest_url}{path}:{verb}", json={"examples": [{"image": b64(IMAGES[0])}]})
    assert response.status_code == 404
    assert "Servable not found" in response.json()["error"]


@pytest.mark.parametrize("verb", ["classify", "regress"])
def test_verbs_for_tf_example_say_that_they_are(contract, verb):
    response = post(contract, {"examples": [{"image": b64(IMAGES[0])}]}, f":{verb}")
    assert response.status_code == 400
    assert f"tensorflow/serving/{verb}" in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"/v1/models/{NAME}"),
        ("POST", f"/v1/models/{NAME}:explain"),
        ("GET", f"/v1/models/{NAME}:predict"),
        ("GET", "/v1/models"),
        ("GET", f"/v1/models/{NAME}/versions/latest"),
        ("GET", f"/v1/models/{NAME}/labels/stable"),
        ("PUT", f"/v1/models/{NAME}"),
    ],
)
def test_a_malformed_path_is_a_400(contract, method, path):
    response = httpx.request(method, contract.rest_url + path)
    assert response.status_code == 400
    assert response.json()["error"]


# Status and metadata over REST


@pytest.mark.parametrize("path", ["", f"/versions/{VERSION}"])
def test_status_says_which_version_is_available(contract, path):
    response = httpx.get(contract.model_url + path)
    assert response.status_code == 200
    assert response.json() == {
        "model_version_status": [
            {"version": str(VERSION), "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }


@pytest.mark.parametrize("path", ["/v1/models/other", f"/v1/models/{NAME}/versions/77"])
def test_status_of_an_unknown_model_or_version_is_a_404(contract, path):
    response = httpx.get(contract.rest_url + path)
    assert response.status_code == 404
    assert "Could not find" in response.json()["error"]


@pytest.mark.parametrize("path", ["/metadata", f"/versions/{VERSION}/metadata"])
def test_metadata_shows_the_signatures(contract, path):
    metadata = httpx.get(contract.model_url + path).json()
    assert metadata["model_spec"] == {"name": NAME, "signature_name": "", "version": str(VERSION)}
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert {"serving_default", "classify", "images"} <= signatures.keys()
    default = signatures["serving_default"]
    assert default["method_name"] == "tensorflow/serving/predict"
    assert default["inputs"]["image_bytes"]["dtype"] == "DT_STRING"
    assert default["inputs"]["image_bytes"]["tensor_shape"] == {
        "dim": [{"size": "-1", "name": ""}],
        "unknown_rank": False,
    }
    assert default["outputs"]["probabilities"]["dtype"] == "DT_FLOAT"
    assert signatures["images"]["inputs"]["images"]["dtype"] == "DT_UINT8"
    assert signatures["classify"]["outputs"].keys() == {"probabilities", "label", "score"}


def test_metadata_of_an_unknown_model_is_a_404(contract):
    assert httpx.get(f"{contract.rest_url}/v1/models/other/metadata").status_code == 404


# gRPC


@pytest.fixture(scope="module")
def channel(contract):
    with grpc.insecure_channel(contract.grpc_address) as channel:
        yield channel


def predict_request(signature: str = "", **spec: object) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = str(spec.get("name", NAME))
    request.model_spec.signature_name = signature
    if "version" in spec:
        request.model_spec.version.value = int(str(spec["version"]))
    return request


def with_images(request: predict_pb2.PredictRequest, images: list[bytes] = IMAGES) -> predict_pb2.PredictRequest:
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(images, tf.string, [len(images)]))
    return request


def refused(call, request) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=20)
    assert caught.value.details()
    return caught.value


def test_grpc_predict_equals_keras_and_says_which_version_answered(contract, channel):
    response = PredictionServiceStub(channel).Predict(with_images(predict_request()), timeout=20)
    assert response.model_spec.name == NAME
    assert response.model_spec.version.value == VERSION
    assert response.model_spec.signature_name == "serving_default"
    np.testing.assert_allclose(tf.make_ndarray(response.outputs["probabilities"]), expected(PIXELS), atol=1e-5)


def test_grpc_values_are_in_the_typed_field_that_clients_read(contract, channel):
    response = PredictionServiceStub(channel).Predict(with_images(predict_request("classify")), timeout=20)
    np.testing.assert_allclose(response.outputs["probabilities"].float_val, expected(PIXELS).ravel(), atol=1e-5)
    assert list(response.outputs["label"].string_val) == [CLASSES[i].encode() for i in expected(PIXELS).argmax(axis=1)]
    assert response.outputs.keys() == {"probabilities", "label", "score"}


def test_grpc_takes_pixels(contract, channel):
    request = predict_request("images", version=VERSION)
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(PIXELS))
    response = PredictionServiceStub(channel).Predict(request, timeout=20)
    np.testing.assert_allclose(tf.make_ndarray(response.outputs["probabilities"]), expected(PIXELS), atol=1e-5)


def test_grpc_output_filter_leaves_the_rest_out(contract, channel):
    request = with_images(predict_request("classify"))
    request.output_filter.append("score")
    assert PredictionServiceStub(channel).Predict(request, timeout=20).outputs.keys() == {"score"}


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ({"name": "other"}, grpc.StatusCode.NOT_FOUND),
        ({"version": 77}, grpc.StatusCode.NOT_FOUND),
    ],
)
def test_grpc_unknown_model_or_version_is_not_found(contract, channel, spec, code):
    request = with_images(predict_request(**spec))
    assert refused(PredictionServiceStub(channel).Predict, request).code() is code


def wrong_type() -> predict_pb2.PredictRequest:
    request = predict_request()
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([1.0]))
    return request


def unknown_output() -> predict_pb2.PredictRequest:
    request = with_images(predict_request())
    request.output_filter.append("boxes")
    return request


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(predict_request(), id="missing input"),
        pytest.param(wrong_type(), id="wrong type"),
        pytest.param(with_images(predict_request(), [b"junk"]), id="not an image"),
        pytest.param(unknown_output(), id="unknown output"),
    ],
)
def test_grpc_bad_request_is_an_invalid_argument_and_the_server_lives_on(contract, channel, request_):
    stub = PredictionServiceStub(channel)
    assert refused(stub.Predict, request_).code() is grpc.StatusCode.INVALID_ARGUMENT
    stub.Predict(with_images(predict_request()), timeout=20)


def test_grpc_unknown_signature_is_refused(contract, channel):
    error = refused(PredictionServiceStub(channel).Predict, with_images(predict_request("detect")))
    assert error.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT)
    assert "detect" in error.details()


def test_grpc_classify_is_refused_because_it_is_for_tf_example(contract, channel):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = NAME
    request.input.example_list.examples.add()
    error = refused(PredictionServiceStub(channel).Classify, request)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_grpc_verbs_for_tf_example_are_not_found_where_there_is_no_model(contract, channel):
    stub = PredictionServiceStub(channel)
    inferences = inference_pb2.MultiInferenceRequest()
    inferences.tasks.add().model_spec.name = "other"
    for call, request in (
        (stub.Classify, classification_pb2.ClassificationRequest()),
        (stub.Regress, regression_pb2.RegressionRequest()),
        (stub.MultiInference, inferences),
    ):
        if request is not inferences:
            request.model_spec.name = "other"
        assert refused(call, request).code() is grpc.StatusCode.NOT_FOUND
    inferences.tasks[0].model_spec.name = NAME
    assert refused(stub.MultiInference, inferences).code() is grpc.StatusCode.INVALID_ARGUMENT


def test_grpc_takes_strings_as_content(contract, channel):
    request = predict_request()
    request.inputs["image_bytes"].CopyFrom(as_content(IMAGES))
    response = PredictionServiceStub(channel).Predict(request, timeout=20)
    np.testing.assert_allclose(tf.make_ndarray(response.outputs["probabilities"]), expected(PIXELS), atol=1e-5)


def as_content(strings: list[bytes]) -> tf.compat.v1.TensorProto:
    """Return strings in TensorFlow's packed form: their lengths, then all of them joined."""
    proto = tf.make_tensor_proto(strings, tf.string, [len(strings)])
    lengths = b"".join(_varint(len(data)) for data in strings)
    del proto.string_val[:]
    proto.tensor_content = lengths + b"".join(strings)
    return proto


def _varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


@pytest.mark.parametrize("dtype", ["DT_VARIANT", "DT_RESOURCE", "DT_VARIANT_REF", "DT_STRING_REF", "DT_QINT8", 0, 999])
def test_grpc_types_that_no_request_can_carry_are_invalid(contract, channel, dtype):
    request = predict_request()
    proto = request.inputs["image_bytes"]
    proto.dtype = types_pb2.DataType.Value(dtype) if isinstance(dtype, str) else dtype
    proto.tensor_shape.dim.add(size=1)
    assert refused(PredictionServiceStub(channel).Predict, request).code() is grpc.StatusCode.INVALID_ARGUMENT


def test_grpc_metadata_shows_the_signatures(contract, channel):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = NAME
    response = PredictionServiceStub(channel).GetModelMetadata(request, timeout=20)
    assert response.model_spec.version.value == VERSION
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert signatures.signature_def["images"].inputs["images"].dtype == tf.uint8.as_datatype_enum


def test_grpc_metadata_of_an_unknown_field_is_refused(contract, channel):
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = NAME
    error = refused(PredictionServiceStub(channel).GetModelMetadata, request)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_grpc_status_says_which_version_is_available(contract, channel):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = NAME
    (status,) = ModelServiceStub(channel).GetModelStatus(request, timeout=20).model_version_status
    assert (status.version, status.status.error_code) == (VERSION, 0)
    assert status.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE


def test_grpc_status_of_an_unknown_model_is_not_found(contract, channel):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "other"
    assert refused(ModelServiceStub(channel).GetModelStatus, request).code() is grpc.StatusCode.NOT_FOUND


# A model of several inputs of any shape


@pytest.fixture(scope="module")
def echo(tmp_path_factory) -> Iterator[Contract]:
    root = tmp_path_factory.mktemp("echo")
    write_echo_version(root / NAME / "1")
    with RunningServer(serve_config(root)) as server:
        yield Contract(server.rest_url, server.grpc_address)


DATA = b64(b"a\xff\0")


@pytest.mark.parametrize("inputs", [DATA, {"data_bytes": DATA}, [DATA, DATA], {"data_bytes": [[DATA], [DATA]]}, []])
def test_a_column_of_one_string_or_of_many_comes_back_as_it_went(echo, inputs):
    answer = outputs(post(echo, {"signature_name": "one", "inputs": inputs}))
    assert answer == (inputs["data_bytes"] if isinstance(inputs, dict) and inputs != DATA else inputs)


@pytest.mark.parametrize(
    "columns",
    [
        {"text": "one", "data_bytes": DATA, "number": 2**64 - 1, "value": 0.25},
        {"text": ["a", "b"], "data_bytes": DATA, "number": [[1, 2**63], [2**53 + 1, 0]], "value": [0.5]},
        {"text": [], "data_bytes": [], "number": [], "value": []},
    ],
)
def test_several_named_columns_come_back_as_they_went(echo, columns):
    assert outputs(post(echo, {"inputs": columns})) == columns


def test_rows_of_several_inputs_come_back_as_they_went(echo):
    row = {"text": "one", "data_bytes": DATA, "number": 2**64 - 1, "value": 0.25}
    rows = [row, {**row, "number": 1}]
    assert predictions(post(echo, {"instances": rows})) == rows


def test_a_single_string_comes_back_over_grpc(echo):
    request = predict_request("one")
    request.inputs["data_bytes"].CopyFrom(tf.make_tensor_proto(b"a\xff\0"))
    with grpc.insecure_channel(echo.grpc_address) as channel:
        output = PredictionServiceStub(channel).Predict(request, timeout=20).outputs["data_bytes"]
    assert list(output.tensor_shape.dim) == []
    assert list(output.string_val) == [b"a\xff\0"]
