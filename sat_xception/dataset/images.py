"""Read image files as they come: what they are, whether they decode, and the bytes that TensorFlow can decode."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageStat

from sat_xception.errors import DataError
from sat_xception.imagery.check import why_empty
from sat_xception.imagery.decode import decode_image
from sat_xception.imagery.encoded import is_plain

__all__ = ["IMAGE_SUFFIXES", "ImageFacts", "encode_for_tensorflow", "fine_hash", "perceptual_hash", "probe_image"]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp"})

# Formats that model/preprocess.py decodes, by Pillow's name, where a file is plain: see `is_plain`.
_TENSORFLOW_FORMATS = {"JPEG": "jpeg", "PNG": "png", "WEBP": "webp"}
# Modes whose pixels a PNG of 8 bits a channel holds.
_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA"}

# Side of the small grey picture that the perceptual hash is of, and how many of its lowest frequencies it takes.
_HASH_SIDE, _HASH_FREQUENCIES = 32, 32
# A frequency that is nearer to 0 than this share of their root mean square has no sign: noise would decide it.
_MIN_FREQUENCY = 0.15
# Side of the picture that the fine hash is of, and by how much, of [0, 255], a pixel must differ from those around it.
_FINE_SIDE, _MIN_DETAIL = 36, 0.3
# A small picture that varies less (standard deviation of [0, 255]) shows nothing to tell it by: water, snow, no data.
_MIN_VARIATION = 2.0
# Waves that are looked for down and across: the lowest but for the mean, those of the lowest sum first.
_WAVES = 8
_DOWN, _ACROSS = np.array(sorted(np.ndindex(_WAVES, _WAVES), key=lambda waves: (sum(waves), waves)))[1:].T
# DCT-II without its factors, which a comparison of frequencies with each other doesn't need.
_COSINES = np.cos(np.pi / _HASH_SIDE * np.outer(np.arange(_WAVES), np.arange(_HASH_SIDE) + 0.5), dtype=np.float64)


@dataclass(frozen=True)
class ImageFacts:
    """What the manifest says about an image.

    Attributes:
        data: Bytes that TensorFlow decodes: the file's own, or a lossless PNG of it where TensorFlow lacks its format.
        format: "jpeg", "png" or "webp": the format of `data`.
        source_format: The file's own format, lower case.
        width: Pixels.
        height: Pixels.
        mean_luma: Mean brightness in [0, 255].
        std_luma: Standard deviation of the brightness.
        phash: See `perceptual_hash`.
        fine: See `fine_hash`.
    """

    data: bytes
    format: str
    source_format: str
    width: int
    height: int
    mean_luma: float
    std_luma: float
    phash: str
    fine: bytes = b""


def probe_image(
    data: bytes,
    max_pixels: int = 64_000_000,
    bands: Sequence[int] = (),
    scale: Sequence[float] | None = None,
) -> ImageFacts:
    """Decode an image whole, so that a damaged one is found now and not in the middle of training.

    Args:
        data: The file's bytes.
        max_pixels: Larger images are refused before they are decoded.
        bands: Bands that are red, green and blue, or the one that is grey, of files that have other bands.
        scale: Values that become black and white, of files with more than 8 bits a band.

    Returns:
        The facts, with bytes that TensorFlow can decode.

    Raises:
        DataError: Not an image, damaged, cut short, animated, partly empty or too large, or its pixels have more than 8
            bits and there is no `scale`; the message is the reason.
    """
    decoded = decode_image(data, max_pixels, bands, scale)
    if why := why_empty(decoded.empty):
        raise DataError(why)
    image = decoded.image
    grey = image.convert("RGB").convert("L")
    light = ImageStat.Stat(grey)
    encoded, tensorflow_format = data, _TENSORFLOW_FORMATS.get(decoded.format, "")
    if not tensorflow_format or decoded.scaled or not is_plain(data):
        encoded, tensorflow_format = _as_png(image), "png"
    return ImageFacts(
        data=encoded,
        format=tensorflow_format,
        source_format=decoded.format.lower(),
        width=image.width,
        height=image.height,
        mean_luma=light.mean[0],
        std_luma=light.stddev[0],
        phash=perceptual_hash(grey),
        fine=fine_hash(grey),
    )


def perceptual_hash(grey: Image.Image) -> str:
    """Return 64 bits that hardly change with compression, scale and brightness, as 16 hexadecimal digits.

    Of the picture at 32 x 32 pixels: which of its 32 lowest frequencies are positive and which are negative, a bit
    each. One that is near 0, measured by all 63, is neither. pHash (C. Zauner, "Implementation and Benchmarking of
    Perceptual Image Hash Functions", 2010, 3.2.1) compares them with their median instead: of a road along a side of
    the tile most frequencies are near it, and noise decides. Among the tiles of UC Merced no two differ in less than 7
    bits (2026-11).

    Args:
        grey: The image, in mode "L", "F" or another of one channel.

    Returns:
        The hash; "" for a picture that is all but one colour, whose frequencies say nothing.
    """
    small = np.asarray(grey.resize((_HASH_SIDE, _HASH_SIDE), Image.Resampling.BOX), dtype=np.float64)
    if small.std() < _MIN_VARIATION:
        return ""
    # Rounded, so that the last digits, which differ between machines, decide nothing.
    frequencies = (_COSINES @ small @ _COSINES.T)[_DOWN, _ACROSS].round(3)
    least = (_MIN_FREQUENCY * np.sqrt(np.mean(frequencies**2))).round(3)
    lowest = frequencies[:_HASH_FREQUENCIES]
    return np.packbits(np.concatenate([lowest > least, lowest < -least])).tobytes().hex()


def fine_hash(grey: Image.Image) -> bytes:
    """Return what `near_duplicates` compares tiles by whose perceptual hashes are close: detail, and light.

    Of the picture at 36 x 36 pixels: where a pixel is lighter than its four neighbours, and where it is darker, a bit
    each; and, as `float32`, mean and standard deviation. Pictures of one edge share the few frequencies that decide the
    perceptual hash, but not their grain.
    """
    small = np.asarray(grey.convert("F").resize((_FINE_SIDE, _FINE_SIDE), Image.Resampling.BOX), dtype=np.float64)
    around = np.pad(small, 1, mode="edge")
    detail = small - (around[:-2, 1:-1] + around[2:, 1:-1] + around[1:-1, :-2] + around[1:-1, 2:]) / 4
    # Rounded, as the frequencies are.
    detail = detail.round(3)
    lighter, darker = np.packbits(detail > _MIN_DETAIL), np.packbits(detail < -_MIN_DETAIL)
    light = np.array([small.mean(), small.std()], dtype="<f4").round(3)
    return lighter.tobytes() + darker.tobytes() + light.tobytes()


def encode_for_tensorflow(
    data: bytes,
    max_pixels: int = 64_000_000,
    bands: Sequence[int] = (),
    scale: Sequence[float] | None = None,
) -> tuple[bytes, str]:
    """Return bytes that TensorFlow decodes and their format; the same bytes where it already does.

    Raises:
        DataError: The bytes are no readable image; see `probe_image`.
    """
    facts = probe_image(data, max_pixels, bands, scale)
    return facts.data, facts.format


def _as_png(image: Image.Image) -> bytes:
    """Return a PNG with the same pixels; CMYK and other printing spaces, which PNG lacks, become RGB."""
    if image.mode not in _PNG_MODES:
        image = image.convert("RGB")
    buffer = io.BytesIO()
    # No colour profile: that of a printing space is wrong for RGB, and one that Pillow makes holds the time of day.
    image.save(buffer, "PNG", compress_level=1, icc_profile=None)
    return buffer.getvalue()
