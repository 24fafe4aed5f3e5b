"""What every source of tiles offers, and the settings they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["MISSING", "ImageryConfig", "ImagerySource", "TileFailure"]

MISSING = "no tile in the imagery"


@dataclass(frozen=True)
class ImageryConfig:
    """Settings of a source.

    Attributes:
        token_env: Environment variable that fills `{token}` in a URL template.
        attribution: Attribution required by the imagery's licence; replaces the source's own.
        contact: Address or page for a tile server's owner, sent in the User-Agent.
        tms: Rows are counted from the south, as TMS does. MBTiles files always are, whatever this says.
        connections: Connections to a tile server at once; at least the number of workers, or they wait for each other.
        timeout_s: Seconds for one whole request: a server that drips is given up, too.
        max_bytes: A larger answer isn't read to its end.
        tile_size: Width and height, in pixels, of tiles that are cut out of a GeoTIFF; 0 is 256.
        bands: Bands of a GeoTIFF that are red, green and blue, or the one that is grey, from 1 on; empty if the file
            defines it.
        scale: Values of a GeoTIFF that become black and white; None where its pixels have 8 bits.
    """

    token_env: str = ""
    attribution: str = ""
    contact: str = ""
    tms: bool = False
    connections: int = 16
    timeout_s: float = 30.0
    max_bytes: int = 10_000_000
    tile_size: int = 0
    bands: tuple[int, ...] = ()
    scale: tuple[float, float] | None = None


class TileFailure(Exception):
    """A tile couldn't be read.

    Attributes:
        reason: What happened, without any token.
        transient: Asking again may help.
        retry_after_s: What the server said to wait, if it did.
        unreachable: There was no answer at all.
    """

    def __init__(
        self,
        reason: str,
        *,
        transient: bool = False,
        retry_after_s: float | None = None,
        unreachable: bool = False,
    ) -> None:
        """Keep what happened and whether asking again may help."""
        super().__init__(reason)
        self.reason = reason
        self.transient = transient
        self.retry_after_s = retry_after_s
        self.unreachable = unreachable


class ImagerySource(Protocol):
    """Something that has tiles. A source is used in one event loop and closed in it."""

    attribution: str

    def bounds(self) -> tuple[float, float, float, float] | None:
        """Return west, south, east, north in degrees; None when unknown."""

    def host(self, x: int, y: int, z: int) -> str:
        """Return the server that has a tile: patience that one of them asks for is for that one."""

    async def read(self, x: int, y: int, z: int) -> bytes:
        """Return the encoded image of a tile, unchecked.

        Raises:
            TileFailure: There is none, or it couldn't be read.
        """

    async def close(self) -> None:
        """Let connections and files go."""
