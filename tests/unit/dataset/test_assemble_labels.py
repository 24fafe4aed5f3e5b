import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pyproj
import pytest
import shapely

from sat_xception.dataset.assemble import assemble
from sat_xception.dataset.labels import LabelColumns, label_tiles
from sat_xception.dataset.negatives import NegativesConfig, are_clear, draw_negatives
from sat_xception.dataset.settings import AssembleConfig
from sat_xception.errors import ConfigError, DataError
from sat_xception.geo.tiles import ancestors, grid_to_lonlat, lonlat_to_tiles, tile_width_m
from sat_xception.geo.vectors import read_layer
from tests.conftest import SHARED, draw_tile, encode

ZOOM = 16
# A field of 40 x 40 tiles near Bucharest; blocks of 4 x 4.
X, Y, SIDE, BLOCK_ZOOM = 37_200, 23_600, 40, 14


def _centre(x, y):
    lon, lat = grid_to_lonlat(np.array([x + 0.5]), np.array([y + 0.5]), ZOOM)
    return float(lon[0]), float(lat[0])


# Every fourth tile is a school's.
SCHOOLS = [(X + column, Y + row) for column in range(0, SIDE, 4) for row in range(0, SIDE, 4)]


@pytest.fixture(scope="module")
def imagery(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imagery")
    for x in range(X, X + SIDE):
        (folder / str(ZOOM) / str(x)).mkdir(parents=True)
        for y in range(Y, Y + SIDE):
            label = "school" if (x, y) in SCHOOLS else "not-school"
            data = encode(draw_tile(label, x * SIDE + y, size=24), quality=90)
            (folder / str(ZOOM) / str(x) / f"{y}.jpg").write_bytes(data)
    return folder


@pytest.fixture
def schools(tmp_path):
    return _points(tmp_path / "schools.geojson", [_centre(*tile) for tile in SCHOOLS])


def _points(path: Path, places, **properties) -> Path:
    features = [
        {
            "type": "Feature",
            "properties": {name: values[index] for name, values in properties.items()},
            "geometry": {"type": "Point", "coordinates": place},
        }
        for index, place in enumerate(places)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def _table(path: Path, rows) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def _run(out, labels, imagery, **settings):
    given = {"label": "school", "zoom": ZOOM, "block_zoom": BLOCK_ZOOM, "fractions": (0.5, 0.25, 0.25), **settings}
    return assemble(AssembleConfig(labels=labels, imagery=str(imagery), out=out, **given))


def _with_negatives(out, labels, imagery, **settings):
    return _run(
        out, labels, imagery, negatives_ratio=1, negatives_distance_m=2000, **{"negatives_buffer_m": 100, **settings}
    )


def _manifest(result):
    return pq.read_table(result.folder / "manifest.parquet").to_pylist()


def test_labels_and_negatives_become_a_dataset(tmp_path, schools, imagery):
    result = _with_negatives(tmp_path / "out", schools, imagery, max_failed=0.3)
    rows = _manifest(result)
    assert sum(row["label"] == "school" for row in rows) == 100
    assert sum(row["label"] == "not-school" for row in rows) == 100
    assert result.counts.considered == sum(result.counts.by_status.values()) == 200
    row = next(row for row in rows if (row["x"], row["y"]) == SCHOOLS[5])
    assert row["id"] == f"{ZOOM}/{SCHOOLS[5][0]}/{SCHOOLS[5][1]}"
    assert (row["lon"], row["lat"]) == pytest.approx(_centre(*SCHOOLS[5]))
    shard = pq.read_table(next(result.folder.glob("tiles-*.parquet")))
    assert {"tile/x", "tile/y", "tile/z", "tile/lon", "tile/lat"} <= set(shard.column_names)
    assert "school" in (result.folder / "report.html").read_text()


def test_the_same_labels_give_the_same_dataset_in_any_order(tmp_path, schools, imagery):
    content = json.loads(schools.read_text())
    content["features"].reverse()
    other = tmp_path / "reversed.geojson"
    other.write_text(json.dumps(content))
    assert _with_labels_only(tmp_path / "a", schools, imagery) == _with_labels_only(tmp_path / "b", other, imagery)


def _with_labels_only(out, labels, imagery):
    return _with_negatives(out, labels, imagery, negatives_within=_field(out.with_suffix(".geojson"))).digest


def _field(path):
    (west, north), (east, south) = _centre(X, Y), _centre(X + SIDE - 1, Y + SIDE - 1)
    feature = {
        "type": "Feature",
        "properties": {},
        "geometry": shapely.geometry.mapping(shapely.box(west, south, east, north)),
    }
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return path


def test_tiles_of_a_block_share_a_split(tmp_path, schools, imagery):
    rows = _manifest(
        _with_negatives(tmp_path / "out", schools, imagery, negatives_within=_field(tmp_path / "f.geojson"))
    )
    by_block = {}
    for row in rows:
        x, y = ancestors(row["x"], row["y"], ZOOM, BLOCK_ZOOM)
        by_block.setdefault((x, y), set()).add(row["split"])
    assert len(by_block) > 10
    assert all(len(splits) == 1 for splits in by_block.values())


def test_negatives_keep_the_buffer_and_the_distance(tmp_path, schools, imagery):
    result = _with_negatives(tmp_path / "out", schools, imagery, max_failed=0.3, negatives_buffer_m=300)
    width = float(tile_width_m(np.array([_centre(X, Y)[1]]), ZOOM)[0])
    for row in _manifest(result):
        if row["label"] == "not-school":
            gaps = [
                width * np.hypot(max(abs(x - row["x"]) - 0.5, 0), max(abs(y - row["y"]) - 0.5, 0)) for x, y in SCHOOLS
            ]
            assert 299 < min(gaps) < 2000


def test_another_seed_draws_other_negatives(tmp_path, schools, imagery):
    drawn = []
    for seed in (0, 0, 1):
        result = _with_negatives(tmp_path / "out", schools, imagery, max_failed=0.3, seed=seed)
        drawn.append({row["id"] for row in _manifest(result) if row["source"] == "random"})
    assert drawn[0] == drawn[1] != drawn[2]


def test_without_room_for_negatives_it_says_how_many_were_found(tmp_path, schools, imagery):
    with pytest.raises(DataError, match="found only 1 of 100 negatives"):
        _with_negatives(
            tmp_path / "out", schools, imagery, negatives_within=_field(tmp_path / "f.geojson"), negatives_buffer_m=1500
        )


def test_lookalikes_and_reviewed_tiles_are_negatives(tmp_path, schools, imagery):
    clear = [(x + 2, y + 2) for x, y in SCHOOLS]
    offices = _points(tmp_path / "offices.geojson", [*map(_centre, *zip(*clear, strict=True)), _centre(*SCHOOLS[0])])
    places = [_centre(*tile) for tile in (SCHOOLS[0], (X + 1, Y + 1), SCHOOLS[1])]
    review = _points(tmp_path / "review.geojson", places, verdict=["no", "yes", "unsure"])
    rows = _manifest(
        _run(
            tmp_path / "out",
            schools,
            imagery,
            negatives_lookalikes=offices,
            negatives_review=review,
            negatives_buffer_m=10,
        )
    )
    labels = {(row["x"], row["y"]): row["label"] for row in rows}
    assert {labels[tile] for tile in clear} == {"not-school"}
    assert labels[SCHOOLS[0]] == "not-school"
    assert labels[X + 1, Y + 1] == "school"
    assert SCHOOLS[1] not in labels


def test_reviewed_negatives_may_count_more(tmp_path, schools, imagery):
    labels = _table(tmp_path / "labels.csv", _rows())
    wrong = next(row for row in _rows() if row["label"] == "school")
    review = _points(tmp_path / "review.geojson", [(wrong["lon"], wrong["lat"])], verdict=["no"])
    settings = {"label": "", "negatives_review": review, "negative_label": "farm", "slice_columns": ("setting",)}
    weighed = _run(tmp_path / "out", labels, imagery, negatives_review_weight=3, **settings)
    found = {row["weight"]: row for row in _manifest(weighed)}
    assert found.keys() == {1.0, 3.0}
    assert (found[3.0]["label"], found[3.0]["slice/setting"]) == ("farm", wrong["setting"])
    assert (found[3.0]["lon"], found[3.0]["lat"]) == pytest.approx((wrong["lon"], wrong["lat"]))
    weights = pq.read_table(next(weighed.folder.glob("tiles-*.parquet")))["weight"].to_pylist()
    assert sorted(set(weights)) == [1.0, 3.0]
    assert _run(tmp_path / "out", labels, imagery, **settings).digest != weighed.digest


def _with_splits(rows, give):
    return [{**row, "split": give(index)} for index, row in enumerate(rows)]


def test_a_split_that_the_labels_give_is_kept(tmp_path, imagery):
    # By column of blocks, so that no block is in two splits.
    names = {0: "train", 1: "Validation", 2: "test", 3: ""}
    rows = [
        {**row, "split": names[(int(lonlat_to_tiles(row["lon"], row["lat"], ZOOM)[0]) >> 2) % 4]} for row in _rows()
    ]
    found = _manifest(_run(tmp_path / "out", _table(tmp_path / "labels.csv", rows), imagery, label=""))
    expected = {0: {"train"}, 1: {"valid"}, 2: {"test"}, 3: {"train", "valid", "test"}}
    for column, splits in expected.items():
        assert {row["split"] for row in found if (row["x"] >> 2) % 4 == column} <= splits


def test_splits_that_share_a_block_are_refused(tmp_path, imagery):
    rows = _with_splits(_rows(), lambda index: "train" if index // 4 % 2 else "valid")
    labels = _table(tmp_path / "labels.csv", rows)
    with pytest.raises(DataError, match=r"blocks of zoom 14 have tiles in more than one split: 14/9300/5900 \("):
        _run(tmp_path / "out", labels, imagery, label="")


def test_a_tile_in_two_splits_is_left_out_and_an_unknown_split_refused(tmp_path, imagery):
    rows = _with_splits(_rows(), lambda index: "")
    extra = [{**rows[0], "split": "train"}, {**rows[0], "split": "test"}]
    found = _manifest(_run(tmp_path / "out", _table(tmp_path / "labels.csv", rows + extra), imagery, label=""))
    left_out = [row for row in found if row["status"] != "ok"]
    assert [(row["x"], row["y"], row["reason"]) for row in left_out] == [
        (X, Y, "labelled in two splits; it isn't known which is right")
    ]
    with pytest.raises(DataError, match="has the split 'exam'; expected train, valid, test or nothing"):
        _run(tmp_path / "b", _table(tmp_path / "l.csv", _with_splits(rows, lambda _: "exam")), imagery, label="")


def test_an_unknown_verdict_is_refused(tmp_path, schools, imagery):
    review = _points(tmp_path / "review.geojson", [_centre(X, Y)], verdict=["perhaps"])
    with pytest.raises(DataError, match="verdict 'perhaps'"):
        _run(tmp_path / "out", schools, imagery, negatives_review=review)


def _rows(extra=()):
    rows = []
    for index, tile in enumerate((x, y) for x in range(X, X + SIDE, 2) for y in range(Y, Y + SIDE, 2)):
        lon, lat = _centre(*tile)
        label = "school" if index % 2 else "farm" if index % 4 else "road"
        rows.append({"lon": lon, "lat": lat, "label": label, "setting": "rural" if index % 3 else "urban"})
    return [*rows, *extra]


def test_slices_are_carried_through(tmp_path, imagery):
    labels = _table(tmp_path / "labels.csv", _rows())
    result = _run(tmp_path / "out", labels, imagery, label="", slice_columns=("setting",))
    assert {row["slice/setting"] for row in _manifest(result)} == {"rural", "urban"}
    assert result.counts.by_slice == {"setting": {"rural": 266, "urban": 134}}
    assert "<td>rural</td>" in (result.folder / "report.html").read_text()
    assert "slice/setting" in pq.read_table(next(result.folder.glob("tiles-*.parquet"))).column_names


def test_of_several_labels_the_positive_wins_and_others_are_left_out(tmp_path, imagery):
    first, second, third = _rows()[:3]
    assert (first["label"], second["label"], third["label"]) == ("road", "school", "farm")
    extra = [{**first, "label": "farm"}, {**second, "label": "road"}]
    result = _run(tmp_path / "out", _table(tmp_path / "labels.csv", _rows(extra)), imagery, label="")
    rows = {(row["x"], row["y"]): row for row in _manifest(result)}
    assert rows[X, Y]["status"] == "duplicate"
    assert rows[X, Y]["reason"] == "labelled farm and road; it isn't known which is right"
    assert (rows[X, Y + 2]["status"], rows[X, Y + 2]["label"]) == ("ok", "school")


def test_rows_may_name_tiles(tmp_path, imagery):
    rows = [
        {"x": x, "y": y, "z": ZOOM, "label": "school" if (x, y) in SCHOOLS else "other"}
        for x in range(X, X + SIDE)
        for y in range(Y, Y + SIDE, 4)
    ]
    labels = _table(tmp_path / "labels.csv", rows)
    found = {(row["x"], row["y"]) for row in _manifest(_run(tmp_path / "out", labels, imagery, label=""))}
    assert found == {(row["x"], row["y"]) for row in rows}
    with pytest.raises(ConfigError, match=f"give --zoom {ZOOM}"):
        _run(tmp_path / "out", labels, imagery, label="", zoom=17)


def test_another_coordinate_system_is_turned_into_degrees(tmp_path, schools, imagery):
    to_metres = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32635", always_xy=True)
    content = json.loads(schools.read_text())
    for feature in content["features"]:
        feature["geometry"]["coordinates"] = to_metres.transform(*feature["geometry"]["coordinates"])
    content["crs"] = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32635"}}
    moved = tmp_path / "moved.geojson"
    moved.write_text(json.dumps(content))
    rows = _manifest(_with_negatives(tmp_path / "out", moved, imagery, max_failed=0.3))
    assert {(row["x"], row["y"]) for row in rows if row["label"] == "school"} == set(SCHOOLS)
    del content["crs"]
    moved.write_text(json.dumps(content))
    with pytest.raises(DataError, match="no longitudes and latitudes"):
        _run(tmp_path / "out", moved, imagery)


def test_swapped_axes_are_named(tmp_path, imagery):
    labels = _points(tmp_path / "swapped.geojson", [_centre(*tile)[::-1] for tile in SCHOOLS])
    with pytest.raises(DataError, match="look swapped"):
        _with_negatives(tmp_path / "out", labels, imagery)


def test_another_zoom_is_named(tmp_path, schools, imagery):
    with pytest.raises(DataError, match=f"give --zoom {ZOOM}"):
        _with_negatives(tmp_path / "out", schools, imagery, zoom=17)


def test_labels_elsewhere_are_told_with_both_bounds(tmp_path, imagery):
    labels = _points(tmp_path / "far.geojson", [(-70.5, -33.4)])
    with pytest.raises(DataError, match=r"from -70.5000, -33.4000 .* the imagery from 24\.\d+, 44\.\d+"):
        _with_negatives(tmp_path / "out", labels, imagery)


def test_a_polygon_labels_the_tiles_it_covers(tmp_path, imagery):
    (west, north), (east, south) = _centre(X, Y), _centre(X + 3, Y + 3)
    shapes = [shapely.box(west - 1e-5, south - 1e-5, east + 1e-5, north + 1e-5)]
    features = [{"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shape)} for shape in shapes]
    labels = tmp_path / "area.geojson"
    labels.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    with pytest.raises(DataError, match="all 16 tiles are labelled school"):
        _run(tmp_path / "out", labels, imagery)
    tiles = label_tiles(read_layer(labels), ZOOM, LabelColumns(every_label="school"), "school")
    found = set(zip(tiles["x"].to_pylist(), tiles["y"].to_pylist(), strict=True))
    assert found == {(X + i, Y + j) for i in range(4) for j in range(4)}


def test_every_part_of_a_geometry_labels_its_tile(tmp_path):
    places = [_centre(*tile) for tile in SCHOOLS[:40]]
    small = [shapely.Point(place).buffer(1e-5) for place in places[20:30]]
    rows = [
        shapely.MultiPoint(places[:20]),
        shapely.MultiPolygon(small),
        shapely.GeometryCollection([shapely.Point(places[30]), shapely.MultiPoint(places[31:])]),
    ]
    path = tmp_path / "rows.geojson"
    features = [
        {"type": "Feature", "properties": {"label": label}, "geometry": shapely.geometry.mapping(row)}
        for label, row in zip(("school", "farm", "school"), rows, strict=True)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    tiles = label_tiles(read_layer(path), ZOOM, LabelColumns("label"), "school").to_pylist()
    found = {(tile["x"], tile["y"]): tile["label"] for tile in tiles}
    assert found == {tile: "farm" if 20 <= index < 30 else "school" for index, tile in enumerate(SCHOOLS[:40])}


def test_overlapping_parts_label_a_tile_once(tmp_path):
    (west, north), (east, south) = _centre(X, Y), _centre(X + 3, Y + 3)
    box = shapely.box(west - 1e-5, south - 1e-5, east + 1e-5, north + 1e-5)
    feature = {
        "type": "Feature",
        "properties": {},
        "geometry": shapely.geometry.mapping(shapely.MultiPolygon([box, box])),
    }
    path = tmp_path / "twice.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    tiles = label_tiles(read_layer(path), ZOOM, LabelColumns(every_label="school"), "school")
    assert len(tiles) == 16


def test_codes_are_classes_and_slices_as_they_are_written(tmp_path):
    path = _table(tmp_path / "codes.csv", [{**row, "label": "007", "setting": "1e5"} for row in _rows()[:3]])
    tiles = label_tiles(read_layer(path), ZOOM, LabelColumns("label", slices=("setting",)), "school")
    assert set(tiles["label"].to_pylist()) == {"007"} and set(tiles["slice/setting"].to_pylist()) == {"1e5"}


def test_a_row_without_a_class_is_named_by_its_number_in_the_file(tmp_path):
    rows = [{"lon": "", "lat": "", "label": "a"}, {"lon": 1, "lat": 2, "label": "a"}, {"lon": 1, "lat": 2, "label": ""}]
    with pytest.raises(DataError, match=r"row 3 of l.csv has no 'label'"):
        label_tiles(read_layer(_table(tmp_path / "l.csv", rows)), ZOOM, LabelColumns("label"), "a")


def test_layers_are_named_for_every_file(tmp_path, schools, imagery):
    import pyogrio

    path = tmp_path / "both.gpkg"
    for number, name in enumerate(("north", "south")):
        wkb = shapely.to_wkb(shapely.points([_centre(*tile) for tile in SCHOOLS[number::2]]))
        pyogrio.raw.write(path, wkb, [], [], layer=name, geometry_type="Point", crs="EPSG:4326", append=bool(number))
    with pytest.raises(ConfigError, match=r"has 2 layers: north \(50 rows\), south \(50 rows\).*--labels-layer"):
        _with_negatives(tmp_path / "out", path, imagery)
    result = _with_negatives(tmp_path / "out", path, imagery, labels_layer=("north", "south"), max_failed=0.3)
    assert sum(row["label"] == "school" for row in _manifest(result)) == 100
    for name in ("negatives_within", "negatives_lookalikes", "negatives_review"):
        flag = f"--{name.replace('_', '-')}-layer"
        with pytest.raises(ConfigError, match=flag):
            _with_negatives(tmp_path / "out", schools, imagery, **{name: path})
        with pytest.raises(ValueError, match=f"{flag} goes with"):
            AssembleConfig(labels=path, imagery="i", out=tmp_path, **{f"{name}_layer": ("north",)})


def test_one_class_only_is_refused(tmp_path, schools, imagery):
    with pytest.raises(DataError, match=r"all 100 tiles are labelled school.*--negatives-ratio"):
        _run(tmp_path / "out", schools, imagery)


def test_no_rows_are_refused(tmp_path, imagery):
    with pytest.raises(DataError, match="none with a location"):
        _run(tmp_path / "out", _points(tmp_path / "empty.geojson", []), imagery)


def test_an_unknown_positive_label_is_refused(tmp_path, imagery):
    with pytest.raises(ConfigError, match="'hospital' is not a class"):
        _run(tmp_path / "out", _table(tmp_path / "l.csv", _rows()), imagery, label="", positive_label="hospital")


def test_a_missing_column_is_named_with_those_there_are(tmp_path, imagery):
    with pytest.raises(ConfigError, match="no column 'class'; its columns are lon, lat, label, setting"):
        _run(tmp_path / "out", _table(tmp_path / "l.csv", _rows()), imagery, label="", label_column="class")


def test_a_tile_of_one_colour_is_blank_and_a_missing_one_failed(tmp_path, imagery):
    import shutil

    from PIL import Image

    folder = tmp_path / "imagery"
    shutil.copytree(imagery, folder)
    (folder / f"{ZOOM}/{X}/{Y}.jpg").write_bytes(encode(Image.new("RGB", (24, 24), (200, 200, 200))))
    (folder / f"{ZOOM}/{X}/{Y + 2}.jpg").unlink()
    result = _run(tmp_path / "out", _table(tmp_path / "l.csv", _rows()), folder, label="")
    rows = {(row["x"], row["y"]): row for row in _manifest(result)}
    assert rows[X, Y]["status"] == "blank"
    assert rows[X, Y + 2]["status"] == "failed"
    assert result.counts.by_status == {"blank": 1, "failed": 1, "ok": 398}


def test_what_failed_is_asked_for_again_by_the_next_run(tmp_path, imagery):
    labels = _table(tmp_path / "labels.csv", _rows())
    missing = imagery / f"{ZOOM}/{X}/{Y}.jpg"
    content = missing.read_bytes()
    missing.unlink()
    try:
        with pytest.raises(DataError, match=r"no tile in the imagery x 1; .*--negatives-within"):
            _run(tmp_path / "out", labels, imagery, label="", max_failed=0.0)
    finally:
        missing.write_bytes(content)
    assert _run(tmp_path / "out", labels, imagery, label="", max_failed=0.0).counts.by_status == {"ok": 400}


def test_rows_without_a_place_are_left_out(tmp_path, imagery, caplog):
    rows = _rows([{"lon": "", "lat": "", "label": "school", "setting": "urban"}])
    result = _run(tmp_path / "out", _table(tmp_path / "labels.csv", rows), imagery, label="")
    assert result.counts.considered == 400
    assert "1 rows of" in caplog.text


def test_real_schools_are_planned_with_negatives_clear_of_them(tmp_path):
    path = SHARED / "data" / "schools_romania.geojson"
    if not path.is_file():
        pytest.skip(f"no real labels at {path}")
    layer = read_layer(path)
    tiles = label_tiles(layer, 17, LabelColumns(every_label="school"), "school")
    assert len(layer.geometry) == 2887
    x, y = lonlat_to_tiles(shapely.get_x(layer.geometry), shapely.get_y(layer.geometry), 17)
    assert len(tiles) == len(set(zip(x.tolist(), y.tolist(), strict=True)))
    drawn = draw_negatives(layer.geometry, NegativesConfig(4000, 17, 500.0, 10_000.0, 0))
    assert len({tuple(tile) for tile in drawn.tolist()}) == 4000
    assert are_clear(drawn, layer.geometry, 17, 500.0).all()


def test_settings_that_go_together_are_asked_for(tmp_path):
    with pytest.raises(ValueError, match="--labels and --imagery go together"):
        AssembleConfig(labels=tmp_path, out=tmp_path)
    with pytest.raises(ValueError, match="give either --data"):
        AssembleConfig(labels=tmp_path, imagery=str(tmp_path), data="sample", out=tmp_path)
    with pytest.raises(ValueError, match="is above --zoom"):
        AssembleConfig(labels=tmp_path, imagery=str(tmp_path), zoom=10, out=tmp_path)


@pytest.mark.parametrize(
    ("imagery", "kept"),
    [
        ("https://host/{z}/{x}/{y}.jpg?key=hunter2", "https://host/{z}/{x}/{y}.jpg?key=***"),
        ("https://me:hunter2@host/{z}/{x}/{y}.jpg", "https://***host/{z}/{x}/{y}.jpg"),
        ("https://host/w?z={z}&x={x}&y={y}&k={token}", "https://host/w?z={z}&x={x}&y={y}&k={token}"),
    ],
)
def test_what_may_be_a_key_is_not_kept_with_the_dataset(tmp_path, imagery, kept):
    assert AssembleConfig(labels=tmp_path, imagery=imagery, out=tmp_path).resolved()["imagery"] == kept
