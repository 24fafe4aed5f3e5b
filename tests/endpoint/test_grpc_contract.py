"""What a client may count on over gRPC: true of TensorFlow Serving from 2.19 on and of `sat_xception serve`."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from tests.endpoint.conftest import rows


def asked(endpoint, images: list[bytes], signature: str = "", **spec) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = spec.get("name", endpoint.name)
    request.model_spec.signature_name = signature
    if "version" in spec:
        request.model_spec.version.value = spec["version"]
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(images, tf.string, [len(images)]))
    return request


def refused(call, request) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=60)
    assert caught.value.details()
    return caught.value


def test_predict_answers_as_rest_does_and_says_which_version_did(endpoint, channel, images):
    response = PredictionServiceStub(channel).Predict(asked(endpoint, images), timeout=60)
    assert response.model_spec.name == endpoint.name
    assert response.model_spec.version.value == endpoint.version
    assert list(response.outputs) == ["probabilities"]
    wanted = endpoint.predictions({"instances": rows(images)})
    np.testing.assert_allclose(tf.make_ndarray(response.outputs["probabilities"]), wanted, atol=1e-4)


def test_values_are_in_the_typed_field_that_clients_read(endpoint, channel, images):
    response = PredictionServiceStub(channel).Predict(asked(endpoint, images, "classify"), timeout=60)
    assert response.outputs.keys() == {"probabilities", "label", "score"}
    assert len(response.outputs["score"].float_val) == len(images)
    assert len(response.outputs["label"].string_val) == len(images)


def test_an_output_filter_leaves_the_rest_out(endpoint, channel, images):
    request = asked(endpoint, images, "classify")
    request.output_filter.append("score")
    assert list(PredictionServiceStub(channel).Predict(request, timeout=60).outputs) == ["score"]


def test_the_version_may_be_pinned(endpoint, channel, images):
    request = asked(endpoint, images, version=endpoint.version)
    assert PredictionServiceStub(channel).Predict(request, timeout=60).model_spec.version.value == endpoint.version


@pytest.mark.parametrize("spec", [{"name": "no-such-model"}, {"version": 77}])
def test_an_unknown_model_or_version_is_not_found(endpoint, channel, images, spec):
    error = refused(PredictionServiceStub(channel).Predict, asked(endpoint, images, **spec))
    assert error.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("case", ["not an image", "missing input", "wrong type", "unknown output"])
def test_a_bad_request_is_an_invalid_argument_and_the_next_one_is_answered(endpoint, channel, images, case):
    request = asked(endpoint, [b"junk"] if case == "not an image" else images)
    if case == "missing input":
        request.inputs.clear()
    if case == "wrong type":
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([1.0]))
    if case == "unknown output":
        request.output_filter.append("boxes")
    stub = PredictionServiceStub(channel)
    assert refused(stub.Predict, request).code() is grpc.StatusCode.INVALID_ARGUMENT
    stub.Predict(asked(endpoint, images), timeout=60)


def test_strings_may_come_as_content(endpoint, channel, images):
    request = asked(endpoint, [b""])
    short = images[0]
    assert 128 <= len(short) < 16_384
    proto = request.inputs["image_bytes"]
    del proto.string_val[:]
    proto.tensor_content = bytes([len(short) & 127 | 128, len(short) >> 7]) + short
    response = PredictionServiceStub(channel).Predict(request, timeout=60)
    wanted = endpoint.predictions({"instances": rows([short])})
    np.testing.assert_allclose(tf.make_ndarray(response.outputs["probabilities"]), wanted, atol=1e-4)


@pytest.mark.parametrize("dtype", ["DT_VARIANT", "DT_RESOURCE", "DT_COMPLEX64", "DT_QINT8"])
def test_a_type_that_the_signature_does_not_take_is_an_invalid_argument(endpoint, channel, images, dtype):
    request = asked(endpoint, [b""])
    request.inputs["image_bytes"].Clear()
    request.inputs["image_bytes"].dtype = types_pb2.DataType.Value(dtype)
    request.inputs["image_bytes"].tensor_shape.dim.add(size=1)
    assert refused(PredictionServiceStub(channel).Predict, request).code() is grpc.StatusCode.INVALID_ARGUMENT


def test_an_unknown_signature_is_refused_by_its_name(endpoint, channel, images):
    error = refused(PredictionServiceStub(channel).Predict, asked(endpoint, images, "detect"))
    assert error.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT)
    assert "detect" in error.details()


def test_the_metadata_shows_the_signatures(endpoint, channel):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = endpoint.name
    response = PredictionServiceStub(channel).GetModelMetadata(request, timeout=60)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert {"serving_default", "classify", "images"} <= signatures.signature_def.keys()
    assert response.model_spec.version.value == endpoint.version


def test_the_status_says_which_version_is_available(endpoint, channel):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = endpoint.name
    response = ModelServiceStub(channel).GetModelStatus(request, timeout=60)
    states = {item.version: item.state for item in response.model_version_status}
    assert states[endpoint.version] == get_model_status_pb2.ModelVersionStatus.AVAILABLE


def test_the_status_of_an_unknown_model_is_not_found(endpoint, channel):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "no-such-model"
    assert refused(ModelServiceStub(channel).GetModelStatus, request).code() is grpc.StatusCode.NOT_FOUND
