"""Which tiles are near places: the same as Geod measures to a thousand points of each tile's outline and inside."""

import mercantile
import numpy as np
import pyproj
import pytest
import shapely

from sat_xception.geo.morton import are_in, keys_of, tiles_of
from sat_xception.geo.near import tiles_near

GEOD = pyproj.Geod(ellps="WGS84")


def listed(runs):
    keys = np.concatenate([np.arange(first, first + count) for first, count in zip(*runs, strict=True)])
    assert len(np.unique(keys)) == len(keys)
    return set(zip(*(axis.tolist() for axis in tiles_of(keys)), strict=True))


def metres_to(tile, zoom, points):
    """Return the least distance from points to 33 x 33 positions in a tile, and to that nearest to each."""
    west, south, east, north = mercantile.bounds(*tile, zoom)
    best = np.inf
    for lon, lat in points:
        turn = 360 * np.round(((west + east) / 2 - lon) / 360)
        xs = np.append(np.linspace(west, east, 33), np.clip(lon + turn, west, east))
        ys = np.append(np.linspace(south, north, 33), np.clip(lat, south, north))
        x, y = (axis.ravel() for axis in np.meshgrid(xs, ys))
        best = min(best, GEOD.inv(x, y, np.full(len(x), lon), np.full(len(x), lat))[2].min())
    return best


CASES = {
    "two places": ([(24.1, 46.0), (24.11, 46.003)], 16, 1500.0),
    "across the antimeridian": ([(179.9999, -17.0), (-179.97, -17.0)], 15, 4000.0),
    "far north": ([(10.0, 70.0)], 11, 20_000.0),
    "at the equator": ([(30.0, 0.01)], 13, 9000.0),
    "far away": ([(30.0, 60.0)], 7, 600_000.0),
}


@pytest.mark.parametrize("name", CASES)
def test_tiles_within_a_distance_are_those_that_geod_measures(name):
    places, zoom, distance = CASES[name]
    found = listed(tiles_near(shapely.points(places), distance, zoom))
    side = 2**zoom
    around = {((x + i) % side, y + j) for x, y in found for i in (-1, 0, 1) for j in (-1, 0, 1) if 0 <= y + j < side}
    metres = {tile: metres_to(tile, zoom, places) for tile in around}
    # A position between those of the 33 may be nearer, by less than a thousandth of the distance.
    assert not [tile for tile, apart in metres.items() if apart <= distance and tile not in found]
    assert not [tile for tile in found if metres[tile] > distance * 1.001]


def test_a_distance_of_nothing_is_the_tiles_that_are_touched():
    place = shapely.box(*mercantile.bounds(300, 200, 9)).buffer(-1e-6)
    assert listed(tiles_near(np.array([place]), 0.0, 9)) == {(300, 200)}
    assert listed(tiles_near(shapely.points([(0.1, 0.1)]), 0.0, 4)) == {(8, 7)}


def test_the_inside_of_polygons_is_near_and_of_holes_is_not():
    ring = shapely.Point(24, 46).buffer(0.3) - shapely.Point(24, 46).buffer(0.2)
    found = listed(tiles_near(np.array([shapely.MultiPolygon([ring])]), 100.0, 13))
    for x, y in {mercantile.tile(lon, 46, 13)[:2] for lon in (23.72, 23.75, 23.78, 24.25)}:
        assert (x, y) in found
    assert mercantile.tile(24, 46, 13)[:2] not in found


def test_a_line_is_near_along_its_whole_length():
    line = np.array([shapely.LineString([(10, 50), (12, 50)])])
    found = listed(tiles_near(line, 50.0, 12))
    # Straight in longitude and latitude: along the parallel.
    assert {mercantile.tile(lon, 50, 12)[:2] for lon in np.linspace(10, 12, 400)} <= found


def test_places_beyond_the_grid_are_near_nothing():
    assert listed(tiles_near(shapely.points([(0, 89), (0.1, 0.1)]), 1.0, 5)) == {(16, 15)}


def test_runs_know_their_keys():
    first, count = np.array([3, 10]), np.array([2, 1])
    assert are_in(np.arange(12), first, count).nonzero()[0].tolist() == [3, 4, 10]
    assert not are_in(np.arange(3), first[:0], count[:0]).any()
    assert are_in(keys_of([1], [0]), np.array([0]), np.array([4])).all()
