"""Plans: every tile in exactly one shard, what is scored already left out, digests that prove it."""

import hashlib
import json

import mercantile
import numpy as np
import pyarrow as pa
import pytest

from sat_xception.bulk.plan import plan_tiles
from sat_xception.bulk.plan_document import DatasetImages, GridImagery, PlannedTiles
from sat_xception.bulk.plan_file import IdDigest, Plan, PlanWriter, read_plan
from sat_xception.bulk.settings import BulkPlanConfig
from sat_xception.bulk.tiles import open_tiles
from sat_xception.errors import ConfigError, DataError
from sat_xception.geo.morton import keys_of, tile_ids, tiles_of, without
from sat_xception.imagery import settings
from sat_xception.imagery.settings import ImagerySettings, PixelSettings

NOWHERE = "http://127.0.0.1:9/{z}/{x}/{y}"


def plan_of(tmp_path, name="plan", **settings):
    settings = {"imagery": NOWHERE, "probe": 0, "zoom": 12, "shard_tiles": 7, **settings}
    plan_tiles(BulkPlanConfig(out=tmp_path / name, **settings))
    return read_plan(tmp_path / name)


IMAGERY = GridImagery(
    url="u", attribution="", tile_size=0, max_pixels=1, token_env="", contact="", tms=False, bands=(), scale=()
)


def keys_in(plan):
    return [plan.keys(shard).tolist() for shard in range(plan.shards)]


@pytest.mark.parametrize("shard_tiles", [1, 3, 10, 1000])
@pytest.mark.parametrize("runs", [[(0, 1)], [(5, 10)], [(0, 3), (3, 4), (100, 20)], [(2, 9), (12, 1), (20, 9)]])
def test_shards_hold_every_key_once_in_order(tmp_path, runs, shard_tiles):
    keys = [key for first, count in runs for key in range(first, first + count)]
    with PlanWriter(tmp_path, shard_tiles, lambda keys: tile_ids(keys, 9)) as writer:
        for first, count in runs:
            writer.add(np.array([first]), np.array([count]))
        writer.add(np.empty(0, np.int64), np.empty(0, np.int64))
    counts = writer.counts()
    plan = Plan(tmp_path, PlannedTiles(area="a", zoom=9, imagery=IMAGERY, **counts._asdict(), left_out=0, model=None))
    assert [key for shard in keys_in(plan) for key in shard] == keys
    assert {len(shard) for shard in keys_in(plan)[:-1]} <= {shard_tiles}
    text = "".join(f"{name}\n" for name in tile_ids(np.array(keys), 9).to_pylist())
    assert counts.tile_ids_digest == hashlib.sha256(text.encode()).hexdigest()
    assert (counts.planned, counts.shards) == (len(keys), -(-len(keys) // shard_tiles))


def test_the_digest_depends_on_each_id_and_not_on_how_they_come():
    ids = pa.array(["a", "bc", "d/é", ""])
    one, parts, other = IdDigest(), IdDigest(), IdDigest()
    one.add(ids)
    for begin, end in ((0, 1), (1, 1), (1, 3), (3, 4)):
        parts.add(ids[begin:end])
    other.add(pa.array(["ab", "c", "d/é", ""]))
    assert one.hexdigest() == parts.hexdigest() == hashlib.sha256("a\nbc\nd/é\n\n".encode()).hexdigest()
    assert other.hexdigest() != one.hexdigest()


def test_the_same_area_gives_the_same_plan_and_another_order_of_a_list_does_too(tmp_path):
    plans = [plan_of(tmp_path, name, bbox="24,46,24.5,46.4") for name in ("a", "b")]
    assert [(path.name, path.read_bytes()) for path in sorted(plans[0].folder.glob("runs*"))] == [
        (path.name, path.read_bytes()) for path in sorted(plans[1].folder.glob("runs*"))
    ]
    ids = [name for keys in keys_in(plans[0]) for name in tile_ids(np.array(keys), 12).to_pylist()]
    for name, order in (("up", ids), ("down", [*ids[::-1], ids[3], "", ids[4]])):
        (tmp_path / f"{name}.txt").write_text("\n".join(order))
        assert plan_of(tmp_path, name, tiles=tmp_path / f"{name}.txt").digest == plans[0].digest


def test_a_table_of_tiles_is_a_list(tmp_path):
    (tmp_path / "tiles.csv").write_text("Z,X,Y,note\n9,300,200,a\n9,300,201,b\n")
    plan = plan_of(tmp_path, tiles=tmp_path / "tiles.csv")
    assert plan.document.zoom == 9
    assert keys_in(plan) == [[int(keys_of(300, 200)), int(keys_of(300, 201))]]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", "12/1/2\nx/y/z\n", "line 2: expected z/x/y"),
        ("b.txt", "3/9/1\n", "line 1: there is no tile 3/9/1"),
        ("c.txt", "3/1/1\n4/1/1\n", "2 zooms"),
        ("d.csv", "lon,lat\n24,46\n", "give points or polygons, which aren't tiles, as --area"),
        ("e.txt", "", "0 zooms"),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path, name, content, told):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=told):
        plan_of(tmp_path, tiles=tmp_path / name)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "one of --area, --bbox, --tiles and --dataset"),
        ({"bbox": "1,2,3,4", "tiles": "t.txt"}, "one of --area"),
        ({"bbox": "1,2,3,4", "imagery": ""}, "give --imagery"),
        ({"bbox": "1,2,3,4", "buffer_m": 5.0}, "--buffer-m goes with --area"),
        ({"bbox": "1,2,3,4", "scored": ("s",)}, "--scored needs --model"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, settings, told):
    with pytest.raises(ValueError, match=told):
        BulkPlanConfig(**{"out": tmp_path, "imagery": NOWHERE, **settings})


