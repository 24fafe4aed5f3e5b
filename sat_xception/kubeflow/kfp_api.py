"""Client of the API server of Kubeflow Pipelines, over its v2beta1 REST interface.

kfp's own client isn't used: it prints, writes to the home directory, checks health five times before it gives up, and
has neither timeouts nor retries. Idempotent requests are retried after transient failures; a request that creates
something is only repeated after looking for the resource (`KfpClient.create_once`).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import httpx

from sat_xception.errors import ConfigError
from sat_xception.http_clients import quiet_http_clients, retry
from sat_xception.kubeflow.answers import (
    Answer,
    Health,
    Listed,
    UnexpectedAnswerError,
    parse,
    parse_page,
)
from sat_xception.kubeflow.kfp_errors import KfpError, forward_hint, no_answer, not_kubeflow, refusal
from sat_xception.kubeflow.settings import KfpConfig
from sat_xception.log import get_logger
from sat_xception.serve.addresses import is_loopback
from sat_xception.serve.deadline import send_within

__all__ = ["KfpClient", "KfpError", "equals", "one_of"]

_log = get_logger(__name__)
T = TypeVar("T")
A = TypeVar("A", bound=Answer)
L = TypeVar("L", bound=Listed)
_API = "/apis/v2beta1"
# Pauses before retries, in seconds; in total longer than a restart of the API server.
_PAUSES_S = (1.0, 2.0, 4.0)
# No response, or a gateway timeout: the server may still be processing the request.
_IN_DOUBT = frozenset({0, 502, 504})
_PAGE = 100
quiet_http_clients()


def equals(key: str, value: str) -> str:
    """Return a list filter: the field has this value."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "string_value": value}]})


def one_of(key: str, values: Iterable[str]) -> str:
    """Return a list filter: the field has one of these values."""
    return json.dumps({"predicates": [{"operation": "IN", "key": key, "string_values": {"values": sorted(values)}}]})


