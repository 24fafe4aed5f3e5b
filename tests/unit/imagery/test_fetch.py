import hashlib
import logging
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from email.utils import formatdate

import numpy as np
import pytest
from PIL import Image

from sat_xception.errors import ConfigError, ServiceError
from sat_xception.imagery.check import CheckConfig
from sat_xception.imagery.fetch import FetchConfig, FetchStore, fetch_tiles
from sat_xception.imagery.open import open_imagery
from sat_xception.imagery.settings import ImageryConfig
from tests.archives import write_mbtiles
from tests.conftest import SHARED, draw_tile, encode
from tests.tile_server import TileServer

QUICK = FetchConfig(workers=4, retries=2, backoff_s=0.01, max_wait_s=1.0)


@pytest.fixture(scope="module")
def images():
    real = sorted((SHARED / "data" / "tiles-ucmerced").rglob("*.jpg"))[:20]
    return [path.read_bytes() for path in real] or [encode(draw_tile("school", n, 256)) for n in range(20)]


def square(count):
    return [(n % 10, n // 10, 8) for n in range(count)]


def fetch(server, folder, tiles=None, config=QUICK, imagery=None, template=None):
    tiles = tiles or [(1, 1, 8)]
    source = open_imagery(template or server.template, imagery or ImageryConfig(timeout_s=1.5))
    with FetchStore(folder) as store:
        counts = fetch_tiles(tiles, source, store, config, len(tiles))
        kept = list(store)
    assert counts.planned == counts.ok + counts.blank + counts.failed == len(tiles) == len(kept)
    return counts, kept


@pytest.mark.parametrize("count", [1, 4, 5, 50])
def test_tiles_arrive_as_the_server_has_them_in_order(images, tmp_path, count):
    with TileServer(images) as server:
        _, kept = fetch(server, tmp_path, square(count))
        assert [(t.z, t.x, t.y) for t in kept] == sorted((z, x, y) for x, y, z in square(count))
        assert all(tile.data == server.tile(tile.x, tile.y) and tile.format == "jpeg" for tile in kept)


def test_no_tiles_are_no_error(images, tmp_path):
    with TileServer(images) as server, FetchStore(tmp_path) as store:
        assert fetch_tiles([], open_imagery(server.template, ImageryConfig()), store, QUICK, 0).planned == 0


@pytest.mark.parametrize(
    ("fault", "reason", "transient"),
    [
        ((403, {}), "HTTP 403", False),
        ((404, {}), "HTTP 404", False),
        ((503, {}), "HTTP 503, 3 times", True),
        ("hang", "no whole answer in 0.3 s, 3 times", True),
        ("drip", "no whole answer in 0.3 s, 3 times", True),
        ("half", "connection failed: RemoteProtocolError, 3 times", True),
        ("reset", "connection failed: ", True),
        ("html", "HTTP 200 with text/html, not an image", False),
        ("html as jpeg", "text instead of an image", False),
        ("loop", "more than 5 redirects", False),
        (b"", "zero bytes", False),
        (encode(draw_tile("school", 1, 256))[:2000], "can't be decoded: image file is truncated", False),
        (encode(Image.new("1", (5000, 5000)), "PNG"), "5000 x 5000 pixels, more than the limit of 16,777,216", False),
        (
            encode(draw_tile("school", 1), "GIF", save_all=True, append_images=[draw_tile("school", 2)]),
            "2 frames; one image is expected",
            False,
        ),
        (b"\xff\xd8" + bytes(10_000_001), "more than 10,000,000 bytes", False),
    ],
)
def test_a_fault_is_a_failed_tile_with_a_reason_and_never_a_tile(images, tmp_path, fault, reason, transient):
    imagery = ImageryConfig(timeout_s=0.3 if fault in ("hang", "drip") else 1.5)
    with TileServer(images, {(1, 1): [fault]}) as server:
        counts, kept = fetch(server, tmp_path, [(1, 1, 8), (2, 2, 8)], imagery=imagery)
        asked = sum(count for (x, _), count in server.asked.items() if x == 1)
    assert (counts.ok, counts.failed) == (1, 1)
    bad = kept[0]
    assert bad.reason.startswith(reason)
    assert (bad.data, bad.transient) == (b"", transient)
    assert asked == (3 if transient else 6 if fault == "loop" else 1)


@pytest.mark.parametrize("fault", [(429, {}), (500, {}), "hang", "half", "reset"])
def test_a_fault_that_passes_costs_nothing_but_time(images, tmp_path, fault, monkeypatch):
    monkeypatch.setattr("sat_xception.imagery.web._PATIENCE_S", 0.1)  # after a 429
    with TileServer(images, {(1, 1): [fault, fault, "tile"]}) as server:
        counts, _ = fetch(server, tmp_path, imagery=ImageryConfig(timeout_s=0.3 if fault == "hang" else 1.5))
    assert counts.ok == 1


@pytest.mark.parametrize("asks", ["seconds", "date", "nothing"])
def test_everyone_waits_when_the_server_asks_for_patience(images, tmp_path, asks):
    tiles = square(30)
    header = {"seconds": "1", "date": formatdate(time.time() + 4, usegmt=True), "nothing": ""}[asks]
    with TileServer(images, {(0, 0): [(429, {"Retry-After": header}), "tile"]}) as server:
        counts, _ = fetch(server, tmp_path, tiles, replace(QUICK, workers=2))
        gaps = np.diff(server.times)
    assert counts.ok == 30
    assert gaps.max() > 0.8


def test_a_server_that_asks_for_a_day_gets_no_more_than_the_limit(images, tmp_path):
    started = time.monotonic()
    with TileServer(images, {(1, 1): [(429, {"Retry-After": "86400"}), "tile"]}) as server:
        fetch(server, tmp_path)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("mode", ["CMYK", "RGBA", "P", "L"])
def test_images_of_every_kind_are_kept_as_they_came(images, tmp_path, mode):
    data = encode(draw_tile("school", 1).convert(mode), "JPEG" if mode == "CMYK" else "PNG")
    with TileServer(images, {"*": [data]}) as server:
        _, kept = fetch(server, tmp_path)
    assert (kept[0].status, kept[0].data) == ("ok", data)


def test_an_image_of_16_bits_is_refused_until_it_is_said_what_is_black_and_white(images, tmp_path):
    wide = Image.fromarray(np.asarray(draw_tile("school", 1).convert("L")).astype(np.uint16) * 257)
    data = encode(wide, "PNG")
    for scale, status in ((None, "failed"), ((0.0, 65535.0), "ok")):
        with TileServer(images, {"*": [data]}) as server:
            config = replace(QUICK, check=CheckConfig(scale=scale))
            _, kept = fetch(server, tmp_path / status, config=config)
        assert kept[0].status == status
        assert ("uint16" in kept[0].reason) == (status == "failed")


def test_blank_tiles_are_known_by_one_colour_or_by_their_digest(images, tmp_path):
    grey = encode(Image.new("RGB", (256, 256), (200, 200, 200)))
    check = CheckConfig(blank_sha256=frozenset({hashlib.sha256(images[4]).hexdigest()}))
    with TileServer(images, {(1, 1): [grey]}) as server:
        counts, kept = fetch(server, tmp_path, [(1, 1, 8), (2, 2, 8), (3, 3, 8)], replace(QUICK, check=check))
    assert (counts.ok, counts.blank) == (1, 2)
    assert [tile.status for tile in kept] == ["blank", "blank", "ok"]


def test_a_tile_of_another_size_is_refused(images, tmp_path):
    with TileServer(images, {"*": [encode(draw_tile("school", 1, 48))]}) as server:
        _, kept = fetch(server, tmp_path, config=replace(QUICK, check=CheckConfig(tile_size=256)))
    assert kept[0].reason == "48 x 48 pixels, expected 256 x 256"


def test_a_server_that_is_down_stops_the_run_early(images, tmp_path):
    with TileServer(images, {"*": [(503, {})]}) as server, FetchStore(tmp_path) as store:
        source = open_imagery(server.template, ImageryConfig())
        with pytest.raises(ServiceError, match=r"8 tiles in a row failed.*HTTP 503"):
            fetch_tiles(
                ((n, 0, 20) for n in range(1_000_000)), source, store, replace(QUICK, give_up_after=8), 1_000_000
            )
        assert sum(server.asked.values()) < 50


def test_no_more_requests_at_once_than_workers(images, tmp_path):
    with TileServer(images, delay_s=0.02) as server:
        fetch(server, tmp_path, square(60))
        assert 2 <= server.most_in_flight <= QUICK.workers


def test_the_rate_limit_holds(images, tmp_path):
    with TileServer(images) as server:
        fetch(server, tmp_path, square(30), replace(QUICK, rate_per_s=50))
        assert (len(server.times) - 1) / (server.times[-1] - server.times[0]) < 55


def test_a_second_run_asks_only_for_what_failed_in_passing(images, tmp_path):
    script = {(1, 1): [(503, {})] * 3 + ["tile"], (2, 2): [(404, {})]}
    with TileServer(images, script) as server:
        first, _ = fetch(server, tmp_path, square(40))
        asked = sum(server.asked.values())
        second, _ = fetch(server, tmp_path, square(40))
        assert (first.failed, second.failed, second.resumed) == (2, 1, 39)
        assert sum(server.asked.values()) == asked + 1


def test_an_error_of_ours_stops_the_run_and_loses_no_tile(images, tmp_path):
    with TileServer(images) as server, FetchStore(tmp_path) as store:
        source = open_imagery(server.template, ImageryConfig())
        read = source.read

        async def broken(x, y, z):
            if (x, y) == (5, 1):
                raise RuntimeError("a defect")
            return await read(x, y, z)

        source.read = broken
        with pytest.raises(RuntimeError, match="a defect"):
            fetch_tiles(square(40), source, store, QUICK, 40)
        counts = fetch_tiles(square(40), open_imagery(server.template, ImageryConfig()), store, QUICK, 40)
    assert counts.ok == 40
    assert counts.resumed > 5


def test_the_token_is_sent_and_is_nowhere_else(images, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("IMAGERY_TOKEN", "s3cret/+")
    caplog.set_level(logging.DEBUG)
    imagery = ImageryConfig(token_env="IMAGERY_TOKEN", contact="maps@example.org", timeout_s=0.3)
    script = {(0, 0): ["reset"], (1, 0): ["hang"], (2, 0): ["loop"], (3, 0): [(403, {})]}
    with TileServer(images, script) as server:
        _, kept = fetch(server, tmp_path, square(8), imagery=imagery, template=server.template + "?key={token}")
        assert server.keys == {"s3cret/+"}
        assert all("sat-xception/" in agent and "maps@example.org" in agent for agent in server.agents)
    logged = "".join(record.getMessage() for record in caplog.records if not record.name.startswith("aiohttp"))
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir()) + logged.encode() + repr(kept).encode()
    assert b"s3cret" not in written


def test_templates_know_subdomains_tms_rows_and_high_resolution():
    def url(template, **config):
        return open_imagery(template, ImageryConfig(**config)).url(3, 1, 2)

    assert url("https://h/{z}/{x}/{y}@2x.png") == "https://h/2/3/1@2x.png"
    assert url("https://h/{z}/{x}/{-y}.png") == url("https://h/{z}/{x}/{y}.png", tms=True) == "https://h/2/3/2.png"
    assert url("https://{s}.h/{z}/{x}/{y}") == "https://b.h/2/3/1"
    assert url("https://mt{0-3}.h/{z}/{x}/{y}") == "https://mt0.h/2/3/1"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("https://h/{z}/{x}", "needs {z}, {x} and {y}"),
        ("https://h/{z}/{x}/{y}?k={key}", "doesn't know {key}"),
        ("https://h/{z}/{x}/{y}?k={token}", "no variable is named"),
        ("nowhere", "is no imagery"),
    ],
)
def test_an_address_that_cannot_work_is_refused_before_anything_is_asked(uri, message):
    with pytest.raises(ConfigError) as error:
        open_imagery(uri, ImageryConfig())
    assert message in str(error.value)


