"""Calls to an endpoint over TensorFlow Serving's REST interface; KServe's answers are understood too."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import numpy.typing as npt

from sat_xception.serve.addresses import is_loopback
from sat_xception.serve.protocol import DEFAULT_SIGNATURE, Code, RequestError, VersionStatus

__all__ = ["RestTransport"]

_CONNECT_TIMEOUT_S = 5.0
_MAX_SHOWN = 300


class RestTransport:
    """One keep-alive connection pool to one model."""

    def __init__(self, address: str, name: str, version: int | None, timeout_s: float, host: str = "") -> None:
        """Name the model's address.

        Args:
            address: `http://host:port`, with or without a path before /v1.
            name: The model's name.
            version: Version to pin, or None.
            timeout_s: Deadline of a call, in seconds.
            host: Host header to send; "" for the address's own.
        """
        self._timeout_s = timeout_s
        pinned = "" if version is None else f"/versions/{version}"
        self._model_url = f"{address.rstrip('/')}/v1/models/{quote(name, safe='')}{pinned}"
        timeout = httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_TIMEOUT_S))
        # A proxy from the environment is right for a remote endpoint, and can't reach one on this machine.
        headers = {"Host": host} if host else {}
        self._client = httpx.Client(
            timeout=timeout, headers=headers, trust_env=not is_loopback(httpx.URL(address).host)
        )

    def predict(self, signature: str, images: Sequence[bytes]) -> Mapping[str, npt.NDArray[Any]]:
        """Return a signature's outputs for encoded images, by name.

        Raises:
            RequestError: With the code that the endpoint's answer stands for.
        """
        request: dict[str, Any] = {
            "instances": [{"image_bytes": {"b64": base64.b64encode(data).decode()}} for data in images]
        }
        if signature != DEFAULT_SIGNATURE:
            request["signature_name"] = signature
        answer = self._call("POST", ":predict", json.dumps(request).encode())
        rows = answer.get("predictions")
        if not isinstance(rows, list) or len(rows) != len(images):
            raise self._unexpected(answer, f"{len(images)} predictions")
        if all(isinstance(row, dict) for row in rows) and rows:
            return {name: self._column([row.get(name) for row in rows], answer) for name in rows[0]}
        return {"probabilities": self._column(rows, answer)}

    def status(self) -> list[VersionStatus]:
        """Return the versions' states; a KServe model server says only whether it is ready.

        Raises:
            RequestError: With the code that the endpoint's answer stands for.
        """
        answer = self._call("GET", "")
        if "ready" in answer:
            ready = str(answer["ready"]).lower() == "true"
            return [VersionStatus(None, "AVAILABLE" if ready else "LOADING")]
        try:
            return [
                VersionStatus(
                    int(item["version"]),
                    str(item["state"]),
                    str(item.get("status", {}).get("error_code", "OK")),
                    str(item.get("status", {}).get("error_message", "")),
                )
                for item in answer["model_version_status"]
            ]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise self._unexpected(answer, "model_version_status") from None

    def metadata(self) -> dict[str, Any]:
        """Return the model's signatures.

        Raises:
            RequestError: With the code that the endpoint's answer stands for.
        """
        return self._call("GET", "/metadata")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _call(self, method: str, suffix: str, body: bytes | None = None) -> dict[str, Any]:
        url = self._model_url + suffix
        try:
            # KServe reads a body as JSON only when it is told that it is.
            response = self._client.request(method, url, content=body, headers={"Content-Type": "application/json"})
        except httpx.TimeoutException as error:
            message = (
                f"{url} didn't answer within {self._timeout_s:g} s ({type(error).__name__}); "
                "send fewer images or raise --timeout-s"
            )
            raise RequestError(Code.DEADLINE_EXCEEDED, message) from None
        except (httpx.ConnectError, httpx.RemoteProtocolError) as error:
            # The second is a kept-alive connection that the server closed before it read the request.
            message = f"can't reach {url}: {error}. Is the server running, and is this its REST port?"
            raise RequestError(Code.UNAVAILABLE, message) from None
        except httpx.HTTPError as error:
            raise RequestError(Code.UNKNOWN, f"{url} failed: {type(error).__name__}: {error}") from None
        try:
            answer = json.loads(response.content)
        except ValueError:
            answer = None
        if response.status_code != 200:
            said = answer["error"] if isinstance(answer, dict) and "error" in answer else response.text
            message = f"{url} answered {response.status_code}: {str(said)[:_MAX_SHOWN]}"
            raise RequestError(Code.from_http(response.status_code), message)
        if not isinstance(answer, dict):
            raise self._unexpected(response.text, "a JSON object")
        return answer

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
