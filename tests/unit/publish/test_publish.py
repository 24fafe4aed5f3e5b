"""Scores become maps and tables, and nothing is lost on the way."""

import csv
import io
import json
import re

import mercantile
import numpy as np
import pyarrow.parquet as pq
import pyogrio
import pyproj
import pytest
from PIL import Image

from sat_xception.bulk.score_folder import check_scores, open_score_folder
from sat_xception.errors import ConfigError, DataError
from sat_xception.publish.publication import KnownCounts, Publication
from sat_xception.publish.publish import publish
from sat_xception.publish.settings import PublishConfig
from sat_xception.review.lock import review_lock
from sat_xception.storage import write_json
from tests.scores import write_scores

X, Y, Z = 148_000, 93_000, 18


def tile(across, down):
    return X + across, Y + down, Z


def centre(across, down):
    west, south, east, north = mercantile.bounds(X + across, Y + down, Z)
    return (west + east) / 2, (south + north) / 2


def layer(path, features):
    rows = [
        {"type": "Feature", "properties": facts, "geometry": {"type": kind, "coordinates": coordinates}}
        for kind, coordinates, facts in features
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": rows}))
    return path


def rectangle(left, top, right, bottom):
    west, north = mercantile.ul(X + left, Y + top, Z)
    east, south = mercantile.ul(X + right, Y + bottom, Z)
    return [[[west, south], [east, south], [east, north], [west, north], [west, south]]]


def read_csv(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


@pytest.fixture
def scores(tmp_path):
    """A site of two tiles, one of one, a tile that failed and the rest of 20 x 20 below the threshold."""
    tiles = {tile(a, b): 0.1 for a in range(20) for b in range(20)}
    tiles |= {tile(3, 3): 0.9, tile(4, 4): 0.7, tile(12, 5): 0.95, tile(9, 9): None}
    return write_scores(tmp_path / "scores", tiles, shards=3, row_group=70)


def run(scores, tmp_path, **settings):
    return publish(PublishConfig(scores=scores, out=tmp_path / "out", **settings))


def test_counts_close_and_sites_are_in_every_file(scores, tmp_path):
    result = run(scores, tmp_path)
    tiles = result.publication.tiles
    assert tiles.content() == {"planned": 400, "scored": 399, "failed": 1, "candidates": 3, "below": 396}
    assert result.publication.reasons == {"HTTP 404": 1}
    assert "400 tiles | 399 scored  1 failed | 2 candidates of 3 tiles" in result.summary()
    out = tmp_path / "out"
    rows = read_csv(out / "candidates.csv")
    assert [row["site"] for row in rows] == [f"{Z}/{X + 12}/{Y + 5}", f"{Z}/{X + 3}/{Y + 3}"]
    assert rows[1]["members"] == f"{Z}/{X + 3}/{Y + 3} {Z}/{X + 4}/{Y + 4}"
    assert (rows[1]["tiles"], rows[1]["score"], rows[1]["comparison"]) == ("2", "0.9", "")
    for name in ("candidates.geojson", "candidates.fgb"):
        facts, _, points, fields = pyogrio.raw.read(out / name)
        assert facts["crs"] == "EPSG:4326" and facts["geometry_type"] == "Point" and len(points) == 2
        assert sorted(fields[list(facts["fields"]).index("site")]) == sorted(row["site"] for row in rows)
    place = json.loads((out / "candidates.geojson").read_text())["features"][0]["geometry"]["coordinates"]
    assert place == pytest.approx(centre(12, 5), abs=2e-6)


def test_shards_are_there_as_they_were_without_taking_room(scores, tmp_path):
    run(scores, tmp_path)
    for shard in scores.glob("scores-*.parquet"):
        published = tmp_path / "out" / "tiles" / shard.name
        assert published.samefile(shard)
        assert set(pq.read_table(published, columns=["status"])["status"].to_pylist()) <= {"scored", "failed"}


def test_a_score_at_the_threshold_is_a_candidate_and_flags_overrule_the_model(tmp_path):
    scores = write_scores(tmp_path / "scores", {tile(0, 0): 0.9, tile(5, 5): 0.5, tile(9, 9): 0.2})
    assert run(scores, tmp_path).publication.tiles.candidates == 2
    assert run(scores, tmp_path, threshold=0.9).publication.tiles.candidates == 1
    nothing = run(scores, tmp_path, threshold=0.99)
    assert nothing.publication.candidates.content() == {"sites": 0}
    assert json.loads((tmp_path / "out" / "candidates.geojson").read_text())["features"] == []


def test_without_a_threshold_it_asks_for_one(tmp_path):
    scores = write_scores(tmp_path / "scores", {tile(0, 0): 0.9}, threshold=None)
    with pytest.raises(ConfigError, match="--threshold"):
        run(scores, tmp_path)
    assert run(scores, tmp_path, threshold=0.5).publication.threshold == 0.5


def test_known_places_are_found_missed_or_not_looked_at(scores, tmp_path):
    (lon, lat), (far_lon, far_lat) = centre(3, 3), centre(60, 60)
    places = [
        ("Point", [lon, lat], {"name": "in the best tile"}),
        ("Point", list(centre(5, 4)), {"name": "in the tile beside the second"}),
        ("Point", list(centre(15, 15)), {"name": "below"}),
        ("Point", list(centre(9, 9)), {"name": "failed"}),
        ("Point", [far_lon, far_lat], {"name": "far"}),
    ]
    known = layer(tmp_path / "known.geojson", places)
    result = run(scores, tmp_path, known=known, known_distance_m=100)
    assert result.publication.candidates.content() == {"sites": 2, "known": 1, "new": 1}
    assert result.publication.known.content() == {
        "found": 2, "below_threshold": 1, "tile_failed": 1, "not_planned": 1,
    }  # fmt: skip
    assert result.publication.known.places == len(places)
    out = tmp_path / "out"
    assert [row["distance_m"] for row in read_csv(out / "known.csv")] == ["0"]
    [new] = read_csv(out / "new.csv")
    assert new["site"] == f"{Z}/{X + 12}/{Y + 5}"
    # From the tile's south-western corner to the place whose tile failed, which is the nearest.
    corner = mercantile.ul(X + 12, Y + 6, Z)
    metres = pyproj.Geod(ellps="WGS84").inv(corner.lng, corner.lat, *centre(9, 9))[2]
    assert (float(new["distance_m"]), new["place"]) == (pytest.approx(metres, abs=0.2), "4")
    missed = {row["name"]: row for row in read_csv(out / "missed.csv")}
    assert {name: row["why"] for name, row in missed.items()} == {
        "below": "below the threshold",
        "failed": "tile failed",
        "far": "not planned",
    }
    assert float(missed["below"]["tile_score"]) == pytest.approx(0.1)
    assert missed["failed"]["tile_score"] == missed["far"]["tile_score"] == ""


@pytest.mark.parametrize(
    ("places", "level", "told"),
    [
        ([(60, 60), (61, 61), (9, 9)], "WARNING", "3 of 3 places of .* (2 on tiles that weren't planned, 1 on tiles"),
        ([(60, 60), (3, 3)], "INFO", "1 of 2 places of .* are on no scored tile"),
    ],
)
def test_known_places_that_no_scored_tile_holds_are_told(scores, tmp_path, caplog, places, level, told):
    known = layer(tmp_path / "known.geojson", [("Point", list(centre(*place)), {}) for place in places])
    with caplog.at_level("INFO"):
        run(scores, tmp_path, known=known, known_distance_m=10)
    [line] = [record for record in caplog.records if "on no scored tile" in record.getMessage()]
    assert line.levelname == level
    assert re.search(told.replace("(", r"\("), line.getMessage())


def test_how_near_a_known_place_must_be_is_a_setting(scores, tmp_path):
    # A place in the middle of the tile to the east: half a tile away, some 53 m at 46 degrees north.
    known = layer(tmp_path / "known.geojson", [("Point", list(centre(13, 5)), {})])
    assert run(scores, tmp_path, known=known, known_distance_m=60).publication.candidates.known == 1
    assert run(scores, tmp_path, known=known, known_distance_m=40).publication.candidates.known == 0


def test_without_candidates_every_known_place_is_missed(tmp_path):
    scores = write_scores(tmp_path / "scores", {tile(0, 0): 0.1})
    known = layer(tmp_path / "known.geojson", [("Point", list(centre(0, 0)), {})])
    result = run(scores, tmp_path, known=known)
    assert result.publication.known == KnownCounts(found=0, below_threshold=1, tile_failed=0, not_planned=0)


def test_areas_add_up_and_what_lies_in_none_is_told(scores, tmp_path):
    polygons = [
        ("Polygon", rectangle(0, 0, 10, 10), {"province": "North"}),
        ("Polygon", rectangle(0, 10, 10, 20), {"province": "South"}),
        ("Polygon", rectangle(40, 40, 50, 50), {"province": "North"}),
    ]
    areas = layer(tmp_path / "areas.geojson", polygons)
    result = run(scores, tmp_path, areas=areas, area_name="province")
    rows = {row.area: row.content() for row in result.publication.areas}
    assert rows["North"] == {"area": "North", "tiles": 100, "scored": 99, "failed": 1, "candidates": 1}
    assert rows["South"]["tiles"] == 100 and rows["South"]["candidates"] == 0
    assert rows["outside all areas"] == {
        "area": "outside all areas", "tiles": 200, "scored": 200, "failed": 0, "candidates": 1,
    }  # fmt: skip
    assert [row["area"] for row in read_csv(tmp_path / "out" / "candidates.csv")] == ["", "North"]
    with pytest.raises(ConfigError, match=r"no column 'name'.*--area-name"):
        run(scores, tmp_path, areas=areas)


def test_areas_that_are_points_or_have_no_name_are_refused(scores, tmp_path):
    points = layer(tmp_path / "points.geojson", [("Point", list(centre(0, 0)), {"name": "a"})])
    with pytest.raises(DataError, match="takes polygons"):
        run(scores, tmp_path, areas=points)
    nameless = layer(tmp_path / "nameless.geojson", [("Polygon", rectangle(0, 0, 1, 1), {"name": None}),
                                                     ("Polygon", rectangle(0, 0, 1, 1), {"name": "b"})])  # fmt: skip
    with pytest.raises(DataError, match="row 1"):
        run(scores, tmp_path, areas=nameless)


def test_the_heat_map_is_dark_where_scores_are_high(scores, tmp_path):
    run(scores, tmp_path)
    pixels = np.asarray(Image.open(tmp_path / "out" / "heat-map.png").convert("RGB")).astype(int)
    dark_red, grey = np.array([140, 0, 38]), np.array([141, 153, 166])
    assert (np.abs(pixels - grey).sum(axis=2) < 20).sum() > 100
    assert (np.abs(pixels - dark_red).sum(axis=2) < 60).sum() > 100


def test_the_page_stands_alone_and_escapes_what_the_data_say(tmp_path):
    scores = write_scores(
        tmp_path / "scores", {tile(0, 0): 0.9}, classes=("no", "<script>alert(1)</script>"),
        imagery={"url": "", "attribution": "<b>Maps & Co</b>"},
    )  # fmt: skip
    run(scores, tmp_path)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page and "&lt;b&gt;Maps &amp; Co&lt;/b&gt;" in page
    assert re.findall(r'(?:src|href)="(?!data:)([^"]*)"', page) == ["review/index.html"]
    assert "<script>alert" not in (tmp_path / "out" / "review" / "index.html").read_text()
    assert "<script>" not in (tmp_path / "out" / "summary.md").read_text()


def test_the_same_scores_give_the_same_files(scores, tmp_path):
    names = ("heat-map.png", "candidates.geojson", "candidates.csv", "report.html", "review/candidates.js")
    out = run(scores, tmp_path).out
    first = [(out / name).read_bytes() for name in names]
    run(scores, tmp_path)
    assert [(out / name).read_bytes() for name in names] == first


def test_an_earlier_review_survives_and_a_folder_under_review_is_left_alone(scores, tmp_path):
    out = run(scores, tmp_path).out
    site = f"{Z}/{X + 12}/{Y + 5}"
    feature = {"type": "Feature", "properties": {"tile_id": site, "site": site, "verdict": "yes"}, "geometry": None}
    review = {"type": "FeatureCollection", "features": [feature]}
    (out / "review.geojson").write_text(json.dumps(review))
    assert run(scores, tmp_path).publication.review.kept_decisions == 1
    assert json.loads((out / "review.geojson").read_text()) == review
    with review_lock(out), pytest.raises(ConfigError, match="stop that"):
        run(scores, tmp_path)


def test_the_page_reads_the_imagery_as_it_was_scored_unless_the_settings_name_other_imagery(tmp_path):
    url = "https://tiles.example/{z}/{x}/{y}.png"
    tiles = {(X, Y, Z): 0.9, (X + 5, Y, Z): 0.1}
    scored = {"url": url, "attribution": "A survey", "tms": True}
    scores = write_scores(tmp_path / "scores", tiles, imagery=scored)
    page = (run(scores, tmp_path).out / "review" / "candidates.js").read_text()
    assert "https://tiles.example/{z}/{x}/{-y}.png" in page and "A survey" in page
    other = {"imagery": "https://other.example/{z}/{x}/{y}.png", "imagery_attribution": "Others"}
    page = (run(scores, tmp_path / "other", **other).out / "review" / "candidates.js").read_text()
    assert "https://other.example/{z}/{x}/{y}.png" in page


def test_a_review_of_other_imagery_is_not_carried_over(scores, tmp_path):
    def described(**changed):
        facts = json.loads((scores / "scores.json").read_text())
        (scores / "scores.json").unlink()
        write_json(scores / "scores.json", facts | {"imagery": facts["imagery"] | changed})

    out = run(scores, tmp_path).out
    (out / "review.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    before = (out / "publication.json").read_bytes()
    described(bands=[3, 2, 1])
    with pytest.raises(ConfigError, match=r"review\.geojson holds a review of .*they differ in: bands"):
        run(scores, tmp_path)
    assert (out / "publication.json").read_bytes() == before and (out / "review.geojson").exists()
    described(bands=None, attribution="somebody")
    assert run(scores, tmp_path).publication.attribution == "somebody"
    assert (out / "review.geojson").exists()


def test_a_review_of_imagery_that_is_not_recorded_is_told(scores, tmp_path, caplog):
    out = run(scores, tmp_path).out
    (out / "review.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    facts = json.loads((out / "publication.json").read_text())
    del facts["imagery"]
    (out / "publication.json").unlink()
    write_json(out / "publication.json", facts)
    run(scores, tmp_path)
    assert "it isn't recorded which imagery" in caplog.text


def test_a_publication_of_the_first_version_is_read(scores, tmp_path):
    known = layer(tmp_path / "known.geojson", [("Point", list(centre(3, 3)), {})])
    for settings in ({}, {"known": known}):
        result = run(scores, tmp_path, **settings)
        path = result.out / "publication.json"
        content = json.loads(path.read_text())
        del content["schema_version"], content["imagery"]["retried_with_file"]
        words = {"below_threshold": "below the threshold", "tile_failed": "tile failed", "not_planned": "not planned"}
        content["known"] = {words.get(key, key): value for key, value in (content["known"] or {}).items()}
        path.write_text(json.dumps(content))
        assert Publication.read(result.out) == result.publication
    assert run(scores, tmp_path).publication.known is None


def test_shards_of_the_first_version_are_published_like_others(scores, tmp_path):
    table = (run(scores, tmp_path).out / "candidates.csv").read_bytes()
    for shard in list(scores.glob("*.parquet"))[:2]:
        rows = pq.read_table(shard)
        shard.unlink()  # it is published as a hard link
        pq.write_table(
            rows.rename_columns([n.replace("probability_", "probability/") for n in rows.column_names]), shard
        )
    assert (run(scores, tmp_path).out / "candidates.csv").read_bytes() == table


def test_a_damaged_publication_is_not_reviewed_on(scores, tmp_path):
    out = run(scores, tmp_path).out
    (out / "review.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    (out / "publication.json").write_text('{"schema_version": 1}')
    with pytest.raises(DataError, match=r"publication\.json is damaged: model: .*; remove it and run"):
        run(scores, tmp_path)


def test_no_table_holds_a_cell_that_a_spreadsheet_runs(scores, tmp_path):
    name = '=HYPERLINK("http://x")'
    areas = layer(tmp_path / "areas.geojson", [("Polygon", rectangle(0, 0, 20, 20), {"name": name})])
    known = layer(tmp_path / "known.geojson", [("Point", centre(a, 15), {"=a": name, "h": -5}) for a in (3, 8)])
    out = run(scores, tmp_path, areas=areas, known=known).out
    assert {row["area"] for row in read_csv(out / "candidates.csv")} == {f"'{name}"}
    missed = read_csv(out / "missed.csv")
    assert [(row["'=a"], row["h"]) for row in missed] == [(f"'{name}", "-5")] * 2


def test_a_folder_of_something_else_is_never_replaced(scores, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"thesis\.txt"):
        run(scores, tmp_path)


def rewrite(shard, change):
    table = change(pq.read_table(shard))
    pq.write_table(table, shard)


def damaged(name):
    def remove_description(folder):
        (folder / "scores.json").unlink()

    def remove_shard(folder):
        next(folder.glob("scores-00001-*")).unlink()

    def cut_shard(folder):
        shard = next(folder.glob("scores-00000-*"))
        shard.write_bytes(shard.read_bytes()[:100])

    def repeat_tiles(folder):
        first, second, _ = sorted(folder.glob("scores-*.parquet"))
        rows = pq.read_metadata(second).num_rows
        rewrite(second, lambda _: pq.read_table(first).slice(0, rows))

    def lose_a_row(folder):
        rewrite(next(folder.glob("scores-00000-*")), lambda table: table.slice(1))

    def lose_places(folder):
        import pyarrow as pa

        def without(table):
            x = table["x"].to_pylist()
            return table.set_column(table.column_names.index("x"), "x", pa.array([None, *x[1:]], pa.int32()))

        rewrite(next(folder.glob("scores-00002-*")), without)

    def another_zoom(folder):
        import pyarrow as pa

        def moved(table):
            return table.set_column(table.column_names.index("z"), "z", pa.array([17] * len(table), pa.int32()))

        rewrite(next(folder.glob("scores-00002-*")), moved)

    def unfinished(folder):
        content = json.loads((folder / "scores.json").read_text())
        (folder / "scores.json").write_text(json.dumps(content | {"scored": content["scored"] - 5}))

    def wrong_counts(folder):
        content = json.loads((folder / "scores.json").read_text())
        more = {"scored": content["scored"] + 1, "failed": content["failed"] - 1}
        (folder / "scores.json").write_text(json.dumps(content | more))

    def impossible(folder):
        import pyarrow as pa

        def over(table):
            name = "probability_school"
            return table.set_column(table.column_names.index(name), name, pa.array([1.5] * len(table), pa.float32()))

        rewrite(next(folder.glob("scores-00001-*")), over)

    def other_class(folder):
        content = json.loads((folder / "scores.json").read_text())
        (folder / "scores.json").write_text(json.dumps(content | {"positive_label": "well"}))

    return locals()[name]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("remove_description", "scores.json is missing"),
        ("remove_shard", "lacks 1 of 3 shards, the first is scores-00001-of-00003"),
        ("cut_shard", "scores-00000-of-00003.parquet is damaged"),
        ("repeat_tiles", "is there 2 times"),
        ("lose_a_row", r"399 rows and scores\.json says 400"),
        ("lose_places", "has no coordinates"),
        ("another_zoom", "isn't in the grid at zoom 18"),
        ("unfinished", "doesn't add up"),
        ("wrong_counts", "399 scored and 1 failed"),
        ("impossible", r"probability_school 1\.5"),
        ("other_class", "isn't one of its classes"),
    ],
)
def test_damaged_scores_are_refused_and_nothing_is_written(scores, tmp_path, damage, message):
    damaged(damage)(scores)
    with pytest.raises(DataError, match=message):
        run(scores, tmp_path)
    assert not (tmp_path / "out").exists()


def test_no_tiles_at_all_are_nothing_to_publish(tmp_path):
    scores = write_scores(tmp_path / "scores", {})
    with pytest.raises(DataError, match="no tiles"):
        run(scores, tmp_path)


def test_the_bounds_are_those_of_all_tiles(scores):
    bounds = check_scores(open_score_folder(scores))
    assert (bounds.left, bounds.top, bounds.right, bounds.bottom) == (X, Y, X + 19, Y + 19)
