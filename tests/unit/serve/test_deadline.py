"""A request ends at its deadline, whatever the server does meanwhile."""

import gzip
import threading
import time

import httpx
import pytest

from sat_xception.serve.deadline import send_within
from tests.dripping_server import KINDS, dripping_server

# Far below the minutes that a dripping server takes, far above what a busy machine adds.
SOON_S, DEADLINE_S = 10.0, 0.2


@pytest.fixture
def client():
    with httpx.Client(trust_env=False) as made:
        yield made


def answered(body=b"{}", headers=None, status=200):
    """Return a client whose server answers at once."""
    return httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(status, content=body, headers=headers)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_drips_is_left_at_the_deadline(client, kind):
    with dripping_server(kind) as url:
        started = time.monotonic()
        with pytest.raises(httpx.ReadTimeout, match=r"no whole answer within 0\.2 s|timed out"):
            send_within(client, client.build_request("GET", url), DEADLINE_S)
        assert 0.15 < time.monotonic() - started < SOON_S


def test_a_server_that_reads_slowly_is_left_at_the_deadline(client):
    with dripping_server("request") as url:
        started = time.monotonic()
        with pytest.raises(httpx.TimeoutException):
            send_within(client, client.build_request("POST", url, content=b"x" * 50_000_000), DEADLINE_S)
        assert time.monotonic() - started < SOON_S


def test_a_request_that_could_not_be_sent_is_told_from_one_that_may_have_been_heeded(monkeypatch):
    # A name server that doesn't answer: no timeout of the client's covers it.
    hang = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: hang.wait(SOON_S) or [])
    with httpx.Client(trust_env=False) as client:
        with pytest.raises(httpx.ConnectTimeout):
            send_within(client, client.build_request("GET", "http://kubeflow.example/"), 0.2)
        hang.set()


def test_the_thread_of_a_request_that_was_left_ends(client):
    with dripping_server("body") as url:
        with pytest.raises(httpx.ReadTimeout):
            send_within(client, client.build_request("GET", url), 0.2)
        deadline = time.monotonic() + SOON_S
        while any(thread.name == "request with a deadline" for thread in threading.enumerate()):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_an_answer_is_whole_and_decoded():
    with answered(gzip.compress(b'{"a": 1}'), {"Content-Encoding": "gzip", "X-Kept": "yes"}, 404) as client:
        answer = send_within(client, client.build_request("GET", "http://host/"), 5.0)
    assert (answer.status_code, answer.reason_phrase) == (404, "Not Found")
    assert (answer.json(), answer.headers["x-kept"]) == ({"a": 1}, "yes")


@pytest.mark.parametrize(
    ("last_bytes", "expected"), [(None, b"0123456789"), (4, b"6789"), (10, b"0123456789"), (99, b"0123456789")]
)
def test_only_the_end_of_a_body_is_kept_where_that_is_asked_for(last_bytes, expected):
    with answered(b"0123456789") as client:
        answer = send_within(client, client.build_request("GET", "http://host/"), 5.0, last_bytes)
    assert answer.content == expected


def test_other_failures_reach_the_caller(client):
    with pytest.raises(httpx.ConnectError):
        send_within(client, client.build_request("GET", "http://127.0.0.1:1/"), 5.0)
    with answered(b"no gzip", {"Content-Encoding": "gzip"}) as broken, pytest.raises(httpx.DecodingError):
        send_within(broken, broken.build_request("GET", "http://host/"), 5.0)
