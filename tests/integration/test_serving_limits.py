"""What the server refuses, merges and counts."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from sat_xception.serve.client import EndpointClient
from sat_xception.serve.protocol import Code, RequestError
from sat_xception.serve.server import RunningServer
from tests.serving_fixtures import NAME, expected, pixels_of, pngs, serve_config, write_slow_version, write_version
from tests.unit.serve.test_image_size import png_that_claims

pytest_plugins = ["tests.serving_fixtures"]
IMAGES = pngs(8)
METRICS = "/monitoring/prometheus/metrics"
# One for all: making one takes longer than what is asked.
CLIENT = httpx.Client(timeout=60, limits=httpx.Limits(max_connections=None))


@pytest.fixture(scope="module", autouse=True)
def closed_client() -> Iterator[None]:
    yield
    CLIENT.close()


@pytest.fixture(scope="module")
def slow_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("slow")
    write_slow_version(root / NAME / "1")
    return root


@pytest.fixture(params=["rest", "grpc"])
def interface(request) -> str:
    return request.param


def address(server: RunningServer, interface: str) -> str:
    return server.rest_url if interface == "rest" else f"grpc://{server.grpc_address}"


def predict_url(server: RunningServer) -> str:
    return f"{server.rest_url}/v1/models/{NAME}:predict"


def rows(images: list[bytes]) -> dict:
    return {"instances": [{"b64": base64.b64encode(data).decode()} for data in images]}


def metric(server: RunningServer, name: str, **labels: str) -> float:
    """Return a sample's value; all labels that are given must be its own."""
    for line in CLIENT.get(server.rest_url + METRICS).text.splitlines():
        found, value = line.rsplit(" ", 1)
        if found.split("{")[0] == name and all(f'{key}="{text}"' in found for key, text in labels.items()):
            return float(value)
    return 0.0


# Sizes


def test_a_decompression_bomb_is_refused_and_its_neighbours_in_the_server_live_on(tiny_root, interface):
    with RunningServer(serve_config(tiny_root, max_image_pixels=10_000)) as server:
        with EndpointClient(address(server, interface), NAME) as client:
            with pytest.raises(RequestError, match=r"image 1 has 2,500,000,000 pixels, the limit is 10,000") as caught:
                client.predict([IMAGES[0], png_that_claims(50_000, 50_000)])
            assert caught.value.code is Code.INVALID_ARGUMENT
            np.testing.assert_allclose(client.predict(IMAGES), expected(pixels_of(8)), atol=1e-5)


def test_a_request_of_too_many_images_is_refused_with_the_flag_to_change(tiny_root, interface):
    with RunningServer(serve_config(tiny_root, max_batch_size=8)) as server:
        with EndpointClient(address(server, interface), NAME) as client:
            assert len(client.predict(IMAGES)) == 8
            with pytest.raises(RequestError, match=r"has 9 images, the limit is 8.*--max-batch-size") as caught:
                client.predict([*IMAGES, IMAGES[0]])
            assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_packed_body_counts_by_what_it_unpacks_to(tiny_root):
    import gzip

    with RunningServer(serve_config(tiny_root, max_body_mb=1)) as server:
        packed = {"Content-Encoding": "gzip"}
        fine = CLIENT.post(
            predict_url(server), content=gzip.compress(json.dumps(rows(IMAGES)).encode()), headers=packed
        )
        assert fine.status_code == 200
        bomb = CLIENT.post(predict_url(server), content=gzip.compress(bytes(50 * 2**20)), headers=packed)
        assert bomb.status_code == 413
        assert "--max-body-mb" in bomb.json()["error"]


def test_what_requests_hold_together_is_limited_before_they_are_read(slow_root):
    with (
        RunningServer(serve_config(slow_root, max_body_mb=2, max_queue_mb=3)) as server,
        contextlib.ExitStack() as stack,
    ):
        host, port = server.rest_url.removeprefix("http://").split(":")
        head = f"POST /v1/models/{NAME}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {2 * 2**20}\r\n\r\n"
        connection = stack.enter_context(socket.create_connection((host, int(port))))
        connection.sendall(head.encode())  # and nothing of its 2 MB
        time.sleep(0.2)
        assert CLIENT.post(predict_url(server), json={"instances": [0.0]}).status_code == 200
        response = CLIENT.post(predict_url(server), content=b" " * (2 * 2**20))
        assert response.status_code == 429
        assert "2 MB are in progress" in response.json()["error"]
        assert metric(server, "sat_xception_requests_refused_total") == 1


# Time


