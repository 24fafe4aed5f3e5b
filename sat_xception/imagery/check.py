"""Tell a tile from what only looks like one: error pages, broken images, "no imagery" tiles."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageStat

from sat_xception.imagery.source import TileFailure

__all__ = ["CheckConfig", "DecodedTile", "check_tile", "decode_tile"]

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


@dataclass(frozen=True)
class CheckConfig:
    """What a tile must be.

    Attributes:
        tile_size: Width and height in pixels; 0 takes any.
        max_pixels: A larger image is refused before it is decoded: a small file can unpack to gigabytes.
        blank_std: A tile whose luma varies less than this (standard deviation, 0 to 255) is blank. An image of one
            colour has 0.
        blank_sha256: Digests of a server's "no imagery" tiles.
    """

    tile_size: int = 0
    max_pixels: int = 4096 * 4096
    blank_std: float = 1.0
    blank_sha256: frozenset[str] = frozenset()


@dataclass(frozen=True)
class DecodedTile:
    """A tile that is an image.

    Attributes:
        pixels: `uint8 [h, w, 3]`; empty where they weren't wanted.
        format: "jpeg", "png", …
        blank: Why it is blank; "" when it isn't.
    """

    pixels: npt.NDArray[np.uint8]
    format: str
    blank: str


_NO_PIXELS = np.empty((0, 0, 3), np.uint8)


def check_tile(data: bytes, config: CheckConfig) -> tuple[str, str]:
    """Decode a tile and return its format ("jpeg", "png", …) and why it is blank, "" when it isn't.

    Raises:
        TileFailure: It is no image, broken, too large, animated or of another size.
    """
    tile = decode_tile(data, config, with_pixels=False)
    return tile.format, tile.blank


def decode_tile(data: bytes, config: CheckConfig, with_pixels: bool = True) -> DecodedTile:
    """Decode a tile.

    Args:
        data: The encoded image.
        config: What it must be.
        with_pixels: Whether the pixels are wanted. They equal those that `model/preprocess.py` decodes.

    Raises:
        TileFailure: It is no image, broken, too large, animated or of another size.
    """
    if not data:
        raise TileFailure("zero bytes")
    if data.lstrip()[:1] == b"<" or data.lstrip()[:1] == b"{":
        raise TileFailure("text instead of an image")
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            warnings.simplefilter("ignore")  # Of metadata that is odd; the pixels decide.
            _check_shape(image, config)
            image.load()
            # Pillow would clip 16 bits to 8, not scale them.
            wide = np.asarray(image) if image.mode.startswith("I") else None
            grey = image.convert("L") if wide is None else Image.fromarray((wide >> 8).astype(np.uint8))
            deviation = float(wide.std() / 257) if wide is not None else float(ImageStat.Stat(grey).stddev[0])
            pixels = np.asarray((image if wide is None else grey).convert("RGB")) if with_pixels else _NO_PIXELS
            kind = str(image.format).lower()
    except TileFailure:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a broken file makes them stumble over.
        raise TileFailure(f"can't be decoded: {type(error).__name__}") from error
    if hashlib.sha256(data).hexdigest() in config.blank_sha256:
        return DecodedTile(pixels, kind, "a known blank tile")
    blank = f"luma varies by {deviation:.2f}" if deviation < config.blank_std else ""
    return DecodedTile(pixels, kind, blank)


def _check_shape(image: Image.Image, config: CheckConfig) -> None:
    width, height = image.size
    if width * height > config.max_pixels:
        raise TileFailure(f"{width} x {height} pixels, limit {config.max_pixels:,} in all")
    if getattr(image, "is_animated", False):
        raise TileFailure("animated")
    if config.tile_size and (width, height) != (config.tile_size, config.tile_size):
        raise TileFailure(f"{width} x {height} pixels, expected {config.tile_size} x {config.tile_size}")
