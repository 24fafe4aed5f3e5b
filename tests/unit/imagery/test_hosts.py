"""Several hosts behind one template, and HTTP/2."""

import asyncio
import socket
import threading
from collections import Counter
from dataclasses import replace

import pytest
import trustme
from hypercorn.asyncio import serve
from hypercorn.config import Config

from sat_xception.imagery.fetch import FetchConfig, FetchStore, fetch_tiles
from sat_xception.imagery.open import open_imagery
from sat_xception.imagery.settings import ImageryConfig
from tests.conftest import draw_tile, encode
from tests.tile_server import TileServer

IMAGES = [encode(draw_tile("school", number, 64)) for number in range(20)]
QUICK = FetchConfig(workers=4, retries=3, backoff_s=0.01, max_wait_s=1.5)


def fetch(template, folder, count, config=QUICK, timeout_s=2):
    tiles = [(number % 10, number // 10, 8) for number in range(count)]
    source = open_imagery(template, ImageryConfig(timeout_s=timeout_s, connections=config.workers))
    with FetchStore(folder) as store:
        return fetch_tiles(tiles, source, store, config, count)


def test_patience_that_one_host_asks_for_is_for_that_one(tmp_path):
    with (
        TileServer(IMAGES) as calm,
        TileServer(IMAGES, {"*": [(429, {"Retry-After": "1"}), "tile"]}, host="127.0.0.2", port=calm.port) as busy,
    ):
        # A tile's host follows from its place: with many workers, those of the calm host never wait.
        template = f"http://127.0.0.{{1-2}}:{calm.port}/{{z}}/{{x}}/{{y}}"
        counts = fetch(template, tmp_path, 40, replace(QUICK, workers=40))
        assert counts.ok == 40
        assert len(calm.times) == 20
        assert max(calm.times) - min(calm.times) < 0.9
        assert max(busy.times) - min(busy.times) > 0.9


def test_a_host_that_is_down_costs_its_own_tiles(tmp_path):
    with TileServer(IMAGES) as server:
        template = f"http://127.0.0.{{1-2}}:{server.port}/{{z}}/{{x}}/{{y}}"  # nobody listens on 127.0.0.2
        counts = fetch(template, tmp_path, 40, replace(QUICK, give_up_after=1000, workers=40))
    assert (counts.ok, counts.failed) == (20, 20)


@pytest.fixture
def http2_server(tmp_path, monkeypatch):
    """A server that speaks HTTP/2; counts requests by version, and connections."""
    seen = {"versions": Counter(), "clients": set()}

    async def answer(scope, receive, send):
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        seen["versions"][scope["http_version"]] += 1
        seen["clients"].add(scope["client"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"image/jpeg")]})
        await send({"type": "http.response.body", "body": IMAGES[len(scope["path"]) % len(IMAGES)]})

    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = Config()
    config.bind = [f"localhost:{port}"]
    config.certfile, config.keyfile = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    config.loglevel = "critical"
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    started = threading.Event()

    async def run():
        task = asyncio.ensure_future(serve(answer, config, shutdown_trigger=stop.wait))
        while not task.done():
            try:
                _, writer = await asyncio.open_connection("localhost", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            break
        started.set()
        await task

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    started.wait(10)
    seen["template"] = f"https://localhost:{port}/{{z}}/{{x}}/{{y}}.jpg"
    yield seen
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


def test_many_tiles_share_a_connection_of_http2(http2_server, tmp_path):
    counts = fetch(http2_server["template"], tmp_path / "store", 100, replace(QUICK, workers=16), timeout_s=60)
    assert counts.ok == 100
    assert http2_server["versions"] == {"2": 100}
    assert len(http2_server["clients"]) <= 2
