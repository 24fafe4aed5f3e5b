"""Vector files of other people: all of a file or an error, the coordinate system it names, its texts as they are."""

import json
import struct
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pyproj
import pytest
import shapely

from sat_xception.errors import ConfigError, DataError
from sat_xception.geo.vectors import parts_of, read_layer

WEST, SOUTH = -74.15, 4.45
LOCAL = 'LOCAL_CS["Site grid",LOCAL_DATUM["x",0],UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'


def positions(count, seed=0):
    return np.round(np.random.default_rng(seed).uniform((WEST, SOUTH), (WEST + 0.05, SOUTH + 0.05), (count, 2)), 6)


def features(*geometries, **properties):
    values = [{name: column[index] for name, column in properties.items()} for index in range(len(geometries))]
    return {
        "type": "FeatureCollection",
        "features": [
            {"type": "Feature", "properties": some, "geometry": geometry}
            for some, geometry in zip(values, geometries, strict=True)
        ],
    }


def point(at):
    return {"type": "Point", "coordinates": list(map(float, at))}


def write_layer(path, places, layer=None, append=False, crs="EPSG:4326", driver=None, **texts):
    names = texts or {"label": ["school"] * len(places)}
    columns = [np.array(values, dtype=object) for values in names.values()]
    pyogrio.raw.write(
        path, shapely.to_wkb(shapely.points(places)), columns, list(names), layer=layer, append=append,
        geometry_type="Point", crs=crs, driver=driver,
    )  # fmt: skip
    return path


def two_layers(path):
    """Write 20 places in a layer `private` and 30 in a layer `public`."""
    some = {"private": positions(20), "public": positions(30, 1)}
    if path.suffix == ".kml":
        folders = "".join(
            f"<Folder><name>{name}</name>"
            + "".join(f"<Placemark><Point><coordinates>{x},{y}</coordinates></Point></Placemark>" for x, y in places)
            + "</Folder>"
            for name, places in some.items()
        )
        path.write_text(f'<kml xmlns="http://www.opengis.net/kml/2.2"><Document>{folders}</Document></kml>')
    elif path.suffix == ".topojson":
        objects = {
            name: {"type": "GeometryCollection", "geometries": [point(at) for at in places]}
            for name, places in some.items()
        }
        path.write_text(json.dumps({"type": "Topology", "arcs": [], "objects": objects}))
    elif path.suffix == ".gpkg":
        for name, places in some.items():
            write_layer(path, places, name, append=name == "public")
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for name, places in some.items():
                write_layer(path.parent / f"{name}.shp", places)
                for file in sorted(path.parent.glob(f"{name}.*")):
                    archive.write(file, f"{name}/{file.name}")
    return path


@pytest.mark.parametrize("ending", ["kml", "gpkg", "topojson", "zip"])
def test_several_layers_are_listed_and_any_of_them_can_be_named(tmp_path, ending):
    path = two_layers(tmp_path / f"schools.{ending}")
    with pytest.raises(ConfigError, match=r"has 2 layers: private \(20 rows\), public \(30 rows\)\. .*--labels-layer"):
        read_layer(path)
    assert len(read_layer(path, ["public"]).geometry) == 30
    both = read_layer(path, ["private", "public"])
    expected = np.concatenate([positions(20), positions(30, 1)])
    assert shapely.get_coordinates(both.geometry) == pytest.approx(expected)
    with pytest.raises(ConfigError, match=r"no layer 'publik'; it has private, public. Name one with --known-layer"):
        read_layer(path, ["publik"], "--known")


def test_files_of_a_zip_are_layers_also_of_one_name_and_in_other_formats(tmp_path):
    for name in ("a.geojson", "b.geojson"):
        write_layer(tmp_path / name, positions(5), driver="GeoJSON", layer="schools")
    write_layer(tmp_path / "c.gpkg", positions(7), layer="other")
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a.geojson", "b.geojson", "c.gpkg"):
            archive.write(tmp_path / name, f"folder/{name}")
        archive.writestr("README.txt", "read me")
    with pytest.raises(ConfigError, match=r"folder/a.geojson:schools \(5 rows\), .*folder/b.geojson:schools .*, other"):
        read_layer(path)
    assert len(read_layer(path, ["folder/b.geojson:schools", "other"]).geometry) == 12


