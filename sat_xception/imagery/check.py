"""Check the image of a tile: detect error pages, broken images and "no imagery" tiles."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from sat_xception.errors import DataError
from sat_xception.imagery.decode import decode_image
from sat_xception.imagery.settings import PixelSettings
from sat_xception.imagery.source import MISSING, TileFailure

__all__ = ["CheckConfig", "DecodedTile", "check_tile", "decode_tile", "why_empty"]


@dataclass(frozen=True)
class CheckConfig:
    """Limits for tiles.

    Attributes:
        tile_size: Width and height in pixels; 0 takes any.
        max_pixels: A larger image is refused before it is decoded: a small file can unpack to gigabytes.
        blank_std: A tile whose luma varies less than this (standard deviation, 0 to 255) is blank. An image of one
            colour has 0.
        blank_sha256: Digests of a server's "no imagery" tiles.
        bands: Bands that are red, green and blue, or the one that is grey, of tiles with other bands.
        scale: Values that become black and white, of tiles with more than 8 bits a band.
    """

    tile_size: int = 0
    max_pixels: int = 4096 * 4096
    blank_std: float = 1.0
    blank_sha256: frozenset[str] = frozenset()
    bands: tuple[int, ...] = ()
    scale: tuple[float, float] | None = None

    @classmethod
    def of(cls, imagery: PixelSettings, **limits: Any) -> CheckConfig:  # noqa: ANN401 - of each field's type
        """Return the limits for tiles of imagery, and other limits by name."""
        return cls(tile_size=imagery.tile_size, bands=imagery.bands, scale=imagery.ends, **limits)


@dataclass(frozen=True)
class DecodedTile:
    """A tile that is an image.

    Attributes:
        pixels: `uint8 [h, w, 3]`; empty if they weren't requested.
        format: "jpeg", "png", …
        blank: Why it is blank; "" when it isn't.
    """

    pixels: npt.NDArray[np.uint8]
    format: str
    blank: str


# More of a tile than this is the imagery's edge, and not one of the dark pixels that often have the value of "no data".
_MAX_EMPTY = 0.01
_LEVELS = np.arange(256.0)
_NO_PIXELS = np.empty((0, 0, 3), np.uint8)


def why_empty(share: float) -> str:
    """Return why a partly empty tile can't be used; "" if it can.

    A pixel is empty if it is fully transparent, if a mask excludes it, or if it has no value ("no data", NaN). The rule
    is the same for images of every kind and source, since such a pixel would be black, or have an arbitrary colour.
    """
    if share == 1:
        return MISSING
    return f"only {1 - share:.1%} of the tile is in the imagery" if share > _MAX_EMPTY else ""


def check_tile(data: bytes, config: CheckConfig) -> tuple[str, str]:
    """Decode a tile and return its format ("jpeg", "png", …) and why it is blank; "" if it isn't.

    Raises:
        TileFailure: It is no image, broken, too large, animated or of another size.
    """
    tile = decode_tile(data, config, with_pixels=False)
    return tile.format, tile.blank


def decode_tile(data: bytes, config: CheckConfig, with_pixels: bool = True) -> DecodedTile:
    """Decode a tile.

    Args:
        data: The encoded image.
        config: Limits for the image.
        with_pixels: Whether to return the pixels. They equal those that `model/preprocess.py` decodes.

    Raises:
        TileFailure: It is no image, broken, too large, animated or of another size.
    """
    if not data:
        raise TileFailure("zero bytes")
    if data.lstrip()[:1] == b"<" or data.lstrip()[:1] == b"{":
        raise TileFailure("text instead of an image")
    try:
        decoded = decode_image(
            data, config.max_pixels, config.bands, config.scale, lambda image: _check_shape(image, config)
        )
    except DataError as error:
        raise TileFailure(str(error)) from error
    if why := why_empty(decoded.empty):
        raise TileFailure(why)
    image = decoded.image
    deviation = _luma_deviation(image)
    pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB")) if with_pixels else _NO_PIXELS
    kind = decoded.format.lower()
    if config.blank_sha256 and hashlib.sha256(data).hexdigest() in config.blank_sha256:
        return DecodedTile(pixels, kind, "a known blank tile")
    blank = f"luma varies by {deviation:.2f}" if deviation < config.blank_std else ""
    return DecodedTile(pixels, kind, blank)


def _luma_deviation(image: Image.Image) -> float:
    """Return the standard deviation of an image's luma, 0 to 255."""
    counts = np.array(image.convert("L").histogram())
    mean = (counts @ _LEVELS) / counts.sum()
    return float(np.sqrt(counts @ (_LEVELS - mean) ** 2 / counts.sum()))


def _check_shape(image: Image.Image, config: CheckConfig) -> None:
    width, height = image.size
    if config.tile_size and (width, height) != (config.tile_size, config.tile_size):
        raise DataError(f"{width} x {height} pixels, expected {config.tile_size} x {config.tile_size}")
