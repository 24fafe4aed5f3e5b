"""Thousands of requests that mean harm or nothing: a JSON error or a closed connection each, and the server lives."""

from __future__ import annotations

import asyncio
import base64
import copy
import io
import json
import random
import socket
from collections import Counter
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from PIL import Image

from sat_xception.serve.server import RunningServer
from tests.serving_fixtures import NAME, expected, pixels_of, pngs, serve_config
from tests.unit.serve.test_image_size import animated, encoded, png_that_claims

pytest_plugins = ["tests.serving_fixtures"]
SEED = 20261128
MUTATED, RAW, GRPC = (1600, 9000), (200, 1000), 200
CONNECTIONS = 16


@pytest.fixture(scope="module")
def server(tiny_root) -> Iterator[RunningServer]:
    settings = {"max_image_pixels": 100_000, "max_body_mb": 1, "timeout_s": 30.0}
    with RunningServer(serve_config(tiny_root, **settings)) as server:
        yield server


@pytest.fixture(autouse=True)
def still_right(server) -> Iterator[None]:
    """After each storm the server answers, and rightly."""
    yield
    instances = [{"image_bytes": {"b64": base64.b64encode(data).decode()}} for data in pngs(3)]
    response = httpx.post(f"{server.rest_url}/v1/models/{NAME}:predict", json={"instances": instances}, timeout=30)
    np.testing.assert_allclose(response.json()["predictions"], expected(pixels_of(3)), atol=1e-5)