def test_layers_without_rows_or_geometries_arent_asked_about(tmp_path):
    path = tmp_path / "track.gpx"
    path.write_text(
        '<gpx version="1.1" creator="t" xmlns="http://www.topografix.com/GPX/1/1"><wpt lat="4.4" lon="-74.1"/></gpx>'
    )
    assert shapely.get_coordinates(read_layer(path).geometry).tolist() == [[-74.1, 4.4]]
    path = write_layer(tmp_path / "styled.gpkg", positions(3), "schools")
    table = pa.table({"style": ["red"]})
    pyogrio.write_arrow(table, path, layer="layer_styles", append=True, driver="GPKG", geometry_name=None)
    assert len(read_layer(path).geometry) == 3


def test_of_openstreetmaps_tags_it_says_where_they_are(tmp_path):
    path = tmp_path / "schools.osm"
    path.write_text(
        '<osm version="0.6"><node id="1" lat="4.4" lon="-74.1" version="1"><tag k="amenity" v="school"/></node></osm>'
    )
    with pytest.raises(
        ConfigError, match=r"no column 'amenity'.* are in other_tags; .*hstore_get_value\(other_tags, 'am"
    ):
        read_layer(path).texts("amenity", "--label-column")


def test_layers_of_a_table_or_of_a_folder_are_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("lon,lat\n1,2\n")
    with pytest.raises(ConfigError, match="is a table and has no layers; leave --labels-layer out"):
        read_layer(path, ["a"])
    with pytest.raises(DataError, match="is a folder; name one file in it"):
        read_layer(tmp_path)


def geo_table(path, places, crs, **facts):
    column = {"encoding": "WKB", "geometry_types": ["Point"], **facts} | ({} if crs == "absent" else {"crs": crs})
    metadata = {"version": "1.1.0", "primary_column": "geom", "columns": {"geom": column}}
    table = pa.table(
        {"label": ["a"] * len(places), "geom": pa.array(shapely.to_wkb(shapely.points(places)), pa.binary())}
    )
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(metadata)}), path)
    return path


@pytest.mark.parametrize("code", [4218, 3116, 4326])
def test_the_coordinate_system_of_geoparquet_is_taken(tmp_path, code):
    places = positions(30)
    moved = np.stack(pyproj.Transformer.from_crs(4326, code, always_xy=True).transform(*places.T), axis=1)
    path = geo_table(tmp_path / "a.parquet", moved, json.loads(pyproj.CRS(code).to_json()))
    assert shapely.get_coordinates(read_layer(path).geometry) == pytest.approx(places, abs=1e-6)
    if code == 4218:
        assert np.abs(moved - places).max() > 1e-3  # 400 m


def test_geoparquet_without_a_system_is_in_longitude_and_latitude_and_an_unknown_one_is_told(tmp_path, caplog):
    path = geo_table(tmp_path / "a.parquet", positions(3), "absent")
    assert shapely.get_coordinates(read_layer(path).geometry) == pytest.approx(positions(3))
    assert "coordinate system" not in caplog.text
    read_layer(geo_table(tmp_path / "a.parquet", positions(3), None))
    assert "names no coordinate system; it is taken for longitude and latitude" in caplog.text
    with pytest.raises(DataError, match="geometries as 'point' in 'geom'; write them as WKB"):
        read_layer(geo_table(tmp_path / "a.parquet", positions(3), "absent", encoding="point"))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"columns": {}}, "primary_column: Field required"),
        ({"primary_column": "geom", "columns": []}, "columns: Input should be an object"),
        ({"primary_column": "geom", "columns": {"geom": {"encoding": 1}}}, r"columns\.geom\.encoding: .*valid string"),
    ],
)
def test_metadata_of_another_form_is_an_error_that_names_the_field(tmp_path, metadata, message):
    table = pa.table({"geom": pa.array(shapely.to_wkb(shapely.points(positions(3))), pa.binary())})
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(metadata)}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=f"can't be read as GeoParquet: {message}"):
        read_layer(tmp_path / "a.parquet")