class KfpClient:
    """Client of the API server; a context manager, which closes its connections."""

    def __init__(self, config: KfpConfig) -> None:
        """Check the address; nothing is sent yet.

        Raises:
            ConfigError: The address is missing or malformed.
        """
        self.namespace = config.namespace or os.environ.get("KFP_NAMESPACE", "")
        self._config = config
        self.endpoint = (config.endpoint or os.environ.get("KFP_ENDPOINT", "")).rstrip("/")
        if not self.endpoint:
            raise ConfigError(
                f"where is Kubeflow Pipelines? Give --endpoint or $KFP_ENDPOINT; to reach it: {forward_hint()}"
            )
        try:
            url = httpx.URL(self.endpoint)
        except httpx.InvalidURL:
            url = httpx.URL("")
        if url.scheme not in ("http", "https") or not url.host or url.userinfo:
            raise ConfigError(
                f"--endpoint must be http(s)://host:port without a password in it, as http://localhost:8080; a token "
                f"goes into ${config.token_env}"
            )
        self._client = httpx.Client(trust_env=not is_loopback(url.host))
        self._identified = False

    def __enter__(self) -> KfpClient:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self._client.close()

    def link(self, place: str) -> str:
        """Return the URL of a page of the UI, for instance `runs/details/<id>`."""
        return f"{self.endpoint}/#/{place}"

    def get(self, path: str, kind: type[A], api: str = _API) -> A:
        """Return a resource of a kind; see `answers` for the kinds."""
        return self._patiently(lambda seconds: self.send("GET", path, kind, api=api, timeout_s=seconds))

    def page(self, path: str, kind: type[L], **query: str | int) -> tuple[list[L], str]:
        """Return a page of a list, and the token of the next page; "" after the last."""
        items, token = self._patiently(
            lambda seconds: self._send("GET", path, lambda content: parse_page(kind, content), query, timeout_s=seconds)
        )
        if not items:
            # For an empty list Kubeflow Pipelines returns {}, as many other servers do.
            self._identify(path)
        return items, token

    def pages(self, path: str, kind: type[L], **query: str | int) -> Iterator[L]:
        """Yield every resource of a list, page by page."""
        token = ""
        seen = set()
        while True:
            items, token = self.page(path, kind, page_size=_PAGE, **query, **({"page_token": token} if token else {}))
            yield from items
            if not token:
                return
            if token in seen or not items:
                raise self._not_kubeflow(f"the list {path} has no end: the same page, or an empty one, comes again")
            seen.add(token)

    def _identify(self, path: str) -> None:
        """Check, once, that the server is Kubeflow Pipelines."""
        if not self._identified and not self.get("/healthz", Health).is_of_kubeflow:
            raise self._not_kubeflow(f"{path} lists nothing, and /healthz isn't as Kubeflow Pipelines answers it")
        self._identified = True

    def act(self, path: str) -> None:
        """Send an idempotent POST request, such as `…:disable`."""
        self._patiently(lambda seconds: self.send("POST", path, Answer, timeout_s=seconds))

    def delete(self, path: str, **query: str) -> None:
        """Delete a resource; a missing one is no error."""
        try:
            self._patiently(lambda seconds: self.send("DELETE", path, Answer, query, timeout_s=seconds))
        except KfpError as error:
            if not error.absent:
                raise

    def create_once(self, what: str, create: Callable[[], T], find: Callable[[], T | None]) -> T:
        """Create a resource exactly once, whatever happens to the request.

        If the response is lost or a gateway times out, the server may have created the resource. So it is looked for
        before the request is repeated. Without any response the request isn't repeated, since the server may still be
        processing it.

        Args:
            what: Name of the resource, for messages.
            create: Sends the request.
            find: Returns the resource, or None if it doesn't exist.

        Raises:
            KfpError: The resource couldn't be created, or it isn't known whether it was.
        """

        def attempt(_: float) -> T:
            try:
                return create()
            except KfpError as error:
                taken = error.status == httpx.codes.CONFLICT
                found = find() if error.unclear or taken else None
                if found is not None:
                    return found
                if error.unclear and error.status in _IN_DOUBT:
                    hint = f"the {what} isn't there yet, but may still be made: look before you try again"
                    raise KfpError(error.reason, hint) from None
                raise

        return self._patiently(attempt)

    def _patiently(self, request: Callable[[float], T]) -> T:
        """Send a request, with retries after transient failures within the deadline.

        Args:
            request: Sends the request; its argument is the remaining time in seconds.
        """
        until = time.monotonic() + self._config.request_timeout_s
        return retry(
            lambda: request(until - time.monotonic()),
            _PAUSES_S,
            lambda error: error.pause_s if isinstance(error, KfpError) and error.passing else None,
            deadline=until,
            jitter=(1.0, 1.0),
            before_wait=lambda error, wait_s: _log.warning(
                "waiting   %s; trying again in %g s", getattr(error, "reason", error), wait_s
            ),
        )

    def send(
        self,
        method: str,
        path: str,
        kind: type[A],
        query: Mapping[str, str | int] | None = None,
        body: dict[str, Any] | None = None,
        file: bytes | None = None,
        api: str = _API,
        timeout_s: float | None = None,
    ) -> A:
        """Send one request, without retries, and return the response as an object.

        Args:
            method: HTTP method.
            path: Path after the version of the API.
            kind: Class of the response; `Answer` is any JSON object.
            query: Query parameters.
            body: JSON to send.
            file: Pipeline to upload.
            api: Version of the API.
            timeout_s: Deadline. Default: as configured.

        Raises:
            KfpError: The request failed, or the response hasn't the form of Kubeflow Pipelines' API.
        """
        return self._send(method, path, lambda content: parse(kind, content), query, body, file, api, timeout_s)

    def _send(
        self,
        method: str,
        path: str,
        read: Callable[[object], T],
        query: Mapping[str, str | int] | None = None,
        body: dict[str, Any] | None = None,
        file: bytes | None = None,
        api: str = _API,
        timeout_s: float | None = None,
    ) -> T:
        files = {"uploadfile": ("pipeline.yaml", file, "application/yaml")} if file is not None else None
        request = self._client.build_request(
            method, f"{self.endpoint}{api}{path}", params=query, json=body, files=files
        )
        answer = self.exchange(request, timeout_s)
        try:
            content = answer.json() if answer.content else {}
        except (ValueError, RecursionError):
            raise self._not_kubeflow(f"{path} is {answer.headers.get('content-type')}, not JSON") from None
        try:
            return read(content)
        except UnexpectedAnswerError as error:
            raise self._not_kubeflow(f"{path}: {error}") from None

    def exchange(
        self, request: httpx.Request, timeout_s: float | None = None, last_bytes: int | None = None
    ) -> httpx.Response:
        """Send a request with the bearer token, and return its response if it is a success.

        Raises:
            KfpError: The request failed.
        """
        timeout_s = self._config.request_timeout_s if timeout_s is None else max(timeout_s, 0.01)
        if token := self._token():
            request.headers["Authorization"] = f"Bearer {token}"
        try:
            answer = send_within(self._client, request, timeout_s, last_bytes)
        except httpx.HTTPError as error:
            raise no_answer(self.endpoint, error, timeout_s) from None
        except UnicodeError as error:  # from the name lookup
            raise ConfigError(f"--endpoint {self.endpoint} is no address: {error}") from None
        if not answer.is_success:
            raise refusal(self.endpoint, answer, token, self._config.token_env)
        return answer

    def build(self, path: str, **query: str) -> httpx.Request:
        """Return a GET request for a path outside the API at the same endpoint."""
        return self._client.build_request("GET", f"{self.endpoint}{path}", params=query)

    def curl(self, address: str) -> str:
        """Return a curl command for a URL of this server; the token is referenced, not shown."""
        file, variable = self._config.token_file, self._config.token_env
        source = f"$(cat '{file}')" if file else f"${variable}" if self._token() else ""
        header = f'-H "Authorization: Bearer {source}" ' if source else ""
        return f"curl {header}'{address}'"

    def _not_kubeflow(self, why: str) -> KfpError:
        return not_kubeflow(self.endpoint, why, self._config.token_env)

    def _token(self) -> str:
        """Return the bearer token; "" if there is none."""
        path = self._config.token_file
        origin = f"--token-file {path}" if path else f"${self._config.token_env}"
        try:
            token = path.read_bytes().decode() if path else os.environ.get(self._config.token_env, "")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"can't read the token in {origin}: {type(error).__name__}") from None
        token = token.strip()
        # Checked here, because the HTTP library's error would show the token.
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise ConfigError(f"{origin} holds no token: there is a space, a line break or a letter beyond ASCII in it")
        return token
