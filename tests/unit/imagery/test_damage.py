"""Damaged archives and rasters: tiles that can't be read, or an error of ours; never another error, never an end."""

import asyncio
import contextlib
import random
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import mercantile
import numpy as np
import pytest
import rasterio
from pmtiles.tile import Compression, TileType, zxy_to_tileid
from pmtiles.writer import Writer
from rasterio.transform import from_origin

from sat_xception.errors import ConfigError, DataError, ServiceError
from sat_xception.imagery.check import CheckConfig, decode_tile
from sat_xception.imagery.fetch import FetchedTile, FetchStore
from sat_xception.imagery.open import open_imagery
from sat_xception.imagery.settings import ImageryConfig
from sat_xception.imagery.source import TileFailure
from tests.archives import write_mbtiles
from tests.conftest import draw_tile, encode

X, Y, Z = 76_800, 127_700, 18
PLACES = [(Z, X + column, Y + row) for column in range(2) for row in range(2)]
TILES = {place: encode(draw_tile("school", index)) for index, place in enumerate(PLACES)}


def damaged(good: bytes, chance: random.Random) -> bytes:
    """Cut, zero or change bytes, half of the time near the beginning, where a file says what it is."""
    data = bytearray(good)
    at = chance.randrange(1, len(data) if chance.random() < 0.5 else min(len(data), 2000))
    match chance.choice(("change", "zero", "cut")):
        case "change":
            for _ in range(chance.randint(1, 6)):
                data[chance.randrange(at, len(data))] = chance.randrange(256)
        case "zero":
            length = min(chance.randint(1, 600), len(data) - at)
            data[at : at + length] = bytes(length)
        case "cut":
            del data[at:]
    return bytes(data)


def read_all(path, tile_size=0, places=PLACES) -> tuple[int, int]:
    """Return how many tiles of an archive are images, and how many are failures; opening it may end in our errors."""

    async def read(source):
        good = 0
        try:
            source.bounds()
            for z, x, y in places:
                with contextlib.suppress(TileFailure):
                    decode_tile(await source.read(x, y, z), CheckConfig())
                    good += 1
        finally:
            await source.close()
        return good, len(places) - good

    return asyncio.run(read(open_imagery(str(path), ImageryConfig(connections=1, tile_size=tile_size))))


def write_pmtiles(path, tiles):
    with path.open("wb") as file:
        writer = Writer(file)
        for (z, x, y), data in sorted(tiles.items(), key=lambda item: zxy_to_tileid(*item[0])):
            writer.write_tile(zxy_to_tileid(z, x, y), data)
        writer.finalize({"tile_type": TileType.JPEG, "tile_compression": Compression.NONE}, {"attribution": "x"})
    return path


def write_geotiff(path, _):
    bounds = mercantile.xy_bounds(X, Y, Z)
    pixel = (bounds.right - bounds.left) / 64
    pixels = np.random.default_rng(0).integers(20, 255, (3, 8, 4), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
    profile = {"driver": "GTiff", "width": 64, "height": 128, "count": 3, "dtype": "uint8", "crs": "EPSG:3857"}
    blocks = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    transform = from_origin(bounds.left, bounds.top, pixel, pixel)
    with rasterio.open(path, "w", transform=transform, **profile, **blocks) as file:
        file.write(pixels)
    return path


ARCHIVES = {"mbtiles": write_mbtiles, "pmtiles": write_pmtiles, "tif": write_geotiff}


# A GeoTIFF's tiles of 64 pixels are its blocks; others are resampled, which takes longer.
@pytest.mark.parametrize(
    ("kind", "tile_size", "count"),
    [
        ("mbtiles", 0, 40),
        ("pmtiles", 0, 40),
        ("tif", 64, 30),
        ("tif", 32, 10),
        *(
            pytest.param(*many, marks=pytest.mark.slow)
            for many in (("mbtiles", 0, 160), ("pmtiles", 0, 160), ("tif", 64, 160), ("tif", 32, 20))
        ),
    ],
)
def test_damage_costs_tiles_or_is_an_error_of_ours(tmp_path, monkeypatch, kind, tile_size, count):
    # Each thread opens a GeoTIFF for itself, which takes longer than to read it.
    monkeypatch.setattr("sat_xception.imagery.geotiff.ThreadPoolExecutor", lambda most: ThreadPoolExecutor(1))
    path = ARCHIVES[kind](tmp_path / f"whole.{kind}", TILES)
    places = PLACES[:2] if kind == "tif" else PLACES
    assert read_all(path, tile_size, places) == (len(places), 0)
    content, chance = path.read_bytes(), random.Random(kind)
    outcomes = {"whole": 0, "partly": 0, "refused": 0}
    for number in range(count):
        other = tmp_path / f"{number}.{kind}"
        other.write_bytes(damaged(content, chance))
        try:
            good, failed = read_all(other, tile_size, places)
        except (ConfigError, DataError) as error:
            assert str(error)
            outcomes["refused"] += 1
        else:
            assert good + failed == len(places)
            outcomes["partly" if failed else "whole"] += 1
        other.unlink()
    assert outcomes["refused"] > 0 and outcomes["partly"] > 0


@pytest.mark.parametrize("value", ["text", 7, 1.5, None, b""])
def test_what_is_no_image_in_a_column_of_mbtiles_costs_a_tile(tmp_path, value):
    path = write_mbtiles(tmp_path / "a.mbtiles", TILES | {PLACES[0]: value})
    assert read_all(path) == (3, 1)


@pytest.mark.parametrize("value", [7, b"x", None, 1.5])
def test_what_is_no_text_in_the_metadata_of_mbtiles_is_passed_over(tmp_path, value):
    path = write_mbtiles(tmp_path / "a.mbtiles", TILES)
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE metadata SET value = ?", (value,))
    assert read_all(path) == (4, 0)


def test_a_damaged_store_of_fetched_tiles_says_which_folder_to_remove(tmp_path):
    with FetchStore(tmp_path / "store") as store:
        for z, x, y in TILES:
            store.put(FetchedTile(x, y, z, "ok", data=bytes(5_000), format="jpeg"))
    path = tmp_path / "store" / "fetched.sqlite"
    path.write_bytes(b"no database, whatever its name says " + path.read_bytes()[36:])
    with pytest.raises(ServiceError, match=r"the tiles in .*store can't be read or written: .*; remove that folder"):
        FetchStore(tmp_path / "store")


def test_a_store_where_no_folder_can_be_made_says_so(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ServiceError, match=r"can't make the folder .* name another with --tile-cache"):
        FetchStore(tmp_path / "file" / "store")