@pytest.mark.parametrize("crs", [LOCAL, "ESRI:104905", "EPSG:4978", "EPSG:5773", "ESRI:104903"])
def test_a_system_without_a_way_to_the_map_is_named(tmp_path, crs):
    path = write_layer(tmp_path / "site.shp", positions(10))
    (tmp_path / "site.prj").write_text(
        LOCAL if crs == LOCAL else pyproj.CRS(crs).to_wkt("WKT1_ESRI" if "ESRI" in crs else "WKT2_2019")
    )
    table = geo_table(tmp_path / "a.parquet", positions(10), json.loads(pyproj.CRS.from_user_input(crs).to_json()))
    for file in [path, table] if crs in (LOCAL, "ESRI:104905") else [table]:
        with pytest.raises(DataError, match=f"{file.name} is in the coordinate system .* has no way to longitude"):
            read_layer(file)


def test_polygons_across_the_antimeridian_in_metres_are_cut_there(tmp_path):
    to_metres = pyproj.Transformer.from_crs(4326, 3832, always_xy=True)
    shapes = [
        shapely.box(178, -18, 182, -16),
        shapely.box(179, -18, 181, -16) - shapely.box(179.5, -17.5, 180.5, -16.5),
    ]
    moved = [shapely.transform(shape, to_metres.transform, interleaved=False) for shape in shapes]
    path = tmp_path / "fiji.gpkg"
    pyogrio.raw.write(path, shapely.to_wkb(moved), [], [], geometry_type="Polygon", crs="EPSG:3832")
    found = read_layer(path).geometry
    assert shapely.area(found) == pytest.approx([8, 3], rel=1e-6)
    assert shapely.total_bounds(found) == pytest.approx([-180, -18, 180, -16])
    assert shapely.contains_xy(found[1], [179.2, -179.2, 179.9, 0], [-17] * 4).tolist() == [True, True, False, False]


def test_the_whole_world_in_metres_stays_whole(tmp_path):
    world = shapely.box(-20_037_508.34, -1e7, 20_037_508.34, 1e7)
    path = tmp_path / "world.gpkg"
    pyogrio.raw.write(path, shapely.to_wkb([world]), [], [], geometry_type="Polygon", crs="EPSG:3857")
    assert shapely.area(read_layer(path).geometry)[0] == pytest.approx(360 * 2 * 66.446, rel=1e-3)


def test_rounding_at_longitude_180_is_clipped_and_more_is_named(tmp_path):
    path = tmp_path / "a.geojson"
    ring = [[179.9, -17.1], [180.00000000000003, -17.1], [180.00000000000003, -17.0], [179.9, -17.0], [179.9, -17.1]]
    path.write_text(json.dumps(features({"type": "Polygon", "coordinates": [ring]})))
    assert shapely.total_bounds(read_layer(path).geometry).tolist() == [179.9, -17.1, 180, -17]
    ring[1][0] = ring[2][0] = 180.00001
    path.write_text(json.dumps(features({"type": "Polygon", "coordinates": [ring]})))
    with pytest.raises(
        DataError, match=r"1 of 1 rows .*row 1, reach from 179.9, -17.1 to 180.00001, -17.0, .*180th merid"
    ):
        read_layer(path)


def test_a_few_rows_off_the_earth_are_left_out_and_many_refused(tmp_path, caplog):
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(features(*map(point, positions(59)), point((WEST, 446.1)))))
    assert len(read_layer(path).geometry) == 59
    assert "left out  1 rows" in caplog.text and "beyond longitude 180 or latitude 90 (row 60)" in caplog.text
    path.write_text(json.dumps(features(*map(point, positions(50)), *[point((WEST, 446.1))] * 10)))
    with pytest.raises(DataError, match=r"10 of 60 rows .* are no longitudes and latitudes"):
        read_layer(path)


