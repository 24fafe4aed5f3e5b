"""The server's life: new versions under load, broken ones, limits, ports, and a graceful end."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from sat_xception.errors import ConfigError, ModelError
from sat_xception.serve.client import EndpointClient
from sat_xception.serve.protocol import Code, RequestError
from sat_xception.serve.server import RunningServer
from tests.serving_fixtures import (
    NAME,
    encoded,
    expected,
    pixels_of,
    pngs,
    serve_config,
    write_slow_version,
    write_version,
)
from tests.waiting import wait_until

pytest_plugins = ["tests.serving_fixtures"]
PIXELS = pixels_of(2)
IMAGES = pngs(2)


def states(client: EndpointClient) -> dict[int | None, str]:
    return {status.version: status.state for status in client.status()}


@pytest.fixture(scope="module", autouse=True)
def command(tiny_root: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the command first, so that it has imported TensorFlow when the last test talks to it."""
    command = [sys.executable, "-m", "sat_xception", "serve", "--model-root", str(tiny_root), "--name", NAME]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [*command, "--rest-port", "0", "--grpc-port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        yield process
        process.kill()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_version(tmp_path / NAME / "1")
    return tmp_path


def publish(root: Path, version: int, seed: int) -> None:
    """Put a version in place as deploy does: copy beside it, then rename."""
    write_version(root / NAME / f".{version}.part", seed)
    (root / NAME / f".{version}.part").rename(root / NAME / str(version))


def test_a_new_version_takes_over_under_load_without_a_failed_request(root, tmp_path_factory):
    answers: list[np.ndarray] = []
    failures: list[Exception] = []
    done = threading.Event()

    def load(address: str) -> None:
        with EndpointClient(address, NAME) as client:
            while not done.is_set():
                try:
                    answers.append(client._transport.predict("serving_default", IMAGES, 60)["probabilities"])
                except RequestError as error:
                    failures.append(error)

    for seed in (1, 2):  # exported now, not under load
        write_version(tmp_path_factory.mktemp("staged") / "1", seed)
    with RunningServer(serve_config(root)) as server:
        addresses = [server.rest_url, f"grpc://{server.grpc_address}"]
        threads = [threading.Thread(target=load, args=(address,)) for address in addresses]
        for thread in threads:
            thread.start()
        with EndpointClient(server.rest_url, NAME) as client:
            for version, seed in ((2, 1), (3, 2)):
                time.sleep(0.2)
                publish(root, version, seed)
                wait_until(lambda version=version: states(client).get(version) == "AVAILABLE")
            time.sleep(0.2)
            wait_until(lambda: states(client) == {3: "AVAILABLE", 2: "END", 1: "END"})
        done.set()
        for thread in threads:
            thread.join()
        result = server.stop()

    assert not failures
    assert result is not None
    assert (result.answered, result.failed) == (len(answers), 0)
    models = [expected(PIXELS, seed) for seed in range(3)]
    seen = {next(i for i, model in enumerate(models) if np.allclose(answer, model, atol=1e-5)) for answer in answers}
    assert seen == {0, 1, 2}


def test_a_version_that_does_not_load_is_told_and_the_old_one_stays(root):
    with RunningServer(serve_config(root)) as server, EndpointClient(server.rest_url, NAME) as client:
        broken = root / NAME / "2"
        broken.mkdir()
        (broken / "saved_model.pb").write_bytes(b"this is no protobuf")
        wait_until(lambda: states(client).get(2) == "END")
        status = next(status for status in client.status() if status.version == 2)
        assert status.error_code != "OK"
        assert "doesn't load as TensorFlow Serving loads it" in status.error_message
        assert states(client)[1] == "AVAILABLE"
        np.testing.assert_allclose(client.predict(IMAGES), expected(PIXELS), atol=1e-5)

        warm_up = write_version(root / "elsewhere") / "assets.extra" / "tf_serving_warmup_requests"
        warm_up.parent.mkdir()
        warm_up.write_bytes(b"these are no TFRecords, and enough of them")
        (root / "elsewhere").rename(root / NAME / "3")
        wait_until(lambda: states(client).get(3) == "END")
        assert states(client)[1] == "AVAILABLE"

        shutil.rmtree(broken)
        publish(root, 2, seed=1)
        wait_until(lambda: states(client).get(2) == "AVAILABLE")
        np.testing.assert_allclose(client.predict(IMAGES), expected(PIXELS, seed=1), atol=1e-5)


def test_copies_under_way_are_ignored_until_they_are_whole(root):
    with RunningServer(serve_config(root)) as server, EndpointClient(server.rest_url, NAME) as client:
        write_version(root / NAME / "2.part", seed=1)
        (root / NAME / "3" / "variables").mkdir(parents=True)
        (root / NAME / "notes.txt").write_text("not a version")
        time.sleep(0.3)
        assert states(client) == {1: "AVAILABLE"}

        # The graph arrives before the variables: the version fails at first, and is tried again with the rest.
        whole = write_version(root / "elsewhere", seed=2)
        shutil.copy(whole / "saved_model.pb", root / NAME / "3")
        wait_until(lambda: states(client).get(3) == "END")
        shutil.copytree(whole / "variables", root / NAME / "3" / "variables", dirs_exist_ok=True)
        wait_until(lambda: states(client).get(3) == "AVAILABLE")
        np.testing.assert_allclose(client.predict(IMAGES), expected(PIXELS, seed=2), atol=1e-5)


def test_a_server_that_waits_starts_without_a_version_and_serves_the_first(tmp_path):
    with RunningServer(serve_config(tmp_path, wait=True)) as server:
        status = httpx.get(f"{server.rest_url}/v1/models/{NAME}")
        assert status.status_code == 404
        assert f"Could not find any versions of model {NAME}" in status.json()["error"]
        publish(tmp_path, 1, seed=1)
        with EndpointClient(server.rest_url, NAME) as client:
            wait_until(lambda: httpx.get(f"{server.rest_url}/v1/models/{NAME}").status_code == 200)
            wait_until(lambda: states(client) == {1: "AVAILABLE"})
            np.testing.assert_allclose(client.predict(IMAGES), expected(PIXELS, seed=1), atol=1e-5)


def test_removing_the_newest_version_rolls_back_and_an_empty_folder_does_not_end_the_service(root):
    publish(root, 2, seed=1)
    with RunningServer(serve_config(root)) as server, EndpointClient(server.rest_url, NAME) as client:
        assert states(client) == {2: "AVAILABLE"}
        shutil.rmtree(root / NAME / "2")
        wait_until(lambda: states(client) == {1: "AVAILABLE"})
        np.testing.assert_allclose(client.predict(IMAGES), expected(PIXELS), atol=1e-5)
        shutil.rmtree(root / NAME)
        time.sleep(0.3)
        np.testing.assert_allclose(client.predict(IMAGES), expected(PIXELS), atol=1e-5)


def test_a_pinned_version_is_not_found_once_it_is_replaced(root):
    with RunningServer(serve_config(root)) as server, EndpointClient(server.rest_url, NAME, version=1) as pinned:
        pinned.predict(IMAGES)
        publish(root, 2, seed=1)
        with EndpointClient(server.rest_url, NAME) as client:
            wait_until(lambda: states(client).get(2) == "AVAILABLE")
        with pytest.raises(RequestError, match=r"Specific\(tiny, 1\)") as caught:
            pinned.predict(IMAGES)
        assert caught.value.code is Code.NOT_FOUND


def test_a_broken_newest_version_at_start_leaves_the_one_below_it(root):
    (root / NAME / "2").mkdir()
    (root / NAME / "2" / "saved_model.pb").write_bytes(b"junk")
    with RunningServer(serve_config(root)) as server, EndpointClient(server.rest_url, NAME) as client:
        assert states(client) == {1: "AVAILABLE", 2: "END"}


def test_nothing_to_serve_says_what_the_folder_must_be(root):
    for wrong in (root / NAME, root / "nowhere"):
        with pytest.raises(ConfigError, match=r"must be the parent of <name>/<version>/saved_model\.pb"):
            RunningServer(serve_config(wrong))


def test_only_broken_versions_say_why(tmp_path):
    (tmp_path / NAME / "1").mkdir(parents=True)
    (tmp_path / NAME / "1" / "saved_model.pb").write_bytes(b"junk")
    with pytest.raises(ModelError, match=r"none of the 1 versions .* loads: .*1 doesn't load"):
        RunningServer(serve_config(tmp_path))


@pytest.mark.parametrize(("setting", "flag"), [("rest_port", "--rest-port"), ("grpc_port", "--grpc-port")])
def test_a_taken_port_is_named_with_its_flag(tiny_root, setting, flag):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port} on 127\.0\.0\.1 is in use .* {flag}"):
            RunningServer(serve_config(tiny_root, **{setting: port}))


