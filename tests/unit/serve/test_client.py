from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from sat_xception.errors import ConfigError, ServiceError
from sat_xception.serve.addresses import bound_socket, is_loopback, reachable
from sat_xception.serve.client import EndpointClient
from sat_xception.serve.protocol import Code, RequestError, VersionStatus
from tests.serving_fixtures import CLASSES, NAME, VERSION, expected, pixels_of, pngs

pytest_plugins = ["tests.serving_fixtures"]


@pytest.fixture(params=["rest", "grpc"])
def address(request, contract) -> str:
    return contract.rest_url if request.param == "rest" else f"grpc://{contract.grpc_address}"


@pytest.fixture
def client(address) -> Iterator[EndpointClient]:
    with EndpointClient(address, NAME) as client:
        yield client


@pytest.mark.parametrize("count", [1, 7])
def test_probabilities_equal_keras(client, count):
    probabilities = client.predict(pngs(count))
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected(pixels_of(count)), atol=1e-5)


def test_classify_adds_labels_and_scores(client):
    answer, wanted = client.classify(pngs(4)), expected(pixels_of(4))
    np.testing.assert_allclose(answer.probabilities, wanted, atol=1e-5)
    np.testing.assert_allclose(answer.scores, wanted.max(axis=1), atol=1e-5)
    assert answer.labels == [CLASSES[i] for i in wanted.argmax(axis=1)]


def test_status_and_metadata_are_the_same_over_both_interfaces(client, contract):
    assert client.status() == [VersionStatus(VERSION, "AVAILABLE")]
    with EndpointClient(contract.rest_url, NAME) as other:
        assert client.metadata() == other.metadata()
    assert client.metadata()["model_spec"]["version"] == str(VERSION)


def test_a_pinned_version_that_is_not_loaded_is_not_found(address):
    with EndpointClient(address, NAME, version=77) as client:
        for call in (lambda: client.predict(pngs(1)), client.status, client.metadata):
            with pytest.raises(RequestError) as caught:
                call()
            assert caught.value.code is Code.NOT_FOUND
    with EndpointClient(address, NAME, version=VERSION) as client:
        assert client.predict(pngs(1)).shape == (1, 2)


def test_a_refused_image_is_an_invalid_argument(client):
    with pytest.raises(RequestError, match="Unknown image file format") as caught:
        client.predict([b"junk"])
    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_nobody_listening_is_unavailable_with_advice(scheme):
    with (
        bound_socket("127.0.0.1", 0, "") as free,
        EndpointClient(f"{scheme}://127.0.0.1:{free.getsockname()[1]}", NAME) as client,
    ):
        with pytest.raises(RequestError, match="Is the server running") as caught:
            client.predict(pngs(1))
        assert caught.value.code is Code.UNAVAILABLE


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8501", "ftp://host:1", "http://", "grpc://host", "grpc://host:8500/path", "http://host:x"]
)
def test_an_address_of_another_form_is_refused(address):
    with pytest.raises(ConfigError, match="endpoint"):
        EndpointClient(address, NAME)


@contextmanager
def scripted_server(
    *answers: tuple[int, bytes], delay_s: float = 0.0
) -> Iterator[tuple[str, list[tuple[str, str, bytes]]]]:
    """Serve the answers one after another, the last one for ever; yield the address and the requests seen."""
    seen: list[tuple[str, str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, content = answers[min(len(seen), len(answers) - 1)]
            seen.append((self.command, self.path, body))
            time.sleep(delay_s)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer

        def log_message(self, *message: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


def ok(content: object) -> tuple[int, bytes]:
    return 200, json.dumps(content).encode()


def test_503_is_tried_again():
    with scripted_server((503, b"busy"), (503, b"{}"), ok({"predictions": [[0.25, 0.75]]})) as (address, seen):
        with EndpointClient(address, "m") as client:
            np.testing.assert_array_equal(client.predict([b"x"]), [[0.25, 0.75]])
    assert len(seen) == 3
    assert seen[0] == seen[2]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, Code.INVALID_ARGUMENT),
        (404, Code.NOT_FOUND),
        (413, Code.RESOURCE_EXHAUSTED),
        (429, Code.RESOURCE_EXHAUSTED),
        (500, Code.INTERNAL),
        (418, Code.UNKNOWN),
    ],
)
def test_other_failures_are_not_tried_again(status, code):
    with scripted_server((status, b'{"error": "because"}')) as (address, seen):
        with EndpointClient(address, "m") as client, pytest.raises(RequestError, match=f"{status}: because") as caught:
            client.predict([b"x"])
    assert caught.value.code is code
    assert len(seen) == 1


