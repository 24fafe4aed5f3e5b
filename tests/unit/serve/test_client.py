from __future__ import annotations

import json
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import grpc
import numpy as np
import pytest
import trustme
from tensorflow_serving.apis import get_model_status_pb2

from sat_xception.errors import ConfigError, ServiceError
from sat_xception.serve.access import Access
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


def test_another_version_is_asked_for_at_the_same_address(client):
    other = client.at_version(77)
    try:
        with pytest.raises(RequestError) as caught:
            other.predict(pngs(1))
        assert caught.value.code is Code.NOT_FOUND
    finally:
        other.close()
    assert client.predict(pngs(1)).shape == (1, 2)


def test_a_refusal_has_the_endpoints_own_words_beside_its_address(contract):
    with EndpointClient(contract.rest_url, NAME, version=77) as client, pytest.raises(RequestError) as caught:
        client.predict(pngs(1))
    assert caught.value.said.startswith("Servable not found for request: ") and caught.value.said in str(caught.value)
    assert contract.rest_url not in caught.value.said


class _Sticky(BaseHTTPRequestHandler):
    """Keeps connections open and gives every client a cookie, as a gateway with session affinity does."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.seen.append((self.client_address[1], self.headers.get("Cookie")))
        status = {"state": "AVAILABLE", "version": "1", "status": {"error_code": "OK", "error_message": ""}}
        content = json.dumps({"model_version_status": [status]}).encode()
        self.send_response(200)
        self.send_header("Set-Cookie", "backend=a; Path=/")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.mark.parametrize(
    ("as_new_client", "connections", "cookies"), [(False, 1, {None, "backend=a"}), (True, 3, {None})]
)
def test_a_client_is_known_again_unless_each_request_comes_as_a_new_ones(as_new_client, connections, cookies):
    with ThreadingHTTPServer(("127.0.0.1", 0), _Sticky) as server:
        server.seen = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_port}"
            with EndpointClient(address, NAME, as_new_client=as_new_client) as client:
                for _ in range(3):
                    client.status()
        finally:
            server.shutdown()
            thread.join()
        assert len({port for port, _ in server.seen}) == connections
        assert {cookie for _, cookie in server.seen} == cookies


def test_new_clients_come_over_rest_alone():
    with pytest.raises(ConfigError, match="must be http:// or https:// to be asked as a new client each time"):
        EndpointClient("grpc://127.0.0.1:1", NAME, as_new_client=True)


def test_a_refused_image_is_an_invalid_argument(client):
    with pytest.raises(RequestError, match="Unknown image file format") as caught:
        client.predict([b"junk"])
    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_nobody_listening_is_unavailable_with_advice(scheme, monkeypatch):
    monkeypatch.setattr("sat_xception.serve.client._RETRY_DELAYS_S", (0.01, 0.01))
    with (
        bound_socket("127.0.0.1", 0, "") as free,
        EndpointClient(f"{scheme}://127.0.0.1:{free.getsockname()[1]}", NAME) as client,
    ):
        with pytest.raises(RequestError, match="Is the server running") as caught:
            client.predict(pngs(1))
        assert caught.value.code is Code.UNAVAILABLE


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:8501",
        "ftp://host:1",
        "http://",
        "grpc://host",
        "grpcs://host",
        "grpc://host:8500/path",
        "http://host:x",
    ],
)
def test_an_address_of_another_form_is_refused(address):
    with pytest.raises(ConfigError, match="endpoint"):
        EndpointClient(address, NAME)


class Seen(NamedTuple):
    """A request that a scripted server got."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str]