def test_folders_and_mbtiles_give_the_same_tiles(images, tmp_path):
    database = sqlite3.connect(tmp_path / "tiles.mbtiles")
    database.execute("CREATE TABLE tiles (zoom_level INTEGER, tile_column INTEGER, tile_row INTEGER, tile_data BLOB)")
    database.execute("CREATE TABLE metadata (name TEXT, value TEXT)")
    database.execute("INSERT INTO metadata VALUES ('bounds', '-1,-2,3,4.5'), ('attribution', '© Someone')")
    for (x, y, z), data in zip(square(12), images, strict=False):
        path = tmp_path / "folder" / str(z) / str(x) / f"{y}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        database.execute("INSERT INTO tiles VALUES (?,?,?,?)", (z, x, 255 - y, data))
    database.commit()
    database.close()
    source = open_imagery(str(tmp_path / "tiles.mbtiles"), ImageryConfig())
    assert (source.bounds(), source.attribution) == ((-1, -2, 3, 4.5), "© Someone")
    kept = []
    for name in ("tiles.mbtiles", "folder"):
        counts, tiles = fetch(None, tmp_path / f"{name}-store", square(13), template=str(tmp_path / name))
        assert (counts.ok, counts.failed) == (12, 1)
        kept.append(tiles)
    assert kept[0] == kept[1]


