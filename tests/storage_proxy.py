"""A bucket with faults: a real server of a provider's kind, and real HTTP in front of it that fails by script."""

import contextlib
import http.client
import json
import re
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, urlsplit

import pytest

Action = int | str | Callable[[], object]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextlib.contextmanager
def running_emulator(bucket: str) -> Iterator[str]:
    """Yield the address of a running emulator that has a bucket."""
    pytest.importorskip("gcp_storage_emulator", reason="the storage emulator isn't installed")
    port = free_port()
    flags = ["--host", "127.0.0.1", "--port", str(port), "--in-memory", "--default-bucket", bucket]
    with running_server([sys.executable, "-m", "gcp_storage_emulator", "start", *flags], port) as address:
        yield address


@contextlib.contextmanager
def running_server(command: list[str], port: int) -> Iterator[str]:
    """Yield the address of a server that a command starts, once it answers on its port."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert time.monotonic() < deadline, f"{command[0]} doesn't start"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
        process.terminate()


def bucket_of(name: str):
    """Return a bucket of the emulator that the environment names, as the real client sees it."""
    from google.cloud import storage

    return storage.Client(project="test").bucket(name)


@dataclass
class Fault:
    """What happens to the requests that match.

    Attributes:
        pattern: Regular expression that is searched for in "METHOD path?query name-of-the-uploaded-object".
        action: A status to answer with; "reset" the connection; "cut" the body in half; "slow" body; "lost": do it and
            answer 503; or a function that is called before the request goes on.
        times: How many requests.
        skip: How many matching requests go through before.
    """

    pattern: str
    action: Action
    times: int
    skip: int


class StorageProxy(ThreadingHTTPServer):
    """Passes requests on to the server; keeps `ifGenerationMatch`, which Google's emulator doesn't know."""

    daemon_threads = True

    def __init__(self, emulator: str) -> None:
        self.emulator = urlsplit(emulator).netloc
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        # Bytes that are replaced in every answer, and what with.
        self.rewrite = (b"", b"")
        self.lock = threading.Lock()
        self.upload_lock = threading.Lock()
        # Whether writes are passed on one after the other.
        self.one_by_one = True
        # Headers that aren't passed on, in lower case.
        self.without: tuple[str, ...] = ()
        # Status that answers requests with If-Match or If-None-Match; 0 for what the server says.
        self.conditions = 0
        super().__init__(("127.0.0.1", 0), _Handler)

    def fail(self, pattern: str, action: Action, times: int = 1, skip: int = 0) -> None:
        self.faults.append(Fault(pattern, action, times, skip))

    def fault_of(self, request: str) -> Action | None:
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times and re.search(fault.pattern, request):
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    return fault.action
        return None

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, request)) for request in self.requests)

    def ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, list, bytes]:
        with contextlib.closing(http.client.HTTPConnection(self.emulator, timeout=30)) as connection:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()

    def generation_of(self, bucket: str, name: str) -> int:
        status, _, body = self.ask("GET", f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}", b"", {})
        return int(json.loads(body)["generation"]) if status == 200 else 0

    def handle_error(self, *_: object) -> None:
        """Say nothing: clients that hang up are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StorageProxy

    def _pass_on(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:  # The client was killed while it sent this; the server would wait for the rest.
            self.close_connection = True
            return
        uploaded = re.search(rb'"name":\s*"([^"]+)"', body[:4096]) if self.path.startswith("/upload/") else None
        name = json.loads(b'"%b"' % uploaded[1]) if uploaded else ""
        action = self.server.fault_of(f"{self.command} {self.path} {name}")
        if (
            self.server.conditions
            and self.command == "PUT"
            and {"if-match", "if-none-match"} & {*map(str.lower, self.headers)}
        ):
            action = self.server.conditions
        if callable(action):
            action()
        if isinstance(action, int):
            self._answer(action, [], json.dumps({"error": {"code": action, "message": "by script"}}).encode())
        elif action == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        else:
            self._answer_for_real(body, name, action)

    def _answer_for_real(self, body: bytes, name: str, action: Action | None) -> None:
        wanted = parse_qs(urlsplit(self.path).query).get("ifGenerationMatch")
        # Servers for tests compare first and write later, in threads; real ones do it in one step.
        compares = wanted or (self.server.one_by_one and self.command == "PUT")
        with self.server.upload_lock if compares else contextlib.nullcontext():
            bucket = self.path.split("/b/")[-1].split("/")[0]
            if wanted and int(wanted[0]) != self.server.generation_of(bucket, name):
                self._answer(412, [], b'{"error": {"code": 412, "message": "conditionNotMet"}}')
                return
            status, headers, content = self.server.ask(
                self.command,
                self.path,
                body,
                {key: value for key, value in self.headers.items() if key.lower() not in self.server.without},
            )
        old, new = self.server.rewrite
        content = content.replace(old, new) if old else content
        if action == "lost":
            self._answer(503, [], b"{}")
        else:
            self._answer(status, headers, content, str(action) if action in ("cut", "slow") else "")

    def _answer(self, status: int, headers: list, body: bytes, way: str = "") -> None:
        self.send_response(status)
        for key, value in headers:
            if key.lower() not in ("content-length", "connection", "date", "server", "transfer-encoding"):
                self.send_header(key, value)
        given = {key.lower(): value for key, value in headers}
        length = given.get("content-length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        body = b"" if self.command == "HEAD" else body
        half = len(body) // 2
        self.wfile.write(body[:half])
        self.wfile.flush()
        if way == "cut":
            self.close_connection = True
            return
        if way == "slow":
            time.sleep(0.3)
        self.wfile.write(body[half:])

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _pass_on

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def running_proxy(emulator: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[StorageProxy]:
    """Yield a proxy that Google's client library talks to."""
    with passing_on(emulator) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{proxy.server_port}")
        yield proxy


@contextlib.contextmanager
def passing_on(server: str, tls: ssl.SSLContext | None = None) -> Iterator[StorageProxy]:
    """Yield a running proxy of a server, which speaks TLS if its side of it is given."""
    with StorageProxy(server) as proxy:
        if tls is not None:
            proxy.socket = tls.wrap_socket(proxy.socket, server_side=True)
        thread = threading.Thread(target=proxy.serve_forever, args=(0.01,))
        thread.start()
        yield proxy
        proxy.shutdown()
        thread.join()