@contextmanager
def scripted_server(
    *answers: tuple[int, bytes] | tuple[int, bytes, dict[str, str]],
    delay_s: float = 0.0,
    tls: ssl.SSLContext | None = None,
) -> Iterator[tuple[str, list[Seen]]]:
    """Serve the answers one after another, the last one for ever; yield the address and the requests seen."""
    seen: list[Seen] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, content, *more = answers[min(len(seen), len(answers) - 1)]
            seen.append(Seen(self.command, self.path, body, dict(self.headers)))
            time.sleep(delay_s)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            for name, value in (more[0] if more else {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer

        def log_message(self, *message: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a handshake that a client broke off

    with Server(("127.0.0.1", 0), Handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


def ok(content: object) -> tuple[int, bytes]:
    return 200, json.dumps(content).encode()


@pytest.mark.parametrize("status", [429, 503])
def test_who_is_told_to_come_back_does(status):
    with scripted_server((status, b"busy"), (status, b"{}"), ok({"predictions": [[0.25, 0.75]]})) as (address, seen):
        with EndpointClient(address, "m") as client:
            np.testing.assert_array_equal(client.predict([b"x"]), [[0.25, 0.75]])
    assert len(seen) == 3
    assert seen[0].body == seen[2].body


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, Code.INVALID_ARGUMENT),
        (404, Code.NOT_FOUND),
        (413, Code.RESOURCE_EXHAUSTED),
        (401, Code.UNAUTHENTICATED),
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
    with scripted_server(ok({"predictions": [[0.25, 0.75]]}), delay_s=0.5) as (address, seen):
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
    with scripted_server(ok({"predictions": [[0.25, 0.75]]})) as (address, seen):
        with EndpointClient(f"{address}/gateway/", "a b", version=3) as client:
            client.predict([b"x"])
    method, path, body, _ = seen[0]
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


def test_the_hour_that_an_endpoint_names_is_kept_and_not_beyond_the_deadline():
    wait = {"Retry-After": "1"}
    with scripted_server((429, b"{}", wait), ok({"predictions": [[0.25, 0.75]]})) as (address, seen):
        started = time.monotonic()
        with EndpointClient(address, "m") as client:
            client.predict([b"x"])
        assert time.monotonic() - started >= 1.0
    with scripted_server((503, b"{}", {"Retry-After": "60"})) as (address, seen):
        with EndpointClient(address, "m", timeout_s=5) as client, pytest.raises(RequestError, match="503"):
            client.predict([b"x"])
    assert len(seen) == 1


@pytest.fixture
def token_file(tmp_path) -> Path:
    file = tmp_path / "token"
    file.write_text("first-secret\n")
    return file


def test_the_token_is_read_for_each_call_and_sent_with_the_host_to_ask_for(token_file):
    with scripted_server(ok({"predictions": [[0.25, 0.75]]})) as (address, seen):
        with EndpointClient(address, "m", access=Access(token_file, None, "schools.example")) as client:
            client.predict([b"x"])
            token_file.write_text("second-secret")
            client.predict([b"x"])
    headers = [request.headers for request in seen]
    assert [each["Authorization"] for each in headers] == ["Bearer first-secret", "Bearer second-secret"]
    assert {each["Host"] for each in headers} == {"schools.example"}


def test_files_that_the_environment_names_are_used_where_none_is_given(token_file, tmp_path, monkeypatch):
    assert Access.find() == Access()
    monkeypatch.setenv("SAT_XCEPTION_TOKEN_FILE", str(token_file))
    monkeypatch.setenv("SAT_XCEPTION_CA_FILE", str(tmp_path / "ca.pem"))
    assert Access.find(host="h") == Access(token_file, tmp_path / "ca.pem", "h")
    given = Access(tmp_path / "mine", tmp_path / "my.pem")
    assert Access.find(given.token_file, given.ca_file) == given


def test_a_token_that_an_endpoint_sends_back_is_hidden(token_file, caplog):
    with scripted_server((401, b'{"error": "first-secret is not known"}')) as (address, _):
        with (
            caplog.at_level("DEBUG"),
            EndpointClient(address, "m", access=Access(token_file)) as client,
            pytest.raises(RequestError, match=r"401: \*\*\* is not known\. Check --token-file") as caught,
        ):
            client.predict([b"x"])
    assert caught.value.code is Code.UNAUTHENTICATED
    assert "first-secret" not in caplog.text


@pytest.mark.parametrize("content", ["", "two words", "line\nline", "b\u00e9"])
def test_a_file_that_holds_no_token_is_named_without_its_content(tmp_path, content):
    file = tmp_path / "token"
    file.write_text(content)
    with scripted_server(ok({})) as (address, seen), EndpointClient(address, "m", access=Access(file)) as client:
        with pytest.raises(ConfigError, match="must hold one token") as caught:
            client.status()
    assert not content or content not in str(caught.value)
    assert not seen
    with EndpointClient("http://127.0.0.1:1", "m", access=Access(tmp_path / "none")) as client:
        with pytest.raises(ConfigError, match="can't read --token-file"):
            client.status()


def test_a_token_without_tls_is_warned_of_unless_it_stays_on_this_machine(token_file, caplog):
    for address, warned in (("http://10.0.0.1:80", True), ("http://127.0.0.1:80", False), ("https://10.0.0.1", False)):
        caplog.clear()
        EndpointClient(address, "m", access=Access(token_file)).close()
        assert ("without TLS" in caplog.text) is warned


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> tuple[trustme.CA, Path]:
    authority, file = trustme.CA(), tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return authority, file


def test_tls_is_checked_against_the_authorities_of_a_file_under_the_host_asked_for(certificates, token_file):
    authority, ca_file = certificates
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("schools.example").configure_cert(context)
    with scripted_server(ok({"predictions": [[0.25, 0.75]]}), tls=context) as (address, seen):
        with EndpointClient(address, "m", access=Access(token_file, ca_file, "schools.example:443")) as client:
            client.predict([b"x"])
        for wrong in (Access(None, None, "schools.example"), Access(None, ca_file)):
            with EndpointClient(address, "m", access=wrong) as client:
                with pytest.raises(
                    RequestError,
                    match=r"isn't trusted.*Check --ca-file \(or \$SAT_XCEPTION_CA_FILE\) and --host-header",
                ):
                    client.predict([b"x"])
    assert len(seen) == 1


def test_a_file_that_holds_no_authorities_is_named(tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")
    for file in ("ca.pem", "none.pem"):
        for scheme in ("https", "grpcs"):
            with pytest.raises(ConfigError, match=r"--ca-file .* must be a PEM file"):
                EndpointClient(f"{scheme}://127.0.0.1:1", "m", access=Access(None, tmp_path / file))


class Gate(grpc.ServerInterceptor):
    """Answers every call with a status, and keeps its metadata and the host that it asked for."""

    def __init__(self, *codes: grpc.StatusCode) -> None:
        self.codes, self.seen = list(codes), []

    def intercept_service(self, continuation, details):
        def answer(request, context):
            self.seen.append((dict(context.invocation_metadata()), details.method))
            code = self.codes[min(len(self.seen), len(self.codes)) - 1]
            if code is grpc.StatusCode.OK:
                return get_model_status_pb2.GetModelStatusResponse()
            context.set_trailing_metadata((("grpc-retry-pushback-ms", "100"),))
            context.abort(code, f"no: {dict(context.invocation_metadata()).get('authorization')}")

        serialize = get_model_status_pb2.GetModelStatusResponse.SerializeToString
        return grpc.unary_unary_rpc_method_handler(answer, response_serializer=serialize)


@contextmanager
def scripted_grpc(*codes: grpc.StatusCode, tls: trustme.LeafCert | None = None) -> Iterator[tuple[str, Gate]]:
    gate = Gate(*codes)
    server = grpc.server(ThreadPoolExecutor(2), interceptors=[gate])
    if tls:
        pair = (tls.private_key_pem.bytes(), tls.cert_chain_pems[0].bytes())
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", gate
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_grpc_who_is_told_to_come_back_does(code):
    with scripted_grpc(code, code, grpc.StatusCode.OK) as (target, gate):
        with EndpointClient(f"grpc://{target}", "m") as client:
            assert client.status() == []
    assert len(gate.seen) == 3


@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL])
def test_grpc_other_failures_are_not_tried_again(code):
    with scripted_grpc(code) as (target, gate), EndpointClient(f"grpc://{target}", "m") as client:
        with pytest.raises(RequestError) as caught:
            client.status()
    assert caught.value.code.name == code.name
    assert len(gate.seen) == 1


def test_grpc_sends_the_token_over_tls_under_the_host_asked_for_and_hides_it(certificates, token_file):
    authority, ca_file = certificates
    leaf = authority.issue_cert("schools.example")
    denied = grpc.StatusCode.PERMISSION_DENIED
    with scripted_grpc(grpc.StatusCode.OK, denied, tls=leaf) as (target, gate):
        access = Access(token_file, ca_file, "schools.example")
        with EndpointClient(f"grpcs://{target}", "m", access=access) as client:
            assert client.status() == []
            with pytest.raises(RequestError, match=r"Bearer \*\*\*\. Check --token-file"):
                client.status()
        with EndpointClient(
            f"grpcs://{target}", "m", timeout_s=2, access=Access(None, None, "schools.example")
        ) as client:
            with pytest.raises(RequestError):
                client.status()
    assert [metadata["authorization"] for metadata, _ in gate.seen] == ["Bearer first-secret"] * 2


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
            pytest.raises(RequestError, match="answered with version 4 of tiny, 3 was requested") as caught,
        ):
            client.predict(pngs(1))
        assert caught.value.code is Code.FAILED_PRECONDITION
    finally:
        server.stop(None)
