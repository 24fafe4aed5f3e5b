"""Known places: each part of a row is one, and what lies beyond the antimeridian is near."""

import numpy as np
import pyarrow as pa
import pyproj
import pytest
import shapely

from sat_xception.errors import ConfigError, DataError
from sat_xception.geo.sites import merge_tiles
from sat_xception.geo.tiles import grid_to_lonlat, lonlat_to_tiles
from sat_xception.geo.vectors import Layer
from sat_xception.publish.area_counts import AreaCounts
from sat_xception.publish.known_places import FOUND, NOT_PLANNED, KnownPlaces

ZOOM = 16


def layer(*geometries, **columns):
    return Layer("known.geojson", pa.table(columns), np.array(geometries, dtype=object))


def sites_at(*places):
    lon, lat = np.array(places, dtype=float).T
    x, y = lonlat_to_tiles(lon, lat, ZOOM)
    return merge_tiles(x, y, np.full(len(x), 0.9, dtype=np.float32), ZOOM)


def test_every_point_of_a_row_is_a_place():
    places = [(24.0, 46.0), (24.5, 46.0), (25.0, 46.0)]
    known = KnownPlaces(layer(shapely.MultiPoint(places[:2]), shapely.Point(places[2]), name=["two", "one"]), ZOOM)
    compared = known.compare(sites_at(places[1], places[2]), 100.0)
    assert compared.outcome.tolist() == [NOT_PLANNED, FOUND, FOUND]
    assert compared.site_counts().known == 2
    missed = known.missed(compared).to_pylist()
    assert [(row["place"], row["lon"], row["name"]) for row in missed] == [(1, 24.0, "two")]


def test_a_place_beyond_the_antimeridian_is_near():
    at = (179.9995, -17.0)
    known = KnownPlaces(layer(shapely.Point(-179.999, -17.0), shapely.Point(170, -17), name=["a", "b"]), ZOOM)
    sites = sites_at(at)
    compared = known.compare(sites, 200.0)
    east, _ = grid_to_lonlat(sites.x + 1.0, sites.y + 0.5, ZOOM)
    expected = pyproj.Geod(ellps="WGS84").inv(east[0], -17.0, -179.999, -17.0)[2]
    assert compared.known.tolist() == [True] and compared.place.tolist() == [0]
    assert compared.distance_m[0] == pytest.approx(expected, abs=0.1)
    assert compared.outcome.tolist() == [FOUND, NOT_PLANNED]
    assert compared.place_distance_m[0] == pytest.approx(expected, abs=0.1)


def test_a_column_that_isnt_utf8_is_written_readably():
    known = KnownPlaces(layer(shapely.Point(0.0, 0.0), name=pa.array(["básica".encode("latin-1")], pa.binary())), ZOOM)
    (row,) = known.missed(known.compare(sites_at((1, 1)), 1.0)).to_pylist()
    assert row["name"] == "b\\xe1sica"


def test_areas_without_a_name_or_a_surface_are_named_by_their_row():
    box = shapely.box(0, 0, 1, 1)
    with pytest.raises(DataError, match=r"row 2 of known.geojson has no 'name'"):
        AreaCounts(layer(box, box, name=["a", " "]), "name")
    with pytest.raises(DataError, match=r"row 2 of known.geojson is no polygon, but a point or a line"):
        AreaCounts(layer(box, shapely.Point(0, 0), name=["a", "b"]), "name")
    with pytest.raises(ConfigError, match=r"no column 'nom'; its columns are name. Name one with --area-name"):
        AreaCounts(layer(box, name=["a"]), "nom")
    assert AreaCounts(layer(box, box, name=["007", "7"]), "name").names == ["007", "7"]
