"""TensorFlow Serving's REST interface: predict, model status and metadata.

Paths and answers follow its api_rest.md; a path is matched as in http_rest_api_util.cc, without regard to case. The
content type of a request doesn't matter.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from sat_xception.log import get_logger
from sat_xception.serve.dispatch import Dispatcher
from sat_xception.serve.json_tensors import format_response, parse_body, parse_inputs
from sat_xception.serve.messages import metadata_response, metadata_to_json, status_response, to_json
from sat_xception.serve.protocol import DEFAULT_SIGNATURE, Code, RequestError
from sat_xception.serve.versions import ServedVersion

__all__ = ["RestService"]

_log = get_logger(__name__)
_MODEL = r"/v1/models(?:/(?P<name>[^/:]+))?(?:/versions/(?P<version>\d{1,19})|/labels/(?P<label>[^/:]+))?"
_PREDICT_PATH = re.compile(_MODEL + r":(?P<verb>predict|classify|regress)", re.IGNORECASE | re.ASCII)
_STATUS_PATH = re.compile(_MODEL + r"(?P<metadata>/metadata)?", re.IGNORECASE | re.ASCII)


class RestService:
    """The REST interface's application, and its end.

    Attributes:
        app: Answers every path.
    """

    def __init__(self, dispatcher: Dispatcher, max_body_mb: int) -> None:
        """Make the application.

        Args:
            dispatcher: Runs predictions.
            max_body_mb: Larger requests are refused with 413.
        """
        self._dispatcher = dispatcher
        self._max_body_mb = max_body_mb
        self._under_way = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.app = web.Application(client_max_size=max_body_mb * 2**20)
        self.app.router.add_route("*", "/{path:.*}", self._answer)

    async def drain(self, timeout_s: float) -> None:
        """Wait until no request is under way; connections are closed after the answer they wait for.

        aiohttp's own shutdown throws away what is still to come of a request's body, so it must come after this.
        """
        self._draining = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)

    async def _answer(self, request: web.Request) -> web.Response:
        self._under_way += 1
        self._idle.clear()
        try:
            response = await self._answer_or_error(request)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()
        if self._draining:
            response.force_close()
        return response

    async def _answer_or_error(self, request: web.Request) -> web.Response:
        error: RequestError | None = None
        body = b""
        try:
            body = await self._route(request)
        except RequestError as refused:
            error = refused
        except web.HTTPRequestEntityTooLarge:
            error = self._too_large()
        except web.RequestPayloadError as broken:
            error = RequestError(Code.INVALID_ARGUMENT, f"the request's body can't be read: {broken}")
        except Exception as unexpected:
            _log.exception("serve     %s %s failed", request.method, request.rel_url.raw_path)
            error = RequestError(Code.INTERNAL, f"internal error: {type(unexpected).__name__}; see the server's log")
        if request.method == "POST":
            self._dispatcher.traffic.count(answered=error is None)
        if error is not None:
            return _json_response({"error": str(error)}, error.http_status)
        return web.Response(body=body, content_type="application/json")

    async def _route(self, request: web.Request) -> bytes:
        path = request.rel_url.raw_path
        if not path.lower().startswith("/v1/"):
            raise RequestError(Code.NOT_FOUND, f"nothing at {path}; models are at /v1/models/<name>")
        pattern = {"POST": _PREDICT_PATH, "GET": _STATUS_PATH}.get(request.method)
        match = pattern.fullmatch(path) if pattern else None
        if match is None:
            raise RequestError(Code.INVALID_ARGUMENT, f"Malformed request: {request.method} {path}")
        if match["name"] is None:
            raise RequestError(Code.INVALID_ARGUMENT, "Missing model name in request.")
        if match["label"] is not None:
            raise RequestError(
                Code.INVALID_ARGUMENT,
                f"Unrecognized servable version label: {unquote(match['label'])}; name /versions/<number>",
            )
        name, version = unquote(match["name"]), int(match["version"]) if match["version"] else None
        if request.method == "POST":
            return await self._post(request, match["verb"].lower(), name, version)
        if match["metadata"]:
            return await self._metadata(name, version)
        return self._status(name, version)

    async def _post(self, request: web.Request, verb: str, name: str, version: int | None) -> bytes:
        body = await request.read()
        if verb != "predict":
            raise RequestError(
                Code.INVALID_ARGUMENT,
                f"Expected a signature with method_name tensorflow/serving/{verb}, which takes tf.Example; this "
                "model's are tensorflow/serving/predict. "
                'Use :predict (with "signature_name": "classify" for labels)',
            )
        return await self._dispatcher.run(name, version, lambda served: _predict(served, body))

    def _status(self, name: str, version: int | None) -> bytes:
        return _dumps(to_json(status_response(self._dispatcher.versions.statuses(name, version))))

    async def _metadata(self, name: str, version: int | None) -> bytes:
        with self._dispatcher.versions.lease(name, version) as served:
            return _dumps(metadata_to_json(metadata_response(name, served)))

    def _too_large(self) -> RequestError:
        message = (
            f"the request is larger than {self._max_body_mb} MB; send fewer images at once, "
            "or serve with a larger --max-body-mb"
        )
        return RequestError(Code.RESOURCE_EXHAUSTED, message, http_status=413)


def _predict(served: ServedVersion, body: bytes) -> bytes:
    document = parse_body(body)
    signature = document.get("signature_name") or DEFAULT_SIGNATURE
    inputs, in_rows = parse_inputs(document, served.model.input_infos(signature))
    return format_response(served.model.predict(signature, inputs), in_rows)


def _dumps(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode() + b"\n"


def _json_response(content: dict[str, Any], status: int) -> web.Response:
    return web.Response(body=_dumps(content), status=status, content_type="application/json")
