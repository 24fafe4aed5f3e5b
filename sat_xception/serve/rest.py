"""TensorFlow Serving's REST interface: predict, model status, metadata and metrics.

Paths and responses follow its api_rest.md. Paths are matched as in http_rest_api_util.cc, case-insensitively. The
content type of a request is ignored.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import time
from collections.abc import Mapping
from typing import NamedTuple, NoReturn
from urllib.parse import unquote

from aiohttp import web

from sat_xception.log import get_logger
from sat_xception.serve.access_log import log_access
from sat_xception.serve.batches import Call
from sat_xception.serve.connections import Connection, ConnectionFactory, json_response
from sat_xception.serve.dispatch import Dispatcher
from sat_xception.serve.json_document import parse_body
from sat_xception.serve.json_tensors import format_response, parse_inputs
from sat_xception.serve.messages import metadata_response, metadata_to_json, status_response, to_json
from sat_xception.serve.metrics import CONTENT_TYPE, METRICS_PATH
from sat_xception.serve.models import Array, SavedModelSession
from sat_xception.serve.packed_body import UnpackedTooLargeError, unpack
from sat_xception.serve.protocol import DEFAULT_SIGNATURE, Code, RequestError
from sat_xception.serve.settings import ServeConfig
from sat_xception.serve.versions import ServedVersion
from sat_xception.served_model.model_root import MAX_VERSION

__all__ = ["RestService"]

_log = get_logger(__name__)
_MAX_SHOWN = 40
_MODEL = r"/v1/models(?:/([^/:]+))?(?:/versions/(\d+)|/labels/([^/:]+))?"
_PREDICT_PATH = re.compile(_MODEL + r":(predict|classify|regress)", re.IGNORECASE | re.ASCII)
_STATUS_PATH = re.compile(_MODEL + r"(/metadata)?", re.IGNORECASE | re.ASCII)


class _Address(NamedTuple):
    """The parts of a path: the model, the version that is pinned, and what is asked of them."""

    name: str
    digits: str | None
    verb: str

    @property
    def version(self) -> int | None:
        """The version that is pinned, or None.

        Raises:
            RequestError: INVALID_ARGUMENT: it is larger than an int64.
        """
        if self.digits is None:
            return None
        digits = self.digits.lstrip("0")
        if len(digits) > len(str(MAX_VERSION)) or int(digits or "0") > MAX_VERSION:
            raise RequestError(
                Code.INVALID_ARGUMENT,
                f"Failed to convert version: {digits[:_MAX_SHOWN]} to numeric. The largest version is {MAX_VERSION}",
            )
        return int(digits or "0")


class RestService:
    """The REST interface: its connections, request handlers and shutdown.

    Attributes:
        connections: Factory of connections, for a `web.ServerRunner`.
    """

    def __init__(self, dispatcher: Dispatcher, config: ServeConfig) -> None:
        """Make the interface.

        Args:
            dispatcher: Runs predictions.
            config: Limits.
        """
        self._dispatcher, self._config = dispatcher, config
        self._max_body = config.max_body_mb * 2**20
        self._under_way = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.connections = ConnectionFactory(
            self._answer,
            max_body=self._max_body,
            max_connections=config.max_connections,
            head_timeout_s=config.head_timeout_s,
            idle_timeout_s=config.idle_timeout_s,
        )

    async def drain(self, timeout_s: float) -> None:
        """Wait until no request is in progress; connections are closed after their current response.

        aiohttp's own shutdown discards the rest of a request's body, so it must come after this.
        """
        self._draining = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.begin()
        self._under_way += 1
        self._idle.clear()
        started = time.monotonic()
        try:
            response = await self._answer_or_error(request, started)
            if self._draining:
                response.force_close()
            await self._send(request, response)
        finally:
            connection.end()
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()
        if self._config.access_log:
            log_access(
                "REST",
                request.remote,
                f"{request.method} {request.rel_url.raw_path}",
                str(response.status),
                time.monotonic() - started,
                request.content_length,
            )
        return response

    async def _send(self, request: web.BaseRequest, response: web.Response) -> None:
        """Send the response; the connection of a client that doesn't read it is closed."""
        try:
            async with asyncio.timeout(self._config.timeout_s):
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        except ConnectionError:  # the client didn't wait for it
            response.force_close()

    async def _answer_or_error(self, request: web.BaseRequest, started: float) -> web.Response:
        error: RequestError | None = None
        response = web.Response()
        address = None
        try:
            address = _addressed(request)
            response = await (self._post(request, address) if request.method == "POST" else self._get(address))
        except RequestError as refused:
            error = refused
        except (web.HTTPRequestEntityTooLarge, UnpackedTooLargeError):
            error = self._too_large()
        except (web.RequestPayloadError, web.HTTPException) as broken:
            error = RequestError(Code.INVALID_ARGUMENT, f"the request's body can't be read: {broken}")
        except Exception as unexpected:
            _log.exception("serve     %s %s failed", request.method, ascii(request.rel_url.raw_path))
            error = RequestError(Code.INTERNAL, f"internal error: {type(unexpected).__name__}; see the server's log")
        if request.method == "POST":
            name = address.name if address else ""
            code = error.code if error else Code.OK
            self._dispatcher.metrics.count_request(name, "predict", "REST", code, time.monotonic() - started)
        if error is None:
            return response
        response = json_response({"error": str(error)}, error.http_status)
        if error.retry_after_s is not None:
            response.headers["Retry-After"] = str(math.ceil(error.retry_after_s))
        return response

    async def _get(self, address: _Address | None) -> web.Response:
        if address is None:
            return web.Response(body=self._dispatcher.metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})
        name, version = address.name, address.version
        if not address.verb:
            return json_response(to_json(status_response(self._dispatcher.versions.statuses(name, version))))
        with self._dispatcher.versions.lease(name, version) as served:
            return json_response(metadata_to_json(metadata_response(name, served)))

    async def _post(self, request: web.BaseRequest, address: _Address | None) -> web.Response:
        assert address is not None
        name, version, verb = address.name, address.version, address.verb
        if (request.content_length or 0) > self._max_body:
            raise self._too_large()
        # A compressed body's length doesn't limit its size after decompression.
        size = None if "Content-Encoding" in request.headers else request.content_length
        async with self._dispatcher.admitted(size):
            body = await request.read()
            if verb != "predict":
                self._refuse_example(name, version, verb)
            in_rows = True

            def read(model: SavedModelSession) -> Call:
                nonlocal in_rows
                document = parse_body(unpack(body, request.headers.get("Content-Encoding", ""), self._max_body))
                signature = document.get("signature_name") or DEFAULT_SIGNATURE
                inputs, in_rows = parse_inputs(document, model.input_infos(signature))
                return Call(signature, inputs)

            def write(served: ServedVersion, call: Call, outputs: Mapping[str, Array]) -> bytes:
                return format_response(outputs, in_rows)

            content = await self._dispatcher.predict(name, version, read, write)
        return web.Response(body=content, content_type="application/json")

    def _refuse_example(self, name: str, version: int | None, verb: str) -> NoReturn:
        """Refuse a request with tf.Example; NOT_FOUND if the model doesn't exist either."""
        with self._dispatcher.versions.lease(name, version):
            raise RequestError(
                Code.INVALID_ARGUMENT,
                f"Expected a signature with method_name tensorflow/serving/{verb}, which takes tf.Example; this "
                "model's are tensorflow/serving/predict. "
                'Use :predict (with "signature_name": "classify" for labels)',
            )

    def _too_large(self) -> RequestError:
        message = (
            f"the request is larger than {self._config.max_body_mb} MB; send fewer images at once, "
            "or serve with a larger --max-body-mb"
        )
        return RequestError(Code.RESOURCE_EXHAUSTED, message, http_status=413)


def _addressed(request: web.BaseRequest) -> _Address | None:
    """Return the parts of a path; None for the metrics path.

    Raises:
        RequestError: NOT_FOUND or INVALID_ARGUMENT, with TensorFlow Serving's message if it has one.
    """
    path = request.rel_url.raw_path
    if path == METRICS_PATH and request.method == "GET":
        return None
    if not path.lower().startswith("/v1/"):
        raise RequestError(Code.NOT_FOUND, f"nothing at {path}; models are at /v1/models/<name>")
    pattern = {"POST": _PREDICT_PATH, "GET": _STATUS_PATH}.get(request.method)
    match = pattern.fullmatch(path) if pattern else None
    if match is None:
        raise RequestError(Code.INVALID_ARGUMENT, f"Malformed request: {request.method} {path}")
    name, digits, label, verb = match.groups()
    if name is None:
        raise RequestError(Code.INVALID_ARGUMENT, "Missing model name in request.")
    if label is not None:
        raise RequestError(
            Code.INVALID_ARGUMENT,
            f"Unrecognized servable version label: {unquote(label)}; name /versions/<number>",
        )
    return _Address(unquote(name), digits, (verb or "").lower())
