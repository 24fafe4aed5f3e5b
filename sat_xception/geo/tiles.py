"""Tiles of the Web Mercator grid (XYZ, y from the north), for whole arrays at once.

Formulas: OpenStreetMap wiki, "Slippy map tilenames". Positions are WGS 84 degrees; positions in the grid are counted in
tiles from its north-west corner.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "EQUATOR_M",
    "MAX_LATITUDE",
    "ancestors",
    "grid_to_lonlat",
    "lonlat_to_grid",
    "lonlat_to_tiles",
    "tile_width_m",
]

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.int64]

# The grid is a square: it ends at arctan(sinh(pi)) degrees north and south.
MAX_LATITUDE = 85.0511287798066
# Length of the equator in EPSG:3857, 2 pi x 6378137 m.
EQUATOR_M = 40_075_016.685578488


def lonlat_to_grid(lon: Floats, lat: Floats, zoom: int) -> tuple[Floats, Floats]:
    """Return grid positions `float64 [n]` across and down; latitudes beyond the grid are put on its edge."""
    radians = np.radians(np.clip(lat, -MAX_LATITUDE, MAX_LATITUDE))
    across = (np.asarray(lon) + 180.0) / 360.0
    down = 0.5 - np.arcsinh(np.tan(radians)) / (2 * np.pi)
    return across * 2**zoom, down * 2**zoom


def grid_to_lonlat(across: Floats, down: Floats, zoom: int) -> tuple[Floats, Floats]:
    """Return longitudes and latitudes `float64 [n]` of grid positions."""
    lon = np.asarray(across) / 2**zoom * 360.0 - 180.0
    lat = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * np.asarray(down) / 2**zoom))))
    return lon, lat


def lonlat_to_tiles(lon: Floats, lat: Floats, zoom: int) -> tuple[Integers, Integers]:
    """Return x and y `int64 [n]` of the tiles that hold the positions."""
    across, down = lonlat_to_grid(lon, lat, zoom)
    last = 2**zoom - 1
    return (
        np.clip(np.floor(across).astype(np.int64), 0, last),
        np.clip(np.floor(down).astype(np.int64), 0, last),
    )


def ancestors(x: Integers, y: Integers, zoom: int, above: int) -> tuple[Integers, Integers]:
    """Return x and y of the tiles at zoom `above`, at most `zoom`, that hold the tiles."""
    return x >> (zoom - above), y >> (zoom - above)


def tile_width_m(lat: Floats, zoom: int) -> Floats:
    """Return the width on the ground, in metres, of tiles at these latitudes."""
    width: Floats = EQUATOR_M * np.cos(np.radians(lat)) / 2**zoom
    return width