def images() -> list[bytes]:
    wide = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(wide, "PNG")
    fine = pngs(1)[0]
    return [
        fine,
        encoded(40, 30, "JPEG", "CMYK"),
        encoded(400, 300, "JPEG", quality=10),
        wide.getvalue(),
        encoded(20, 10, "GIF", "P"),
        encoded(20, 10, "WEBP"),
        encoded(20, 10, "BMP"),
        animated("GIF"),
        animated("WEBP"),
        png_that_claims(60_000, 60_000),
        png_that_claims(0, 0),
        fine[: len(fine) // 2],
        b"\xff\xd8\xff\xe0" + bytes(100),
        b"junk",
        b"",
    ]


VALUES = [
    None,
    True,
    0,
    -1,
    2**63,
    2**200,
    1e308,
    -1e-320,
    0.5,
    "",
    "\0",
    "\ud800",
    "𝄞" * 50,
    [],
    {},
    [[]],
    [[[]]],
    {"b64": None},
    {"b64": []},
    {"b64": "===="},
    {"b64": "A"},
    {"b64": "AAAA", "x": 1},
    {"b64": "aGk=\n"},
    float("nan"),
    float("inf"),
]
KEYS = ["instances", "inputs", "signature_name", "image_bytes", "images", "b64", "", "\0", "__proto__", "examples"]


FILES = [{"image_bytes": {"b64": base64.b64encode(data).decode()}} for data in images()]
SMALL = pixels_of(1, side=4).tolist()


def document(source: random.Random) -> object:
    return copy.deepcopy(
        source.choice(
            [
                {"instances": [source.choice(FILES)]},
                {"instances": source.choices(FILES, k=3)},
                {"inputs": {"image_bytes": [source.choice(FILES)["image_bytes"]]}},
                {"signature_name": "classify", "instances": [source.choice(FILES)]},
                {"signature_name": "images", "instances": SMALL},
                {"signature_name": "images", "inputs": SMALL},
            ]
        )
    )


def mutate(source: random.Random, value: object, depth: int = 0) -> object:
    """Return a document with one place in it changed."""
    if depth > 6 or source.random() < 0.25:
        return copy.deepcopy(source.choice(VALUES))
    if isinstance(value, dict) and value:
        key = source.choice(list(value))
        action = source.random()
        if action < 0.15:
            value.pop(key)
        elif action < 0.3:
            value[source.choice(KEYS)] = copy.deepcopy(source.choice(VALUES))
        else:
            value[key] = mutate(source, value[key], depth + 1)
        return value
    if isinstance(value, list) and value:
        place = source.randrange(len(value))
        value[place] = mutate(source, value[place], depth + 1)
        return value
    if isinstance(value, str) and value:
        cut = source.randrange(len(value))
        return source.choice([value[:cut], value[:cut] + "\0" + value[cut:], value[:cut] + "!" + value[cut + 1 :]])
    return copy.deepcopy(source.choice(VALUES))


def body(source: random.Random) -> bytes:
    kind = source.random()
    if kind < 0.7:
        changed = document(source)
        for _ in range(source.randint(0, 3)):
            changed = mutate(source, changed)
        content = json.dumps(changed, ensure_ascii=source.random() < 0.9).encode("utf-8", "surrogatepass")
    elif kind < 0.8:
        opening = source.choice([b"[", b'{"a":', b'{"instances":[', b"[1,"])
        content = b'{"instances":' + opening * source.randint(1, 20_000)
    elif kind < 0.9:
        content = b'{"instances": [%s]}' % source.choice(
            [
                b"1" * 5000,
                b"-" * 9,
                b"1e99999",
                b'"\\ud800"',
                b'"\xff\xfe"',
                b"0x7",
                b"NaN",
                b'"\0"',
                b"1" * 400 + b".5e-400",
            ]
        )
    else:
        content = source.randbytes(source.randint(0, 300))
    if source.random() < 0.15 and content:  # bytes flipped, or the end missing
        flipped = bytearray(content[: source.randint(1, len(content))])
        flipped[source.randrange(len(flipped))] ^= 1 << source.randrange(8)
        content = bytes(flipped)
    return content


async def read_response(reader: asyncio.StreamReader) -> tuple[int, bytes] | None:
    """Return status and body; None when the connection was closed before one came."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    return int(lines[0].split()[1]), await reader.readexactly(int(headers["content-length"]))


def check(status: int, content: bytes) -> None:
    document = json.loads(content)
    if status == 200:
        assert document.keys() <= {"predictions", "outputs", "model_version_status"}
    else:
        assert 400 <= status < 500, (status, content)  # never 500: each reason is the client's
        assert list(document) == ["error"]


async def storm(host: str, port: int, count: int, seed: int) -> Counter[int]:
    """Send bodies over one connection, which the server keeps: each of them is whole HTTP."""
    source, statuses = random.Random(seed), Counter[int]()
    reader, writer = await asyncio.open_connection(host, port)
    for _ in range(count):
        content = body(source)
        path = source.choice(["", "", "/versions/1", "/versions/9"])
        request = f"POST /v1/models/{NAME}{path}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
        writer.write(request.encode() + content)
        answer = await asyncio.wait_for(read_response(reader), 30)
        assert answer is not None, content[:200]
        check(*answer)
        statuses[answer[0]] += 1
    writer.transport.abort()
    return statuses


@pytest.mark.parametrize("count", [MUTATED[0], pytest.param(MUTATED[1], marks=pytest.mark.slow)])
def test_bodies_that_are_wrong_in_any_way_are_answered_in_json(server, count):
    host, port = server.rest_url.removeprefix("http://").split(":")

    async def all_storms() -> Counter[int]:
        share = count // CONNECTIONS
        parts = await asyncio.gather(*(storm(host, int(port), share, SEED + n) for n in range(CONNECTIONS)))
        return sum(parts, Counter())

    statuses = asyncio.run(all_storms())
    assert sum(statuses.values()) == count // CONNECTIONS * CONNECTIONS
    assert statuses.keys() == {200, 400, 404}
    assert min(statuses.values()) > count / 90  # the storm holds good ones too, and reaches the model


def raw(source: random.Random) -> bytes:
    """Return bytes for a fresh connection, mostly no HTTP."""
    start = f"POST /v1/models/{NAME}:predict HTTP/1.1\r\nHost: x\r\n".encode()
    fine = b'{"instances": [{"b64": ""}]}'
    long = b"a" * source.randint(9000, 30_000)
    return source.choice(
        [
            lambda: source.randbytes(source.randint(1, 400)),
            lambda: b"\x16\x03\x01" + source.randbytes(200),  # the beginning of TLS
            lambda: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + source.randbytes(30),
            lambda: b"GET /" + long + b" HTTP/1.1\r\n\r\n",
            lambda: b"GET / HTTP/1.1\r\nX: " + long + b"\r\n\r\n",
            lambda: b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
            lambda: start + b"Content-Length: -5\r\n\r\n" + fine,
            lambda: start + b"Content-Length: 99999999999999999999\r\n\r\n" + fine,
            lambda: start + b"Content-Length: 5\r\nContent-Length: 9\r\n\r\n" + fine,
            lambda: start + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + fine,
            lambda: start + b"Content-Length: 500\r\n\r\n" + fine,  # and then the client goes
            lambda: start + b"Content-Length: 3\r\n\r\n" + fine,  # the rest is a request that is none
            lambda: start + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + fine,
            lambda: start + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n" + fine,
            lambda: start + b"Transfer-Encoding: chunked\r\n\r\n1c\r\n" + fine,
            lambda: start + b"Content-Encoding: gzip\r\nContent-Length: 28\r\n\r\n" + fine,
            lambda: start + b"Content-Encoding: br\r\nContent-Length: 28\r\n\r\n" + fine,
            lambda: start + b"Expect: 100-continue\r\nContent-Length: 28\r\n\r\n" + fine,
            lambda: start + b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n" + source.randbytes(60),
            lambda: b"GET /v1/models/tiny HTTP/1.1\r\nHost: x\r\n\r\n" * 50 + source.randbytes(200),
            lambda: b"G\0T /v1/models/tiny HTTP/1.1\r\n\r\n",
            lambda: (
                f"{source.choice(['GET', 'PUT', 'TRACE', 'X' * 50])} //%00/../{'%2e' * 40} HTTP/1.1\r\n\r\n".encode()
            ),
        ]
    )()


async def throw(host: str, port: int, count: int, seed: int) -> tuple[int, int]:
    """Throw bytes at fresh connections; return how many were answered and how many closed without an answer."""
    source, answered, closed = random.Random(seed), 0, 0
    for _ in range(count):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(raw(source))
            if source.random() < 0.5:
                writer.write_eof()
            answer = await asyncio.wait_for(read_response(reader), 15)
            if answer is None:
                closed += 1
            else:
                answered += 1
                assert answer[0] < 500 or answer[0] == 504, answer
                assert isinstance(json.loads(answer[1]), dict)
        except (ConnectionError, asyncio.IncompleteReadError):
            closed += 1
        finally:
            writer.transport.abort()
    return answered, closed


@pytest.mark.parametrize("count", [RAW[0], pytest.param(RAW[1], marks=pytest.mark.slow)])
def test_what_is_no_http_is_a_json_error_or_a_closed_connection(tiny_root, caplog, count):
    # Those that promise more than they send are waited for: not for long.
    settings = {"max_body_mb": 1, "head_timeout_s": 1.0, "timeout_s": 1.0}
    with RunningServer(serve_config(tiny_root, **settings)) as server:
        throw_all_at(server, count)
        response = httpx.get(f"{server.rest_url}/v1/models/{NAME}", timeout=30)
        assert response.json()["model_version_status"][0]["state"] == "AVAILABLE"
    assert "Traceback" not in caplog.text


def throw_all_at(server: RunningServer, count: int) -> None:
    host, port = server.rest_url.removeprefix("http://").split(":")

    async def throw_all() -> list[tuple[int, int]]:
        share = count // 50
        return await asyncio.gather(*(throw(host, int(port), share, SEED + n) for n in range(50)))

    results = asyncio.run(throw_all())
    answered, closed = (sum(column) for column in zip(*results, strict=True))
    assert answered + closed == count // 50 * 50
    assert answered > count / 4


def test_garbage_on_the_grpc_port_leaves_it_answering(server):
    import grpc

    from sat_xception.serve.client import EndpointClient

    source = random.Random(SEED)
    host, port = server.grpc_address.split(":")
    for _ in range(GRPC):
        with socket.create_connection((host, int(port))) as connection:
            begin = source.choice([b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
            connection.sendall(begin + source.randbytes(source.randint(0, 400)))
    codes = Counter()
    with grpc.insecure_channel(server.grpc_address) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        for _ in range(GRPC):
            with pytest.raises(grpc.RpcError) as caught:
                call(source.randbytes(source.randint(0, 300)), timeout=20)
            codes[caught.value.code()] += 1
        for images_ in ([data] for data in images()[7:]):
            with EndpointClient(f"grpc://{server.grpc_address}", NAME) as client:
                try:
                    assert client.predict(images_).shape == (1, 2)
                except Exception as error:
                    assert error.code.name == "INVALID_ARGUMENT", error
    assert sum(codes.values()) == GRPC
    with EndpointClient(f"grpc://{server.grpc_address}", NAME) as client:
        np.testing.assert_allclose(client.predict(pngs(2)), expected(pixels_of(2)), atol=1e-5)
