import mercantile
import numpy as np

from sat_xception.geo.tiles import ancestors, grid_to_lonlat, lonlat_to_grid, lonlat_to_tiles, tile_width_m


def test_tiles_are_those_that_mercantile_names():
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(-180, 180, 500), rng.uniform(-85, 85, 500)
    for zoom in (0, 1, 12, 18, 22):
        x, y = lonlat_to_tiles(lon, lat, zoom)
        expected = [mercantile.tile(*place, zoom) for place in zip(lon.tolist(), lat.tolist(), strict=True)]
        assert list(zip(x.tolist(), y.tolist(), strict=True)) == [(tile.x, tile.y) for tile in expected]


def test_corners_of_a_tile_are_those_that_mercantile_names():
    lon, lat = grid_to_lonlat(np.array([147_000.0, 147_001]), np.array([93_001.0, 93_000]), 18)
    bounds = mercantile.bounds(147_000, 93_000, 18)
    np.testing.assert_allclose([lon[0], lat[0], lon[1], lat[1]], bounds, rtol=1e-12)


def test_the_ends_of_the_earth_are_in_the_grid():
    x, y = lonlat_to_tiles(np.array([-180.0, 180]), np.array([90.0, -90]), 3)
    assert (x.tolist(), y.tolist()) == ([0, 7], [0, 7])


def test_a_position_comes_back_from_the_grid():
    lon, lat = np.array([24.29, -70.5]), np.array([43.85, -33.4])
    np.testing.assert_allclose(grid_to_lonlat(*lonlat_to_grid(lon, lat, 18), 18), (lon, lat), rtol=1e-12)


def test_ancestors_are_the_parents_that_mercantile_names():
    parent = mercantile.parent(147_000, 93_000, 18, zoom=12)
    x, y = ancestors(np.array([147_000]), np.array([93_000]), 18, 12)
    assert (x[0], y[0]) == (parent.x, parent.y)


def test_a_tile_is_half_as_wide_at_60_degrees():
    np.testing.assert_allclose(tile_width_m(np.array([0.0, 60]), 18), [152.874, 76.437], atol=1e-3)
