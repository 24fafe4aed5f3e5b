"""Published candidates to review, of what a test makes up, and the server that a person would start."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sat_xception.publish.publish import publish
from sat_xception.publish.settings import PublishConfig
from sat_xception.review.page import read_data
from sat_xception.review.server import ReviewServer
from tests.conftest import draw_tile, encode
from tests.scores import write_scores

X, Y, Z = 148_000, 93_000, 18


def publish_tiles(
    folder: Path, scores: Mapping[tuple[int, int], float], pictures: bool = True, **settings: Any
) -> Path:
    """Publish tiles with these scores, by column and row from a corner; each has its own picture."""
    imagery = folder / "imagery"
    for number, (across, down) in enumerate(scores if pictures else ()):
        path = imagery / str(Z) / str(X + across) / f"{Y + down}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(draw_tile("school", number)))
    source = {"url": str(imagery) if pictures else "", "attribution": "Maps & <Co>"}
    tiles = {(X + across, Y + down, Z): score for (across, down), score in scores.items()}
    write_scores(folder / "scores", tiles, imagery=source)
    return publish(PublishConfig(scores=folder / "scores", out=folder / "out", **settings)).out


def singles(count: int) -> dict[tuple[int, int], float]:
    """Return tiles far from each other, the best first."""
    return {(4 * (index % 10), 4 * (index // 10)): 0.99 - index * 0.4 / count for index in range(count)}


@contextlib.contextmanager
def serving(out: Path, port: int = 0) -> Iterator[str]:
    """Run the review server in a thread, on a port (0 is any), and yield its address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def wait(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(20)

    async def make() -> ReviewServer:
        return ReviewServer(out, read_data(out))

    server = wait(make())
    try:
        yield wait(server.start(port))
    finally:
        wait(server.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def sites(out: Path) -> Sequence[str]:
    """Return the candidates of a page, the best first."""
    data = read_data(out)
    return [f"{data.zoom}/{x}/{y}" for x, y in zip(data.x, data.y, strict=True)]