def test_a_second_server_on_the_same_ports_is_refused(tiny_root):
    with RunningServer(serve_config(tiny_root)) as first:
        port = int(first.grpc_address.rpartition(":")[2])
        with pytest.raises(ConfigError, match="--grpc-port"):
            RunningServer(serve_config(tiny_root, grpc_port=port))


def test_an_unknown_host_is_named(tiny_root):
    with pytest.raises(ConfigError, match=r"--host no-such-host\.invalid"):
        RunningServer(serve_config(tiny_root, host="no-such-host.invalid"))


def test_listening_beyond_this_machine_warns_that_nobody_is_checked(tiny_root, caplog):
    with (
        caplog.at_level(logging.WARNING, "sat_xception"),
        RunningServer(serve_config(tiny_root, host="0.0.0.0")) as server,
    ):
        assert server.rest_url.startswith("http://127.0.0.1:")
        assert httpx.get(f"{server.rest_url}/v1/models/{NAME}").status_code == 200
    assert "without authentication" in caplog.text


def test_loopback_does_not_warn(tiny_root, caplog):
    with caplog.at_level(logging.WARNING, "sat_xception"), RunningServer(serve_config(tiny_root)):
        pass
    assert "authentication" not in caplog.text


def test_a_request_over_the_limit_is_refused_and_the_server_lives_on(tiny_root):
    with RunningServer(serve_config(tiny_root, max_body_mb=1)) as server:
        url = f"{server.rest_url}/v1/models/{NAME}:predict"
        for content in (b" " * (3 * 2**20), iter([b" " * 2**20] * 3)):  # with its length told, and in chunks
            response = httpx.post(url, content=content)
            assert response.status_code == 413
            assert "--max-body-mb" in response.json()["error"]
        with EndpointClient(f"grpc://{server.grpc_address}", NAME) as client:
            with pytest.raises(RequestError) as caught:
                client.predict([b" " * (3 * 2**20)])
            assert caught.value.code is Code.RESOURCE_EXHAUSTED
            client.predict(IMAGES)
        result = server.stop()
    assert result is not None
    assert (result.answered, result.failed) == (1, 2)


