"""GDAL's sidecar files of a raster: mask, overviews and metadata."""

from __future__ import annotations

from pathlib import Path

from sat_xception.errors import DataError
from sat_xception.imagery.check import why_empty

__all__ = ["check_beside", "owner_of"]

# https://gdal.org/en/stable/drivers/raster/gtiff.html: names are the raster's own with one of these after it.
_MASKS = (".msk", ".aux.xml")
_ENDINGS = (*_MASKS, ".ovr")


def owner_of(path: Path) -> Path | None:
    """Return the raster that a sidecar file belongs to, if it exists."""
    for ending in _ENDINGS:
        if path.name.endswith(ending) and (owner := path.with_name(path.name[: -len(ending)])).is_file():
            return owner
    return None


def check_beside(path: Path) -> None:
    """Check a raster against the limit for empty tiles, with the masks in sidecar files.

    Raises:
        DataError: Too much of it is empty, or it can't be read with those files.
    """
    if not any(path.with_name(path.name + ending).is_file() for ending in _MASKS):
        return
    # Imported here: few rasters have such files, and GDAL takes longer to load than most of them to read.
    from sat_xception.imagery.raster import empty_share_of_file

    if why := why_empty(empty_share_of_file(path)):
        raise DataError(why)
