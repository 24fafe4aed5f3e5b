"""Calls to an endpoint over TensorFlow Serving's gRPC interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

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

from sat_xception.serve.access import CA_FILE, TOKEN_FILE, Access, hide
from sat_xception.serve.messages import metadata_to_json
from sat_xception.serve.protocol import RETRY_PUSHBACK, Code, RequestError, VersionStatus

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
    """A gRPC channel for one model."""

    def __init__(self, address: str, name: str, version: int | None, access: Access) -> None:
        """Create the channel.

        Args:
            address: `grpc://host:port`, or `grpcs://host:port` with TLS.
            name: Name of the model.
            version: Version to pin, or None.
            access: Token, CA certificates and host name.

        Raises:
            ConfigError: The CA file can't be used.
        """
        self._address_given, self._name, self._version, self._access = address, name, version, access
        parts = urlsplit(address)
        options: list[tuple[str, int | str]] = list(_OPTIONS)
        if access.host:
            options.append(("grpc.default_authority", access.host))
        if parts.scheme == "grpcs":
            if access.host:
                options.append(("grpc.ssl_target_name_override", access.host_name))
            trusted = grpc.ssl_channel_credentials(access.authorities())
            self._channel = grpc.secure_channel(parts.netloc, trusted, options=options)
        else:
            self._channel = grpc.insecure_channel(parts.netloc, options=options)
        self._predictions = PredictionServiceStub(self._channel)
        self._models = ModelServiceStub(self._channel)

    def predict(self, signature: str, images: Sequence[bytes], timeout_s: float) -> Mapping[str, npt.NDArray[Any]]:
        """Return a signature's outputs for encoded images, by name.

        Raises:
            RequestError: With the endpoint's code; FAILED_PRECONDITION if another version than the pinned one answered.
        """
        request = PredictRequest()
        self._address(request.model_spec)
        request.model_spec.signature_name = signature
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(list(images), tf.string, [len(images)]))
        response = self._call(self._predictions.Predict, request, timeout_s)
        answered = response.model_spec.version.value
        if self._version is not None and answered != self._version:
            raise RequestError(
                Code.FAILED_PRECONDITION,
                f"{self._address_given} answered with version {answered or 'unknown'} of {self._name}, {self._version} "
                "was requested: something between here and the server routes requests elsewhere",
            )
        return {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}

    def status(self, timeout_s: float) -> list[VersionStatus]:
        """Return the versions' states.

        Raises:
            RequestError: With the endpoint's code.
        """
        request = GetModelStatusRequest()
        self._address(request.model_spec)
        response = self._call(self._models.GetModelStatus, request, timeout_s)
        return [
            VersionStatus(
                item.version,
                ModelVersionStatus.State.Name(item.state),
                Code(item.status.error_code).name,
                item.status.error_message,
            )
            for item in response.model_version_status
        ]

    def metadata(self, timeout_s: float) -> dict[str, Any]:
        """Return the model's signatures.

        Raises:
            RequestError: With the endpoint's code.
        """
        request = GetModelMetadataRequest(metadata_field=["signature_def"])
        self._address(request.model_spec)
        return metadata_to_json(self._call(self._predictions.GetModelMetadata, request, timeout_s))

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _address(self, spec: ModelSpec) -> None:
        spec.name = self._name
        if self._version is not None:
            spec.version.value = self._version

    def _call(self, method: Callable[..., M], request: Message, timeout_s: float) -> M:
        token = self._access.token()
        metadata = [("authorization", f"Bearer {token}")] if token else []
        try:
            return method(request, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            raise self._refusal(error, token, timeout_s) from None

    def _refusal(self, error: grpc.RpcError, token: str, timeout_s: float) -> RequestError:
        code = Code[error.code().name]
        said = hide(token, error.details() or "")
        message = f"{self._address_given} answered {code.name}: {said}"
        if code is Code.DEADLINE_EXCEEDED:
            message += f". It had {timeout_s:.3g} s; send fewer images or raise --timeout-s"
        if code in (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED):
            message += f". Check {TOKEN_FILE}"
        retry_after_s = None
        if code is Code.UNAVAILABLE and "CERTIFICATE" in said:
            message += f". Check {CA_FILE} and --host-header"
        elif code is Code.UNAVAILABLE:
            message += ". Is the server running, and is this its gRPC port?"
            retry_after_s = _pushback_s(error)
        # gRPC's own limit on message size has the same code, but a retry doesn't make the message smaller.
        elif code is Code.RESOURCE_EXHAUSTED and "larger than max" not in said:
            retry_after_s = _pushback_s(error)
        return RequestError(code, message, retry_after_s=retry_after_s)


def _pushback_s(error: grpc.RpcError) -> float:
    """Return the server's pushback (gRPC's Retry-After) in seconds; 0 if it sent none."""
    value = dict(error.trailing_metadata() or ()).get(RETRY_PUSHBACK, "")
    return int(value) / 1000 if isinstance(value, str) and value.isascii() and value.isdecimal() else 0.0
