"""TensorFlow Serving's gRPC interface: PredictionService and ModelService."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping
from typing import NoReturn, TypeVar

import grpc
from grpc_health.v1.health import aio as grpc_health
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, GetModelMetadataResponse
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, GetModelStatusResponse
from tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.apis.regression_pb2 import RegressionRequest

from sat_xception.log import get_logger
from sat_xception.serve.access_log import log_access
from sat_xception.serve.batches import Call
from sat_xception.serve.dispatch import Dispatcher
from sat_xception.serve.messages import metadata_response, status_response
from sat_xception.serve.models import Array
from sat_xception.serve.protocol import DEFAULT_SIGNATURE, RETRY_PUSHBACK, Code, RequestError
from sat_xception.serve.settings import ServeConfig
from sat_xception.serve.tensor_protos import array_to_proto, proto_to_array
from sat_xception.serve.versions import ServedVersion

__all__ = ["grpc_server"]

_log = get_logger(__name__)
T = TypeVar("T")
# A status travels in a header, and clients refuse headers above 8 KB.
_MAX_DETAILS = 2000


def grpc_server(
    dispatcher: Dispatcher, config: ServeConfig, health: grpc_health.HealthServicer | None
) -> grpc.aio.Server:
    """Return a server with its services and no port yet.

    Args:
        dispatcher: Runs predictions.
        config: Limits; requests over `max_body_mb` are refused with RESOURCE_EXHAUSTED.
        health: Service for grpc.health.v1, or None.
    """
    options = [
        ("grpc.max_receive_message_length", config.max_body_mb * 2**20),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # else a second server on the port takes half of the requests instead of failing
        ("grpc.server_handshake_timeout_ms", round(config.head_timeout_s * 1000)),
    ]
    # Calls beyond our own limit get our error, with a Retry-After; only a flood of them gets gRPC's.
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=4 * config.max_queue)
    service = _PredictionService(dispatcher, config)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_ModelService(dispatcher), server)
    if health is not None:
        add_HealthServicer_to_server(health, server)
    return server


class _PredictionService:
    def __init__(self, dispatcher: Dispatcher, config: ServeConfig) -> None:
        self._dispatcher = dispatcher
        self._config = config
        self._max_bytes = config.max_body_mb * 2**20

    async def Predict(self, request: PredictRequest, context: grpc.aio.ServicerContext) -> PredictResponse:
        """Run a signature."""
        size = request.ByteSize()

        async def answer() -> PredictResponse:
            version = _pinned(request.model_spec)
            async with self._dispatcher.admitted(size, context.time_remaining()):
                return await self._dispatcher.predict(
                    request.model_spec.name,
                    version,
                    lambda model: self._read(request),
                    lambda served, call, outputs: _response(request, served, call, outputs),
                )

        started = time.monotonic()
        code = Code.CANCELLED
        try:
            outcome = await _outcome(answer())
            code = outcome.code if isinstance(outcome, RequestError) else Code.OK
        finally:
            seconds = time.monotonic() - started
            self._dispatcher.metrics.count_request(request.model_spec.name, "Predict", "GRPC", code, seconds)
            if self._config.access_log:
                log_access("gRPC", context.peer(), f"Predict {request.model_spec.name}", code.name, seconds, size)
        return await _reply(outcome, context)

    async def GetModelMetadata(
        self, request: GetModelMetadataRequest, context: grpc.aio.ServicerContext
    ) -> GetModelMetadataResponse:
        """Return the model's signatures."""

        async def answer() -> GetModelMetadataResponse:
            if list(request.metadata_field) != ["signature_def"]:
                fields = list(request.metadata_field)
                raise RequestError(Code.INVALID_ARGUMENT, f"metadata_field must be ['signature_def'], got {fields}")
            with self._dispatcher.versions.lease(request.model_spec.name, _pinned(request.model_spec)) as served:
                return metadata_response(request.model_spec.name, served)

        return await _reply(await _outcome(answer()), context)

    async def Classify(self, request: ClassificationRequest, context: grpc.aio.ServicerContext) -> NoReturn:
        """Refuse: it is for signatures of tf.Example."""
        await self._refuse(context, "Classify", request.model_spec)

    async def Regress(self, request: RegressionRequest, context: grpc.aio.ServicerContext) -> NoReturn:
        """Refuse: it is for signatures of tf.Example."""
        await self._refuse(context, "Regress", request.model_spec)

    async def MultiInference(self, request: MultiInferenceRequest, context: grpc.aio.ServicerContext) -> NoReturn:
        """Refuse: it is for signatures of tf.Example."""
        await self._refuse(context, "MultiInference", *(task.model_spec for task in request.tasks))

    async def _refuse(self, context: grpc.aio.ServicerContext, method: str, *specs: ModelSpec) -> NoReturn:
        """Refuse a request with tf.Example; NOT_FOUND if the model doesn't exist either."""

        async def answer() -> NoReturn:
            for spec in specs:
                with self._dispatcher.versions.lease(spec.name, _pinned(spec)):
                    pass
            raise RequestError(
                Code.INVALID_ARGUMENT,
                f"{method} takes signatures of tf.Example, this model's are tensorflow/serving/predict; use Predict",
            )

        await _reply(await _outcome(answer()), context)
        raise AssertionError("abort raises")

    def _read(self, request: PredictRequest) -> Call:
        inputs = {name: proto_to_array(proto, self._max_bytes) for name, proto in request.inputs.items()}
        return Call(request.model_spec.signature_name or DEFAULT_SIGNATURE, inputs, list(request.output_filter))


