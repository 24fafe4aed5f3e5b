"""What the review page is made of."""

import html
import json
import logging
import re
from pathlib import Path

import pytest

import sat_xception.review
from sat_xception.errors import ConfigError, ServiceError
from sat_xception.review.imagery import web_tiles
from sat_xception.review.page import content_policy, read_data
from sat_xception.storage import folder_digests
from tests.conftest import draw_tile, encode
from tests.review_pages import X, Y, Z, publish_tiles
from tests.tile_server import TileServer

STATIC = Path(sat_xception.review.__file__).parent / "static"
# Of npm's leaflet 1.9.4, where each lies in dist/ (the licence beside it).
LEAFLET = {
    "LICENSE": "53e8dc25862014e4324741ca18fbe3611e11d42ef69f59f86ea8c5389647d4cb",
    "images/layers-2x.png": "066daca850d8ffbef007af00b06eac0015728dee279c51f3cb6c716df7c42edf",
    "images/layers.png": "1dbbe9d028e292f36fcba8f8b3a28d5e8932754fc2215b9ac69e4cdecf5107c6",
    "leaflet.css": "a7837102824184820dfa198d1ebcd109ff6d0ff9a2672a074b9a1b4d147d04c6",
    "leaflet.js": "db49d009c841f5ca34a888c96511ae936fd9f5533e90d8b2c4d57596f4e5641a",
}


def test_leaflet_is_as_npm_has_it():
    found = folder_digests(STATIC / "leaflet")
    assert "1.9.4" in (STATIC / "leaflet" / "README.md").read_text()
    assert {name: digest for name, digest in found.items() if name != "README.md"} == LEAFLET


def test_scripts_need_neither_eval_nor_handlers_in_html(tmp_path):
    for script in STATIC.glob("*.js"):
        assert not re.search(r"\beval\(|new Function|insertAdjacentHTML|document\.write", script.read_text()), script
    out = publish_tiles(tmp_path, {(0, 0): 0.9}, pictures=False)
    page = (out / "review" / "index.html").read_text()
    assert not re.search(r"<script(?! src=)|\son\w+=|\sstyle=|javascript:", page)
    assert "default-src 'none'; script-src 'self'" in html.unescape(page)


def test_only_the_servers_of_the_pictures_are_allowed():
    assert "img-src 'self' data: https://a.example:8080;" in content_policy({"https://a.example:8080"})
    tiles = web_tiles("https://{a-c}.tiles.example/{z}/{x}/{y}.png", "Maps", "--basemap")
    assert tiles.url == "https://{s}.tiles.example/{z}/{x}/{y}.png"
    assert tiles.hosts == "abc"
    assert tiles.origins == tuple(f"https://{host}.tiles.example" for host in "abc")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("https://tiles.example/{z}/{x}.png", "must be a template"),
        ("ftp://tiles.example/{z}/{x}/{y}.png", "must be a template"),
        ("https://tiles.example/{z}/{x}/{y}.png?key={token}", "can't keep a token"),
        ("https://tiles.example;script-src */{z}/{x}/{y}.png", "no plain host name"),
        ("https://me:secret@tiles.example/{z}/{x}/{y}.png", "no plain host name"),
        ("https://{s}.{a-b}.example/{z}/{x}/{y}.png", "several ways"),
    ],
)
def test_addresses_that_a_page_cant_use_are_refused(template, message):
    with pytest.raises(ConfigError, match=message):
        web_tiles(template, "Maps", "--basemap")


def test_rows_from_the_south_are_turned():
    assert web_tiles("https://a.example/{z}/{x}/{y}.png", "", "--imagery", tms=True).url.endswith("/{z}/{x}/{-y}.png")


def test_tiles_of_a_folder_are_copied_with_those_between_them(tmp_path):
    out = publish_tiles(tmp_path, {(0, 0): 0.9, (1, 1): 0.8, (1, 0): 0.1, (5, 5): 0.7, (9, 9): 0.1})
    copied = {path.relative_to(out / "review/tiles").as_posix() for path in (out / "review/tiles").rglob("*.jpg")}
    # The fourth of the square around the first two has no picture.
    assert copied == {f"{Z}/{X + a}/{Y + b}.jpg" for a, b in ((0, 0), (1, 1), (1, 0), (5, 5))}
    images = read_data(out).images
    assert images.content() == {"ending": "jpg", "others": {f"{X}/{Y + 1}": ""}}


