"""A server on loopback that sends, or reads, a byte now and then: what a time between two bytes never ends."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

__all__ = ["dripping_server"]

PAUSE_S = 0.05
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
# What is sent at once, and what is sent again and again, a byte at a time.
KINDS = {
    "body": (HEAD + b"Content-Length: 1000000\r\n\r\n", b" "),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "headers": (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
    "status line": (b"", b"HTTP/1.1 200 " + b"O" * 1000),
    "silence": (b"", b""),
}


@contextlib.contextmanager
def dripping_server(kind: str) -> Iterator[str]:
    """Yield the server's address; "request" reads the request as slowly, and never answers."""
    over = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(PAUSE_S)
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if kind == "request":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
                while not over.wait(PAUSE_S):
                    connection.recv(1)
                return
            connection.recv(65536)
            at_once, drops = KINDS[kind]
            connection.sendall(at_once)
            position = 0
            while not over.wait(PAUSE_S):
                if drops:
                    connection.sendall(drops[position % len(drops) : position % len(drops) + 1])
                    position += 1

    def accept() -> None:
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = listening.accept()
                connection.settimeout(None)
                threads.append(threading.Thread(target=serve, args=(connection,)))
                threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        over.set()
        accepting.join()
        for thread in threads:
            thread.join()
        listening.close()
