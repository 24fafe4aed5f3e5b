"""Decisions as a file that assemble takes."""

import json

import mercantile
import pytest

from sat_xception.dataset.assemble import assemble
from sat_xception.dataset.settings import AssembleConfig
from sat_xception.errors import ConfigError, DataError, ServiceError
from sat_xception.review.page import read_data
from sat_xception.review.record import ReviewDecision, ReviewRecord
from tests.datasets import read_tiles
from tests.review_pages import X, Y, Z, publish_tiles, singles, sites


def decide(site, verdict, **facts):
    return ReviewDecision(site=site, verdict=verdict, **facts)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Four candidates: one of two tiles, three of one."""
    scores = {(0, 0): 0.95, (1, 0): 0.6, (4, 0): 0.9, (8, 0): 0.8, (12, 0): 0.7}
    return publish_tiles(tmp_path_factory.mktemp("review"), scores)


def record(out, tmp_path):
    return ReviewRecord(tmp_path / "review.geojson", read_data(out))


def save(kept):
    kept.save(kept.text())
    return kept.path


def verdicts(path):
    features = json.loads(path.read_text())["features"]
    return {feature["properties"]["tile_id"]: feature["properties"]["verdict"] for feature in features}


def test_yes_is_about_the_best_tile_and_no_about_every_tile_that_was_shown(out, tmp_path):
    pair = sites(out)[0]
    kept = record(out, tmp_path)
    kept.put(decide(pair, "yes"))
    assert verdicts(save(kept)) == {f"{Z}/{X}/{Y}": "yes", f"{Z}/{X + 1}/{Y}": "unsure"}
    kept.put(decide(pair, "no"))
    assert verdicts(save(kept)) == {f"{Z}/{X}/{Y}": "no", f"{Z}/{X + 1}/{Y}": "no"}
    kept.put(decide(pair, ""))
    assert verdicts(save(kept)) == {}


def test_the_outline_is_the_tiles_own_counter_clockwise(out, tmp_path):
    kept = record(out, tmp_path)
    kept.put(decide(sites(out)[1], "yes"))
    [feature] = json.loads(save(kept).read_text())["features"]
    ring = feature["geometry"]["coordinates"][0]
    west, south, east, north = mercantile.bounds(X + 4, Y, Z)
    expected = [(west, south), (east, south), (east, north), (west, north), (west, south)]
    assert [value for corner in ring for value in corner] == pytest.approx([v for c in expected for v in c], abs=1e-7)


def test_it_is_read_as_it_was_written_and_unknown_tiles_stay(out, tmp_path):
    kept = record(out, tmp_path)
    first, second = sites(out)[:2]
    said = [decide(first, "no", note='a "barn", really', reviewer="Zoë", time="2026-11-28T10:00:00.000Z"),
            decide(second, "unsure")]  # fmt: skip
    for decision in said:
        kept.put(decision)
    path = save(kept)
    text = path.read_text()
    foreign = text.replace(second.split("/")[1], "1")
    path.write_text(foreign)
    again = record(out, tmp_path)
    assert again.decisions == {first: said[0]}
    assert again.others == 1
    again.put(said[1])
    assert {first, second, f"{Z}/1/{second.split('/')[2]}"} <= set(verdicts(save(again)))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"features": [{"properties": {}}]}', '{"features": 3}'])
def test_a_damaged_record_is_refused_and_left_alone(out, tmp_path, text):
    (tmp_path / "review.geojson").write_text(text)
    with pytest.raises(DataError, match=r"review\.geojson isn't a review"):
        record(out, tmp_path)
    assert (tmp_path / "review.geojson").read_text() == text


def test_a_verdict_that_is_none_is_refused(out, tmp_path):
    site = sites(out)[0]
    properties = {"tile_id": site, "site": site, "verdict": "maybe"}
    (tmp_path / "review.geojson").write_text(json.dumps({"features": [{"properties": properties}]}))
    with pytest.raises(DataError, match="verdict"):
        record(out, tmp_path)


def test_what_cant_be_written_leaves_the_earlier_file(out, tmp_path):
    kept = record(out, tmp_path)
    kept.put(decide(sites(out)[0], "yes"))
    before = save(kept).read_bytes()
    kept.path = tmp_path / "gone" / "review.geojson"
    with pytest.raises(ServiceError, match="can't write"):
        kept.save("half")
    assert (tmp_path / "review.geojson").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["review.geojson"]


def test_from_review_to_dataset_yes_is_a_positive_and_no_a_negative_with_weight(tmp_path):
    published = publish_tiles(tmp_path, singles(20) | {(5, 0): 0.6})
    kept = ReviewRecord(published / "review.geojson", read_data(published))
    labelled, pair, *others, last = sites(published)
    said = {pair: "no", last: "unsure"} | {site: ("yes", "no")[place % 2] for place, site in enumerate(others)}
    for site, verdict in said.items():
        kept.put(decide(site, verdict, note="seen", reviewer="Ana"))
    review = save(kept)
    # The last one is labelled, too: who looked at it isn't sure, and so it is in no class.
    places = [{"type": "Point", "coordinates": middle(site)} for site in (labelled, last)]
    rows = [{"type": "Feature", "properties": {}, "geometry": place} for place in places]
    (tmp_path / "schools.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": rows}))
    settings = {
        "labels": tmp_path / "schools.geojson",
        "label": "school",
        "imagery": str(tmp_path / "imagery"),
        "zoom": Z,
        "block_zoom": Z,
        "fractions": (0.5, 0.25, 0.25),
        "keep_near_duplicates": True,
        "negatives_review": review,
        "negatives_review_weight": 3.0,
    }
    assemble(AssembleConfig(out=tmp_path / "dataset", **settings))
    found = {tile["id"]: (tile["label"], tile["weight"]) for tile in read_tiles(tmp_path / "dataset")}
    positives = {site: ("school", 1.0) for site in [labelled, *others[::2]]}
    negatives = {site: ("not-school", 3.0) for site in [pair, f"{Z}/{X + 5}/{Y}", *others[1::2]]}
    assert found == positives | negatives
    with pytest.raises(ConfigError, match="zoom 18, --zoom is 17"):
        assemble(AssembleConfig(out=tmp_path / "other", **settings | {"zoom": 17, "block_zoom": 17}))


def middle(site):
    z, x, y = map(int, site.split("/"))
    west, south, east, north = mercantile.bounds(x, y, z)
    return [(west + east) / 2, (south + north) / 2]
