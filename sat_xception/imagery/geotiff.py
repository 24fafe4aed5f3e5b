"""Tiles cut out of a GeoTIFF: only the part that a tile needs is read, and reprojected to the Web Mercator grid.

Tiles are encoded as PNG, which loses nothing and which TensorFlow decodes: see decision 14.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp, Resampling
from rasterio.session import DummySession
from rasterio.transform import Affine, from_bounds
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from sat_xception.errors import ConfigError, DataError
from sat_xception.geo.tiles import EQUATOR_M
from sat_xception.imagery.check import why_empty
from sat_xception.imagery.decode import without_warnings
from sat_xception.imagery.gdal_settings import gdal_settings
from sat_xception.imagery.raster import RASTER_ERRORS, choose_bands, encode_png, paint
from sat_xception.imagery.settings import ImageryConfig
from sat_xception.imagery.source import TileFailure
from sat_xception.imagery.web import user_agent

__all__ = ["GeoTiffSource"]

_TILE_SIZE = 256
_GRID = "EPSG:3857"
# Pixels that are off by less than this are the grid's own.
_ALIGNED_PX = 0.01
# GDAL's cache of decoded blocks, for all threads together.
_CACHE_MB = 256


class GeoTiffSource:
    """A GeoTIFF, cloud-optimised or not, or a VRT: local, by `https://` or in a bucket."""

    def __init__(self, name: str, address: str, config: ImageryConfig) -> None:
        """Open the file and check its bands.

        Args:
            name: What to call it in errors, without a token.
            address: What GDAL opens: a path, `/vsicurl/https://…` or `/vsigs/bucket/object`.
            config: Settings; `bands`, `scale` and `tile_size` are for this kind of source.

        Raises:
            ConfigError: It can't be opened, isn't georeferenced, or its bands don't say what is red, green and blue.
        """
        self._address = address
        self._remote = address.startswith("/vsi")
        self._config = config
        self._opened: list[Any] = []
        self._thread = threading.local()
        # GDAL's messages hold addresses, and with them tokens.
        logging.getLogger("rasterio").setLevel(logging.CRITICAL)
        try:
            with self._environment():
                self._describe(name, self._dataset())
        except RASTER_ERRORS as error:
            why = type(error).__name__ if self._remote else _first_line(error)
            raise ConfigError(f"--imagery {name} can't be opened: {why}; give a GeoTIFF that can be read") from None
        finally:
            self._close_all()
        self._pool = ThreadPoolExecutor(config.connections if self._remote else 4)

    def _describe(self, name: str, dataset: Any) -> None:  # noqa: ANN401 - the library's types say little
        if dataset.crs is None:
            raise ConfigError(
                f"--imagery {name} has no coordinate system; give it one: gdal_edit.py -a_srs EPSG:CODE FILE"
            )
        if dataset.transform.is_identity or dataset.transform.is_degenerate:
            raise ConfigError(
                f"--imagery {name} doesn't say where its pixels are on the map; georeference it first, for instance "
                "with gdalwarp, which also applies ground control points"
            )
        try:
            self._choice = choose_bands(dataset, self._config.bands, self._config.ends)
        except DataError as error:
            raise ConfigError(f"--imagery {name} has {error}") from None
        # Bands of several types, and numbers that are to be scaled, are read as the widest type there is.
        exact = self._config.ends is not None and self._choice.palette is None
        self._dtype = "float64" if exact else None
        self.attribution = self._config.attribution or dataset.tags().get("TIFFTAG_COPYRIGHT", "")
        self._bounds = _degrees(name, dataset)
        # A block of each band is read once: a VRT whose sources are gone opens without a complaint.
        window = ((0, 1), (0, 1))
        if dataset.driver == "VRT":
            dataset.read(self._choice.bands, window=window, out_dtype="float64")

    def bounds(self) -> tuple[float, float, float, float] | None:
        """Return the bounds of the file."""
        return self._bounds

    def host(self, x: int, y: int, z: int) -> str:
        """Return "": one file is in one place."""
        return ""

    async def read(self, x: int, y: int, z: int) -> bytes:
        """Return a part of the file as a PNG of `tile_size` pixels."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, x, y, z)

    def _read(self, x: int, y: int, z: int) -> bytes:
        try:
            # After an error GDAL may go on to report it, at other tiles too: the file is opened anew, and asked again.
            try:
                values, empty = self._bands(x, y, z)
            except RASTER_ERRORS:
                self._close_this()
                values, empty = self._bands(x, y, z)
        except RASTER_ERRORS as error:
            self._close_this()
            # Its message may hold the address; the class of the error is enough. A file on this machine stays as it is.
            raise TileFailure(f"can't be read: {type(error).__name__}", transient=self._remote) from error
        scale = None if self._choice.palette is not None else self._config.ends
        picture = paint(values, empty, self._choice, scale)
        if why := why_empty(float(empty.mean())):
            raise TileFailure(why)
        return encode_png(picture)

    def _bands(self, x: int, y: int, z: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Return the bands of a tile, `[n, size, size]`, and where the file has no values for it."""
        size = self._config.tile_size or _TILE_SIZE
        width = EQUATOR_M / 2**z
        west, north = x * width - EQUATOR_M / 2, EQUATOR_M / 2 - y * width
        bounds = (west, north - width, west + width, north)
        with self._environment():
            dataset = self._dataset()
            window = _aligned(dataset, bounds, size)
            if window is None:
                return self._warp(dataset, from_bounds(*bounds, size, size), size)
            empty = np.zeros((size, size), bool)
            if not self._choice.alpha_is_colour:
                empty = dataset.dataset_mask(window=window) == 0
            return dataset.read(self._choice.bands, window=window, out_dtype=self._dtype), empty

    def _warp(self, dataset: Any, transform: Affine, size: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:  # noqa: ANN401
        has_alpha = ColorInterp.alpha in dataset.colorinterp and not self._choice.alpha_is_colour
        with WarpedVRT(
            dataset,
            crs=_GRID,
            transform=transform,
            width=size,
            height=size,
            # Between the numbers of colours there is nothing.
            resampling=Resampling.nearest if self._choice.palette is not None else Resampling.bilinear,
            add_alpha=not has_alpha,
            # A pixel is empty when it is so in all bands.
            UNIFIED_SRC_NODATA="YES",
        ) as warped:
            alpha = warped.colorinterp.index(ColorInterp.alpha) + 1 if has_alpha else warped.count
            empty = warped.read(alpha) == 0
            return warped.read(self._choice.bands, out_dtype=self._dtype), empty

    def _dataset(self) -> Any:  # noqa: ANN401
        """Return this thread's own: GDAL's data sets can't be shared."""
        if not hasattr(self._thread, "dataset"):
            with without_warnings():
                # A file of another format that is called .tif, such as a list of web addresses, isn't opened.
                driver = "VRT" if urlsplit(self._address).path.lower().endswith(".vrt") else "GTiff"
                self._thread.dataset = rasterio.open(self._address, driver=driver)
            self._opened.append(self._thread.dataset)
        return self._thread.dataset

    def _environment(self) -> rasterio.Env:
        seconds = max(1, round(self._config.timeout_s))
        return rasterio.Env(
            GDAL_CACHEMAX=_CACHE_MB,
            # Files beside the raster, such as its mask, are looked for on this machine only: on a server each is a
            # request, and most of them for nothing.
            GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR" if self._remote else "FALSE",
            GDAL_HTTP_TIMEOUT=seconds,
            GDAL_HTTP_CONNECTTIMEOUT=seconds,
            GDAL_HTTP_USERAGENT=user_agent(self._config),
            # GDAL finds its credentials by itself.
            session=DummySession() if self._remote else None,
            **gdal_settings(self._address),
        )

    def _close_this(self) -> None:
        """Close this thread's data set."""
        if hasattr(self._thread, "dataset"):
            self._opened.remove(self._thread.dataset)
            with contextlib.suppress(*RASTER_ERRORS):
                self._thread.dataset.close()
            del self._thread.dataset

    def _close_all(self) -> None:
        for dataset in self._opened:
            with contextlib.suppress(*RASTER_ERRORS):
                dataset.close()
        self._opened.clear()
        self._thread = threading.local()

    async def close(self) -> None:
        """Let the file go."""
        self._pool.shutdown()
        self._close_all()


def _aligned(dataset: Any, bounds: tuple[float, float, float, float], size: int) -> Window | None:  # noqa: ANN401
    """Return the pixels of a raster that are those of a tile, one for one; None where they must be resampled.

    Resampling looks at neighbours too, so that a damaged block would cost the tiles beside it.
    """
    across, down = dataset.transform, ~dataset.transform
    if dataset.crs != _GRID or across.b or across.d or across.e > 0:
        return None
    (left, top), (right, bottom) = down * (bounds[0], bounds[3]), down * (bounds[2], bounds[1])
    corners = np.array([left, top, right, bottom])
    whole = corners.round()
    inside = whole[:2].min() >= 0 and whole[2] <= dataset.width and whole[3] <= dataset.height
    fits = np.abs(corners - whole).max() < _ALIGNED_PX and {whole[2] - whole[0], whole[3] - whole[1]} == {size}
    return Window(int(whole[0]), int(whole[1]), size, size) if inside and fits else None


def _degrees(name: str, dataset: Any) -> tuple[float, float, float, float]:  # noqa: ANN401
    """Return west, south, east and north of a raster."""
    try:
        corners = [
            dataset.transform * corner
            for corner in ((0, 0), (dataset.width, 0), (0, dataset.height), (dataset.width, dataset.height))
        ]
        across, up = zip(*corners, strict=True)
        bounds = transform_bounds(dataset.crs, "EPSG:4326", min(across), min(up), max(across), max(up))
    except RASTER_ERRORS:
        bounds = (math.nan,) * 4
    if not all(map(math.isfinite, bounds)):
        raise ConfigError(
            f"--imagery {name} is in a coordinate system from which there is no way to longitude and latitude, such as "
            "a site's own grid or another planet's; name the system it is really in: gdal_edit.py -a_srs EPSG:CODE FILE"
        )
    west, south, east, north = bounds
    return west, south, east, north


def _first_line(error: BaseException) -> str:
    """Return what GDAL said first: of a file that another one names, that one is in it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).splitlines() or [type(error).__name__])[0]