def test_a_request_that_takes_too_long_is_a_504_and_what_waits_behind_it_is_answered(slow_root):
    with RunningServer(serve_config(slow_root, timeout_s=0.3, batch_threads=1)) as server:
        response = CLIENT.post(predict_url(server), json={"instances": [1.0]}, timeout=30)
        assert response.status_code == 504
        assert "within 0.3 s" in response.json()["error"]
        with EndpointClient(f"grpc://{server.grpc_address}", NAME) as client:
            client.status()
        time.sleep(1.2)
        assert CLIENT.post(predict_url(server), json={"instances": [0.0]}, timeout=30).status_code == 200


def test_a_client_that_dawdles_over_its_head_or_body_is_dropped_and_one_that_is_quiet_is_kept(tiny_root):
    settings = {"head_timeout_s": 0.3, "timeout_s": 0.6}
    with RunningServer(serve_config(tiny_root, **settings)) as server, httpx.Client() as kept:
        assert kept.get(f"{server.rest_url}/v1/models/{NAME}").status_code == 200
        host, port = server.rest_url.removeprefix("http://").split(":")
        silent, dawdling, half = (socket.create_connection((host, int(port))) for _ in range(3))
        started = time.monotonic()
        half.sendall(f"POST /v1/models/{NAME}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{{".encode())
        with contextlib.suppress(OSError):
            for letter in b"GET /v1/models/tiny HTTP/1.1\r\n":
                dawdling.sendall(bytes([letter]))
                time.sleep(0.05)
        for connection in (silent, dawdling):
            connection.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1000) == b""
            connection.close()
        half.settimeout(10)
        assert b"504" in half.recv(1000)
        half.close()
        assert time.monotonic() - started < 8
        # The same connection, after more than the time of a head.
        assert kept.get(f"{server.rest_url}/v1/models/{NAME}").status_code == 200


