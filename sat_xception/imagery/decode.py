"""Decode an image file completely, so that damage is found now and not during training.

Every way to judge an image goes through here: fetched tiles, class folders, tiles that are scored.
"""

from __future__ import annotations

import contextlib
import io
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from sat_xception.errors import DataError
from sat_xception.imagery.encoded import find_damage
from sat_xception.imagery.pixels import TiffPage, pixel_type, tiff_pages, why_unclear

__all__ = ["Decoded", "decode_image", "without_warnings"]

# What Pillow may try. It knows more, but hands PostScript, for one, to a program outside.
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "JPEG2000")
# Two reads of damaged pixels find other rests of memory: it is filled with one of these before each.
_FILLINGS = (0x00, 0xA5)


@dataclass(frozen=True)
class Decoded:
    """A decoded image.

    Attributes:
        image: Its pixels, of 8 bits or fewer a band.
        format: The file's own format, by Pillow's name.
        empty: Share of the pixels that are wholly transparent, masked, or have no value.
        scaled: Whether the settings for bands or scale were applied, since the file has wider pixels or other bands.
    """

    image: Image.Image
    format: str
    empty: float
    scaled: bool = False


class _Silence:
    """Number of threads that suppress warnings: Python's filters are shared by all threads."""

    lock = threading.Lock()
    wanted = 0
    filters = warnings.catch_warnings()


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Ignore warnings while any thread is in this block."""
    with _Silence.lock:
        if not _Silence.wanted:
            _Silence.filters = warnings.catch_warnings()
            _Silence.filters.__enter__()
            warnings.simplefilter("ignore")
        _Silence.wanted += 1
    try:
        yield
    finally:
        with _Silence.lock:
            _Silence.wanted -= 1
            if not _Silence.wanted:
                _Silence.filters.__exit__(None, None, None)


def decode_image(
    data: bytes,
    max_pixels: int,
    bands: Sequence[int] = (),
    scale: Sequence[float] | None = None,
    check: Callable[[Image.Image], None] | None = None,
) -> Decoded:
    """Decode an image.

    Args:
        data: The file's bytes.
        max_pixels: Larger images are refused before they are decoded.
        bands: Bands that are red, green and blue, or the one that is grey, of files that have other bands.
        scale: Values that become black and white, of files with more than 8 bits a band.
        check: Called with the opened image before it is decoded; an error that it raises ends the decoding.

    Raises:
        DataError: Not an image, damaged, cut short, animated, too large, or with wider pixels than 8 bits and nothing
            said about them; the message is the reason.
    """
    if not data:
        raise DataError("the file is empty")
    kind = pixel_type(data)
    if kind is not None and not kind.plain:
        source = "PNG" if data.startswith(b"\x89PNG") else "TIFF" if data[:2] in (b"II", b"MM") else "JPEG2000"
        if damage := find_damage(data):
            raise DataError(f"can't be decoded: {damage}")
        if source == "TIFF":
            _check_frames(data, None)
        try:
            from sat_xception.imagery.raster import read_picture
        except ModuleNotFoundError:
            # What only asks an endpoint has no GDAL, and no settings for it.
            raise DataError(why_unclear(kind.bands, [kind.dtype], False, False)) from None
        picture, empty = read_picture(data, bands, scale, max_pixels)
        if check is not None:
            check(picture)
        return Decoded(picture, source, empty, scaled=True)
    image = _load(data, max_pixels, check)
    return Decoded(image, image.format or "", _empty_share(image, data))


def _load(data: bytes, max_pixels: int, check: Callable[[Image.Image], None] | None) -> Image.Image:
    try:
        # Of metadata that is odd, and of many pixels, which are counted here.
        with without_warnings():
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
            if image.width * image.height > max_pixels:
                raise DataError(f"{image.width} x {image.height} pixels, more than the limit of {max_pixels:,}")
            _check_frames(data, image)
            if check is not None:
                check(image)
            if damage := find_damage(data):
                raise DataError(f"can't be decoded: {damage}")
            _fill_memory(_FILLINGS[0], image)
            image.load()
            if image.format == "TIFF" and next(tiff_pages(data)).compressed:
                _check_second_read(image, data)
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"not an image (starts with {data[:8]!r})") from None
    except Exception as error:
        # On damaged files Pillow's decoders also raise what looks like a bug: TypeError, IndexError, RuntimeError.
        raise DataError(f"can't be decoded: {error or type(error).__name__}") from None
    return image


def _check_frames(data: bytes, image: Image.Image | None) -> None:
    if image is not None and image.format != "TIFF":
        frames = getattr(image, "n_frames", 1)
    else:
        # Smaller copies and masks are no images of their own.
        frames = sum(not (page.reduced or page.mask) for page in tiff_pages(data))
    if frames > 1:
        raise DataError(f"{frames} frames; one image is expected")


def _check_second_read(image: Image.Image, data: bytes) -> None:
    """Read a compressed TIFF a second time: if its data is truncated, libtiff leaves old memory content."""
    again = Image.open(io.BytesIO(data), formats=("TIFF",))
    _fill_memory(_FILLINGS[1], image)
    again.load()
    if again.tobytes() != image.tobytes():
        raise DataError("can't be decoded: its pixels are others each time it is read, so it is damaged")


def _fill_memory(value: int, image: Image.Image) -> None:
    """Fill memory blocks of the sizes that the decoder allocates next with one byte value, and free them."""
    row = image.width * len(image.getbands())
    for size in (row, row * 64, row * image.height):
        np.full(max(1, size), value, np.uint8)


def _empty_share(image: Image.Image, data: bytes) -> float:
    """Return the fraction of empty pixels in an image."""
    if not image.has_transparency_data and image.format != "TIFF":
        return 0.0
    empty = np.zeros((image.height, image.width), bool)
    if image.has_transparency_data:
        empty |= np.asarray(image.convert("RGBA").getchannel("A")) == 0
        # The rest of this entry is useless, and makes Pillow warn.
        image.info.pop("transparency", None)
    if image.format == "TIFF":
        pages = list(tiff_pages(data))
        if pages[0].nodata:
            empty |= _without_value(image, pages[0])
        if any(page.mask for page in pages):
            empty |= _masked(data)
    return float(empty.mean())


def _masked(data: bytes) -> npt.NDArray[np.bool_]:
    try:
        from sat_xception.imagery.raster import read_mask
    except ModuleNotFoundError:
        raise DataError(
            "the file has a mask of valid pixels, and reading it needs rasterio: pip install "
            "'sat-xception[assemble]', or write the file without a mask"
        ) from None
    return read_mask(data)


def _without_value(image: Image.Image, page: TiffPage) -> npt.NDArray[np.bool_]:
    """Return which pixels have the value that GDAL calls "no data" in all bands but transparency."""
    try:
        value = float(page.nodata)
    except ValueError:
        raise DataError(f"can't be decoded: {page.nodata[:20]!r} is no value of pixels without data") from None
    pixels = np.asarray(image)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    empty: npt.NDArray[np.bool_] = (pixels[..., : max(1, page.bands - page.alphas)] == value).all(axis=-1)
    return empty
