"""A tile server on loopback that serves real tiles, and fails as it is told to."""

import asyncio
import threading
import time
from collections import Counter

from aiohttp import web


class TileServer:
    """Serves `tiles` in turn. `script` maps (x, y) to what happens, once for each request; the last one stays."""

    def __init__(self, tiles, script=None, delay_s=0.0, host="127.0.0.1", port=0):
        self.place = (host, port)
        self.tiles = tiles
        self.script = script or {}
        self.delay_s = delay_s
        self.asked = Counter()
        self.times = []
        self.agents = set()
        self.keys = set()
        self.in_flight = self.most_in_flight = 0

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *error):
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self):
        app = web.Application()
        app.router.add_get("/{z}/{x}/{y}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, *self.place)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.url = f"http://{self.place[0]}:{self.port}"
        self.template = self.url + "/{z}/{x}/{y}"

    def tile(self, x, y):
        return self.tiles[(x + y) % len(self.tiles)]

    async def _serve(self, request):
        x, y = int(request.match_info["x"]), int(request.match_info["y"])
        step = self.asked[x, y]
        self.asked[x, y] += 1
        self.times.append(time.monotonic())
        self.agents.add(request.headers["User-Agent"])
        self.keys.add(request.query.get("key"))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.delay_s)
            steps = self.script.get((x, y)) or self.script.get("*") or ["tile"]
            return await self._answer(request, steps[min(step, len(steps) - 1)], self.tile(x, y))
        finally:
            self.in_flight -= 1

    async def _answer(self, request, fault, tile):
        if isinstance(fault, bytes):
            return web.Response(body=fault, content_type="image/jpeg")
        if isinstance(fault, tuple):
            status, headers = fault
            return web.Response(status=status, headers=headers)
        if fault == "hang":
            await asyncio.sleep(30)
        if fault == "html":
            return web.Response(text="<html>Sorry</html>", content_type="text/html")
        if fault == "html as jpeg":
            return web.Response(body=b"<html>Sorry</html>", content_type="image/jpeg")
        if fault == "loop":
            raise web.HTTPFound(request.path_qs)
        if fault == "reset":
            request.transport.abort()
        if fault in ("half", "drip"):
            response = web.StreamResponse(headers={"Content-Type": "image/jpeg", "Content-Length": str(len(tile))})
            await response.prepare(request)
            if fault == "half":
                await response.write(tile[: len(tile) // 2])
                request.transport.close()
                return response
            for byte in tile:
                await response.write(bytes([byte]))
                await asyncio.sleep(0.05)
        return web.Response(body=tile, content_type="image/jpeg")