def test_connections_beyond_the_limit_are_closed_and_those_within_it_answered(tiny_root):
    with RunningServer(serve_config(tiny_root, max_connections=2)) as server, contextlib.ExitStack() as stack:
        host, port = server.rest_url.removeprefix("http://").split(":")
        held = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(2)]
        time.sleep(0.1)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{server.rest_url}/v1/models/{NAME}")
        held[0].sendall(f"GET /v1/models/{NAME} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert b"AVAILABLE" in held[0].recv(10_000)


def test_an_idle_connection_is_closed_after_its_time(tiny_root):
    with RunningServer(serve_config(tiny_root, idle_timeout_s=0.2)) as server:
        host, port = server.rest_url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(f"GET /v1/models/{NAME} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            connection.settimeout(10)
            answer = b"".join(iter(lambda: connection.recv(10_000), b""))
        assert b"AVAILABLE" in answer


def test_a_request_that_outlasts_the_grace_is_given_up(slow_root):
    server = RunningServer(serve_config(slow_root, grace_s=0.2))
    asking = threading.Thread(target=ask_and_be_dropped, args=(server, 2.5))
    asking.start()
    while not metric(server, "sat_xception_requests_under_way"):
        time.sleep(0.01)
    result = server.stop()
    asking.join()
    assert result is not None
    assert result.answered == 0


def ask_and_be_dropped(server: RunningServer, seconds: float) -> None:
    with contextlib.suppress(httpx.HTTPError):
        CLIENT.post(predict_url(server), json={"instances": [seconds]})


# Merging


@contextlib.contextmanager
def asking(calls: list) -> Iterator[list]:
    """Make calls at the same time; yield what each returned or raised, in their order."""
    results: list = [None] * len(calls)

    def ask(place: int) -> None:
        try:
            results[place] = calls[place]()
        except Exception as error:
            results[place] = error

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    yield results


def test_requests_that_wait_share_a_run_and_each_gets_its_own_rows(slow_root):
    seconds = [1.5, *(number / 1000 for number in range(1, 9))]
    with RunningServer(serve_config(slow_root, batch_threads=1, batch_size=6)) as server:

        def call(value: float):
            return lambda: CLIENT.post(predict_url(server), json={"instances": [value]}, timeout=30).json()

        first = threading.Thread(target=call(seconds[0]))
        first.start()
        while not metric(server, "sat_xception_requests_under_way"):
            time.sleep(0.01)
        # The model is busy, so the others gather.
        with asking([call(value) for value in seconds[1:]]) as answers:
            assert [answer["predictions"] for answer in answers] == [[pytest.approx(value)] for value in seconds[1:]]
        first.join()
        runs = metric(server, ":tensorflow:serving:batching_session:wrapped_run_count")
        assert runs == 3  # the first, and the eight others by six and two
        assert metric(server, "sat_xception_batch_rows_sum") == 9
        assert metric(server, "sat_xception_batch_requests_count") == 3


def test_merging_can_be_turned_off(slow_root):
    with RunningServer(serve_config(slow_root, batch_threads=1, batch_size=1)) as server:
        call = lambda: CLIENT.post(predict_url(server), json={"instances": [0.1]}, timeout=30)  # noqa: E731
        with asking([call] * 4) as answers:
            assert [answer.status_code for answer in answers] == [200] * 4
        assert metric(server, ":tensorflow:serving:batching_session:wrapped_run_count") == 4


def test_a_bad_image_fails_its_own_request_and_not_those_merged_with_it(tiny_root):
    junk = b"\xff\xd8\xff\xc0\x00\x11\x08\x00\x10\x00\x10" + bytes(40)  # a header as it should be, and no image
    # One run at a time, and a wait, so that they are merged.
    with RunningServer(serve_config(tiny_root, batch_threads=1, batch_wait_ms=200)) as server:
        calls = []
        for number in range(16):
            images = [junk] if number == 5 else [IMAGES[number % 8], IMAGES[(number + 1) % 8]]
            calls.append(lambda images=images: CLIENT.post(predict_url(server), json=rows(images), timeout=30))
        with asking(calls) as answers:
            statuses = [answer.status_code for answer in answers]
        assert statuses == [400 if number == 5 else 200 for number in range(16)]
        wanted = expected(pixels_of(8))
        for number, answer in enumerate(answers):
            if number != 5:
                pair = wanted[[number % 8, (number + 1) % 8]]
                np.testing.assert_allclose(answer.json()["predictions"], pair, atol=1e-5)
        assert metric(server, "sat_xception_batch_requests_sum") == 16
        assert metric(server, "sat_xception_batch_requests_count") < 16


def test_requests_of_other_signatures_or_shapes_are_not_merged(tiny_root):
    small, large = pixels_of(1, side=16), pixels_of(1, side=48)
    with RunningServer(serve_config(tiny_root, batch_threads=1, batch_wait_ms=100)) as server:

        def pixels(array: np.ndarray):
            body = {"signature_name": "images", "instances": array.tolist()}
            return lambda: CLIENT.post(predict_url(server), json=body, timeout=30)

        labels = {"signature_name": "classify", **rows(IMAGES[:1])}
        with asking(
            [
                pixels(small),
                pixels(large),
                lambda: CLIENT.post(predict_url(server), json=labels, timeout=30),
                lambda: CLIENT.post(predict_url(server), json=rows(IMAGES[:1]), timeout=30),
            ]
        ) as answers:
            assert [answer.status_code for answer in answers] == [200] * 4
        assert "label" in answers[2].json()["predictions"][0]
        assert metric(server, "sat_xception_batch_requests_count") == 4


# Metrics, health, log


def test_metrics_have_tensorflow_servings_names_and_count_what_happened(tiny_root):
    with RunningServer(serve_config(tiny_root)) as server:
        assert CLIENT.post(predict_url(server), json=rows(IMAGES)).status_code == 200
        assert CLIENT.post(predict_url(server), json=rows([b"junk"])).status_code == 400
        assert CLIENT.post(f"{server.rest_url}/v1/models/made-up-{time.time()}:predict", json={}).status_code == 404
        with EndpointClient(f"grpc://{server.grpc_address}", NAME) as client:
            client.predict(IMAGES)
        text = CLIENT.get(server.rest_url + METRICS)
        assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
        count = ":tensorflow:serving:request_count"
        assert metric(server, count, model_name=NAME, status="OK") == 2
        assert metric(server, count, model_name=NAME, status="INVALID_ARGUMENT") == 1
        assert metric(server, count, model_name="", status="NOT_FOUND") == 1
        assert "made-up" not in text.text
        latency = ":tensorflow:serving:request_latency"
        for api, entrypoint in (("predict", "REST"), ("Predict", "GRPC")):
            assert metric(server, f"{latency}_count", model_name=NAME, API=api, entrypoint=entrypoint) == 1
            assert metric(server, f"{latency}_sum", API=api, entrypoint=entrypoint) > 100  # microseconds
            assert metric(server, f"{latency}_bucket", API=api, entrypoint=entrypoint, le="+Inf") == 1
        assert metric(server, ":tensorflow:serving:runtime_latency_count", model_name=NAME, runtime="TF1") >= 2
        assert metric(server, ":tensorflow:serving:batching_session:queuing_latency_count") == 3
        assert metric(server, "sat_xception_model_version") == 1
        assert metric(server, "sat_xception_requests_under_way") == 0
        assert metric(server, "sat_xception_queue_length") == 0
        # Looking at it isn't a request for the model.
        assert server.stop().answered == 2


def test_health_over_grpc_is_answered_when_it_is_asked_for_and_follows_the_model(tiny_root, tmp_path):
    def state(server: RunningServer, service: str) -> int:
        with grpc.insecure_channel(server.grpc_address) as channel:
            return HealthStub(channel).Check(HealthCheckRequest(service=service), timeout=20).status

    with RunningServer(serve_config(tiny_root, enable_grpc_healthcheck_service=True)) as server:
        assert [state(server, service) for service in ("", NAME)] == [HealthCheckResponse.SERVING] * 2
        with pytest.raises(grpc.RpcError) as caught:
            state(server, "other")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    with RunningServer(serve_config(tmp_path, wait=True, enable_grpc_healthcheck_service=True)) as server:
        assert state(server, "") == HealthCheckResponse.NOT_SERVING
        assert math.isnan(metric(server, "sat_xception_model_version"))
    with RunningServer(serve_config(tiny_root)) as server, pytest.raises(grpc.RpcError) as caught:
        state(server, "")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_version_0_is_served_and_health_says_so(tmp_path):
    write_version(tmp_path / NAME / "0")
    with RunningServer(serve_config(tmp_path, enable_grpc_healthcheck_service=True)) as server:
        url = f"{server.rest_url}/v1/models/{NAME}"
        assert CLIENT.get(url).json()["model_version_status"][0] == {
            **{"version": "0", "state": "AVAILABLE"},
            "status": {"error_code": "OK", "error_message": ""},
        }
        assert metric(server, "sat_xception_model_version") == 0
        assert CLIENT.post(f"{url}/versions/0:predict", json=rows(IMAGES[:1])).status_code == 200
        with grpc.insecure_channel(server.grpc_address) as channel:
            for service in ("", NAME):
                state = HealthStub(channel).Check(HealthCheckRequest(service=service), timeout=20).status
                assert state == HealthCheckResponse.SERVING


def test_the_access_log_has_a_line_a_request_and_no_control_characters(tiny_root, caplog):
    with caplog.at_level("INFO", "sat_xception"):
        with RunningServer(serve_config(tiny_root, access_log=True)) as server:
            CLIENT.post(predict_url(server), json=rows(IMAGES[:1]))
            with EndpointClient(f"grpc://{server.grpc_address}", "\x1b[31mred\nred") as client:
                with pytest.raises(RequestError):
                    client.predict(IMAGES[:1])
            with EndpointClient(f"grpc://{server.grpc_address}", NAME) as client:
                client.predict(IMAGES[:1])
    lines = [message for message in caplog.messages if message.startswith("access")]
    assert len(lines) == 3
    assert re.search(r"REST 127\.0\.0\.1 POST /v1/models/tiny:predict \| 200 \| [\d.]+ ms \| \d+ bytes", lines[0])
    assert r"Predict \x1b[31mred\nred | NOT_FOUND" in lines[1]
    assert re.search(r"gRPC \S+ Predict tiny \| OK \|", lines[2])
    caplog.clear()
    with caplog.at_level("INFO", "sat_xception"), RunningServer(serve_config(tiny_root)) as server:
        CLIENT.post(predict_url(server), json=rows(IMAGES[:1]))
    assert "access" not in caplog.text


def test_the_signature_of_a_scalar_is_run_alone(tmp_path):
    class Scaled(tf.Module):
        @tf.function(
            input_signature=[tf.TensorSpec((None,), tf.float32, name="x"), tf.TensorSpec((), tf.float32, name="factor")]
        )
        def scale(self, x: tf.Tensor, factor: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": x * factor}

    model = Scaled()
    tf.saved_model.save(model, str(tmp_path / NAME / "1"), signatures={"serving_default": model.scale})
    with RunningServer(serve_config(tmp_path, batch_wait_ms=100, batch_threads=1)) as server:

        def call(factor: float):
            body = {"inputs": {"x": [1.0, 2.0], "factor": factor}}
            return lambda: CLIENT.post(predict_url(server), json=body, timeout=30).json()

        with asking([call(2.0), call(3.0)]) as answers:
            assert answers == [{"outputs": [2.0, 4.0]}, {"outputs": [3.0, 6.0]}]
