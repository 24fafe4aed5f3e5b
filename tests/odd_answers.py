"""A server between a client and a model server, which changes what the model answers."""

import http.server
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable


class OddAnswers:
    """Answers as the server at `url` does, but for what `change` makes of its predictions from the second one on.

    The first request asks for the golden tiles, which prove that the right model answers.

    Args:
        url: Address of the server.
        change: Changes the list of predictions in place.
        first: Number of the first answer that is changed, from 0 on.
    """

    def __init__(self, url: str, change: Callable[[list], None], first: int = 1) -> None:
        answered, lock = [0], threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *told: object) -> None:
                pass

            def do_GET(self) -> None:
                self.answer(None)

            def do_POST(self) -> None:
                self.answer(self.rfile.read(int(self.headers["Content-Length"])))

            def answer(self, body: bytes | None) -> None:
                try:
                    with urllib.request.urlopen(urllib.request.Request(url + self.path, data=body)) as reply:
                        status, content = reply.status, reply.read()
                except urllib.error.HTTPError as error:
                    status, content = error.code, error.read()
                if body is not None and status == 200:
                    with lock:
                        answered[0] += 1
                        odd = answered[0] > first
                    found = json.loads(content)
                    if odd:
                        change(found["predictions"])
                    content = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "OddAnswers":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