def circle_gml(path):
    spaces = 'xmlns:gml="http://www.opengis.net/gml/3.2" xmlns:o="http://o/"'
    path.write_text(
        f'<gml:FeatureCollection {spaces}><gml:featureMember><o:a gml:id="a1"><o:g><gml:Surface '
        'srsName="urn:ogc:def:crs:OGC:1.3:CRS84"><gml:patches><gml:PolygonPatch><gml:exterior><gml:Ring>'
        "<gml:curveMember><gml:Curve><gml:segments><gml:Circle><gml:posList>-74.150 4.450 -74.149 4.451 -74.148 4.450"
        "</gml:posList></gml:Circle></gml:segments></gml:Curve></gml:curveMember></gml:Ring></gml:exterior>"
        "</gml:PolygonPatch></gml:patches></gml:Surface></o:g></o:a></gml:featureMember></gml:FeatureCollection>"
    )
    return path


def test_curves_become_lines(tmp_path):
    (circle,) = read_layer(circle_gml(tmp_path / "circle.gml")).geometry
    assert circle.area == pytest.approx(np.pi * 0.001**2, rel=2e-3)
    assert circle.centroid.coords[0] == pytest.approx((-74.149, 4.45))


def test_arcs_among_other_geometries_become_lines(tmp_path):
    header = struct.pack("<BI", 1, 8)
    arc = header + struct.pack("<I6d", 3, 0, 0, 1, 1, 2, 0)  # half of a circle around 1, 0
    compound = struct.pack("<BII", 1, 9, 2) + arc + struct.pack("<BII4d", 1, 2, 2, 2, 0, 3, 0)
    pq.write_table(
        pa.table({"geometry": pa.array([compound, shapely.to_wkb(shapely.Point(5, 5))], pa.binary())}),
        tmp_path / "a.parquet",
    )
    line, place = read_layer(tmp_path / "a.parquet").geometry
    assert line.length == pytest.approx(np.pi + 1, rel=1e-3)
    assert np.hypot(*(shapely.get_coordinates(line)[:-1] - (1, 0)).T) == pytest.approx(1.0)
    assert place == shapely.Point(5, 5)


def triangles_shapefile(path):
    across, up = WEST + 1e-3, SOUTH + 1e-3
    corners = [(WEST, SOUTH, 2600.0), (across, SOUTH, 2600.0), (WEST, up, 2600.0), (across, up, 2600.0)]
    xs, ys, zs = zip(*corners, strict=True)
    box = struct.pack("<4d", min(xs), min(ys), max(xs), max(ys))
    heights = struct.pack("<2d", min(zs), max(zs)) + struct.pack("<4d", *zs)
    strip = b"".join(struct.pack("<dd", x, y) for x, y in zip(xs, ys, strict=True))
    content = struct.pack("<i", 31) + box + struct.pack("<4i", 1, 4, 0, 0) + strip + heights

    def head(words):
        return struct.pack(">i20xi", 9994, words) + struct.pack("<2i", 1000, 31) + box + struct.pack("<4d", 0, 0, 0, 0)

    path.write_bytes(head((108 + len(content)) // 2) + struct.pack(">ii", 1, len(content) // 2) + content)
    path.with_suffix(".shx").write_bytes(head(54) + struct.pack(">ii", 50, len(content) // 2))
    return path


def test_a_surface_of_triangles_becomes_polygons(tmp_path):
    (strip,) = read_layer(triangles_shapefile(tmp_path / "building.shp")).geometry
    assert shapely.union_all(shapely.get_parts(strip)).area == pytest.approx(1e-6)


ODD = {
    "has a ring that isn't closed": {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 1]]]},
    "has a line of one point": {"type": "LineString", "coordinates": [[0, 0]]},
    "has no location": None,
}


@pytest.mark.parametrize("reason", ODD)
def test_a_feature_that_cant_be_read_is_left_out_and_counted(tmp_path, caplog, reason):
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(features(*map(point, positions(30)), ODD[reason], *map(point, positions(30, 1)))))
    layer = read_layer(path)
    assert len(layer.geometry) == len(layer.columns) == 60
    assert f"left out  1 rows of {path}, each of which {reason} (row 31)" in caplog.text
    assert [layer.number(row) for row in (0, 29, 30)] == [1, 30, 32]
    path.write_text(json.dumps(features(ODD[reason])))
    with pytest.raises(DataError, match=f"1 rows and none with a location.*row 1 {reason}"):
        read_layer(path)


