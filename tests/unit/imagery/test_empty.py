"""One rule for what share of a tile may be empty, whatever says so: transparency, masks, values that mean nothing."""

import functools
import io

import mercantile
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.transform import from_bounds

from sat_xception.dataset.assemble import assemble
from sat_xception.dataset.images import probe_image
from sat_xception.dataset.inspect import read_file
from sat_xception.dataset.settings import AssembleConfig
from sat_xception.errors import DataError
from sat_xception.imagery.check import CheckConfig, decode_tile
from sat_xception.imagery.open import open_imagery
from sat_xception.imagery.settings import ImageryConfig
from sat_xception.imagery.source import TileFailure
from tests.archives import write_mbtiles
from tests.tile_reading import read_tiles

X, Y, Z, SIDE = 76_800, 127_700, 18, 256
NOTHING, PARTLY = "no tile in the imagery", "only {:.1%} of the tile is in the imagery"
# Columns of pixels that are empty, of 256: none, few enough, the edge of an orthophoto, all.
COLUMNS = {0: "", 2: "", 3: PARTLY.format(253 / 256), 160: PARTLY.format(96 / 256), 256: NOTHING}


def ground() -> np.ndarray:
    """Return colours, `uint8 [256, 256, 3]`, none of which is 0 or 255."""
    small = np.random.default_rng(0).integers(20, 235, (32, 32, 3), dtype=np.uint8)
    return small.repeat(8, 0).repeat(8, 1)


def opaque(columns: int) -> np.ndarray:
    alpha = np.full((SIDE, SIDE), 255, np.uint8)
    alpha[:, :columns] = 0
    return alpha


def encoded(image: Image.Image, fmt: str, **options) -> bytes:
    content = io.BytesIO()
    image.save(content, fmt, **options)
    return content.getvalue()


def with_alpha(columns: int) -> Image.Image:
    return Image.fromarray(np.dstack([ground(), opaque(columns)]))


def palette(columns: int) -> Image.Image:
    """Return an image of numbered colours whose number 0 is for what is empty."""
    numbers = 1 + ground()[..., 0] // 8
    numbers[:, :columns] = 0
    image = Image.fromarray(numbers)
    image.putpalette([level for number in range(256) for level in (number, 255 - number, 7)])
    return image


def geotiff(columns: int, kind: str, place) -> bytes:
    """Write a GeoTIFF of one tile of the map and return its bytes."""
    pixels = np.moveaxis(ground(), -1, 0).astype("float32" if kind.startswith("float") else "uint8")
    hole = opaque(columns) == 0
    bands, options = 3, {}
    if kind in ("nodata", "float nodata", "float nan"):
        value = {"nodata": 0, "float nodata": -9999.0, "float nan": np.nan}[kind]
        pixels[:, hole] = value
        options["nodata"] = value
    if kind == "float not a number":
        pixels[:, hole] = np.nan
    if kind == "alpha":
        bands = 4
    bounds = mercantile.xy_bounds(X, Y, Z)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=kind != "mask beside"),
        rasterio.open(
            place, "w", driver="GTiff", width=SIDE, height=SIDE, count=bands, dtype=pixels.dtype, crs="EPSG:3857",
            transform=from_bounds(*bounds, SIDE, SIDE), photometric="RGB", **options,
        ) as file,
    ):  # fmt: skip
        if kind == "alpha":
            # Said before a pixel is written, or it may go into a file beside the raster.
            file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
            file.write(opaque(columns), 4)
        file.write(pixels, [1, 2, 3])
        if kind.startswith("mask"):
            file.write_mask(opaque(columns))
    return place.read_bytes()


IMAGES = {
    "PNG with alpha": lambda columns: encoded(with_alpha(columns), "PNG"),
    "grey PNG with alpha": lambda columns: encoded(with_alpha(columns).convert("LA"), "PNG"),
    "PNG with a clear colour of its palette": lambda columns: encoded(palette(columns), "PNG", transparency=0),
    "PNG with a clear colour": lambda columns: encoded(
        Image.fromarray(np.where(opaque(columns)[..., None] == 0, np.uint8(0), ground())), "PNG", transparency=(0, 0, 0)
    ),
    "WebP": lambda columns: encoded(with_alpha(columns), "WEBP", lossless=True),
    "GIF": lambda columns: encoded(palette(columns), "GIF", transparency=0),
    "TIFF with alpha": lambda columns: encoded(with_alpha(columns), "TIFF"),
}


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("columns", COLUMNS)
def test_images_with_transparency(kind, columns):
    check(IMAGES[kind](columns), COLUMNS[columns])


