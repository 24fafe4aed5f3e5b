"""Calls to an endpoint over TensorFlow Serving's gRPC interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import grpc
import numpy.typing as npt
import tensorflow as tf
from google.protobuf.message import Message
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, ModelVersionStatus
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from sat_xception.serve.messages import metadata_to_json
from sat_xception.serve.protocol import Code, RequestError, VersionStatus

__all__ = ["GrpcTransport"]

M = TypeVar("M", bound=Message)

_OPTIONS = [
    # The default of 4 MB is a batch of 200 tiles.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
]


class GrpcTransport:
    """One channel to one model."""

    def __init__(self, target: str, name: str, version: int | None, timeout_s: float) -> None:
        """Name the model's address.

        Args:
            target: `host:port`.
            name: The model's name.
            version: Version to pin, or None.
            timeout_s: Deadline of a call, in seconds.
        """
        self._target, self._name, self._version, self._timeout_s = target, name, version, timeout_s
        self._channel = grpc.insecure_channel(target, options=_OPTIONS)
        self._predictions = PredictionServiceStub(self._channel)
        self._models = ModelServiceStub(self._channel)

    def predict(self, signature: str, images: Sequence[bytes]) -> Mapping[str, npt.NDArray[Any]]:
        """Return a signature's outputs for encoded images, by name.

        Raises:
            RequestError: With the endpoint's code; FAILED_PRECONDITION when another version answered than was pinned.
        """
        request = PredictRequest()
        self._address(request.model_spec)
        request.model_spec.signature_name = signature
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(list(images), tf.string, [len(images)]))
        response = self._call(self._predictions.Predict, request)
        answered = response.model_spec.version.value
        if self._version is not None and answered != self._version:
            raise RequestError(
                Code.FAILED_PRECONDITION,
                f"grpc://{self._target} answered with version {answered or 'unknown'} of {self._name}, {self._version} "
                "was asked: something between here and the server sends requests elsewhere",
            )
        return {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}

    def status(self) -> list[VersionStatus]:
        """Return the versions' states.

        Raises:
            RequestError: With the endpoint's code.
        """
        request = GetModelStatusRequest()
        self._address(request.model_spec)
        response = self._call(self._models.GetModelStatus, request)
        return [
            VersionStatus(
                item.version,
                ModelVersionStatus.State.Name(item.state),
                Code(item.status.error_code).name,
                item.status.error_message,
            )
            for item in response.model_version_status
        ]

    def metadata(self) -> dict[str, Any]:
        """Return the model's signatures.

        Raises:
            RequestError: With the endpoint's code.
        """
        request = GetModelMetadataRequest(metadata_field=["signature_def"])
        self._address(request.model_spec)
        return metadata_to_json(self._call(self._predictions.GetModelMetadata, request))

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _address(self, spec: ModelSpec) -> None:
        spec.name = self._name
        if self._version is not None:
            spec.version.value = self._version

    def _call(self, method: Callable[..., M], request: Message) -> M:
        try:
            return method(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            self._raise(error)

    def _raise(self, error: grpc.RpcError) -> NoReturn:
        code = Code[error.code().name]
        message = f"grpc://{self._target} answered {code.name}: {error.details()}"
        if code is Code.UNAVAILABLE:
            message += ". Is the server running, and is this its gRPC port?"
        if code is Code.DEADLINE_EXCEEDED:
            message += f". It had {self._timeout_s:g} s; send fewer images or raise --timeout-s"
        raise RequestError(code, message) from None
