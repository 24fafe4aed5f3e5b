"""Damaged files of every format: our errors or rows that are left out, and nothing else.

Seeded: the same bytes every time. In a process of its own, since a library that crashes would take the tests with it.
"""

import json
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely

from sat_xception.errors import SatXceptionError
from sat_xception.geo.vectors import read_layer

ROWS = 60
# How often each format is damaged, and how often in the slow test.
FEW, MANY = 25, 150
DRIVERS = {
    "geojson": "GeoJSON",
    "gpkg": "GPKG",
    "shp": "ESRI Shapefile",
    "fgb": "FlatGeobuf",
    "kml": "LIBKML",
    "gml": "GML",
}
FORMATS = ["geojson", "gpkg", "shp", "dbf", "shx", "fgb", "kml", "gml", "zip", "csv", "parquet", "topojson", "gpx"]


def write(path):
    """Write a sound file; its damage follows."""
    places = np.round(np.random.default_rng(0).uniform((-74.2, 4.4), (-74.1, 4.5), (ROWS, 2)), 6)
    codes = [f"{number:03d}" for number in range(ROWS)]
    wkb = shapely.to_wkb(shapely.points(places))
    ending = path.suffix[1:]
    if ending == "csv":
        path.write_text(
            "lon,lat,code\n" + "".join(f"{x},{y},{code}\n" for (x, y), code in zip(places, codes, strict=True))
        )
    elif ending == "parquet":
        pq.write_table(pa.table({"code": codes, "geometry": pa.array(wkb, pa.binary())}), path)
    elif ending == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(write(path.with_suffix(".shp")).parent.glob(f"{path.stem}.[sdpc]*")):
                archive.write(file, file.name)
    elif ending == "topojson":
        points = ",".join(f'{{"type":"Point","coordinates":[{x},{y}]}}' for x, y in places)
        path.write_text(
            f'{{"type":"Topology","arcs":[],"objects":{{"a":{{"type":"GeometryCollection","geometries":[{points}]}}}}}}'
        )
    elif ending == "gpx":
        points = "".join(f'<wpt lat="{y}" lon="{x}"/>' for x, y in places)
        path.write_text(f'<gpx version="1.1" creator="t" xmlns="http://www.topografix.com/GPX/1/1">{points}</gpx>')
    else:
        columns = [np.array(codes, dtype=object)]
        # An index isn't read: without one, more of the damage is where it matters.
        options = {"SPATIAL_INDEX": "NO"} if ending == "gpkg" else {}
        pyogrio.raw.write(
            path, wkb, columns, ["code"], geometry_type="Point", crs="EPSG:4326", driver=DRIVERS[ending], **options
        )
    return path


def damaged(content, rng):
    """Return bytes that are cut off, that have some bits flipped, or a stretch of zeros."""
    some = bytearray(content)
    kind, at = rng.integers(3), int(rng.integers(len(some)))
    if kind == 0:
        return bytes(some[:at])
    if kind == 1:
        for place in rng.integers(len(some), size=rng.integers(1, 8)).tolist():
            some[place] ^= 1 << int(rng.integers(8))
    else:
        end = min(len(some), at + int(rng.integers(1, 200)))
        some[at:end] = bytes(end - at)
    return bytes(some)


def outcome(path):
    """Return what reading a file gives: the number of rows, or the kind of our error."""
    try:
        layer = read_layer(path)
        assert len(layer.columns) == len(layer.geometry) == len(layer.numbers)
        if "code" in layer.columns.column_names:
            layer.texts("code", "--label-column")
    except SatXceptionError as error:
        assert path.name in str(error) or "seen from" in str(error), error
        assert error.__cause__ is None or isinstance(error.__cause__, Exception)
        return type(error).__name__
    return "rows"


def try_all(folder, ending, count):
    """Return how often each outcome came up."""
    main = write(folder / f"a.{'shp' if ending in ('dbf', 'shx') else ending}")
    target = folder / f"a.{ending}"
    content = target.read_bytes()
    kept = {path.name for path in folder.iterdir()}
    rng = np.random.default_rng(len(ending) + sum(map(ord, ending)))
    found = Counter()
    for number in range(count):
        target.write_bytes(damaged(content, rng))
        try:
            found[outcome(main)] += 1
        except BaseException as error:
            raise AssertionError(f"variant {number} of {ending}: {type(error).__name__}: {error}") from error
        for path in folder.iterdir():
            if path.name not in kept:  # GDAL's own notes
                path.unlink()
    return found


@pytest.fixture(scope="module", params=[FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def outcomes(tmp_path_factory, request):
    done = subprocess.run(
        [sys.executable, "-W", "error", __file__, str(tmp_path_factory.mktemp("damage")), str(request.param)],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr[-2000:])
    lines = (line.partition(" ") for line in done.stdout.splitlines())
    return request.param, {ending: json.loads(counts) for ending, _, counts in lines}


@pytest.mark.parametrize("ending", FORMATS)
def test_damaged_files_are_our_errors_or_rows_that_are_counted(outcomes, ending):
    count, of_format = outcomes
    counts = of_format[ending]
    assert sum(counts.values()) == count
    assert counts.keys() <= {"rows", "DataError", "ConfigError"}
    assert counts["DataError"] > 0


if __name__ == "__main__":
    for name in FORMATS:
        below = Path(sys.argv[1]) / name
        below.mkdir()
        print(name, json.dumps(try_all(below, name, int(sys.argv[2]))), flush=True)