def test_a_backend_that_is_not_known_is_told_before_anything_else(tmp_path):
    with pytest.raises(ConfigError, match="--backend tpu isn't known; there are a10, a100"):
        plan_of(tmp_path, bbox="24,46,24.1,46.1", backend="tpu")


def test_every_setting_of_the_imagery_gets_from_the_plan_to_the_scorer(tmp_path):
    settings = {
        "imagery": NOWHERE,
        "imagery_token_env": "TOKEN",
        "imagery_attribution": "A survey",
        "imagery_contact": "maps@example.org",
        "imagery_bands": (3, 2, 1),
        "imagery_scale": (10.0, 200.0),
        "imagery_tms": True,
        "workers": 5,
        "rate_per_s": 7.0,
        "tile_size": 512,
    }
    assert settings.keys() == ImagerySettings.model_fields.keys(), "give the new setting a value"
    plan = plan_of(tmp_path, bbox="24,46,24.1,46.1", **settings)
    tiles = open_tiles(plan, workers=5, rate_per_s=7.0)
    assert tiles.source_config() == ImagerySettings(**settings).source_config()


class Sharper(PixelSettings):
    """Settings of imagery with one more that changes pixels."""

    sharpen: float = 0.0


def test_a_new_setting_at_its_default_changes_no_identity_and_is_in_it_otherwise(monkeypatch):
    imagery = IMAGERY.model_copy(update={"bands": (3, 2, 1)})
    before = imagery.identity()
    assert before == {"url": "u", "tile_size": 0, "max_pixels": 1, "tms": False, "bands": [3, 2, 1], "scale": []}
    assert imagery.later() == {}
    monkeypatch.setattr(settings, "PixelSettings", Sharper)

    class SharperImagery(GridImagery):
        sharpen: float = 0.0

    unset = SharperImagery.model_validate(imagery.content())
    assert unset.identity() == before
    assert unset.later() == {}
    used = unset.model_copy(update={"sharpen": 0.5})
    assert used.identity() == before | {"sharpen": 0.5}
    assert used.later() == {"sharpen": 0.5}


def test_the_images_of_a_dataset_and_imagery_are_told_apart_in_a_file(tmp_path):
    tiles = {"area": "a", "planned": 0, "shards": 0, "shard_tiles": 1, "tile_ids_digest": "d", "left_out": 0}
    images = {"url": "u", "attribution": "", "tile_size": 0, "max_pixels": 1}
    of_dataset = PlannedTiles(**tiles, zoom=None, model=None, dataset="d", imagery=images)
    assert type(of_dataset.imagery) is DatasetImages
    # As version 3 wrote it, and without a setting that came later.
    of_grid = PlannedTiles(**tiles, zoom=9, model=None, imagery=IMAGERY.content())
    assert of_grid.imagery == IMAGERY
    first = PlannedTiles(**tiles, zoom=9, model=None, imagery=images | {"tms": False})
    assert first.imagery == IMAGERY


def test_a_key_in_the_address_is_not_kept(tmp_path):
    plan = plan_of(tmp_path, bbox="24,46,24.1,46.1", imagery="http://tiles/{z}/{x}/{y}?key=secret")
    assert "secret" not in "".join(path.read_text(errors="replace") for path in plan.folder.iterdir())
    assert plan.document.imagery.url == "http://tiles/{z}/{x}/{y}?key=***"


