"""Tiles become sites."""

import mercantile
import numpy as np
import pytest
from scipy import ndimage

from sat_xception.geo.sites import merge_tiles

ZOOM = 12


def merge(tiles, zoom=ZOOM):
    """Merge {(x, y): score}."""
    x, y = (np.array([tile[axis] for tile in tiles], dtype=np.int64) for axis in range(2))
    return merge_tiles(x, y, np.array(list(tiles.values()), dtype=np.float32), zoom)


def test_tiles_that_touch_are_one_site_at_corners_too_and_gaps_part_them():
    sites = merge({(5, 5): 0.6, (6, 6): 0.9, (6, 4): 0.7, (8, 6): 0.8})
    assert sites.ids() == [f"{ZOOM}/6/6", f"{ZOOM}/8/6"]
    assert sites.members() == [f"{ZOOM}/6/6 {ZOOM}/6/4 {ZOOM}/5/5", f"{ZOOM}/8/6"]
    assert sites.count.tolist() == [3, 1]


def test_no_tile_and_one_tile():
    assert len(merge({})) == 0
    alone = merge({(7, 9): 0.5})
    lon, lat = mercantile.bounds(7, 9, ZOOM)[::2], mercantile.bounds(7, 9, ZOOM)[1::2]
    assert alone.lon[0] == pytest.approx(np.mean(lon))
    assert lat[0] < alone.lat[0] < lat[1]


def test_the_centre_leans_to_the_better_tile():
    sites = merge({(10, 10): 0.9, (11, 10): 0.3})
    west = mercantile.ul(10, 10, ZOOM).lng
    width = mercantile.ul(11, 10, ZOOM).lng - west
    assert sites.lon[0] == pytest.approx(west + width * (0.5 * 0.9 + 1.5 * 0.3) / 1.2)


def test_a_site_may_lie_across_the_180th_meridian():
    last = 2**ZOOM - 1
    sites = merge({(last, 3): 0.8, (0, 3): 0.8})
    assert sites.count.tolist() == [2]
    assert abs(sites.lon[0]) == pytest.approx(180)


def test_rows_of_the_first_and_the_last_column_of_neighbouring_rows_dont_get_mixed_up():
    last = 2**ZOOM - 1
    assert len(merge({(3, last): 0.8, (4, 0): 0.8})) == 2
    assert len(merge({(3, 0): 0.8, (2, last): 0.8})) == 2


def test_the_order_of_the_rows_makes_no_difference():
    rng = np.random.default_rng(1)
    tiles = {(int(x), int(y)): 0.5 for x, y in rng.integers(0, 30, (200, 2))}
    backwards = dict(reversed(tiles.items()))
    assert merge(tiles).members() == merge(backwards).members()


def test_sites_are_those_that_scipy_finds_in_a_picture_of_the_tiles():
    rng = np.random.default_rng(2)
    picture = rng.random((40, 40)) < 0.3
    rows, columns = np.nonzero(picture)
    sites = merge({(int(x), int(y)): float(rng.random()) for x, y in zip(columns, rows, strict=True)})
    _, count = ndimage.label(picture, np.ones((3, 3)))
    assert len(sites) == count
    assert sites.count.sum() == picture.sum()
    best = sites.score[sites.first]
    assert (np.diff(best) <= 0).all()
    assert (np.maximum.reduceat(sites.score, sites.first) == best).all()
