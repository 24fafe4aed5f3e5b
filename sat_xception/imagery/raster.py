"""Read rasters with GDAL: bands of any type, their empty pixels, and their conversion to an 8-bit image.

Every error of rasterio and of GDAL becomes ours here: GDAL's own (`rasterio._err.CPLE_*`) have no class in common with
rasterio's.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from PIL import Image
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from sat_xception.errors import DataError
from sat_xception.imagery.decode import without_warnings
from sat_xception.imagery.pixels import why_unclear

__all__ = [
    "RASTER_ERRORS",
    "BandChoice",
    "choose_bands",
    "empty_share_of_file",
    "encode_png",
    "paint",
    "picture_of",
    "read_picture",
]

# What rasterio and GDAL raise on damaged files; the last four come out of their Cython code and of NumPy.
RASTER_ERRORS = (RasterioError, CPLE_BaseError, OSError, ValueError, TypeError, IndexError, MemoryError)
_COLOURS = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
# Formats of class folders whose pixels may be wider than 8 bits.
_DRIVERS = ["GTiff", "PNG", "JP2OpenJPEG"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class BandChoice:
    """The bands of a raster that make up the image.

    Attributes:
        bands: Numbers of the bands, from 1 on: one, or red, green and blue.
        palette: Colours by the value of a pixel, `uint8 [n, 4]` with alpha; None for a raster without a palette.
        alpha_is_colour: A band that the file calls transparency is one of `bands`, as in files of red, green, blue and
            near infrared that don't say so.
    """

    bands: tuple[int, ...]
    palette: npt.NDArray[np.uint8] | None = None
    alpha_is_colour: bool = False


def choose_bands(dataset: Any, bands: Sequence[int], scale: Sequence[float] | None) -> BandChoice:  # noqa: ANN401
    """Return the bands that make up the image.

    Args:
        dataset: An open raster.
        bands: The settings' choice; empty if the file defines it.
        scale: Values that become black and white, if the settings name them.

    Raises:
        DataError: The file doesn't say which bands are red, green and blue, or its pixels need a scale. The message
            begins with what the file has.
    """
    if bands and (max(bands) > dataset.count or min(bands) < 1 or len(bands) not in (1, 3)):
        wrong = ",".join(map(str, bands))
        raise DataError(f"bands 1 to {dataset.count}, and --imagery-bands is {wrong}; name one or three of them")
    palette = _palette(dataset) if tuple(bands) in ((), (1,)) else None
    chosen = (1,) if palette is not None else tuple(bands) or _plain_bands(dataset)
    types = [str(dataset.dtypes[band - 1]) for band in chosen] or list(map(str, dataset.dtypes))
    if palette is None and (why := why_unclear(dataset.count, types, bool(chosen), scale is not None)):
        raise DataError(why)
    alpha_is_colour = any(dataset.colorinterp[band - 1] is ColorInterp.alpha for band in chosen)
    return BandChoice(chosen, palette, alpha_is_colour)


def paint(values: Array, empty: npt.NDArray[np.bool_], choice: BandChoice, scale: Sequence[float] | None) -> Array:
    """Return an 8-bit picture, `uint8 [1 or 3, h, w]`, and mark in `empty` what has no value or a clear colour.

    Args:
        values: Bands, `[n, h, w]`.
        empty: Pixels that the raster has no values for, `bool [h, w]`; what isn't a number is added to them.
        choice: Where the bands come from.
        scale: Values that become black and white; None for bands of 8 bits.
    """
    if choice.palette is not None:
        colours = choice.palette[np.minimum(values[0].astype(np.int64), len(choice.palette) - 1)]
        empty |= colours[..., 3] == 0
        return np.moveaxis(colours[..., :3], -1, 0)
    if values.dtype.kind == "f":
        empty |= ~np.isfinite(values).all(axis=0)
    if scale:
        black, white = scale
        with np.errstate(invalid="ignore", over="ignore"):
            shares = np.nan_to_num((values.astype(np.float64) - black) / (white - black)).clip(0, 1)
        values = (shares * 255).round()
    picture = values.astype(np.uint8)
    picture[:, empty] = 0
    return picture


def picture_of(picture: npt.NDArray[np.uint8]) -> Image.Image:
    """Return the image of `uint8 [1 or 3, h, w]`."""
    return Image.fromarray(picture[0] if len(picture) == 1 else np.moveaxis(picture, 0, -1))


def encode_png(picture: npt.NDArray[np.uint8]) -> bytes:
    """Return a PNG of `uint8 [1 or 3, h, w]`."""
    buffer = io.BytesIO()
    picture_of(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def read_picture(
    data: bytes, bands: Sequence[int], scale: Sequence[float] | None, max_pixels: int
) -> tuple[Image.Image, float]:
    """Return a picture of 8 bits of an image file that has wider pixels, or other bands, and the share that is empty.

    Raises:
        DataError: It is damaged or too large, or it needs settings for bands or scale.
    """
    with _reading(), MemoryFile(data) as file, file.open(driver=_DRIVERS) as dataset:
        if dataset.width * dataset.height > max_pixels:
            raise DataError(f"{dataset.width} x {dataset.height} pixels, more than the limit of {max_pixels:,}")
        choice = choose_bands(dataset, bands, scale)
        values = dataset.read(choice.bands, out_dtype="float64" if scale and choice.palette is None else None)
        empty = np.zeros(values.shape[1:], bool) if choice.alpha_is_colour else dataset.dataset_mask() == 0
        picture = paint(values, empty, choice, scale)
    return picture_of(picture), float(empty.mean())


def empty_share_of_file(path: Path) -> float:
    """Return the share of a raster file's pixels that its masks, those in files beside it too, call empty.

    Raises:
        DataError: The file can't be read.
    """
    with _reading(), rasterio.open(path) as dataset:
        return float((dataset.dataset_mask() == 0).mean())


def read_mask(data: bytes) -> npt.NDArray[np.bool_]:
    """Return which pixels of a raster its own masks call empty, `bool [h, w]`.

    Raises:
        DataError: It can't be read.
    """
    with _reading(), MemoryFile(data) as file, file.open(driver=_DRIVERS) as dataset:
        empty: npt.NDArray[np.bool_] = dataset.dataset_mask() == 0
        return empty


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    # GDAL's log messages only repeat the error that is raised.
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)
    try:
        # No warning about images without georeferencing.
        with without_warnings(), rasterio.Env(GDAL_CACHEMAX=64):
            yield
    except RASTER_ERRORS as error:
        raise DataError(f"can't be decoded: {error}") from None


def _palette(dataset: Any) -> npt.NDArray[np.uint8] | None:  # noqa: ANN401
    if dataset.colorinterp[0] is not ColorInterp.palette:
        return None
    try:
        colours = dataset.colormap(1)
    except ValueError:
        return None
    palette = np.zeros((max(colours) + 1, 4), np.uint8)
    for value, colour in colours.items():
        palette[value] = colour
    return palette


def _plain_bands(dataset: Any) -> tuple[int, ...]:  # noqa: ANN401 - the library's types say little
    """Return the bands of a grey image, or the red, green and blue of a coloured one; none where it isn't said."""
    meanings = list(dataset.colorinterp)
    if all(colour in meanings for colour in _COLOURS):
        return tuple(meanings.index(colour) + 1 for colour in _COLOURS)
    visible = tuple(index + 1 for index, meaning in enumerate(meanings) if meaning is not ColorInterp.alpha)
    if len(visible) in (1, 3):
        return visible
    return ()
