"""Random negatives: drawn from the tiles that qualify, which mercantile and Geod find by looking at each."""

import mercantile
import numpy as np
import pyproj
import pytest
import shapely

from sat_xception.dataset.negatives import NegativesConfig, are_clear, draw_negatives
from sat_xception.errors import DataError
from sat_xception.geo.vectors import parts_of

GEOD = pyproj.Geod(ellps="WGS84")
ZOOM = 17
# Squares of 4 km, far apart: a hundred-thousandth of the rectangle around them.
MIDDLES = np.random.default_rng(0).uniform((-77, 0), (-71, 8), (12, 2))
SQUARES = shapely.box(*(MIDDLES - 0.018).T, *(MIDDLES + 0.018).T)
SCHOOLS = shapely.points(
    np.repeat(MIDDLES, 5, axis=0) + np.random.default_rng(1).uniform(-0.018, 0.018, (60, 2))
)  # fmt: skip


def metres(tiles, points, zoom):
    """Return for each tile the distance from its nearest position, by longitude and latitude, to the nearest point."""
    found = []
    for x, y in tiles:
        west, south, east, north = mercantile.bounds(x, y, zoom)
        turned = points[:, 0] + 360 * np.round(((west + east) / 2 - points[:, 0]) / 360)
        near = np.clip(turned, west, east), np.clip(points[:, 1], south, north)
        found.append(GEOD.inv(*near, *points.T)[2].min())
    return np.array(found)


def qualifying(area, places, buffer_m, zoom):
    """Return the tiles that share an area with a polygon and are clear of all places."""
    tiles = {
        (tile.x, tile.y)
        for polygon in area
        for tile in mercantile.tiles(*polygon.bounds, zooms=zoom)
        if shapely.box(*mercantile.bounds(tile)).intersection(polygon).area > 1e-14
    }
    ordered = sorted(tiles)
    apart = metres(ordered, shapely.get_coordinates(places), zoom)
    return {tile for tile, distance in zip(ordered, apart, strict=True) if distance > buffer_m}


def drawn(places, count, area=None, seed=0, zoom=ZOOM, buffer_m=300.0, distance_m=3000.0, taken=None):
    tiles = draw_negatives(places, NegativesConfig(count, zoom, buffer_m, distance_m, seed), area, taken)
    assert tiles.shape == (count, 2)
    found = set(map(tuple, tiles.tolist()))
    assert len(found) == count
    return found


def test_small_squares_far_apart_give_every_tile_that_qualifies_and_not_one_more():
    expected = qualifying(SQUARES, SCHOOLS, 300.0, ZOOM)
    assert len(expected) > 1000
    assert drawn(SCHOOLS, len(expected), SQUARES) == expected
    with pytest.raises(
        DataError, match=f"found only {len(expected):,} of {len(expected) + 1:,} negatives in the area.*no more"
    ):
        drawn(SCHOOLS, len(expected) + 1, SQUARES)


def test_what_is_taken_isnt_drawn():
    expected = qualifying(SQUARES[:1], SCHOOLS, 300.0, ZOOM)
    taken = sorted(expected)[:7]
    keys = np.array([x << ZOOM | y for x, y in taken])
    assert drawn(SCHOOLS, len(expected) - 7, SQUARES[:1], taken=keys) == expected - set(taken)


def test_of_an_area_every_tile_is_as_likely_as_any_other():
    expected = sorted(qualifying(SQUARES[:1], SCHOOLS[:1], 300.0, 15))
    times = dict.fromkeys(expected, 0)
    rounds, size = 150, len(expected) // 3
    for seed in range(rounds):
        for tile in drawn(SCHOOLS[:1], size, SQUARES[:1], seed, zoom=15):
            times[tile] += 1
    share = size / len(expected)
    spread = np.sqrt(rounds * share * (1 - share))
    assert np.abs(np.array(list(times.values())) - rounds * share).max() < 5 * spread


def test_the_same_seed_draws_the_same_and_another_others():
    assert drawn(SCHOOLS, 60, SQUARES, 4) == drawn(SCHOOLS, 60, SQUARES, 4) != drawn(SCHOOLS, 60, SQUARES, 5)


def test_overlapping_polygons_count_once():
    square = SQUARES[0]
    one = qualifying([square], SCHOOLS, 300.0, ZOOM)
    assert drawn(SCHOOLS, len(one), np.array([square, square, shapely.MultiPolygon([square, square])])) == one


def test_across_the_antimeridian_the_buffer_holds_and_both_sides_are_drawn():
    places = shapely.points([(179.9999, -17.0), (-179.97, -17.0)])
    found = sorted(drawn(places, 600, zoom=18, buffer_m=2000.0, distance_m=5000.0))
    apart = metres(found, shapely.get_coordinates(places), 18)
    assert apart.min() > 2000 and apart.max() < 5000
    assert {x >> 17 for x, _ in found} == {0, 1}


def test_around_places_every_tile_is_found_when_all_are_wanted():
    places = shapely.points([(24.0, 46.0), (24.02, 46.0), (179.999, 1.0)])
    box = (
        shapely.box(23.8, 45.9, 24.2, 46.1),
        shapely.box(179.95, 0.95, 180, 1.05),
        shapely.box(-180, 0.95, -179.95, 1.05),
    )
    clear = sorted(qualifying(box, places, 500.0, 15))
    near = metres(clear, shapely.get_coordinates(places), 15) <= 3000
    expected = {tile for tile, is_near in zip(clear, near, strict=True) if is_near}
    assert drawn(places, len(expected), zoom=15, buffer_m=500.0) == expected
    with pytest.raises(
        DataError, match=f"found only {len(expected)} of {len(expected) + 1} negatives in 3,000 m around"
    ):
        drawn(places, len(expected) + 1, zoom=15, buffer_m=500.0)


def test_where_places_are_dense_there_are_more():
    crowd = [(24.0 + index * 1e-3, 46.0) for index in range(9)]
    found = drawn(shapely.points([*crowd, (25.0, 46.0)]), 500)
    middle = mercantile.tile(24.5, 46, ZOOM).x
    assert 400 < sum(x < middle for x, _ in found) < 490


def test_of_many_points_in_one_row_each_is_a_place():
    corners = [(24.0, 46.0), (24.5, 46.0)]
    row = np.array([shapely.MultiPoint(corners)])
    found = drawn(row, 100)
    assert metres(sorted(found), np.array(corners), ZOOM).max() < 3000
    assert len(parts_of(row)[0]) == 2


def test_a_country_is_sampled_without_listing_its_tiles():
    found = drawn(SCHOOLS[:5], 50, np.array([shapely.box(-75, -10, -70, 0)]), zoom=18)  # of 27 million
    assert len({(x >> 12, y >> 12) for x, y in found}) > 1


def test_tiles_are_clear_when_they_are_farther_than_the_buffer():
    place = shapely.points([(179.9999, -17.0)])
    side = 2**18
    x, y, _ = mercantile.tile(179.9999, -17.0, 18)
    beside = np.array([((x + step) % side, y) for step in range(30)])
    expected = metres(beside.tolist(), shapely.get_coordinates(place), 18) > 2000
    assert expected.any() and not expected.all()
    assert (are_clear(beside, place, 18, 2000.0) == expected).all()