def test_wkb_of_unknown_types_and_half_of_it_is_left_out(tmp_path, caplog):
    good = shapely.to_wkb(shapely.Point(1, 2))
    values = [good, struct.pack("<BI", 1, 99) + bytes(16), good[:9], b"", None, good]
    pq.write_table(pa.table({"geometry": pa.array(values, pa.binary())}), tmp_path / "a.parquet")
    assert len(read_layer(tmp_path / "a.parquet").geometry) == 2
    assert "geometry of a type that isn't known (row 2)" in caplog.text
    assert "can't be read" in caplog.text and "has no location (row 5)" in caplog.text


def test_overlapping_parts_and_crossed_polygons_keep_their_area(tmp_path):
    overlapping = shapely.MultiPolygon([shapely.box(0, 0, 2, 2), shapely.box(1, 0, 3, 2)])
    bow_tie = shapely.Polygon([(10, 10), (12, 12), (12, 10), (10, 12)])
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(features(*map(shapely.geometry.mapping, (overlapping, bow_tie)))))
    layer = read_layer(path)
    assert shapely.area(layer.geometry) == pytest.approx([6, 2])
    assert shapely.is_valid(layer.geometry).all()


def test_parts_of_collections_in_collections_are_found():
    inner = shapely.GeometryCollection([shapely.MultiPoint([(0, 0), (1, 1)]), shapely.box(2, 2, 3, 3)])
    geometry = np.array([shapely.GeometryCollection([inner, shapely.Point(9, 9)]), shapely.Point(5, 5)], dtype=object)
    parts, rows = parts_of(geometry)
    assert shapely.get_type_id(parts).tolist() == [0, 0, 3, 0, 0]
    assert rows.tolist() == [0, 0, 0, 0, 1]


def latin_shapefile(folder):
    names = ["escuela básica" if index % 2 else "colegio ñandú" for index in range(10)]
    path = folder / "schools.shp"
    columns = [np.array(["school"] * 10, dtype=object), np.array(names, dtype=object)]
    pyogrio.raw.write(
        path, shapely.to_wkb(shapely.points(positions(10))), columns, ["label", "name"], geometry_type="Point",
        crs="EPSG:4326", encoding="ISO-8859-1",
    )  # fmt: skip
    (folder / "schools.cpg").unlink()
    table = folder / "schools.dbf"
    content = bytearray(table.read_bytes())
    content[29] = 0  # no code page
    table.write_bytes(content)
    return path, names


def test_a_column_that_isnt_utf8_is_named_with_what_to_do_which_helps(tmp_path):
    path, names = latin_shapefile(tmp_path)
    layer = read_layer(path)
    assert set(layer.texts("label", "").to_pylist()) == {"school"}
    with pytest.raises(
        DataError, match=r"column 'name' of schools.shp isn't UTF-8, in row 1 .*`echo ISO-8859-1 > schools.cpg"
    ):
        layer.texts("name", "--slice-columns")
    (tmp_path / "schools.cpg").write_text("ISO-8859-1")
    assert read_layer(path).texts("name", "").to_pylist() == names


def test_a_csv_that_isnt_utf8_is_used_but_for_that_column(tmp_path):
    path = tmp_path / "schools.csv"
    path.write_bytes("lon,lat,label,name\n1,2,school,escuela básica\n".encode("latin-1"))
    layer = read_layer(path)
    assert layer.texts("label", "").to_pylist() == ["school"]
    with pytest.raises(DataError, match=r"column 'name' of schools.csv isn't UTF-8, in row 1 .*iconv -f ISO-8859-1"):
        layer.texts("name", "--slice-columns")


