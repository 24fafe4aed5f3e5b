"""Calls to an endpoint over TensorFlow Serving's REST interface, and KServe's variants of its responses."""

from __future__ import annotations

import functools
import json
import ssl
from collections.abc import Mapping, Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import numpy.typing as npt
import orjson
import pybase64
from pydantic import BaseModel, ValidationError

from sat_xception.http_clients import retry_after_s
from sat_xception.serve.access import CA_FILE, TOKEN_FILE, Access, hide
from sat_xception.serve.addresses import is_loopback
from sat_xception.serve.deadline import send_within
from sat_xception.serve.protocol import DEFAULT_SIGNATURE, Code, RequestError, VersionStatus

__all__ = ["RestTransport"]

_CONNECT_TIMEOUT_S = 5.0
_MAX_SHOWN = 300


class _ErrorStatus(BaseModel):
    error_code: str = "OK"
    error_message: str = ""


class _VersionState(BaseModel):
    version: int
    state: str
    status: _ErrorStatus = _ErrorStatus()


class _ModelStatus(BaseModel):
    """Response of TensorFlow Serving; `ready` is that of a KServe model server."""

    ready: object = None
    model_version_status: list[_VersionState] | None = None


class RestTransport:
    """A pool of HTTP connections for one model."""

    def __init__(
        self, address: str, name: str, version: int | None, access: Access, as_new_client: bool = False
    ) -> None:
        """Create the connection pool.

        Args:
            address: `http://host:port`, with or without a path before /v1.
            name: Name of the model.
            version: Version to pin, or None.
            access: Token, CA certificates and host name.
            as_new_client: Whether each request has a connection of its own and sends no cookies. Else connections are
                kept alive.

        Raises:
            ConfigError: The CA file can't be used.
        """
        self._access = access
        pinned = "" if version is None else f"/versions/{version}"
        self._model_url = f"{address.rstrip('/')}/v1/models/{quote(name, safe='')}{pinned}"
        self._client = httpx.Client(
            verify=access.ssl_context() if address.startswith("https:") else _unused_ssl_context(),
            # A proxy set in the environment is used for remote endpoints; it can't reach one on this machine.
            trust_env=not is_loopback(httpx.URL(address).host),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0 if as_new_client else None),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())) if as_new_client else None,
        )

    def predict(self, signature: str, images: Sequence[bytes], timeout_s: float) -> Mapping[str, npt.NDArray[Any]]:
        """Return a signature's outputs for encoded images, by name.

        Raises:
            RequestError: With the code for the endpoint's HTTP status.
        """
        named = {} if signature == DEFAULT_SIGNATURE else {"signature_name": signature}
        request = {
            "instances": [{"image_bytes": {"b64": pybase64.b64encode_as_string(data)}} for data in images],
            **named,
        }
        answer = self._call("POST", ":predict", timeout_s, orjson.dumps(request))
        rows = answer.get("predictions")
        if not isinstance(rows, list) or len(rows) != len(images):
            raise self._unexpected(answer, f"{len(images)} predictions")
        if all(isinstance(row, dict) for row in rows) and rows:
            return {name: self._column([row.get(name) for row in rows], answer) for name in rows[0]}
        return {"probabilities": self._column(rows, answer)}

    def status(self, timeout_s: float) -> list[VersionStatus]:
        """Return the versions' states; a KServe model server reports only whether it is ready.

        Raises:
            RequestError: With the code for the endpoint's HTTP status.
        """
        answer = self._call("GET", "", timeout_s)
        try:
            status = _ModelStatus.model_validate(answer)
        except ValidationError:
            raise self._unexpected(answer, "model_version_status") from None
        if "ready" in status.model_fields_set:
            ready = str(status.ready).lower() == "true"
            return [VersionStatus(None, "AVAILABLE" if ready else "LOADING")]
        if status.model_version_status is None:
            raise self._unexpected(answer, "model_version_status")
        return [
            VersionStatus(each.version, each.state, each.status.error_code, each.status.error_message)
            for each in status.model_version_status
        ]

    def metadata(self, timeout_s: float) -> dict[str, Any]:
        """Return the model's signatures.

        Raises:
            RequestError: With the code for the endpoint's HTTP status.
        """
        return self._call("GET", "/metadata", timeout_s)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _call(self, method: str, suffix: str, timeout_s: float, body: bytes | None = None) -> dict[str, Any]:
        url = self._model_url + suffix
        token = self._access.token()
        # KServe parses a body as JSON only with this content type.
        headers = {"Content-Type": "application/json"}
        extensions: dict[str, Any] = {}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if self._access.host:
            headers["Host"] = self._access.host
            extensions = {"sni_hostname": self._access.host_name}
        request = self._client.build_request(method, url, content=body, headers=headers, extensions=extensions)
        try:
            response = send_within(self._client, request, timeout_s, connect_s=_CONNECT_TIMEOUT_S)
        except httpx.ConnectTimeout as error:
            raise self._unreachable(url, error) from None
        except httpx.TimeoutException as error:
            message = (
                f"{url} didn't answer within {timeout_s:.3g} s ({type(error).__name__}); "
                "send fewer images or raise --timeout-s"
            )
            raise RequestError(Code.DEADLINE_EXCEEDED, message) from None
        except httpx.ConnectError as error:
            if "CERTIFICATE" in str(error):  # a retry would fail too
                raise RequestError(
                    Code.UNAVAILABLE, f"{url} isn't trusted: {error}. Check {CA_FILE} and --host-header"
                ) from None
            raise self._unreachable(url, error) from None
        except httpx.RemoteProtocolError as error:
            # The server closed a kept-alive connection before it read the request.
            raise self._unreachable(url, error) from None
        except httpx.HTTPError as error:
            raise RequestError(Code.UNKNOWN, f"{url} failed: {type(error).__name__}: {error}") from None
        answer = _parsed(response.content)
        if response.status_code != 200:
            said = answer.get("error", response.text) if isinstance(answer, dict) else response.text
            raise _refusal(url, response, hide(token, str(said))[:_MAX_SHOWN])
        if not isinstance(answer, dict):
            raise self._unexpected(hide(token, response.text), "a JSON object")
        return answer

    def _unreachable(self, url: str, error: Exception) -> RequestError:
        message = f"can't reach {url}: {error}. Is the server running, and is this its REST port?"
        return RequestError(Code.UNAVAILABLE, message, retry_after_s=0.0)

    def _column(self, values: list[Any], answer: object) -> npt.NDArray[Any]:
        try:
            return np.array(values)
        except ValueError:
            raise self._unexpected(answer, "predictions of one shape") from None

    def _unexpected(self, answer: object, wanted: str) -> RequestError:
        shown = str(answer)[:_MAX_SHOWN]
        return RequestError(
            Code.UNKNOWN, f"{self._model_url} doesn't answer as TensorFlow Serving does: expected {wanted}, got {shown}"
        )


@functools.cache
def _unused_ssl_context() -> ssl.SSLContext:
    """Return httpx's default for clients without TLS: made once, since it takes 20 ms to read the CA certificates."""
    return httpx.create_ssl_context()


def _parsed(content: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Return the parsed JSON; None if it is invalid. TensorFlow Serving writes NaN, which orjson refuses."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _refusal(url: str, response: httpx.Response, said: str) -> RequestError:
    status = response.status_code
    message = f"{url} answered {status}: {said}"
    if status in (401, 403):
        message += f". Check {TOKEN_FILE}"
    wait_s = (retry_after_s(response.headers.get("Retry-After", "")) or 0.0) if status in (429, 503) else None
    return RequestError(Code.from_http(status), message, status, wait_s, said)
