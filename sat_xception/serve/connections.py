"""HTTP connections with header and idle timeouts, a limit on their number, and errors in JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from sat_xception.log import get_logger

__all__ = ["Connection", "ConnectionFactory", "json_response"]

_log = get_logger(__name__)
_CONTENT_TYPE = "application/json"
_MAX_SAID = 200
# If the event loop is late, headers may have arrived in time although their request hasn't started: aiohttp needs four
# turns of the loop for that.
_TURNS = 8


class ConnectionFactory(web.Server):
    """Factory of a server's connections, up to a maximum number."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        max_body: int,
        max_connections: int,
        head_timeout_s: float,
        idle_timeout_s: float,
    ) -> None:
        """Set the limits.

        Args:
            handler: Answers a request whose headers have been read.
            max_body: Maximum body size in bytes, before decompression.
            max_connections: Maximum number of open connections; further ones are closed at once.
            head_timeout_s: Timeout from the first to the last byte of a request's headers.
            idle_timeout_s: Timeout between requests.
        """
        super().__init__(
            handler,
            request_factory=lambda message, payload, protocol, writer, task: web.BaseRequest(
                message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=max_body
            ),
            handler_cancellation=True,
            keepalive_timeout=idle_timeout_s,
            access_log=None,
            auto_decompress=False,  # aiohttp doesn't notice a truncated compressed body
            lingering_time=1,
        )
        self.max_connections, self.head_timeout_s = max_connections, head_timeout_s

    def __call__(self) -> web.RequestHandler:
        """Return the protocol of a new connection."""
        return Connection(self, loop=asyncio.get_running_loop(), **self._kwargs)


class Connection(web.RequestHandler):
    """A connection. The header timeout runs from its start, and from the first byte after each response."""

    __slots__ = ("_busy", "_factory", "_head_alarm")

    def __init__(self, factory: ConnectionFactory, **settings: Any) -> None:  # noqa: ANN401 - aiohttp's own
        """Make the protocol."""
        super().__init__(factory, **settings)
        self._factory = factory
        self._busy = False
        self._head_alarm: asyncio.Handle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the header timeout, or close the connection if there are too many."""
        super().connection_made(transport)
        if len(self._factory.connections) > self._factory.max_connections:
            self.force_close()
            return
        self._expect_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Start the header timeout at the first byte of a request."""
        if data and not self._busy:
            self._expect_head()
        super().data_received(data)

    def begin(self) -> None:
        """Stop the timeouts: the headers have been read, and the request is being answered."""
        self._busy = True
        self._head_came()

    def end(self) -> None:
        """Mark the request as answered."""
        self._busy = False

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the response to malformed HTTP; the connection is closed after it."""
        if not isinstance(exc, HttpProcessingError):
            _log.error("serve     a connection failed", exc_info=exc)
        self._head_came()
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is on its way already")
        said = " ".join((message or "").split())[:_MAX_SAID]
        error = f"Malformed HTTP request: {said}" if status < 500 else "internal error"
        response = json_response({"error": error}, status)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **settings: Any) -> None:  # noqa: ANN401 - aiohttp's own
        """Drop aiohttp's log of malformed requests: a client could fill the disk with it."""
        _log.debug(*args, **settings)

    def _expect_head(self) -> None:
        if self._head_alarm is None:
            self._head_alarm = self._loop.call_later(self._factory.head_timeout_s, self._give_up)

    def _give_up(self, turns: int = _TURNS) -> None:
        if turns:
            self._head_alarm = self._loop.call_soon(self._give_up, turns - 1)
        else:
            self.force_close()

    def _head_came(self) -> None:
        if self._head_alarm is not None:
            self._head_alarm.cancel()
            self._head_alarm = None


def json_response(content: dict[str, Any], status: int = 200) -> web.Response:
    """Return a JSON response formatted like TensorFlow Serving's."""
    return web.Response(body=json.dumps(content, indent=1).encode() + b"\n", status=status, content_type=_CONTENT_TYPE)
