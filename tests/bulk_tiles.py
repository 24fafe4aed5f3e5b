"""Imagery of drawn tiles, and a packaged model that is small enough to be converted in a moment."""

import functools
import sqlite3
from pathlib import Path

import numpy as np

from sat_xception.geo.morton import tiles_of
from sat_xception.storage import folder_digests, write_json
from tests.serving_fixtures import (
    CLASSES,
    NAME,
    VERSION,
    describe_version,
    encoded,
    expected,
    pixels_of,
    write_golden_tiles,
    write_version,
)

ZOOM = 16
_GOLDEN = 4


def package_version(root: Path, version: int = VERSION, seed: int = 0) -> Path:
    """Write `root/tiny/<version>` with golden tiles and digests, as package does."""
    folder = write_version(root / NAME / str(version), seed)
    _complete(folder, expected(pixels_of(_GOLDEN, seed=9), seed))
    return root


def export_version(root: Path, version: int = VERSION) -> Path:
    """Write `root/tiny/<version>` as package's own export makes it, of a network with random weights."""
    from sat_xception.package.export import export_model
    from tests.small_models import small_network

    folder = root / NAME / str(version)
    folder.parent.mkdir(parents=True)
    model = small_network(len(CLASSES), seed=0)
    export_model(model, CLASSES, folder)
    _complete(folder, np.asarray(model(pixels_of(_GOLDEN, seed=9))))
    return root


def _complete(folder: Path, probabilities: np.ndarray) -> None:
    describe_version(folder, version=int(folder.name))
    write_golden_tiles(folder, [encoded(tile) for tile in pixels_of(_GOLDEN, seed=9)], probabilities, tolerance=1e-3)
    write_json(folder / "digests.json", folder_digests(folder))


@functools.cache
def images(count: int) -> tuple[bytes, ...]:
    return tuple(encoded(tile, "PNG") for tile in pixels_of(count, seed=3))


def write_imagery(path: Path, count: int, bad: dict[int, bytes] | None = None) -> list[str]:
    """Write an MBTiles file of the first tiles in the order of plans; return their ids."""
    x, y = (axis.tolist() for axis in tiles_of(np.arange(count)))
    some = images(min(count, 50))
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE metadata (name, value)")
    database.execute(
        "CREATE TABLE tiles (zoom_level INT, tile_column INT, tile_row INT, tile_data BLOB, "
        "PRIMARY KEY (zoom_level, tile_column, tile_row))"
    )
    rows = (
        (ZOOM, x[index], 2**ZOOM - 1 - y[index], (bad or {}).get(index, some[index % len(some)]))
        for index in range(count)
        if (bad or {}).get(index, b"-") is not None
    )
    database.executemany("INSERT INTO tiles VALUES (?, ?, ?, ?)", rows)
    database.commit()
    database.close()
    return [f"{ZOOM}/{x[index]}/{y[index]}" for index in range(count)]