@pytest.mark.parametrize("seed", range(20))
def test_runs_without_others_are_the_keys_without_theirs(seed):
    rng = np.random.default_rng(seed)

    def runs(parts, most):
        edges = np.unique(rng.integers(0, most, 2 * parts))
        edges = edges[: len(edges) // 2 * 2].reshape(-1, 2)
        return edges[:, 0], edges[:, 1] - edges[:, 0]

    def keys(first, count):
        return {
            key
            for begin, length in zip(first.tolist(), count.tolist(), strict=True)
            for key in range(begin, begin + length)
        }

    first, count = runs(12, 300)
    theirs = runs(int(rng.integers(0, 12)), 300)
    middle = len(first) // 2
    parts = iter([(first[:middle], count[:middle]), (first[middle:], count[middle:])])
    found = [pair for part in without(parts, *theirs) for pair in zip(*(side.tolist() for side in part), strict=True)]
    assert found == sorted(found)
    assert {key for begin, length in found for key in range(begin, begin + length)} == keys(first, count) - keys(
        *theirs
    )


def test_a_plan_that_is_damaged_says_so(tmp_path):
    plan = plan_of(tmp_path, bbox="24,46,24.1,46.1")
    (plan.folder / "runs.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"bulk plan. again"):
        plan.keys(0)
    (plan.folder / "plan.json").write_text(json.dumps({"planned": 3}))
    with pytest.raises(
        DataError, match=r"plan\.json was written by an earlier version.*area: Field required.*bulk plan` again"
    ):
        read_plan(plan.folder)


@pytest.mark.parametrize(
    ("name", "encoding"), [("t.txt", "utf-16"), ("t.TXT", "utf-8-sig"), ("tiles", "utf-8"), ("tiles", "utf-16")]
)
def test_a_list_is_read_in_any_encoding_that_it_names_and_under_any_name(tmp_path, name, encoding):
    path = tmp_path / name
    path.write_bytes("12/5/9\r\n12/6/9\r\n".encode(encoding))
    plan = plan_of(tmp_path, tiles=path)
    assert keys_in(plan) == [sorted(keys_of([5, 6], [9, 9]).tolist())]


def test_a_list_that_isnt_utf8_is_named_with_its_line(tmp_path):
    path = tmp_path / "tiles.txt"
    path.write_bytes("12/5/9\n12/6/é\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"tiles.txt, line 2: .* isn't UTF-8; .*iconv -f ISO-8859-1"):
        plan_of(tmp_path, tiles=path)


def test_a_table_of_tiles_may_write_them_as_texts_with_zeros_before(tmp_path):
    path = tmp_path / "tiles.csv"
    path.write_text("x;y;z\n005;9;12\n6;9;12\n")
    assert keys_in(plan_of(tmp_path, tiles=path)) == [sorted(keys_of([5, 6], [9, 9]).tolist())]


def test_a_buffer_is_in_metres_at_every_latitude_of_what_it_is_around(tmp_path):
    import pyproj

    # From 10 to 60 degrees north: a degree of longitude is half as wide there.
    line = {"type": "LineString", "coordinates": [[20, 10], [20, 60]]}
    path = tmp_path / "line.geojson"
    path.write_text(json.dumps({"type": "Feature", "properties": {}, "geometry": line}))
    plan = plan_of(tmp_path, area=path, buffer_m=20_000.0, shard_tiles=100_000)
    x, y = tiles_of(np.array([key for shard in keys_in(plan) for key in shard]))
    for lat in (12, 35, 58):
        row = mercantile.tile(20, lat, 12).y
        east = mercantile.bounds(int(x[y == row].max()), row, 12)
        geod = pyproj.Geod(ellps="WGS84")
        near, far = (geod.inv(lon, lat, 20, lat)[2] for lon in (east.west, east.east))
        assert near <= 20_050 and far > 19_950


def test_an_area_of_several_layers_is_asked_about(tmp_path):
    import pyogrio
    import shapely

    path = tmp_path / "areas.gpkg"
    for number, name in enumerate(("a", "b")):
        wkb = shapely.to_wkb([shapely.box(number, 0, number + 0.5, 0.5)])
        pyogrio.raw.write(path, wkb, [], [], layer=name, geometry_type="Polygon", crs="EPSG:4326", append=bool(number))
    with pytest.raises(ConfigError, match=r"areas.gpkg has 2 layers: a \(1 rows\), b \(1 rows\).*--area-layer"):
        plan_of(tmp_path, area=path)
    plan = plan_of(tmp_path, area=path, area_layer=("b",))
    assert {x >> 9 for x, _ in zip(*tiles_of(np.concatenate(keys_in(plan))), strict=True)} == {4}
    with pytest.raises(ValueError, match="--area-layer goes with --area"):
        BulkPlanConfig(bbox="1,2,3,4", imagery=NOWHERE, area_layer=("b",), out=tmp_path)