def test_tiles_of_a_server_are_linked_or_copied_and_a_token_is_in_no_file(tmp_path, monkeypatch, caplog):
    with TileServer([encode(draw_tile("school", 1))]) as server:
        template = server.template
        linked = publish_tiles(tmp_path / "linked", {(0, 0): 0.9}, pictures=False, imagery=template)
        assert read_data(linked).imagery.url == template
        assert f"data: {server.url};" in (linked / "review" / "index.html").read_text()
        assert not server.asked
        monkeypatch.setenv("TILE_KEY", "geheim")
        settings = {"imagery": f"{template}?key={{token}}", "imagery_token_env": "TILE_KEY"}
        copied = publish_tiles(tmp_path / "copied", {(0, 0): 0.9}, pictures=False, **settings)
        assert server.keys == {"geheim"}
        assert read_data(copied).imagery is None
        assert (copied / "review" / "tiles" / str(Z) / str(X) / f"{Y}.jpg").is_file()
        with_key = publish_tiles(tmp_path / "key", {(0, 0): 0.9}, pictures=False, imagery=f"{template}?key=geheim")
        assert read_data(with_key).imagery is None
        offline = publish_tiles(tmp_path / "off", {(0, 0): 0.9}, pictures=False, imagery=template, with_tiles=True)
        assert (offline / "review" / "tiles" / str(Z) / str(X) / f"{Y}.jpg").is_file()
    for path in (path for folder in (copied, with_key) for path in folder.rglob("*") if path.is_file()):
        assert b"geheim" not in path.read_bytes()
    assert "geheim" not in caplog.text


def test_an_address_that_had_a_key_is_asked_for_again(tmp_path):
    out = tmp_path / "scores"
    publish_tiles(tmp_path, {(0, 0): 0.9}, pictures=False)
    described = json.loads((out / "scores.json").read_text())
    described["imagery"]["url"] = "https://tiles.example/{z}/{x}/{y}.jpg?key=***"
    (out / "scores.json").write_text(json.dumps(described))
    from sat_xception.publish.publish import publish
    from sat_xception.publish.settings import PublishConfig

    with pytest.raises(ConfigError, match="--imagery-token-env"):
        publish(PublishConfig(scores=out, out=tmp_path / "other"))


def test_when_no_tile_can_be_had_nothing_is_published(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ServiceError, match="none of the 1 tiles"):
        publish_tiles(tmp_path, {(0, 0): 0.9}, pictures=False, imagery=str(tmp_path / "empty"))
    assert not (tmp_path / "out").exists()


def test_only_the_best_candidates_are_on_the_page_and_the_rest_is_counted(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    scores = {(3 * index, 0): 0.6 + index / 100 for index in range(10)}
    out = publish_tiles(tmp_path, scores, pictures=False, most_reviewed=4)
    data = read_data(out)
    assert (len(data.x), data.total) == (4, 10)
    assert data.score == (0.69, 0.68, 0.67, 0.66)
    assert json.loads((out / "publication.json").read_text())["review"] == {
        "candidates": 4, "left_out": 6, "kept_decisions": 0,
    }  # fmt: skip
    assert "6 more are in the files" in (out / "report.html").read_text()


def test_far_tiles_of_a_large_candidate_are_counted_and_not_shown(tmp_path):
    out = publish_tiles(tmp_path, {(index, 0): 0.9 - index / 100 for index in range(8)}, pictures=False)
    data = read_data(out)
    assert data.beside == (((1, 0), (2, 0)),) and data.hidden == (5,) and data.tiles == (8,)


def test_a_basemap_needs_its_owners_name(tmp_path):
    with pytest.raises(ValueError, match="--basemap-attribution"):
        publish_tiles(tmp_path, {(0, 0): 0.9}, pictures=False, basemap="https://a.example/{z}/{x}/{y}.png")
