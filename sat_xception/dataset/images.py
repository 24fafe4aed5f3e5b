"""Inspect image files: their properties, whether they can be decoded, and bytes that TensorFlow can decode."""

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

# Formats that model/preprocess.py decodes, by Pillow's name, if a file is plain; see `is_plain`.
_TENSORFLOW_FORMATS = {"JPEG": "jpeg", "PNG": "png", "WEBP": "webp"}
# Modes whose pixels an 8-bit PNG can hold.
_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA"}

# Side of the reduced grey image for the perceptual hash, and the number of its lowest frequencies that are used.
_HASH_SIDE, _HASH_FREQUENCIES = 32, 32
# A frequency below this fraction of their root mean square counts as 0, since noise would decide its sign.
_MIN_FREQUENCY = 0.15
# Side of the reduced image for the fine hash, and the minimum difference of a pixel from its neighbours, of [0, 255].
_FINE_SIDE, _MIN_DETAIL = 36, 0.3
# Minimum standard deviation, of [0, 255], of a reduced image with a hash; below it is only water, snow or no data.
_MIN_VARIATION = 2.0
# Vertical and horizontal frequencies of the hash: the lowest ones without the mean, by their sum.
_WAVES = 8
_DOWN, _ACROSS = np.array(sorted(np.ndindex(_WAVES, _WAVES), key=lambda waves: (sum(waves), waves)))[1:].T
# DCT-II without its scale factors, which don't matter here.
_COSINES = np.cos(np.pi / _HASH_SIDE * np.outer(np.arange(_WAVES), np.arange(_HASH_SIDE) + 0.5), dtype=np.float64)


@dataclass(frozen=True)
class ImageFacts:
    """Properties of an image for the manifest.

    Attributes:
        data: Bytes that TensorFlow can decode: those of the file, or a lossless PNG if TensorFlow lacks its format.
        format: "jpeg", "png" or "webp": the format of `data`.
        source_format: The file's own format, lower case.
        width: Width in pixels.
        height: Height in pixels.
        mean_luma: Mean brightness in [0, 255].
        std_luma: Standard deviation of the brightness.
        phash: Perceptual hash; see `perceptual_hash`.
        fine: Fine hash; see `fine_hash`.
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
    """Decode an image completely, so that damage is found now and not during training.

    Args:
        data: Bytes of the file.
        max_pixels: Maximum number of pixels; larger images are refused before decoding.
        bands: Numbers of the red, green and blue bands, or of the grey band, for files with other bands.
        scale: Values that become black and white, for files with more than 8 bits per band.

    Returns:
        Properties of the image, with bytes that TensorFlow can decode.

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

    The image is reduced to 32 x 32 pixels. For each of its 32 lowest frequencies, one bit is set if it is positive and
    another one if it is negative; a frequency near 0, relative to all 63, is neither. pHash (C. Zauner, "Implementation
    and Benchmarking of Perceptual Image Hash Functions", 2010, 3.2.1) compares frequencies with their median instead:
    for a tile with a road along one side, most are near it, and noise decides. No two tiles of UC Merced differ in
    fewer than 7 bits (2026-11).

    Args:
        grey: The image, in a mode with one channel such as "L" or "F".

    Returns:
        The hash; "" for an almost uniform image, whose frequencies are noise.
    """
    small = np.asarray(grey.resize((_HASH_SIDE, _HASH_SIDE), Image.Resampling.BOX), dtype=np.float64)
    if small.std() < _MIN_VARIATION:
        return ""
    # Rounded, since the last digits differ between machines.
    frequencies = (_COSINES @ small @ _COSINES.T)[_DOWN, _ACROSS].round(3)
    least = (_MIN_FREQUENCY * np.sqrt(np.mean(frequencies**2))).round(3)
    lowest = frequencies[:_HASH_FREQUENCIES]
    return np.packbits(np.concatenate([lowest > least, lowest < -least])).tobytes().hex()


def fine_hash(grey: Image.Image) -> bytes:
    """Return the fine hash, which `find_near_duplicates` compares if the perceptual hashes are close.

    For the image reduced to 36 x 36 pixels: one bit per pixel that is lighter than its four neighbours, one per pixel
    that is darker; and, as `float32`, mean and standard deviation. Different images of a single edge share the few
    frequencies that decide the perceptual hash, but not their fine detail.
    """
    small = np.asarray(grey.convert("F").resize((_FINE_SIDE, _FINE_SIDE), Image.Resampling.BOX), dtype=np.float64)
    around = np.pad(small, 1, mode="edge")
    detail = small - (around[:-2, 1:-1] + around[2:, 1:-1] + around[1:-1, :-2] + around[1:-1, 2:]) / 4
    # Rounded, like the frequencies.
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
    """Return bytes that TensorFlow can decode, and their format; the bytes are unchanged if it can decode them.

    Raises:
        DataError: The bytes aren't a readable image; see `probe_image`.
    """
    facts = probe_image(data, max_pixels, bands, scale)
    return facts.data, facts.format


def _as_png(image: Image.Image) -> bytes:
    """Return a PNG with the same pixels; colour spaces that PNG lacks, such as CMYK, become RGB."""
    if image.mode not in _PNG_MODES:
        image = image.convert("RGB")
    buffer = io.BytesIO()
    # No colour profile: a CMYK profile is wrong for RGB, and one that Pillow creates contains the time.
    image.save(buffer, "PNG", compress_level=1, icc_profile=None)
    return buffer.getvalue()