def test_a_small_message_cannot_claim_a_huge_tensor(tiny_root):
    bomb = PredictRequest()
    bomb.model_spec.name = NAME
    bomb.model_spec.signature_name = "images"
    shape = {"dim": [{"size": size} for size in (100_000, 1000, 1000, 3)]}
    bomb.inputs["images"].CopyFrom(TensorProto(dtype=4, int_val=[7], tensor_shape=shape))
    with RunningServer(serve_config(tiny_root)) as server, grpc.insecure_channel(server.grpc_address) as channel:
        with pytest.raises(grpc.RpcError, match="the limit is") as caught:
            PredictionServiceStub(channel).Predict(bomb, timeout=20)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def slow_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("slow")
    write_slow_version(root / NAME / "1")
    return root


def test_status_is_answered_while_all_threads_are_busy(slow_root):
    # Not merged, or six would take the time of two.
    with RunningServer(serve_config(slow_root, batch_size=1)) as server, httpx.Client() as client:
        url = f"{server.rest_url}/v1/models/{NAME}"
        answers: list[int] = []

        def work() -> None:
            answers.append(httpx.post(f"{url}:predict", json={"instances": [0.5]}, timeout=60).status_code)

        count = 3 * max(2, os.cpu_count() or 2)
        workers = [threading.Thread(target=work) for _ in range(count)]
        for worker in workers:
            worker.start()
        statuses = 0
        while any(worker.is_alive() for worker in workers):
            assert client.get(url).status_code == 200
            statuses += 1
    assert answers == [200] * count
    assert statuses > 5


@pytest.mark.parametrize("body_sent", [1.0, 0.5])
def test_stopping_finishes_the_request_under_way(slow_root, body_sent):
    server = RunningServer(serve_config(slow_root))
    connection, rest = send(server.rest_url, {"instances": [0.5]}, body_sent)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    time.sleep(0.2)
    assert stopping.is_alive()
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.rest_url)
    connection.sendall(rest)
    assert b"200 OK" in read_to_end(connection)
    stopping.join()
    result = server.stop()
    assert result is not None
    assert (result.answered, result.failed) == (1, 0)


