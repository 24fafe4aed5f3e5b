"""Which tiles cover an area: the same as mercantile finds by looking at every tile."""

import mercantile
import numpy as np
import pytest
import shapely

from sat_xception.errors import ConfigError, DataError
from sat_xception.geo.morton import keys_of, merged, runs_of, tile_ids, tiles_of
from sat_xception.geo.near import tiles_near
from sat_xception.geo.tile_cover import box_area, cover, grid_area

DISC = shapely.Point(24, 46).buffer(0.3)
RING = DISC.difference(shapely.Point(24, 46).buffer(0.1))
# Four metres wide and 30 km long, between the edges of tiles.
SLIVER = shapely.LineString([(24.0001, 46.00003), (24.4, 46.1)]).buffer(2e-5, cap_style="flat")
BOW_TIE = shapely.Polygon([(10, 10), (10.2, 10.2), (10.2, 10), (10, 10.2)])


def covered(places, zoom, buffer_m=0.0):
    """Return (x, y) of the tiles, after a look at the order of the runs."""
    tiles, last = set(), -1
    where = np.array(places, dtype=object)
    runs = [tiles_near(where, buffer_m, zoom)] if buffer_m else cover(grid_area(where, zoom), zoom)
    for first, count in runs:
        assert (count > 0).all()
        for begin, length in zip(first.tolist(), count.tolist(), strict=True):
            assert begin > last, "runs ascend and don't overlap"
            last = begin + length - 1
            x, y = tiles_of(np.arange(begin, begin + length))
            tiles |= set(zip(x.tolist(), y.tolist(), strict=True))
    return tiles


def looked_at(places, zoom):
    """Return the tiles whose outline, by mercantile, shares an area with one of the places."""
    found = set()
    for place in map(shapely.make_valid, places):
        for tile in mercantile.tiles(*place.bounds, zooms=zoom):
            if shapely.box(*mercantile.bounds(tile)).intersection(place).area > 1e-15:
                found.add((tile.x, tile.y))
    return found


@pytest.mark.parametrize("zoom", [0, 1, 5, 6, 7, 11, 13])
@pytest.mark.parametrize("place", [DISC, RING, SLIVER, BOW_TIE], ids=["disc", "hole", "sliver", "bow-tie"])
def test_polygons_are_covered_as_mercantile_does_it(place, zoom):
    assert covered([place], zoom) == looked_at([place], zoom)


def test_overlapping_places_are_covered_once():
    places = [DISC, shapely.affinity.translate(DISC, 0.2), shapely.affinity.translate(DISC, 3)]
    assert covered(places, 12) == looked_at(places, 12)


def test_a_rectangle_on_the_edges_of_tiles_takes_no_neighbours():
    bounds = mercantile.bounds(300, 200, 9)
    assert covered([shapely.box(*bounds)], 9) == {(300, 200)}
    assert len(covered([shapely.box(*bounds)], 12)) == 64


def test_a_rectangle_across_the_antimeridian_is_on_both_sides_of_it():
    tiles = covered(list(box_area("179.9,-17,-179.8,-16.9")), 10)
    sides = [shapely.box(179.9, -17, 180, -16.9), shapely.box(-180, -17, -179.8, -16.9)]
    assert tiles == looked_at(sides, 10)
    assert {x for x, _ in tiles} == {0, 1023}


def test_a_buffer_goes_across_the_antimeridian_and_is_in_metres():
    tiles = covered([shapely.Point(179.9999, 0.01)], 14, buffer_m=3000)
    assert {x for x, _ in tiles} >= {0, 2**14 - 1}
    # 2.45 km wide tiles at the equator: 6 km are at most four of them.
    assert len({x for x, _ in tiles}) <= 4


def test_poles_end_at_the_grid():
    tiles = covered([shapely.box(-180, 80, 180, 90)], 5)
    assert tiles == {(tile.x, tile.y) for tile in mercantile.tiles(-180, 80, 180, 85.05, zooms=5)}
    with pytest.raises(DataError, match="beyond 85 degrees"):
        covered([shapely.box(-10, 86, 10, 89)], 5)


def test_a_point_is_its_tile_also_on_an_edge():
    assert covered([shapely.Point(0, 0), shapely.Point(24.1, 46)], 12) == {
        (2048, 2048),
        mercantile.tile(24.1, 46, 12)[:2],
    }


def test_a_line_along_an_edge_has_tiles_on_both_sides():
    assert {y for _, y in covered([shapely.LineString([(0.1, 0), (1, 0)])], 8)} == {127, 128}


def test_a_large_area_is_a_few_runs():
    runs = list(cover(grid_area(np.array([shapely.box(-60, -30, 60, 60)]), 13), 13))
    tiles = sum(int(count.sum()) for _, count in runs)
    rows = mercantile.tile(0, -30, 13).y - mercantile.tile(0, 60, 13).y
    assert tiles == pytest.approx(120 / 360 * 2**13 * rows, 1e-3)
    assert sum(len(first) for first, _ in runs) < tiles / 1_000


def test_the_whole_world_is_one_run_a_step():
    ((first, count),) = cover(grid_area(np.array([shapely.box(-180, -90, 180, 90)]), 3), 3)
    assert (first.tolist(), count.tolist()) == ([0], [64])


@pytest.mark.parametrize(
    "text", ["1,2,3", "a,b,c,d", "46,24,47", "10,95,11,96", "10,20,11,15", "10,20,10,21", "200,1,201,2"]
)
def test_what_is_no_rectangle_is_refused(text):
    with pytest.raises(ConfigError, match="--bbox"):
        box_area(text)


def test_keys_are_quadkeys():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 2**30, (2, 1000))
    again = tiles_of(keys_of(x, y))
    assert (again[0] == x).all() and (again[1] == y).all()
    for tile in (mercantile.Tile(5, 9, 4), mercantile.Tile(2**20 - 1, 3, 20)):
        assert int(keys_of(tile.x, tile.y)) == int(mercantile.quadkey(tile), 4)
    assert tile_ids(keys_of([5, 7], [9, 0]), 4).to_pylist() == ["4/5/9", "4/7/0"]


@pytest.mark.parametrize("keys", [[], [3], [3, 4, 5], [0, 2, 3, 9]])
def test_runs_hold_their_keys(keys):
    first, count = runs_of(np.array(keys, np.int64))
    assert [key for begin, length in zip(first, count, strict=True) for key in range(begin, begin + length)] == keys
    assert (first[1:] > (first + count)[:-1]).all()


def test_runs_that_touch_become_one():
    first, count = merged(np.array([0, 4, 9]), np.array([4, 4, 1]))
    assert (first.tolist(), count.tolist()) == ([0, 9], [8, 1])
