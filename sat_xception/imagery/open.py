"""Open the imagery at an address; recognise a local file of imagery that has changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from sat_xception.errors import ConfigError
from sat_xception.imagery.settings import ImageryConfig
from sat_xception.imagery.source import ImagerySource
from sat_xception.settings.config import shown
from sat_xception.storage.address import remote_path, schemes

__all__ = ["file_state", "open_imagery"]

_GEOTIFFS = frozenset({".tif", ".tiff", ".vrt"})
# What GDAL calls files elsewhere.
_GDAL: Mapping[str, Callable[[str], str]] = {
    "http": lambda uri: f"/vsicurl/{uri}",
    "https": lambda uri: f"/vsicurl/{uri}",
    "gs": lambda uri: f"/vsigs/{uri.removeprefix('gs://')}",
    "s3": lambda uri: f"/vsis3/{uri.removeprefix('s3://')}",
    "az": lambda uri: f"/vsiaz/{uri.removeprefix('az://')}",
}


def open_imagery(uri: str, config: ImageryConfig) -> ImagerySource:
    """Open the imagery at an address.

    Args:
        uri: A URL template with `{z}`, `{x}` and `{y}`; a folder of `{z}/{x}/{y}.ext`, here or in a bucket; an
            `.mbtiles` file; a `.pmtiles` archive or a GeoTIFF, here, at `https://` or in a bucket.
        config: Settings.

    Raises:
        ConfigError: The address is of no known form, nothing is there, or the token isn't in the environment.
        DataError: The archive is damaged.
        ServiceError: The archive, or the bucket, can't be read now.
    """
    kind = _kind_of(uri)
    if kind == ".pmtiles":
        from sat_xception.imagery.archive import PMTilesSource
        from sat_xception.imagery.ranges import open_ranges

        return PMTilesSource(shown(uri), open_ranges(uri, config), config)
    if kind in _GEOTIFFS:
        from sat_xception.imagery.geotiff import GeoTiffSource

        return GeoTiffSource(shown(uri), _for_gdal(uri), config)
    if (address := remote_path(uri)) is not None:
        from sat_xception.imagery.bucket import BucketSource

        return BucketSource(address, config)
    if uri.startswith(("http://", "https://")):
        from sat_xception.imagery.web import WebSource

        return WebSource(uri, config)
    from sat_xception.imagery.files import FolderSource, MBTilesSource

    path = Path(uri)
    if path.is_dir():
        return FolderSource(path, config)
    if path.is_file() and path.suffix.lower() == ".mbtiles":
        return MBTilesSource(path, config)
    raise ConfigError(
        f"--imagery {shown(uri)} is no imagery: give a URL template with {{z}}, {{x}} and {{y}}, a folder of z/x/y.jpg "
        f"files, or an existing .mbtiles, .pmtiles or .tif file; folders and the last two may be at {schemes()}, "
        "these at https://, too"
    )


def _for_gdal(uri: str) -> str:
    """Return the name of a file in GDAL."""
    scheme, colon, _ = uri.partition("://")
    if not colon:
        return uri
    if scheme not in _GDAL:
        raise ConfigError(
            f"GDAL can't read {shown(uri)}; give a GeoTIFF at {', '.join(f'{name}://' for name in _GDAL)} or on this "
            "machine"
        )
    return _GDAL[scheme](uri)


def file_state(uri: str) -> str:
    """Return an identifier of a local imagery file that changes with it; "" for other imagery.

    It is the size and the time of the last change, also of its overviews and its mask, if they lie beside it. To read
    all of it would take hours. A folder of tiles and what is on other machines are known by their address alone.
    """
    if not _kind_of(uri) or "://" in uri:
        return ""
    path = Path(uri)
    files = [path, *(beside for ending in (".ovr", ".msk") if (beside := Path(f"{uri}{ending}")).is_file())]
    states = [file.stat() for file in files]
    return ", ".join(
        f"{state.st_size} bytes of {datetime.fromtimestamp(state.st_mtime, UTC):%Y-%m-%dT%H:%M:%S}"
        f".{state.st_mtime_ns % 10**9:09d}Z"
        for state in states
    )


def _kind_of(uri: str) -> str:
    """Return the suffix of an address of a single file, in lower case; "" for a template or a missing file."""
    if "{" in uri:
        return ""
    if uri.startswith(("http://", "https://")) or remote_path(uri) is not None:
        return PurePosixPath(urlsplit(uri).path).suffix.lower()
    return Path(uri).suffix.lower() if Path(uri).is_file() else ""