def test_stopping_finishes_a_grpc_call_under_way(slow_root):
    server = RunningServer(serve_config(slow_root))
    with grpc.insecure_channel(server.grpc_address) as channel:
        call = PredictionServiceStub(channel).Predict.future(seconds_request(0.5), timeout=30)
        time.sleep(0.2)
        server.stop()
        assert call.result().outputs["seconds"].float_val == [0.5]


def test_too_many_requests_are_told_to_come_back(slow_root):
    with RunningServer(serve_config(slow_root, max_queue=1)) as server, contextlib.ExitStack() as stack:
        # Long enough for a busy machine to ask twice meanwhile.
        connection, _ = send(server.rest_url, {"instances": [2.0]})
        stack.callback(connection.close)
        url = f"{server.rest_url}/v1/models/{NAME}:predict"
        response = httpx.post(url, json={"instances": [0.0]})
        assert (response.status_code, response.headers["Retry-After"]) == (429, "1")
        assert "in progress already" in response.json()["error"]
        with grpc.insecure_channel(server.grpc_address) as channel, pytest.raises(grpc.RpcError) as caught:
            PredictionServiceStub(channel).Predict(seconds_request(0.0), timeout=30)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"] == "1000"
        assert b"200 OK" in connection.recv(1000)
        assert httpx.post(url, json={"instances": [0.0]}).status_code == 200


def test_a_client_that_gives_up_leaves_the_server_whole(slow_root):
    with RunningServer(serve_config(slow_root)) as server:
        url = f"{server.rest_url}/v1/models/{NAME}:predict"
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url, json={"instances": [0.5]}, timeout=0.1)
        with grpc.insecure_channel(server.grpc_address) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                PredictionServiceStub(channel).Predict(seconds_request(0.5), timeout=0.1)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            response = PredictionServiceStub(channel).Predict(seconds_request(0.0), timeout=30)
        assert response.outputs["seconds"].float_val == [0.0]
        assert httpx.post(url, json={"instances": [0.0]}, timeout=30).json() == {"predictions": [0.0]}


def seconds_request(seconds: float) -> PredictRequest:
    request = PredictRequest()
    request.model_spec.name = NAME
    request.inputs["seconds"].CopyFrom(tf.make_tensor_proto([seconds]))
    return request


def send(rest_url: str, content: dict, share: float = 1.0) -> tuple[socket.socket, bytes]:
    """Send a share of a request's body; return the connection and the rest."""
    host, port = rest_url.removeprefix("http://").split(":")
    body = json.dumps(content).encode()
    cut = int(len(body) * share)
    connection = socket.create_connection((host, int(port)))
    head = f"POST /v1/models/{NAME}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body[:cut])
    time.sleep(0.2)
    return connection, body[cut:]


def read_to_end(connection: socket.socket) -> bytes:
    with connection:
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_the_command_serves_says_how_to_ask_and_ends_gracefully_on_sigterm(command, tmp_path):
    (tmp_path / "tile.jpg").write_bytes(encoded(PIXELS[0], "JPEG"))
    said = ""
    while "try " not in said:
        line = command.stderr.readline()
        assert line, f"the server ended: {said}"
        said += line
    url = re.search(r"REST +(http://\S+)/v1/models/tiny:predict", said)[1]
    with EndpointClient("grpc://" + re.search(r"gRPC +(\S+)", said)[1], NAME) as client:
        np.testing.assert_allclose(client.predict(IMAGES), expected(PIXELS), atol=1e-5)
    if shutil.which("curl"):
        line = re.search(r"try +(.*)", said)[1]
        answered = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert np.sum(json.loads(answered.stdout)["predictions"]) == pytest.approx(1, abs=1e-5)
    request = {"instances": [{"image_bytes": {"b64": base64.b64encode(IMAGES[0]).decode()}}]}
    connection, rest = send(url, request, 0.5)
    command.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    connection.sendall(rest)
    assert b"200 OK" in read_to_end(connection)
    stdout, stderr = command.communicate(timeout=30)
    assert command.returncode == 0, stderr
    count = 3 if shutil.which("curl") else 2
    assert stdout == f"served    tiny | {count} requests | {count} answered  0 failed\n"
    assert "Traceback" not in stderr
