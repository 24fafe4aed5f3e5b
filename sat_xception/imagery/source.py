"""Interface of the sources of tiles."""

from __future__ import annotations

from typing import Protocol

__all__ = ["MISSING", "ImagerySource", "TileFailure"]

MISSING = "no tile in the imagery"


class TileFailure(Exception):
    """A tile couldn't be read.

    Attributes:
        reason: Reason for the manifest, without any token.
        transient: Whether a repeated request may succeed.
        retry_after_s: Seconds of the server's Retry-After; None if it sent none.
        unreachable: Whether there was no response at all.
    """

    def __init__(
        self,
        reason: str,
        *,
        transient: bool = False,
        retry_after_s: float | None = None,
        unreachable: bool = False,
    ) -> None:
        """Create the error; see the attributes."""
        super().__init__(reason)
        self.reason = reason
        self.transient = transient
        self.retry_after_s = retry_after_s
        self.unreachable = unreachable


class ImagerySource(Protocol):
    """A source of tiles. A source is used in one event loop and closed in it."""

    attribution: str

    def bounds(self) -> tuple[float, float, float, float] | None:
        """Return west, south, east, north in degrees; None if unknown."""

    def host(self, x: int, y: int, z: int) -> str:
        """Return the server of a tile; a Retry-After applies to this server only."""

    async def read(self, x: int, y: int, z: int) -> bytes:
        """Return the encoded image of a tile, unchecked.

        Raises:
            TileFailure: The source has no such tile, or it couldn't be read.
        """

    async def close(self) -> None:
        """Close connections and files."""
