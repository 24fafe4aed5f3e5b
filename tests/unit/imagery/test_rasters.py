"""GeoTIFFs as other people write them: turned, damaged, in a grid of their own, with other bands than three."""

import asyncio
import io

import mercantile
import numpy as np
import pyproj
import pytest
import rasterio
from PIL import Image
from rasterio.crs import CRS
from rasterio.transform import Affine, from_bounds, from_origin

from sat_xception.dataset.assemble import assemble
from sat_xception.dataset.settings import AssembleConfig
from sat_xception.errors import ConfigError
from sat_xception.imagery.open import open_imagery
from sat_xception.imagery.settings import ImageryConfig
from sat_xception.imagery.source import TileFailure

LON, LAT, ZOOM = -74.528, 4.623, 18
TILE = mercantile.tile(LON, LAT, ZOOM)
# Any local system will do; total stations and drones write such.
LOCAL = 'LOCAL_CS["Site grid",LOCAL_DATUM["x",0],UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'
MARS = 'GEOGCS["Mars 2000",DATUM["D_Mars_2000",SPHEROID["Mars_2000_IAU_IAG",3396190,169.89]],PRIMEM["Reference_Meridian",0],UNIT["Degree",0.0174532925199433]]'  # noqa: E501


def ground(side: int, bands: int = 3, seed: int = 0) -> np.ndarray:
    """Return patches of 16 pixels, `uint8 [bands, side, side]`, none of which is 0."""
    small = np.random.default_rng(seed).integers(20, 255, (bands, side // 16, side // 16), dtype=np.uint8)
    return small.repeat(16, 1).repeat(16, 2)


def write(path, pixels, crs="EPSG:3857", transform=None, **options):
    bands, height, width = pixels.shape
    profile = {"driver": "GTiff", "width": width, "height": height, "count": bands, "dtype": pixels.dtype, **options}
    with rasterio.open(path, "w", crs=crs, transform=transform, **profile) as file:
        file.write(pixels)
    return path


def read(uri, *tiles, **settings):
    """Return the pixels of tiles, `int [256, 256, 3]`, or why they couldn't be had."""

    async def read_all():
        source = open_imagery(str(uri), ImageryConfig(**settings))
        results = []
        for x, y, z in tiles:
            try:
                results.append(np.asarray(Image.open(io.BytesIO(await source.read(x, y, z)))).astype(int))
            except TileFailure as failure:
                results.append(failure.reason)
        await source.close()
        return results

    return asyncio.run(read_all())


# Turned rasters


def looked_up(path) -> np.ndarray:
    """Return what is under the centre of each pixel of the tile, by the raster's own transform and pyproj."""
    with rasterio.open(path) as file:
        source, transform, crs = file.read(), file.transform, file.crs
    column, row = np.meshgrid(np.arange(256) + 0.5, np.arange(256) + 0.5)
    on_map = from_bounds(*mercantile.xy_bounds(TILE), 256, 256) @ (column, row)
    there = pyproj.Transformer.from_crs(3857, crs.to_epsg(), always_xy=True).transform(*on_map)
    across, down = ~transform @ there
    return source[:, down.astype(int), across.astype(int)].transpose(1, 2, 0).astype(int)


@pytest.mark.parametrize("epsg", [3857, 32618, 4326])
@pytest.mark.parametrize(
    "turn",
    [
        Affine.rotation(30) @ Affine.scale(1, -1),
        Affine.rotation(1) @ Affine.scale(1, -1),
        Affine.rotation(180) @ Affine.scale(1, -1),
        Affine.scale(1, 1),
        Affine.scale(-1, -1),
        Affine.shear(20, 0) @ Affine.scale(1, -1),
        Affine.scale(1, -1),
    ],
    ids=[
        "by 30 degrees",
        "by 1 degree",
        "upside down",
        "rows from the south",
        "from the east",
        "slanted",
        "not at all",
    ],
)
def test_a_tile_shows_what_is_there_however_the_raster_is_turned(tmp_path, epsg, turn):
    x, y = pyproj.Transformer.from_crs(4326, epsg, always_xy=True).transform(LON, LAT)
    pixel = 0.6 if epsg != 4326 else 0.6 / 111_320
    transform = Affine.translation(x, y) @ turn @ Affine.scale(pixel) @ Affine.translation(-512, -512)
    path = write(tmp_path / "a.tif", ground(1024), f"EPSG:{epsg}", transform)
    (found,) = read(path, TILE)
    # Other pixels would be off by some 75; between patches, a tile that is resampled isn't what is under the centres.
    assert np.abs(found - looked_up(path)).mean() < 6


# Coordinate systems from which there is no way


@pytest.mark.parametrize("system", [LOCAL, MARS], ids=["a site's grid", "Mars"])
def test_a_system_without_a_way_to_longitude_and_latitude_is_refused_when_it_is_opened(tmp_path, system):
    path = write(tmp_path / "site.tif", ground(64), CRS.from_wkt(system), from_origin(0, 64, 1, 1))
    with pytest.raises(ConfigError, match=r"site\.tif is in a coordinate system from which there is no way"):
        read(path)


def test_a_raster_that_is_nowhere_is_refused_when_it_is_opened(tmp_path):
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        path = write(tmp_path / "a.tif", ground(64), "EPSG:3857")
    with pytest.raises(ConfigError, match="doesn't say where its pixels are on the map"):
        read(path)


# Bands


def at_tile():
    bounds = mercantile.xy_bounds(TILE)
    return from_bounds(*bounds, 256, 256)


def test_bands_of_other_types_are_scaled_and_never_narrowed(tmp_path):
    pixels = np.stack([np.full((256, 256), value) for value in (300, 1500, 3000)])
    pixels[:, :8, :8] = 77
    for dtype in ("uint16", "int16", "uint32", "int32", "float32", "float64"):
        path = write(tmp_path / f"{dtype}.tif", pixels.astype(dtype), transform=at_tile())
        with pytest.raises(ConfigError, match=rf"has 3 bands of {dtype}: say which values become black and white"):
            read(path)
        (found,) = read(path, TILE, scale=(0.0, 3000.0))
        assert found[100, 100].tolist() == [26, 128, 255]


def test_many_bands_are_refused_until_three_are_named(tmp_path):
    pixels = np.stack([np.full((256, 256), 100 * band) for band in range(13)]).astype("uint16")
    path = write(tmp_path / "sentinel.tif", pixels, transform=at_tile())
    with pytest.raises(ConfigError, match=r"has 13 bands of uint16: say which are red.* and which values become black"):
        read(path)
    (found,) = read(path, TILE, bands=(4, 3, 2), scale=(0.0, 1000.0))
    assert found[0, 0].tolist() == [76, 51, 26]
    complex_pixels = ground(256, 1).astype("complex64")
    with pytest.raises(ConfigError, match="has 1 band of complex64: complex numbers are no picture"):
        read(write(tmp_path / "radar.tif", complex_pixels, transform=at_tile()), scale=(0.0, 1.0))


def test_near_infrared_that_the_file_calls_transparency_is_a_colour_when_it_is_named(tmp_path):
    pixels = ground(256, 4)
    pixels[3, :, :128] = 0  # water is dark in the near infrared
    path = write(tmp_path / "a.tif", pixels, transform=at_tile(), photometric="RGB", alpha="YES")
    (found,) = read(path, TILE, bands=(4, 2, 1))
    assert np.array_equal(found, pixels[[3, 1, 0]].transpose(1, 2, 0))
    assert read(path, TILE) == ["only 50.0% of the tile is in the imagery"]


# Damage

X, Y = 76_800, 127_700


@pytest.fixture
def scene(tmp_path):
    """A tiled GeoTIFF of 4 x 4 tiles of the map, and their labels."""
    bounds = mercantile.xy_bounds(X, Y, ZOOM)
    pixel = (bounds.right - bounds.left) / 256
    options = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
    write(tmp_path / "a.tif", ground(1024), transform=from_origin(bounds.left, bounds.top, pixel, pixel), **options)
    tiles = [(X + x, Y + y, ZOOM) for x in range(4) for y in range(4)]
    rows = ["x,y,z,label", *(f"{x},{y},{z},{'school' if (x + y) % 2 else 'field'}" for x, y, z in tiles)]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    return tmp_path / "a.tif", tiles


def test_one_damaged_block_is_one_failed_row(scene, tmp_path):
    path, _ = scene
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path.write_bytes(data)
    settings = {"block_zoom": ZOOM, "fractions": (0.5, 0.5, 0), "max_failed": 0.1, "out": tmp_path / "out"}
    result = assemble(AssembleConfig(labels=tmp_path / "labels.csv", imagery=str(path), zoom=ZOOM, **settings))
    assert result.counts.by_status == {"failed": 1, "ok": 15}


def test_of_a_file_cut_short_the_tiles_that_are_there_are_read(scene):
    path, tiles = scene
    whole = read(path, *tiles)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = read(path, *tiles)
    kept = [not isinstance(pixels, str) for pixels in found]
    assert 4 <= sum(kept) < 16
    assert all(np.array_equal(one, other) for one, other, there in zip(whole, found, kept, strict=True) if there)
    assert {reason for reason, there in zip(found, kept, strict=True) if not there} == {
        "can't be read: RasterioIOError"
    }


def test_a_vrt_whose_source_is_gone_is_refused_when_it_is_opened(scene, tmp_path):
    path, _ = scene
    with rasterio.open(path) as file:
        transform = ",".join(map(str, file.transform.to_gdal()))
    source = "<SourceFilename relativeToVRT='1'>gone.tif</SourceFilename><SourceBand>1</SourceBand>"
    band = f"<VRTRasterBand dataType='Byte' band='1'><SimpleSource>{source}</SimpleSource></VRTRasterBand>"
    (tmp_path / "gone.vrt").write_text(
        "<VRTDataset rasterXSize='1024' rasterYSize='1024'><SRS>EPSG:3857</SRS>"
        f"<GeoTransform>{transform}</GeoTransform>{band}</VRTDataset>"
    )
    with pytest.raises(ConfigError, match=r"gone\.vrt can't be opened: \S*gone\.tif: No such file"):
        read(tmp_path / "gone.vrt")
