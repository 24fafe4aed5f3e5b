"""Read image files as they come: what they are, whether they decode, and the bytes that TensorFlow can decode."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageStat, UnidentifiedImageError

from sat_xception.errors import DataError

__all__ = ["IMAGE_SUFFIXES", "ImageFacts", "encode_for_tensorflow", "perceptual_hash", "probe_image"]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp"})

# What Pillow may try. It knows more, but hands PostScript, for one, to a program outside.
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "JPEG2000")
# Formats that model/preprocess.py decodes, by Pillow's name; a WebP without transparency only.
_TENSORFLOW_FORMATS = {"JPEG": "jpeg", "PNG": "png", "WEBP": "webp"}
# Modes whose pixels a PNG of 8 bits a channel holds.
_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA"}
# The last chunk: no content, so always the same bytes (PNG specification, 11.2.5).
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_WIDE_PIXELS = {"I": "32-bit integers", "F": "floating-point numbers"}

# Side of the small grey picture that the perceptual hash is of, and how many frequencies each way it takes.
_HASH_SIDE, _HASH_FREQUENCIES = 32, 8
# A small picture that varies less (standard deviation of [0, 255]) shows nothing to tell it by: water, snow, no data.
_LEAST_VARIATION = 2.0
# DCT-II without its factors, which a comparison with the median doesn't need.
_COSINES = np.cos(
    np.pi / _HASH_SIDE * np.outer(np.arange(_HASH_FREQUENCIES), np.arange(_HASH_SIDE) + 0.5), dtype=np.float64
)


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
    """

    data: bytes
    format: str
    source_format: str
    width: int
    height: int
    mean_luma: float
    std_luma: float
    phash: str


def probe_image(data: bytes, max_pixels: int = 64_000_000) -> ImageFacts:
    """Decode an image whole, so that a damaged one is found now and not in the middle of training.

    Args:
        data: The file's bytes.
        max_pixels: Larger images are refused before they are decoded.

    Returns:
        The facts, with bytes that TensorFlow can decode.

    Raises:
        DataError: Not an image, damaged, cut short, animated or too large; the message is the reason.
    """
    if not data:
        raise DataError("the file is empty")
    image = _decode(data, max_pixels)
    if image.format != "PNG" and image.mode in _WIDE_PIXELS:
        wide = _WIDE_PIXELS[image.mode]
        raise DataError(f"pixels are {wide}; convert to 8-bit RGB first (gdal_translate -ot Byte -scale)")
    source_format = image.format or ""
    grey = _grey(image)
    mean_luma, std_luma = _brightness(grey)
    encoded, tensorflow_format = data, _TENSORFLOW_FORMATS.get(source_format, "")
    if not tensorflow_format or (source_format == "WEBP" and image.mode != "RGB"):
        encoded, tensorflow_format = _as_png(image), "png"
    return ImageFacts(
        data=encoded,
        format=tensorflow_format,
        source_format=source_format.lower(),
        width=image.width,
        height=image.height,
        mean_luma=mean_luma,
        std_luma=std_luma,
        phash=perceptual_hash(grey),
    )


def perceptual_hash(grey: Image.Image) -> str:
    """Return 64 bits that hardly change with compression, scale and brightness, as 16 hexadecimal digits.

    pHash (C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010, 3.2.1): of the picture
    at 32 x 32 pixels, which of its 8 x 8 lowest frequencies are above their median. Among the tiles of UC Merced no two
    differ in less than 12 bits; JPEG at quality 30, half the size or 15 % more light change at most 4 of a tile's
    (2026-11).

    Args:
        grey: The image, in mode "L", "F" or another of one channel.

    Returns:
        The hash; "" for a picture that is all but one colour, whose frequencies say nothing.
    """
    small = np.asarray(grey.resize((_HASH_SIDE, _HASH_SIDE), Image.Resampling.BOX), dtype=np.float64)
    if small.std() < _LEAST_VARIATION:
        return ""
    # Rounded, so that the last digits, which differ between machines, decide nothing.
    frequencies = (_COSINES @ small @ _COSINES.T).round(3)
    return np.packbits(frequencies > np.median(frequencies)).tobytes().hex()


def encode_for_tensorflow(data: bytes, max_pixels: int = 64_000_000) -> tuple[bytes, str]:
    """Return bytes that TensorFlow decodes and their format; the same bytes where it already does.

    Raises:
        DataError: The bytes are no readable image.
    """
    facts = probe_image(data, max_pixels)
    return facts.data, facts.format


def _decode(data: bytes, max_pixels: int) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if image.width * image.height > max_pixels:
            raise DataError(f"{image.width} x {image.height} pixels, more than the limit of {max_pixels:,}")
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            raise DataError(f"{frames} frames; one image is expected")
        if image.format == "PNG":
            _check_png(data)
        image.load()
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"not an image (starts with {data[:8]!r})") from None
    except Exception as error:
        # On damaged files Pillow's decoders also raise what looks like a bug: TypeError, IndexError, RuntimeError.
        raise DataError(f"can't be decoded: {error}") from None
    return image


def _check_png(data: bytes) -> None:
    """Find the damage that Pillow reads past and TensorFlow doesn't: wrong checksums, a missing end."""
    Image.open(io.BytesIO(data), formats=("PNG",)).verify()
    if _PNG_END not in data:
        raise DataError("can't be decoded: the end of the PNG is missing")


def _grey(image: Image.Image) -> Image.Image:
    """Return the brightness (ITU-R BT.601), in [0, 255], in mode "L" or, of 16-bit images, "F"."""
    if image.mode.startswith("I"):
        return Image.fromarray(np.asarray(image, dtype=np.float32) / np.float32(257))
    return image.convert("RGB").convert("L")


def _brightness(grey: Image.Image) -> tuple[float, float]:
    """Return mean and standard deviation."""
    if grey.mode == "F":
        pixels = np.asarray(grey)
        return float(pixels.mean()), float(pixels.std())
    statistics = ImageStat.Stat(grey)
    return statistics.mean[0], statistics.stddev[0]


def _as_png(image: Image.Image) -> bytes:
    """Return a PNG with the same pixels; CMYK and other printing spaces, which PNG lacks, become RGB."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray(np.asarray(image).astype(np.uint16))
    elif image.mode not in _PNG_MODES:
        image = image.convert("RGB")
    buffer = io.BytesIO()
    # No colour profile: that of a printing space is wrong for RGB, and one that Pillow makes holds the time of day.
    image.save(buffer, "PNG", compress_level=1, icc_profile=None)
    return buffer.getvalue()