def test_an_error_page_that_is_no_json_is_quoted():
    with scripted_server((404, b"<h1>no route</h1>")) as (address, _), EndpointClient(address, "m") as client:
        with pytest.raises(RequestError, match="no route"):
            client.status()


def test_the_deadline_is_kept():
    with scripted_server(ok({"predictions": [[1]]}), delay_s=0.5) as (address, seen):
        with (
            EndpointClient(address, "m", timeout_s=0.1) as client,
            pytest.raises(RequestError, match=r"within 0\.1 s") as caught,
        ):
            client.predict([b"x"])
        assert caught.value.code is Code.DEADLINE_EXCEEDED
        time.sleep(0.6)
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("answer", "state"), [({"name": "m", "ready": True}, "AVAILABLE"), ({"name": "m", "ready": "False"}, "LOADING")]
)
def test_kserve_says_only_whether_it_is_ready(answer, state):
    with scripted_server(ok(answer)) as (address, _), EndpointClient(address, "m") as client:
        assert client.status() == [VersionStatus(None, state)]


def test_the_path_holds_name_version_and_prefix():
    with scripted_server(ok({"predictions": [[1.0]]})) as (address, seen):
        with EndpointClient(f"{address}/gateway/", "a b", version=3) as client:
            client.predict([b"x"])
    method, path, body = seen[0]
    assert (method, path) == ("POST", "/gateway/v1/models/a%20b/versions/3:predict")
    assert json.loads(body) == {"instances": [{"image_bytes": {"b64": "eA=="}}]}


@pytest.mark.parametrize(
    "answer",
    [
        b"not json",
        b"[]",
        b"{}",
        b'{"predictions": []}',
        b'{"predictions": [[1], [2]]}',
        b'{"predictions": ["school"]}',
        b'{"predictions": [0.5]}',
        b'{"predictions": [{"score": 1}]}',
        b'{"predictions": [[[1], [2, 3]]]}',
    ],
)
def test_an_answer_of_another_contract_is_a_service_error(answer):
    with scripted_server((200, answer)) as (address, _), EndpointClient(address, "m") as client:
        with pytest.raises(ServiceError, match="doesn't answer as"):
            client.predict([b"x"])


def test_classify_needs_labels():
    with scripted_server(ok({"predictions": [[0.5, 0.5]]})) as (address, _), EndpointClient(address, "m") as client:
        with pytest.raises(ServiceError, match="not with label and score"):
            client.classify([b"x"])


def test_asking_over_rest_needs_no_tensorflow():
    imports = "sys, sat_xception.serve.predict, sat_xception.serve.rest_transport"
    code = f"import {imports}; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False).returncode == 0


@pytest.mark.parametrize(
    ("host", "loopback", "reached"),
    [
        ("127.0.0.1", True, "127.0.0.1"),
        ("localhost", True, "localhost"),
        ("::1", True, "[::1]"),
        ("0.0.0.0", False, "127.0.0.1"),
        ("::", False, "[::1]"),
        ("10.0.0.7", False, "10.0.0.7"),
        ("serving.example", False, "serving.example"),
    ],
)
def test_hosts_are_known_for_what_they_are(host, loopback, reached):
    assert is_loopback(host) is loopback
    assert reachable(host) == reached


def test_an_answer_of_another_version_than_the_pinned_one_is_refused():
    from concurrent.futures import ThreadPoolExecutor

    import grpc
    from tensorflow_serving.apis.predict_pb2 import PredictResponse
    from tensorflow_serving.apis.prediction_service_pb2_grpc import (
        PredictionServiceServicer,
        add_PredictionServiceServicer_to_server,
    )

    class Elsewhere(PredictionServiceServicer):
        def Predict(self, request, context):
            response = PredictResponse()
            response.model_spec.version.value = request.model_spec.version.value + 1
            return response

    server = grpc.server(ThreadPoolExecutor(1))
    add_PredictionServiceServicer_to_server(Elsewhere(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with (
            EndpointClient(f"grpc://127.0.0.1:{port}", NAME, version=3) as client,
            pytest.raises(RequestError, match="answered with version 4 of tiny, 3 was asked") as caught,
        ):
            client.predict(pngs(1))
        assert caught.value.code is Code.FAILED_PRECONDITION
    finally:
        server.stop(None)
