"""Where tiles come from, and fetching them: tile servers, folders and MBTiles files behind one interface."""

from __future__ import annotations

from pathlib import Path

from sat_xception.errors import ConfigError
from sat_xception.imagery.source import ImageryConfig, ImagerySource, TileFailure

__all__ = ["ImageryConfig", "ImagerySource", "TileFailure", "open_imagery"]


def open_imagery(uri: str, config: ImageryConfig) -> ImagerySource:
    """Open the imagery at an address: a URL template, a folder of `{z}/{x}/{y}.ext` or an `.mbtiles` file.

    Raises:
        ConfigError: The address is of no known form, nothing is there, or the token isn't in the environment.
    """
    if uri.startswith(("http://", "https://")):
        from sat_xception.imagery.web import WebSource

        return WebSource(uri, config)
    from sat_xception.imagery.files import FolderSource, MBTilesSource

    path = Path(uri)
    if path.is_dir():
        return FolderSource(path, config)
    if path.is_file() and path.suffix == ".mbtiles":
        return MBTilesSource(path, config)
    raise ConfigError(
        f"--imagery {uri} is no imagery: give a URL template with {{z}}, {{x}} and {{y}}, a folder of z/x/y.jpg files "
        "or an existing .mbtiles file"
    )
