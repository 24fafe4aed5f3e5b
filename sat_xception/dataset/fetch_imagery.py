"""Fetch the images of planned tiles.

They are fetched once into a store next to the dataset, so that a run resumes after a kill. The store is removed when
the dataset is complete, unless the settings name a folder for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from sat_xception.dataset.folders import FetchedImage, TileCandidate
from sat_xception.dataset.plan import Plan
from sat_xception.dataset.settings import AssembleConfig
from sat_xception.errors import DataError
from sat_xception.geo.tiles import grid_to_lonlat
from sat_xception.imagery.check import CheckConfig
from sat_xception.imagery.fetch import FetchConfig, FetchStore, fetch_tiles
from sat_xception.imagery.open import file_state, open_imagery
from sat_xception.log import get_logger

__all__ = ["Imagery", "open_tiles"]

_log = get_logger(__name__)
_PAGE = 1000
Bounds = tuple[float, float, float, float]


class Imagery:
    """The images of a plan's tiles.

    Attributes:
        attribution: Attribution required by the imagery's licence; "" if unknown.
    """

    def __init__(self, store: FetchStore, attribution: str) -> None:
        """Read from a store."""
        self._store = store
        self.attribution = attribution

    def read(self, candidate: TileCandidate) -> FetchedImage:
        """Return the fetched image of a tile; thread-safe."""
        place = candidate.place
        tile = self._store.get(place.x, place.y, place.z) if place else None
        if tile is None:
            return FetchedImage(b"", "failed", "wasn't fetched")
        return FetchedImage(tile.data, tile.status, tile.reason)


@contextlib.contextmanager
def open_tiles(config: AssembleConfig, plan: Plan) -> Iterator[Imagery]:
    """Fetch the missing images of a plan's tiles, and yield all of them.

    Raises:
        ConfigError: There is no imagery at the address.
        DataError: None of the tiles could be fetched.
        ServiceError: The tile server is down. Fetched tiles are kept.
    """
    imagery = config.source_config()
    source = open_imagery(config.imagery, imagery)
    fetching = FetchConfig(
        workers=config.workers,
        rate_per_s=config.rate_per_s,
        check=CheckConfig.of(imagery, max_pixels=config.max_pixels),
    )
    # A store is of one imagery: tiles of another are never taken for its own.
    settings = (
        f"{config.imagery}|{config.imagery_tms}|{config.tile_size}|{config.max_pixels}|{config.imagery_bands}"
        f"|{config.imagery_scale}|{file_state(config.imagery)}"
        f"{''.join(f'|{name}={value}' for name, value in imagery.later().items())}"
    )
    name = hashlib.sha256(settings.encode()).hexdigest()[:16]
    folder = (config.tile_cache or config.out.resolve().parent / f".{config.out.name}-tiles") / name
    places = plan.wanted()
    with FetchStore(folder) as store:
        # Failed tiles are fetched again: the cause, such as a token or a missing file, may have been fixed.
        store.forget_failures()
        wanted = (
            (x, y, plan.zoom)
            for page in places.to_batches(_PAGE)
            for x, y in zip(page.column("x").to_pylist(), page.column("y").to_pylist(), strict=True)
        )
        counts = fetch_tiles(wanted, source, store, fetching, len(places))
        _log.info(
            "fetched   %s tiles | %s ok  %s blank  %s failed | %s were there",
            *(f"{number:,}" for number in (counts.planned, counts.ok, counts.blank, counts.failed, counts.resumed)),
        )
        if not counts.ok:
            raise DataError(_why_nothing(config, plan, source.bounds(), _most_common_reason(store)))
        yield Imagery(store, source.attribution)
    if config.tile_cache is None:
        shutil.rmtree(folder.parent, ignore_errors=True)


def _most_common_reason(store: FetchStore) -> str:
    reasons = [tile.reason for tile in islice(store, 1000)]
    return max(sorted(set(reasons)), key=reasons.count, default="there are no tiles to fetch")


def _why_nothing(config: AssembleConfig, plan: Plan, bounds: Bounds | None, reason: str) -> str:
    """Return why no tile has an image, with the extents of labels and imagery."""
    west, south, east, north = plan.bounds
    reach = f"The labels reach from {west:.4f}, {south:.4f} to {east:.4f}, {north:.4f}"
    told = f"0 of {len(plan.tiles):,} tiles could be had: {reason}. {reach}"
    folder = Path(config.imagery)
    if folder.is_dir():
        zooms = sorted(_numbers(folder))
        if not zooms:
            return f"{told}; {folder} has no tiles, which would be {{z}}/{{x}}/{{y}}.jpg; is it the right folder?"
        if config.zoom not in zooms:
            return f"{told}; {folder} has zoom {', '.join(map(str, zooms))}, not {config.zoom}; give --zoom {zooms[-1]}"
        bounds = _bounds_of(folder, config.zoom)
    if bounds is None:
        return f"{told}, at zoom {config.zoom}: is that a zoom the imagery has, and do they show the same area?"
    left, bottom, right, top = bounds
    swapped = south < right and north > left and west < top and east > bottom
    hint = "longitude and latitude look swapped in the labels" if swapped else "do they show the same area?"
    return f"{told}, the imagery from {left:.4f}, {bottom:.4f} to {right:.4f}, {top:.4f}: {hint}"


def _numbers(folder: Path) -> list[int]:
    return [int(path.stem) for path in folder.iterdir() if path.stem.isdecimal()]


def _bounds_of(folder: Path, zoom: int) -> Bounds | None:
    columns = {x: _numbers(folder / str(zoom) / str(x)) for x in _numbers(folder / str(zoom))}
    rows = [y for ys in columns.values() for y in ys]
    if not rows:
        return None
    lon, lat = grid_to_lonlat(np.array([min(columns), max(columns) + 1]), np.array([max(rows) + 1, min(rows)]), zoom)
    return float(lon[0]), float(lat[0]), float(lon[1]), float(lat[1])