def test_connections_to_an_mbtiles_file_are_one_per_thread_and_closed_in_the_end(images, tmp_path, monkeypatch):
    path = write_mbtiles(tmp_path / "tiles.mbtiles", {(z, x, y): images[0] for x, y, z in square(80)})
    opened, connect = [], sqlite3.connect

    def connecting(address, **settings):
        opened.append(connect(address, **settings))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", connecting)
    counts, _ = fetch(None, tmp_path / "store", square(80), template=str(path))
    # One more reads the metadata; asyncio has at most 32 threads.
    assert counts.ok == 80 and 1 < len(opened) <= 1 + 32
    for database in opened:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            database.execute("SELECT 1")


_CHILD = """
import sys
from pathlib import Path
from sat_xception.imagery.open import open_imagery
from sat_xception.imagery.settings import ImageryConfig
from sat_xception.imagery.fetch import FetchConfig, FetchStore, fetch_tiles
tiles = [(n % 10, n // 10, 8) for n in range(200)]
with FetchStore(Path(sys.argv[2])) as store:
    source = open_imagery(sys.argv[1], ImageryConfig())  # which imports what takes longer than the fetching
    print("ready", flush=True)
    fetch_tiles(tiles, source, store, FetchConfig(workers=8), 200)
"""


@pytest.mark.parametrize("times", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_killed_again_and_again_a_run_ends_as_if_undisturbed(images, tmp_path, times):
    rng, config = random.Random(4), replace(QUICK, workers=8)
    with TileServer(images, delay_s=0.02) as server:
        for _ in range(times):
            command = [sys.executable, "-c", _CHILD, server.template, str(tmp_path / "killed")]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
                child.stdout.readline()
                asked = sum(server.asked.values()) + rng.randint(0, 160 // times)
                while sum(server.asked.values()) <= asked:
                    time.sleep(0.002)
                os.kill(child.pid, signal.SIGKILL)
        counts, killed = fetch(server, tmp_path / "killed", square(200), config, ImageryConfig())
        assert 0 < counts.resumed
        assert sum(server.asked.values()) <= 200 + times * 8
        _, undisturbed = fetch(server, tmp_path / "undisturbed", square(200), config, ImageryConfig())
    assert killed == undisturbed


def test_a_full_disk_stops_the_run_and_keeps_what_was_fetched(images, tmp_path):
    with TileServer(images) as server, FetchStore(tmp_path) as store:
        store._database.execute("PRAGMA max_page_count=40")  # 160 kB, which SQLite takes for a full disk
        source = open_imagery(server.template, ImageryConfig())
        with pytest.raises(ServiceError, match=r"no room for more tiles in .*--tile-cache"):
            fetch_tiles(square(100), source, store, QUICK, 100)
        kept = len(list(store))
    assert 0 < kept < 100
    with TileServer(images) as server:
        counts, _ = fetch(server, tmp_path, square(100))
    assert (counts.ok, counts.resumed) == (100, kept)