def test_a_json_in_utf16_is_named(tmp_path):
    path = tmp_path / "a.geojson"
    path.write_bytes(json.dumps(features(point((1, 2)))).encode("utf-16"))
    with pytest.raises(DataError, match="JSON in UTF-16"):
        read_layer(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_is_read_in_every_usual_dialect(tmp_path, encoding, delimiter):
    path = tmp_path / "schools.CSV"
    rows = ["Lon,Lat,name", "1.5,2,köy", '3,4.25,"a\nb"']
    path.write_bytes("\r\n".join(rows).replace(",", delimiter).encode(encoding))
    layer = read_layer(path)
    assert shapely.get_coordinates(layer.geometry).tolist() == [[1.5, 2], [3, 4.25]]
    assert layer.texts("name", "").to_pylist() == ["köy", "a\nb"]


def test_codes_stay_texts(tmp_path):
    codes = ["007", "1e5", "NA", "1.10", "true", "2020/01/02", "00012345678901234567890"]
    expected = {"csv": codes, "geojson": codes, "gpkg": codes, "parquet": codes, "gml": codes}
    table = tmp_path / "a.csv"
    table.write_text("lon,lat,code\n" + "".join(f"1,2,{code}\n" for code in codes))
    (tmp_path / "a.geojson").write_text(json.dumps(features(*[point((1, 2))] * len(codes), code=codes)))
    write_layer(tmp_path / "a.gpkg", [(1, 2)] * len(codes), code=codes)
    write_layer(tmp_path / "a.gml", [(1, 2)] * len(codes), code=codes)
    pq.write_table(
        pa.table({"lon": [1.0] * len(codes), "lat": [2.0] * len(codes), "code": codes}), tmp_path / "a.parquet"
    )
    for ending, wanted in expected.items():
        assert read_layer(tmp_path / f"a.{ending}").texts("code", "").to_pylist() == wanted, ending


def test_a_code_of_gml_that_looks_like_a_number_stays_a_text(tmp_path):
    write_layer(tmp_path / "a.gml", [(1, 2)], code=["1.10"])
    (tmp_path / "a.xsd").unlink()
    assert read_layer(tmp_path / "a.gml").texts("code", "").to_pylist() == ["1.10"]


def test_endings_in_capitals_or_none_at_all_are_no_obstacle(tmp_path):
    content = json.dumps(features(point((1, 2))))
    pq.write_table(pa.table({"lon": [1.0], "lat": [2.0]}), tmp_path / "table")
    for name, text in (("A.GEOJSON", content), ("a", content), ("B.CSV", "lon,lat\n1,2\n"), ("b", "lon;lat\n1;2\n")):
        (tmp_path / name).write_text(text)
    for name in ("A.GEOJSON", "a", "B.CSV", "b", "table"):
        assert shapely.get_coordinates(read_layer(tmp_path / name).geometry).tolist() == [[1, 2]], name


def test_a_column_that_is_there_twice_is_refused_when_it_is_asked_for(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("lon,lat,label,label,name\n1,2,school,other,x\n")
    layer = read_layer(path)
    assert layer.texts("name", "").to_pylist() == ["x"]
    with pytest.raises(ConfigError, match="has the column 'label' 2 times; rename all but one"):
        layer.texts("label", "--label-column")


def test_rows_of_a_table_that_make_no_place_are_left_out(tmp_path, caplog):
    path = tmp_path / "a.csv"
    path.write_text('lon,lat\n1,2\n,\n"24,5",3\n1,2,3\n5,6\n')
    layer = read_layer(path)
    assert shapely.get_coordinates(layer.geometry).tolist() == [[1, 2], [5, 6]]
    assert "has a lon that isn't a number, such as '24,5' (row 3)" in caplog.text
    assert "has no location (row 2)" in caplog.text
    assert "left out  1 rows" in caplog.text and "has 3 and not 2: 1,2,3" in caplog.text


def test_tiles_named_by_halves_or_not_at_all_are_left_out(tmp_path, caplog):
    path = tmp_path / "a.csv"
    path.write_text("x,y,z\n1,2,3\n1.5,2,3\n,2,3\n")
    layer = read_layer(path)
    assert (len(layer.geometry), layer.zoom) == (1, 3)
    assert "a number that isn't whole (row 2)" in caplog.text


def test_zero_bytes_in_json_are_damage_and_not_a_feature_less(tmp_path):
    path = tmp_path / "a.geojson"
    path.write_bytes(
        json.dumps(features(*map(point, positions(5)))).encode().replace(b'"type": "Point"', b'"t\0\0e": "Point"', 1)
    )
    with pytest.raises(DataError, match="zero bytes"):
        read_layer(path)


def test_a_file_that_ends_too_early_is_no_smaller_file(tmp_path):
    path = write_layer(tmp_path / "a.gml", positions(60), driver="GML")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    path.with_suffix(".xsd").unlink()
    with pytest.raises(DataError, match=r"a.gml isn't whole: "):
        read_layer(path)


def test_an_answer_that_its_server_cut_off_is_refused(tmp_path):
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(features(point((1, 2))) | {"exceededTransferLimit": True}))
    with pytest.raises(DataError, match="is a part of a layer"):
        read_layer(path)


def test_a_line_of_geojson_that_is_cut_off_is_missed(tmp_path):
    path = tmp_path / "a.geojsonl"
    lines = [json.dumps(feature) for feature in features(*map(point, positions(3)))["features"]]
    path.write_text("\n".join(lines) + "\n")
    assert len(read_layer(path).geometry) == 3
    path.write_text("\n".join(lines)[:-30])
    with pytest.raises(DataError, match="only in part, 2 of its 3 rows"):
        read_layer(path)


def test_the_system_that_ewkb_names_is_taken(tmp_path):
    moved = np.stack(pyproj.Transformer.from_crs(4326, 32618, always_xy=True).transform(*positions(5).T), axis=1)
    wkb = shapely.to_wkb(shapely.set_srid(shapely.points(moved), 32618), include_srid=True)
    pq.write_table(pa.table({"geometry": pa.array(wkb, pa.binary())}), tmp_path / "a.parquet")
    assert shapely.get_coordinates(read_layer(tmp_path / "a.parquet").geometry) == pytest.approx(positions(5))


def test_excels_line_with_the_separator_is_no_header(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("sep=;\nlon;lat\n1;2\n")
    assert shapely.get_coordinates(read_layer(path).geometry).tolist() == [[1, 2]]


def test_columns_of_positions_that_differ_in_case_only_are_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("Lon,lon,lat\n1,2,3\n")
    with pytest.raises(DataError, match="has the columns 'Lon' and 'lon'; rename one"):
        read_layer(path)


def test_a_shapefile_alone_is_told_what_it_lacks(tmp_path):
    path = write_layer(tmp_path / "a.shp", positions(3))
    path.with_suffix(".shx").unlink()
    with pytest.raises(DataError, match=r"Unable to open .*a.shx.* read with its .shx, .dbf"):
        read_layer(path)


def test_torn_rows_of_a_csv_that_isnt_utf_8_are_counted(tmp_path, caplog, capfd):
    path = tmp_path / "schools.csv"
    path.write_bytes("lon,lat,code,name\n1,2,07,básica\n3,4,08\n5,6,09,ñandú,x\n7,8,10,plain\n".encode("latin-1"))
    layer = read_layer(path)
    assert layer.texts("code", "--label-column").to_pylist() == ["07", "10"]
    assert layer.columns.column("name").to_pylist() == [b"b\xe1sica", b"plain"]
    assert "left out  2 rows of" in caplog.text and "the first has 3 and not 4: 3,4,08" in caplog.text
    assert capfd.readouterr().err == ""


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_torn_row_that_isnt_utf_8_is_shown_in_the_message(tmp_path, caplog):
    path = tmp_path / "schools.csv"
    path.write_bytes("lon,lat,code\n1,2,07\n5,6,09,ñandú\n".encode("latin-1"))
    assert len(read_layer(path).columns) == 1
    assert "left out  1 rows of" in caplog.text and "5,6,09,ñandú" in caplog.text


def test_bytes_that_are_utf_8_in_the_rows_that_count_are_texts(tmp_path):
    path = tmp_path / "schools.csv"
    path.write_bytes("lon,lat,name\n1,2,a\n,,básica\n3,4,b\n".encode("latin-1"))
    assert read_layer(path).texts("name", "--label-column").to_pylist() == ["a", "b"]
    wkb = shapely.to_wkb(shapely.points([[1.0, 2.0], [3.0, 4.0]])).tolist()
    pq.write_table(pa.table({"name": pa.array([b"a", None]), "geometry": wkb}), tmp_path / "schools.parquet")
    assert read_layer(tmp_path / "schools.parquet").texts("name", "--label-column").to_pylist() == ["a", ""]
