"""A file of imagery that is replaced under its name is other imagery, also to what was fetched of it before."""

import os
import sqlite3

import numpy as np

from sat_xception.dataset.assemble import assemble
from sat_xception.dataset.settings import AssembleConfig
from sat_xception.geo.tiles import grid_to_lonlat
from sat_xception.imagery.open import file_state
from tests.conftest import draw_tile, encode

ZOOM, X, Y, SIDE = 16, 37_200, 23_600, 12


def write_mbtiles(path, seed):
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE metadata (name, value)")
        database.execute("CREATE TABLE tiles (zoom_level INT, tile_column INT, tile_row INT, tile_data BLOB)")
        for x in range(X, X + SIDE):
            for y in range(Y, Y + SIDE):
                label = "school" if x % 2 else "not-school"
                data = encode(draw_tile(label, seed + x * SIDE + y, size=24), quality=90)
                database.execute("INSERT INTO tiles VALUES (?, ?, ?, ?)", (ZOOM, x, 2**ZOOM - 1 - y, data))
    database.close()


def test_a_file_is_known_by_its_size_and_time_and_other_imagery_by_its_address(tmp_path):
    path = tmp_path / "scene.tif"
    path.write_bytes(b"one")
    states = [file_state(str(path))]
    path.write_bytes(b"other")
    states.append(file_state(str(path)))
    os.utime(path, ns=(0, 1_700_000_000_000_000_001))
    states.append(file_state(str(path)))
    (tmp_path / "scene.tif.msk").write_bytes(b"mask")
    states.append(file_state(str(path)))
    assert len(set(states)) == 4 and states[2] == "5 bytes of 2023-11-14T22:13:20.000000001Z"
    for uri in (tmp_path, tmp_path / "absent.tif", "https://host/{z}/{x}/{y}", "gs://bucket/scene.tif", ""):
        assert file_state(str(uri)) == ""


def test_tiles_that_were_kept_of_a_replaced_file_are_not_taken(tmp_path):
    imagery = tmp_path / "tiles.mbtiles"
    lon, lat = grid_to_lonlat(np.arange(X, X + SIDE) + 0.5, np.full(SIDE, Y + 0.5), ZOOM)
    rows = [
        f"{lon[column]},{lat[column] - row * 0.0039},{'school' if (X + column) % 2 else 'not-school'}"
        for column in range(SIDE)
        for row in range(SIDE)
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["lon,lat,label", *rows]))

    def digest():
        given = {"zoom": ZOOM, "block_zoom": 15, "fractions": (0.5, 0.25, 0.25), "tile_cache": tmp_path / "cache"}
        given |= {"near_duplicate_bits": 0, "negatives_ratio": 0}
        config = AssembleConfig(labels=tmp_path / "labels.csv", imagery=str(imagery), out=tmp_path / "out", **given)
        return assemble(config).digest

    write_mbtiles(imagery, seed=0)
    first = digest()
    assert digest() == first
    write_mbtiles(imagery, seed=5000)
    assert digest() != first