def check(data: bytes, expected: str, **settings) -> None:
    """Hold an image against the rule as a tile that is fetched or scored, and as a file of class folders."""
    if not expected:
        assert decode_tile(data, CheckConfig(**settings)).blank == ""
        assert probe_image(data, **settings).width == SIDE
        return
    with pytest.raises(TileFailure) as failure:
        decode_tile(data, CheckConfig(**settings))
    with pytest.raises(DataError) as error:
        probe_image(data, **settings)
    assert str(failure.value) == str(error.value) == expected


KINDS = ("nodata", "float nodata", "float nan", "float not a number", "alpha", "mask inside")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("columns", COLUMNS)
def test_rasters_as_tiles_of_their_own(tmp_path, kind, columns):
    data = geotiff(columns, kind, tmp_path / "a.tif")
    check(data, COLUMNS[columns], **({"scale": (0.0, 255.0)} if kind.startswith("float") else {}))


def read(uri, *tiles, **settings):
    return read_tiles(open_imagery(str(uri), ImageryConfig(**settings)), [(z, x, y) for x, y, z in tiles])


@pytest.mark.parametrize("kind", [*KINDS, "mask beside"])
@pytest.mark.parametrize("columns", COLUMNS)
def test_rasters_as_imagery(tmp_path, kind, columns):
    geotiff(columns, kind, tmp_path / "a.tif")
    assert (tmp_path / "a.tif.msk").exists() is (kind == "mask beside")
    (found,) = read(tmp_path / "a.tif", (X, Y, Z), scale=(0.0, 255.0) if kind.startswith("float") else ())
    if COLUMNS[columns]:
        assert found == COLUMNS[columns]
        return
    pixels = np.asarray(Image.open(io.BytesIO(found)))
    assert np.array_equal(pixels[:, columns:], ground()[:, columns:])


@pytest.mark.parametrize("columns", COLUMNS)
def test_a_file_of_class_folders_with_its_mask_beside_it(tmp_path, columns):
    from sat_xception.dataset.folders import find_candidates

    for label in ("a", "b"):
        (tmp_path / "data" / label).mkdir(parents=True)
        geotiff(columns, "mask beside", tmp_path / "data" / label / "chip.tif")
    found = {candidate.id: read_file(candidate) for candidate in find_candidates(tmp_path / "data")}
    assert found["a/chip.tif.msk"].reason == "belongs to chip.tif beside it, and is no tile of its own"
    assert found["a/chip.tif"].reason == COLUMNS[columns]


@functools.cache
def tiles_at_an_edge():
    """Return 144 tiles by z, x and y: of each four columns one is cut off, one is empty, and two are whole."""
    tiles = {}
    for x in range(X, X + 12):
        for y in range(Y, Y + 12):
            image = np.asarray(with_alpha({0: 160, 1: 256}.get(x % 4, 0))).copy()
            image[:9, :9, :3] = np.random.default_rng([x, y]).integers(0, 255, (9, 9, 3))
            image[40:, 40:, :3] = np.random.default_rng([y, x]).integers(0, 255, (27, 27, 3)).repeat(8, 0).repeat(8, 1)
            tiles[Z, x, y] = encoded(Image.fromarray(image), "PNG")
    return tiles


@pytest.mark.parametrize("source", ["folder", "mbtiles"])
def test_the_edge_of_an_orthophoto_is_the_same_in_every_kind_of_imagery(tmp_path, source):
    tiles = tiles_at_an_edge()
    labels = ["x,y,z,label", *(f"{x},{y},{Z},{'school' if (x + y) % 2 else 'field'}" for _, x, y in tiles)]
    (tmp_path / "labels.csv").write_text("\n".join(labels))
    imagery = tmp_path / "tiles"
    if source == "mbtiles":
        imagery = write_mbtiles(tmp_path / "tiles.mbtiles", tiles)
    else:
        for (z, x, y), data in tiles.items():
            path = imagery / str(z) / str(x) / f"{y}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    settings = {"imagery": str(imagery), "zoom": Z, "block_zoom": 17, "max_failed": 0.5, "out": tmp_path / "out"}
    result = assemble(AssembleConfig(labels=tmp_path / "labels.csv", **settings))
    assert result.counts.by_status == {"failed": 72, "ok": 72}
    rows = pq.read_table(tmp_path / "out" / "manifest.parquet").to_pylist()
    assert {(row["x"] % 4, row["reason"]) for row in rows} == {(0, COLUMNS[160]), (1, NOTHING), (2, ""), (3, "")}
