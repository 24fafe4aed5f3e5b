"""Read tiles of a source of imagery."""

import asyncio
from collections.abc import Iterable

from sat_xception.imagery.source import ImagerySource, TileFailure


def read_tiles(source: ImagerySource, tiles: Iterable[tuple[int, int, int]]) -> list[bytes | str]:
    """Return the bytes of each tile (z, x, y), or why there are none, and close the source."""

    async def read_all() -> list[bytes | str]:
        results: list[bytes | str] = []
        for z, x, y in tiles:
            try:
                results.append(await source.read(x, y, z))
            except TileFailure as failure:
                results.append(failure.reason)
        await source.close()
        return results

    return asyncio.run(read_all())
