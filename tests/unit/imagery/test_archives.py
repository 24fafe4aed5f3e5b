"""Imagery in one large file, or in a bucket: PMTiles, GeoTIFF, `gs://`."""

import gzip
import http.server
import io
import threading
import time

import numpy as np
import pyproj
import pytest
import rasterio
from PIL import Image
from pmtiles.tile import Compression, TileType, zxy_to_tileid
from pmtiles.writer import Writer

from sat_xception.errors import ConfigError, DataError
from sat_xception.geo.tiles import grid_to_lonlat, lonlat_to_tiles
from sat_xception.imagery.open import open_imagery
from sat_xception.imagery.settings import ImageryConfig
from tests.conftest import draw_tile, encode
from tests.storage_proxy import bucket_of, running_emulator
from tests.tile_reading import read_tiles

TILES = {(14, 9_300 + index % 40, 5_900 + index // 40): encode(draw_tile("school", index)) for index in range(400)}


def read(uri, *tiles, **settings):
    """Return the bytes of tiles, or why they couldn't be had, and the source."""
    source = open_imagery(str(uri), ImageryConfig(**settings))
    return read_tiles(source, tiles), source


# PMTiles


def write_archive(path, tiles=TILES, kind=TileType.JPEG, metadata=None):
    with path.open("wb") as file:
        writer = Writer(file)
        for (z, x, y), data in sorted(tiles.items(), key=lambda item: zxy_to_tileid(*item[0])):
            writer.write_tile(zxy_to_tileid(z, x, y), data)
        header = {"tile_type": kind, "tile_compression": Compression.NONE, "min_zoom": 14, "max_zoom": 14}
        places = {"min_lon_e7": 243_000_000, "min_lat_e7": 445_000_000, "max_lon_e7": 252_000_000}
        writer.finalize({**header, **places, "max_lat_e7": 450_000_000}, metadata or {"attribution": "© somebody"})
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("archive") / "tiles.pmtiles")


def test_every_tile_of_an_archive_is_read_as_it_was_written(archive):
    found, source = read(archive, *TILES, (14, 1, 1), (13, 4_650, 2_950))
    assert found[: len(TILES)] == list(TILES.values())
    assert found[len(TILES) :] == ["no tile in the imagery"] * 2
    assert source.attribution == "© somebody"
    assert source.bounds() == (24.3, 44.5, 25.2, 45.0)


class _Ranges(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        part = self.server.content[int(first) : int(last) + 1]
        self.send_response(206 if self.server.in_parts else 200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_):
        pass


@pytest.fixture
def web(archive):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Ranges)
    server.content, server.in_parts = archive.read_bytes(), True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_archive_on_a_server_is_read_in_parts(web):
    uri = f"http://127.0.0.1:{web.server_port}/tiles.pmtiles?key=hunter2"
    assert read(uri, *list(TILES)[:5])[0] == list(TILES.values())[:5]
    web.in_parts = False
    with pytest.raises(ConfigError, match="whole files only") as caught:
        read(uri)
    assert "hunter2" not in str(caught.value)


def test_what_is_no_archive_of_images_is_refused(tmp_path, archive):
    with pytest.raises(ConfigError, match="holds vector tiles"):
        read(write_archive(tmp_path / "vector.pmtiles", kind=TileType.MVT))
    (tmp_path / "text.pmtiles").write_text("no archive, whatever its name says " * 10)
    with pytest.raises(ConfigError, match="is no PMTiles archive"):
        read(tmp_path / "text.pmtiles")
    (tmp_path / "cut.pmtiles").write_bytes(archive.read_bytes()[:140])
    with pytest.raises(DataError, match="the archive is damaged"):
        read(tmp_path / "cut.pmtiles")


def test_no_damage_does_more_than_lose_tiles(tmp_path, archive):
    content = archive.read_bytes()
    rng = np.random.default_rng(0)
    for round_ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(8, 2_000, 6).tolist():
            damaged[place] = int(rng.integers(0, 256))
        path = tmp_path / f"{round_}.pmtiles"
        path.write_bytes(damaged)
        try:
            found, _ = read(path, *list(TILES)[:20])
        except (ConfigError, DataError):
            continue
        assert len(found) == 20


def test_a_number_without_an_end_costs_no_time(tmp_path, archive):
    content = bytearray(archive.read_bytes())
    # The root directory, at the place and of the length that the header says, unpacks to four megabytes of 0xff.
    packed = gzip.compress(b"\xff" * 3_900_000)
    start = int.from_bytes(content[8:16], "little")
    content[16:24] = len(packed).to_bytes(8, "little")
    content[start : start + len(packed)] = packed
    (tmp_path / "endless.pmtiles").write_bytes(content)
    started = time.monotonic()
    with pytest.raises(DataError, match="the archive is damaged"):
        read(tmp_path / "endless.pmtiles")
    assert time.monotonic() - started < 10


# GeoTIFF

WEST, NORTH, PIXEL_M, SIDE = 420_000.0, 4_925_000.0, 10.0, 1200


def write_raster(path, dtype="uint8", crs="EPSG:32635", bands=3, **options):
    """Red grows to the east, green to the north, in UTM; blue is 77."""
    east, north = np.meshgrid(np.arange(SIDE), np.arange(SIDE)[::-1])
    pixels = np.stack([east * 255 / SIDE, north * 255 / SIDE, np.full((SIDE, SIDE), 77.0), np.full((SIDE, SIDE), 9.0)])
    pixels = (pixels[:bands] * options.pop("factor", 1)).astype(dtype)
    profile = {"driver": "GTiff", "width": SIDE, "height": SIDE, "count": bands, "dtype": dtype, "crs": crs}
    with rasterio.open(
        path, "w", transform=rasterio.Affine(PIXEL_M, 0, WEST, 0, -PIXEL_M, NORTH), **profile, **options
    ) as file:
        file.write(pixels)
    return path


def inside():
    lon, lat = pyproj.Transformer.from_crs("EPSG:32635", "EPSG:4326", always_xy=True).transform(
        WEST + SIDE * PIXEL_M / 2, NORTH - SIDE * PIXEL_M / 2
    )
    x, y = lonlat_to_tiles(np.array([lon]), np.array([lat]), 14)
    return 14, int(x[0]), int(y[0])


def expected(z, x, y, size):
    """Return what the centres of a tile's pixels must show, by the formulas of the projections."""
    steps = (np.arange(size) + 0.5) / size
    lon, lat = grid_to_lonlat(x + steps, y + steps, z)
    lon, lat = np.meshgrid(lon, lat)
    east, north = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32635", always_xy=True).transform(lon, lat)
    red = ((east - WEST) / PIXEL_M - 0.5) * 255 / SIDE
    green = (SIDE - 1 - ((NORTH - north) / PIXEL_M - 0.5)) * 255 / SIDE
    return np.stack([red, green, np.full_like(red, 77)], axis=-1)


@pytest.mark.parametrize("size", [0, 128])
def test_a_tile_of_a_geotiff_shows_what_is_there_in_another_projection(tmp_path, size):
    path = write_raster(tmp_path / "a.tif", tiled=True, blockxsize=256, blockysize=256, compress="deflate")
    tile = inside()
    (data,), source = read(path, tile, tile_size=size)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("PNG", (size or 256, size or 256))
        pixels = np.asarray(image).astype(float)
    assert np.abs(pixels - expected(*tile, size or 256)).max() <= 2
    west, south, east, north = source.bounds()
    assert 25.9 < west < 26.1 < east < 26.3
    assert 44.3 < south < 44.4 < north < 44.6


def test_tiles_outside_and_at_the_edge_are_not_filled_with_black(tmp_path):
    z, x, y = inside()
    found, _ = read(write_raster(tmp_path / "a.tif"), (z, x + 40, y), (z, x + 3, y), (z, x + 4, y))
    assert found[0] == "no tile in the imagery"
    assert any(isinstance(reason, str) and "of the tile is in the imagery" in reason for reason in found[1:])


def test_wide_pixels_are_scaled_when_it_is_said_how(tmp_path):
    path = write_raster(tmp_path / "wide.tif", dtype="uint16", factor=10)
    with pytest.raises(ConfigError, match=r"has 3 bands of uint16: .*--imagery-scale 0 --imagery-scale 3000"):
        read(path)
    tile = inside()
    (data,), _ = read(path, tile, scale=(0.0, 2550.0))
    assert np.abs(np.asarray(Image.open(io.BytesIO(data))).astype(float) - expected(*tile, 256)).max() <= 2


def test_bands_are_those_that_are_named(tmp_path):
    path = write_raster(tmp_path / "four.tif", bands=4, photometric="MINISBLACK")
    tile = inside()
    (data,), _ = read(path, tile, bands=(3, 2, 1))
    assert np.asarray(Image.open(io.BytesIO(data)))[0, 0, 0] == 77
    with pytest.raises(ConfigError, match="has bands 1 to 4"):
        read(path, bands=(5,))


def test_a_file_without_a_coordinate_system_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no coordinate system; give it one: gdal_edit\.py"):
        read(write_raster(tmp_path / "a.tif", crs=None))
    (tmp_path / "text.tif").write_text("no image")
    with pytest.raises(ConfigError, match="can't be opened"):
        read(tmp_path / "text.tif")


# A bucket


@pytest.fixture(scope="module")
def emulator():
    with running_emulator("imagery") as address:
        yield address


@pytest.fixture
def bucket(emulator, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)
    return bucket_of("imagery")


def test_tiles_of_a_bucket(bucket):
    some = list(TILES.items())[:8]
    for (z, x, y), data in some:
        bucket.blob(f"tiles/{z}/{x}/{y}.jpg").upload_from_string(data)
    found, source = read("gs://imagery/tiles", *(tile for tile, _ in some), (14, 1, 1))
    assert found == [*(data for _, data in some), "no tile in the imagery"]
    assert source.host(1, 1, 14) == "imagery"
    with pytest.raises(ConfigError, match="there are no objects"):
        read("gs://imagery/elsewhere")


def test_an_archive_in_a_bucket(bucket, archive):
    bucket.blob("a/tiles.pmtiles").upload_from_filename(str(archive))
    found, _ = read("gs://imagery/a/tiles.pmtiles", *list(TILES)[:5], (14, 1, 1))
    assert found == [*list(TILES.values())[:5], "no tile in the imagery"]
