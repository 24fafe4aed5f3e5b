"""Tiles cut out of a GeoTIFF: only the part that a tile needs is read, and reprojected to the Web Mercator grid.

Tiles are encoded as PNG, which loses nothing and which TensorFlow decodes: see decision 14.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.warp import transform_bounds
from rio_tiler.errors import NoOverviewWarning, RioTilerError, TileOutsideBounds
from rio_tiler.io import Reader

from sat_xception.errors import ConfigError
from sat_xception.imagery.files import MISSING
from sat_xception.imagery.source import ImageryConfig, TileFailure
from sat_xception.imagery.web import user_agent

__all__ = ["GeoTiffSource"]

_TILE_SIZE = 256
# Dark pixels often have the value of "no data"; more of them than this are the imagery's edge.
_MAX_MASKED = 0.01
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
        self._config = config
        self._readers: list[Reader] = []
        self._thread = threading.local()
        # GDAL's messages hold addresses, and with them tokens.
        logging.getLogger("rasterio").setLevel(logging.CRITICAL)
        try:
            with self._environment():
                self._describe(name, self._reader())
        except rasterio.errors.RasterioError as error:
            why = type(error).__name__ if address.startswith("/vsi") else str(error)
            raise ConfigError(f"--imagery {name} can't be opened: {why}; give a GeoTIFF that can be read") from None
        finally:
            self._close_readers()
        self._pool = ThreadPoolExecutor(config.connections if address.startswith("/vsi") else 4)

    def _describe(self, name: str, reader: Reader) -> None:
        dataset: Any = reader.dataset
        if dataset.crs is None:
            raise ConfigError(
                f"--imagery {name} has no coordinate system; give it one: gdal_edit.py -a_srs EPSG:CODE FILE"
            )
        self._colours = bool(reader.colormap)
        # Between numbers of colours there is nothing.
        self._resampling = {} if self._colours else {"resampling_method": "bilinear", "reproject_method": "bilinear"}
        self._bands = self._config.bands or ((1,) if self._colours else _plain_bands(name, dataset))
        if max(self._bands) > dataset.count or min(self._bands) < 1:
            wrong = ",".join(map(str, self._bands))
            raise ConfigError(f"--imagery-bands {wrong}: {name} has bands 1 to {dataset.count}; name one or three")
        kinds = {dataset.dtypes[band - 1] for band in self._bands}
        if kinds != {"uint8"} and self._config.scale is None:
            raise ConfigError(
                f"--imagery {name} has pixels of type {', '.join(sorted(kinds))}, not of 8 bits; give the values that "
                "become black and white, for instance --imagery-scale 0 --imagery-scale 3000"
            )
        self.attribution = self._config.attribution or dataset.tags().get("TIFFTAG_COPYRIGHT", "")
        self._bounds = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)

    def bounds(self) -> tuple[float, float, float, float] | None:
        """Return the bounds of the file."""
        west, south, east, north = self._bounds
        return west, south, east, north

    def host(self, x: int, y: int, z: int) -> str:
        """Return "": one file is in one place."""
        return ""

    async def read(self, x: int, y: int, z: int) -> bytes:
        """Return a part of the file as a PNG of `tile_size` pixels."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, x, y, z)

    def _read(self, x: int, y: int, z: int) -> bytes:
        size = self._config.tile_size or _TILE_SIZE
        try:
            with self._environment():
                image = self._reader().tile(x, y, z, size, indexes=self._bands, **self._resampling)
                mask = image.array.mask.all(axis=0)
                if self._colours:
                    image = image.apply_colormap(self._reader().colormap)
        except TileOutsideBounds:
            raise TileFailure(MISSING) from None
        except (rasterio.errors.RasterioError, RioTilerError) as error:
            # Its message may hold the address; the kind of error says enough.
            raise TileFailure(f"can't be read: {type(error).__name__}", transient=True) from error
        masked = float(mask.mean())
        if masked == 1:
            raise TileFailure(MISSING)
        if masked > _MAX_MASKED:
            raise TileFailure(f"only {1 - masked:.1%} of the tile is in the imagery")
        return self._encode(image.array.filled(0)[:3])

    def _encode(self, pixels: npt.NDArray[Any]) -> bytes:
        if self._config.scale and not self._colours:
            black, white = self._config.scale
            pixels = np.nan_to_num((pixels.astype(np.float64) - black) / (white - black)).clip(0, 1) * 255
            pixels = pixels.round()
        values = pixels.astype(np.uint8)
        buffer = io.BytesIO()
        picture = Image.fromarray(values[0] if len(values) == 1 else np.moveaxis(values, 0, -1))
        picture.save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    def _reader(self) -> Reader:
        """Return this thread's own: GDAL's data sets can't be shared."""
        if not hasattr(self._thread, "reader"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NoOverviewWarning)
                self._thread.reader = Reader(self._address)
            self._readers.append(self._thread.reader)
        reader: Reader = self._thread.reader
        return reader

    def _environment(self) -> rasterio.Env:
        seconds = max(1, round(self._config.timeout_s))
        return rasterio.Env(
            GDAL_CACHEMAX=_CACHE_MB,
            GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR",
            GDAL_HTTP_TIMEOUT=seconds,
            GDAL_HTTP_CONNECTTIMEOUT=seconds,
            GDAL_HTTP_USERAGENT=user_agent(self._config),
        )

    def _close_readers(self) -> None:
        for reader in self._readers:
            with contextlib.suppress(rasterio.errors.RasterioError):
                reader.close()
        self._readers.clear()
        self._thread = threading.local()

    async def close(self) -> None:
        """Let the file go."""
        self._pool.shutdown()
        self._close_readers()


def _plain_bands(name: str, dataset: Any) -> tuple[int, ...]:  # noqa: ANN401 - the library's types say little
    """Return the bands of a grey image, or the red, green and blue of a coloured one."""
    meanings = list(dataset.colorinterp)
    coloured = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
    if all(colour in meanings for colour in coloured):
        return tuple(meanings.index(colour) + 1 for colour in coloured)
    visible = [index + 1 for index, meaning in enumerate(meanings) if meaning is not ColorInterp.alpha]
    if len(visible) in (1, 3):
        return tuple(visible)
    raise ConfigError(
        f"--imagery {name} has {len(visible)} bands; say which are red, green and blue, for instance "
        "--imagery-bands 3 --imagery-bands 2 --imagery-bands 1"
    )
