"""TensorFlow Serving's gRPC interface: PredictionService and ModelService."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import NoReturn, TypeVar

import grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, GetModelMetadataResponse
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, GetModelStatusResponse
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from sat_xception.log import get_logger
from sat_xception.serve.dispatch import Dispatcher
from sat_xception.serve.messages import metadata_response, status_response
from sat_xception.serve.protocol import DEFAULT_SIGNATURE, Code, RequestError
from sat_xception.serve.tensor_protos import array_to_proto, proto_to_array
from sat_xception.serve.versions import ServedVersion

__all__ = ["grpc_server"]

_log = get_logger(__name__)
T = TypeVar("T")
# A status travels in a header, and clients refuse headers above 8 KB.
_MAX_DETAILS = 2000


def grpc_server(dispatcher: Dispatcher, max_body_mb: int) -> grpc.aio.Server:
    """Return a server with both services and no port yet.

    Args:
        dispatcher: Runs predictions.
        max_body_mb: Larger requests are refused with RESOURCE_EXHAUSTED.
    """
    options = [
        ("grpc.max_receive_message_length", max_body_mb * 2**20),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # or a second server would take half of the first one's requests instead of failing
    ]
    server = grpc.aio.server(options=options)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        _PredictionService(dispatcher, max_body_mb * 2**20), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_ModelService(dispatcher), server)
    return server


class _PredictionService:
    def __init__(self, dispatcher: Dispatcher, max_bytes: int) -> None:
        self._dispatcher = dispatcher
        self._max_bytes = max_bytes

    async def Predict(self, request: PredictRequest, context: grpc.aio.ServicerContext) -> PredictResponse:
        """Run a signature."""

        async def answer() -> PredictResponse:
            version = _pinned(request.model_spec)
            return await self._dispatcher.run(
                request.model_spec.name, version, lambda served: self._predict(served, request)
            )

        answered = False
        try:
            response = await _answered(answer(), context)
            answered = True
            return response
        finally:
            self._dispatcher.traffic.count(answered)

    async def GetModelMetadata(
        self, request: GetModelMetadataRequest, context: grpc.aio.ServicerContext
    ) -> GetModelMetadataResponse:
        """Say which signatures the model has."""

        async def answer() -> GetModelMetadataResponse:
            if list(request.metadata_field) != ["signature_def"]:
                fields = list(request.metadata_field)
                raise RequestError(Code.INVALID_ARGUMENT, f"metadata_field must be ['signature_def'], got {fields}")
            with self._dispatcher.versions.lease(request.model_spec.name, _pinned(request.model_spec)) as served:
                return metadata_response(request.model_spec.name, served)

        return await _answered(answer(), context)

    async def Classify(self, request: object, context: grpc.aio.ServicerContext) -> NoReturn:
        """Refuse: it is for signatures of tf.Example."""
        await _refuse(context, "Classify")

    async def Regress(self, request: object, context: grpc.aio.ServicerContext) -> NoReturn:
        """Refuse: it is for signatures of tf.Example."""
        await _refuse(context, "Regress")

    async def MultiInference(self, request: object, context: grpc.aio.ServicerContext) -> NoReturn:
        """Refuse: it is for signatures of tf.Example."""
        await _refuse(context, "MultiInference")

    def _predict(self, served: ServedVersion, request: PredictRequest) -> PredictResponse:
        signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
        inputs = {name: proto_to_array(proto, self._max_bytes) for name, proto in request.inputs.items()}
        outputs = served.model.predict(signature, inputs, list(request.output_filter))
        response = PredictResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.signature_name = signature
        response.model_spec.version.value = served.number
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(array_to_proto(value))
        return response


class _ModelService:
    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def GetModelStatus(
        self, request: GetModelStatusRequest, context: grpc.aio.ServicerContext
    ) -> GetModelStatusResponse:
        """Say which versions there are and in which state."""

        async def answer() -> GetModelStatusResponse:
            spec = request.model_spec
            return status_response(self._dispatcher.versions.statuses(spec.name, _pinned(spec)))

        return await _answered(answer(), context)

    async def HandleReloadConfigRequest(self, request: object, context: grpc.aio.ServicerContext) -> NoReturn:
        """Refuse: this server has one model, and follows its folder by itself."""
        await context.abort(
            grpc.StatusCode.UNIMPLEMENTED, "this server serves one model and finds its new versions by itself"
        )
        raise AssertionError("abort raises")


async def _answered(answer: Awaitable[T], context: grpc.aio.ServicerContext) -> T:
    """Return the answer, or end the call with the error's status."""
    try:
        return await answer
    except RequestError as error:
        code, message = error.code, str(error)
    except Exception as unexpected:
        _log.exception("serve     a gRPC call failed")
        code, message = Code.INTERNAL, f"internal error: {type(unexpected).__name__}; see the server's log"
    await context.abort(grpc.StatusCode[code.name], message[:_MAX_DETAILS])
    raise AssertionError("abort raises")


async def _refuse(context: grpc.aio.ServicerContext, method: str) -> NoReturn:
    message = f"{method} takes signatures of tf.Example, this model's are tensorflow/serving/predict; use Predict"
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)
    raise AssertionError("abort raises")


def _pinned(spec: ModelSpec) -> int | None:
    if not spec.name:
        raise RequestError(Code.INVALID_ARGUMENT, "Missing model name in model_spec")
    if spec.WhichOneof("version_choice") == "version_label":
        raise RequestError(
            Code.INVALID_ARGUMENT, f"Unrecognized servable version label: {spec.version_label}; set model_spec.version"
        )
    return int(spec.version.value) if spec.HasField("version") else None
