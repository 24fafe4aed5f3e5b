"""Counting tiles by square, and drawing them where they are."""

import random

import pytest

from sat_xception.dataset.manifest import ManifestRow
from sat_xception.dataset.map_drawing import draw_map
from sat_xception.dataset.tile_map import OTHER_CLASSES, TileMap


def row(x, y, z=18, label="school", split="train", status="ok"):
    return ManifestRow(f"{z}/{x}/{y}", label, split, status, x=x, y=y, z=z, lon=0.0, lat=0.0)


def counted(rows, classes=("school",), **settings):
    tiles = TileMap(classes, **settings)
    for each in rows:
        tiles.offer(each)
    return tiles


def test_squares_grow_until_there_are_few_enough_and_no_tile_is_lost():
    rows = [row(1000 + index % 64, 2000 + index // 64) for index in range(64 * 64)]
    for most in (5_000, 1_000, 100, 4, 1):
        tiles = counted(rows, most_marks=most)
        assert len(tiles.marks()) <= most
        assert sum(mark.tiles for mark in tiles.marks()) == tiles.tiles == 64 * 64
        assert tiles.is_exact == (most == 5_000)


def test_the_order_of_tiles_says_nothing():
    rows = [row(index * 7 % 300, index * 13 % 200, label=f"c{index % 3}") for index in range(2_000)]
    expected = counted(rows, ("c0", "c1", "c2"), most_marks=300)
    random.Random(0).shuffle(rows)
    again = counted(rows, ("c0", "c1", "c2"), most_marks=300)
    assert (again.marks(), again.zoom) == (expected.marks(), expected.zoom)


def test_what_is_left_out_or_has_no_place_is_not_on_the_map():
    assert counted([row(1, 1, status="failed"), ManifestRow("a", "school", "train", "ok")]).marks() == []
    assert draw_map(TileMap(["school"]), 12) is None


def test_beyond_seven_classes_the_rest_is_one():
    tiles = counted([row(index, 0, label=f"c{index}") for index in range(10)], [f"c{index}" for index in range(10)])
    assert tiles.classes[-1] == OTHER_CLASSES
    assert [mark.label for mark in tiles.marks()].count(OTHER_CLASSES) == 3


@pytest.mark.parametrize(
    ("corners", "west", "north"),
    [
        # The equator and Greenwich meet in the middle of the grid.
        ([(131_072, 131_072)], "0°", "0°"),
        ([(148_480, 93_000), (148_600, 93_100)], "23.9°E", "46.2°N"),
    ],
)
def test_lines_lie_where_their_names_say(corners, west, north):
    drawing = draw_map(counted([row(*corner) for corner in corners]), 12)
    names = [name for _, name in drawing.meridians], [name for _, name in drawing.parallels]
    assert west in names[0], names
    assert north in names[1], names
    assert all(0 <= at <= 1000 for at, _ in drawing.meridians)
    assert all(0 <= at <= drawing.height for at, _ in drawing.parallels)


def test_the_scale_is_a_round_number_that_fits():
    drawing = draw_map(counted([row(131_072, 131_072), row(131_072 + 99, 131_072)]), 12)
    # A tile at zoom 18 is 152.87 m wide on the equator: 100 of them, and margins, are 1,000 units.
    length, name = drawing.scale
    assert name == "2 km"
    assert length == pytest.approx(2000 / (152.874 * 110 / 1000), rel=0.01)
