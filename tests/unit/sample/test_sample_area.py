"""The sample's area: files that the other commands take as they take anybody's."""

import asyncio
import io
import json

import numpy as np
from PIL import Image

from sat_xception.bulk.plan import plan_tiles
from sat_xception.bulk.settings import BulkPlanConfig
from sat_xception.geo.tiles import lonlat_to_tiles
from sat_xception.imagery.open import open_imagery
from sat_xception.imagery.settings import ImageryConfig
from sat_xception.sample.area import write_sample_area
from sat_xception.sample.settings import SampleAreaConfig

SIDE = 10


def test_its_tiles_are_those_of_its_outline_and_its_schools_are_on_them(tmp_path):
    result = write_sample_area(SampleAreaConfig(out=tmp_path / "area", side=SIDE))
    assert (result.tiles, result.folder) == (SIDE * SIDE, tmp_path / "area")
    assert 0 < result.known < result.schools < result.tiles / 4
    imagery = str(tmp_path / "area" / "imagery.mbtiles")
    settings = {"imagery": imagery, "zoom": 18, "probe": 0}
    planned = plan_tiles(BulkPlanConfig(area=tmp_path / "area" / "area.geojson", out=tmp_path / "plan", **settings))
    assert planned.plan.planned == SIDE * SIDE
    features = json.loads((tmp_path / "area" / "schools.geojson").read_text())["features"]
    assert len(features) == result.known
    lon, lat = np.array([feature["geometry"]["coordinates"] for feature in features]).T

    places = np.stack(lonlat_to_tiles(lon, lat, 18), axis=1).tolist()

    async def read():
        source = open_imagery(imagery, ImageryConfig())
        tiles = [await source.read(*place, 18) for place in places]
        await source.close()
        return tiles, source.bounds()

    tiles, bounds = asyncio.run(read())
    assert {Image.open(io.BytesIO(tile)).size for tile in tiles} == {(256, 256)}
    west, south, east, north = bounds
    assert west <= lon.min() and lon.max() <= east and south <= lat.min() and lat.max() <= north


def test_it_is_the_same_every_time(tmp_path):
    first, second = (write_sample_area(SampleAreaConfig(out=tmp_path / name, side=3)).folder for name in "ab")
    for name in ("imagery.mbtiles", "area.geojson", "schools.geojson"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
