"""Read image files as they come: what they are, whether they decode, and the bytes that TensorFlow can decode."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageStat, UnidentifiedImageError

from sat_xception.errors import DataError

__all__ = ["IMAGE_SUFFIXES", "ImageFacts", "encode_for_tensorflow", "probe_image"]

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
    """

    data: bytes
    format: str
    source_format: str
    width: int
    height: int
    mean_luma: float
    std_luma: float


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
    mean_luma, std_luma = _brightness(image)
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
    )


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


def _brightness(image: Image.Image) -> tuple[float, float]:
    """Return mean and standard deviation of the brightness (ITU-R BT.601), in [0, 255]."""
    if image.mode.startswith("I"):
        grey = np.asarray(image, dtype=np.float32) / np.float32(257)
        return float(grey.mean()), float(grey.std())
    statistics = ImageStat.Stat(image.convert("RGB").convert("L"))
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