class _ModelService:
    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def GetModelStatus(
        self, request: GetModelStatusRequest, context: grpc.aio.ServicerContext
    ) -> GetModelStatusResponse:
        """Return the versions and their states."""

        async def answer() -> GetModelStatusResponse:
            spec = request.model_spec
            return status_response(self._dispatcher.versions.statuses(spec.name, _pinned(spec)))

        return await _reply(await _outcome(answer()), context)

    async def HandleReloadConfigRequest(self, request: object, context: grpc.aio.ServicerContext) -> NoReturn:
        """Refuse: this server has one model, and finds new versions by itself."""
        await context.abort(
            grpc.StatusCode.UNIMPLEMENTED, "this server serves one model and finds its new versions by itself"
        )
        raise AssertionError("abort raises")


def _response(
    request: PredictRequest, served: ServedVersion, call: Call, outputs: Mapping[str, Array]
) -> PredictResponse:
    response = PredictResponse()
    response.model_spec.name = request.model_spec.name
    response.model_spec.signature_name = call.signature
    response.model_spec.version.value = served.number
    for name, value in outputs.items():
        response.outputs[name].CopyFrom(array_to_proto(value))
    return response


async def _outcome(answer: Awaitable[T]) -> T | RequestError:
    """Return the response, or the error to end the call with."""
    try:
        return await answer
    except RequestError as error:
        return error
    except Exception as unexpected:
        _log.exception("serve     a gRPC call failed")
        return RequestError(Code.INTERNAL, f"internal error: {type(unexpected).__name__}; see the server's log")


async def _reply(outcome: T | RequestError, context: grpc.aio.ServicerContext) -> T:
    """Return a response, or end the call with the error's status and Retry-After, if it has one."""
    if not isinstance(outcome, RequestError):
        return outcome
    trailing: tuple[tuple[str, str], ...] = ()
    if outcome.retry_after_s is not None:
        trailing = ((RETRY_PUSHBACK, str(round(outcome.retry_after_s * 1000))),)
    await context.abort(grpc.StatusCode[outcome.code.name], str(outcome)[:_MAX_DETAILS], trailing)
    raise AssertionError("abort raises")


def _pinned(spec: ModelSpec) -> int | None:
    if not spec.name:
        raise RequestError(Code.INVALID_ARGUMENT, "Missing model name in model_spec")
    if spec.WhichOneof("version_choice") == "version_label":
        raise RequestError(
            Code.INVALID_ARGUMENT, f"Unrecognized servable version label: {spec.version_label}; set model_spec.version"
        )
    return int(spec.version.value) if spec.HasField("version") else None
