"""Fetching and assembling tiles against plain loops: `python bench/assemble.py 2000`.

The tile server is a process of its own on this machine, and answers after 0, 20 and 50 ms. "sequential requests" is a
loop with a session, as most scripts have; "asyncio limit" is httpx with as many requests in flight as we have, and
neither checks nor a store: nothing that does our work with it can be faster.
"""

from __future__ import annotations

import asyncio
import io
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_WORKERS, _ZOOM, _X, _Y = 32, 18, 148_000, 93_000
_DELAYS_MS = (0, 20, 50)


def main() -> None:
    """Compare on as many tiles as are asked for."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    places = [(_X + number % 200, _Y + number // 200) for number in range(count)]
    contenders: dict[str, Callable[[str, list[tuple[int, int]]], None]] = {
        "sequential requests": _sequential,
        "asyncio limit": lambda url, places: asyncio.run(_bare(url, places)),
        "ours, fetched and checked": _fetch,
        "ours, a whole dataset": _assemble,
    }
    print(f"{count:,} tiles of 256 x 256 pixels, {_WORKERS} in flight; tiles/s")
    print(f"{'':<28}" + "".join(f"{f'{delay} ms':>10}" for delay in _DELAYS_MS))
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for delay in _DELAYS_MS:
        address: multiprocessing.Queue[str] = multiprocessing.Queue()
        server = multiprocessing.Process(target=_serve, args=(address, delay / 1000), daemon=True)
        server.start()
        url = address.get(timeout=30)
        for name, run in contenders.items():
            # One after the other, a slow server takes minutes for what says the same after a few hundred tiles.
            some = places[: 300 if name == "sequential requests" and delay else None]
            started = time.perf_counter()
            run(url, some)
            rates[name].append(len(some) / (time.perf_counter() - started))
        server.terminate()
        server.join()
    for name, row in rates.items():
        print(f"{name:<28}" + "".join(f"{rate:>10,.0f}" for rate in row))
    for other in ("sequential requests", "asyncio limit"):
        ratios = (ours / peer for ours, peer in zip(rates["ours, fetched and checked"], rates[other], strict=True))
        print(f"{'ours / ' + other:<28}" + "".join(f"{ratio:>10.2f}" for ratio in ratios))


def _serve(address: Any, delay_s: float) -> None:  # noqa: ANN401 - a queue
    from aiohttp import web

    # Of each class 250 pictures, over and over: the dataset leaves out those that look the same.
    images = [_draw(number) for number in range(500)]

    async def tile(request: web.Request) -> web.Response:
        await asyncio.sleep(delay_s)
        x, y = int(request.match_info["x"]), int(request.match_info["y"])
        # Bytes after its end make each image another.
        image = images[(7 * x + 13 * y) % 250 * 2 + (x + y) % 2]
        return web.Response(body=image + request.path.encode(), content_type="image/jpeg")

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/{z}/{x}/{y}", tile)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        address.put(f"http://127.0.0.1:{runner.addresses[0][1]}/{{z}}/{{x}}/{{y}}")
        await asyncio.Event().wait()

    asyncio.run(run())


def _draw(number: int) -> bytes:
    coarse = np.random.default_rng(number).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((256, 256), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _sequential(url: str, places: list[tuple[int, int]]) -> None:
    import requests

    with requests.Session() as session:
        for x, y in places:
            session.get(url.format(z=_ZOOM, x=x, y=y), timeout=30).raise_for_status()


async def _bare(url: str, places: list[tuple[int, int]]) -> None:
    import httpx

    waiting = iter(places)
    limits = httpx.Limits(max_connections=_WORKERS, max_keepalive_connections=_WORKERS)
    async with httpx.AsyncClient(limits=limits) as client:

        async def work() -> None:
            for x, y in waiting:
                (await client.get(url.format(z=_ZOOM, x=x, y=y))).raise_for_status()

        await asyncio.gather(*(work() for _ in range(_WORKERS)))


def _fetch(url: str, places: list[tuple[int, int]]) -> None:
    from sat_xception.imagery.fetch import FetchConfig, FetchStore, fetch_tiles
    from sat_xception.imagery.open import open_imagery
    from sat_xception.imagery.settings import ImageryConfig

    with tempfile.TemporaryDirectory() as folder, FetchStore(Path(folder)) as store:
        source = open_imagery(url, ImageryConfig(connections=_WORKERS))
        tiles = ((x, y, _ZOOM) for x, y in places)
        counts = fetch_tiles(tiles, source, store, FetchConfig(workers=_WORKERS), len(places))
        assert counts.ok == len(places), counts


def _assemble(url: str, places: list[tuple[int, int]]) -> None:
    from sat_xception.dataset.assemble import assemble
    from sat_xception.dataset.settings import AssembleConfig

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = [f"{x},{y},{_ZOOM},{('school', 'not-school')[(x + y) % 2]}" for x, y in places]
        (folder / "labels.csv").write_text("\n".join(["x,y,z,label", *lines]))
        settings = {"imagery": url, "zoom": _ZOOM, "block_zoom": 17, "workers": _WORKERS}
        assemble(AssembleConfig(labels=folder / "labels.csv", out=folder / "out", **settings))


if __name__ == "__main__":
    main()
