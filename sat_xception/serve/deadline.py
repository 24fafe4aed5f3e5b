"""Send an HTTP request with one deadline for all of it: connecting, sending, waiting and reading.

httpx's timeouts limit the time between two bytes, and apply one after the other. If a server sends a byte now and then,
as gateways do to keep a request alive, httpx waits forever.
"""

from __future__ import annotations

import queue
import threading
from collections import deque

import httpx

__all__ = ["send_within"]

# Headers that describe the body as it was sent; the returned response holds the decoded, complete body.
_OF_THE_WIRE = frozenset({"content-encoding", "content-length", "transfer-encoding"})
_KEPT = ("http_version", "reason_phrase")


def send_within(
    client: httpx.Client,
    request: httpx.Request,
    seconds: float,
    last_bytes: int | None = None,
    connect_s: float | None = None,
) -> httpx.Response:
    """Send a request and return its complete response, or raise after some seconds.

    The request runs in a thread of its own, because neither a name lookup nor the reading of headers can be
    interrupted. After the deadline the thread is abandoned: it closes its connection at the next byte of the body, or
    after as many seconds without one.

    Args:
        client: Client to send with; it may be shared between threads.
        request: The request, from `client.build_request`. Redirections are not followed.
        seconds: Deadline in seconds, above 0.
        last_bytes: Keep only the last bytes of the body, this many; None keeps all.
        connect_s: Timeout for connecting, if shorter than `seconds`.

    Raises:
        httpx.ConnectTimeout: The deadline passed before the request was sent, so the server hasn't processed it.
        httpx.ReadTimeout: The deadline passed before the response was complete; the server may have processed it.
        httpx.HTTPError: The request failed before the deadline.
    """
    sent, over = threading.Event(), threading.Event()
    results: queue.SimpleQueue[httpx.Response | Exception] = queue.SimpleQueue()

    def note(event: str, _: object) -> None:
        if event.endswith("send_request_headers.started"):
            sent.set()

    timeout = httpx.Timeout(seconds, connect=min(seconds, connect_s or seconds))
    request.extensions = {**request.extensions, "timeout": timeout.as_dict(), "trace": note}

    def work() -> None:
        try:
            results.put(_receive(client, request, over, last_bytes))
        except Exception as error:  # raised below, by the thread that waits
            results.put(error)

    threading.Thread(target=work, name="request with a deadline", daemon=True).start()
    try:
        result = results.get(timeout=seconds)
    except queue.Empty:
        kind = httpx.ReadTimeout if sent.is_set() else httpx.ConnectTimeout
        raise kind(f"no whole answer within {seconds:g} s", request=request) from None
    finally:
        over.set()
    if isinstance(result, Exception):
        raise result
    return result


def _receive(
    client: httpx.Client, request: httpx.Request, over: threading.Event, last_bytes: int | None
) -> httpx.Response:
    response = client.send(request, stream=True, follow_redirects=False)
    pieces: deque[bytes] = deque()
    kept = 0
    try:
        for piece in response.iter_bytes():
            if over.is_set():
                raise httpx.ReadTimeout("the deadline has passed", request=request)
            pieces.append(piece)
            kept += len(piece)
            while last_bytes is not None and kept - len(pieces[0]) >= last_bytes:
                kept -= len(pieces.popleft())
    finally:
        response.close()
    content = b"".join(pieces)
    headers = [(name, value) for name, value in response.headers.multi_items() if name.lower() not in _OF_THE_WIRE]
    return httpx.Response(
        response.status_code,
        headers=headers,
        content=content if last_bytes is None else content[max(0, len(content) - last_bytes) :],
        request=request,
        extensions={name: response.extensions[name] for name in _KEPT if name in response.extensions},
    )
