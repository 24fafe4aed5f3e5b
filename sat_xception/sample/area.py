"""Draw a synthetic area as an MBTiles file, to try plan, predict and review without imagery."""

from __future__ import annotations

import io
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sat_xception.geo.tiles import grid_to_lonlat
from sat_xception.imagery.files import south_row
from sat_xception.log import track
from sat_xception.sample.settings import SampleAreaConfig
from sat_xception.sample.tiles import SAMPLE_SEED, draw_tile
from sat_xception.storage import atomic_folder, write_json

__all__ = ["SampleAreaResult", "write_sample_area"]

_ZOOM = 18
# South-east of 0, 0, in the Gulf of Guinea, where there is no land that it could be mistaken for.
_WEST, _NORTH = 2 ** (_ZOOM - 1), 2 ** (_ZOOM - 1)
# Not the seed of the training sample, so that no training tile appears here.
_SEED = SAMPLE_SEED + 1
_SCHOOLS, _KNOWN = 1 / 12, 3 / 4


@dataclass(frozen=True)
class SampleAreaResult:
    """The folder and counts of a drawn area.

    Attributes:
        folder: Folder with `imagery.mbtiles`, `area.geojson` and `schools.geojson`.
        tiles: Number of tiles, all at zoom 18.
        schools: Number of tiles that show a school.
        known: Number of those schools that are in `schools.geojson`.
    """

    folder: Path
    tiles: int
    schools: int
    known: int

    def summary(self) -> str:
        """Return the counts and the files."""
        return (
            f"sample    {self.tiles:,} drawn tiles, {self.schools} of them schools, {self.known} of these known\n"
            f"wrote     {self.folder}: imagery.mbtiles, area.geojson, schools.geojson"
        )


def write_sample_area(config: SampleAreaConfig) -> SampleAreaResult:
    """Write `imagery.mbtiles`, `area.geojson` (the outline) and `schools.geojson` (points of the known schools).

    The same `side` always gives the same area.

    Raises:
        ConfigError: `out` can't be written, or isn't empty.

    Example:
        write_sample_area(SampleAreaConfig(out="area", side=8))
    """
    rows, columns = np.divmod(np.arange(config.side**2), config.side)
    x, y = _WEST + columns, _NORTH + rows
    rng = np.random.default_rng(_SEED)
    is_school = rng.random(len(x)) < _SCHOOLS
    is_known = is_school & (rng.random(len(x)) < _KNOWN)
    corners = np.array([0.0, config.side])
    (west, east), (north, south) = (edge.tolist() for edge in grid_to_lonlat(_WEST + corners, _NORTH + corners, _ZOOM))
    with atomic_folder(config.out) as work:
        with closing(sqlite3.connect(work / "imagery.mbtiles")) as database, database:
            database.execute("CREATE TABLE metadata (name TEXT, value TEXT)")
            database.execute(
                "CREATE TABLE tiles (zoom_level INTEGER, tile_column INTEGER, tile_row INTEGER, tile_data BLOB, "
                "PRIMARY KEY (zoom_level, tile_column, tile_row))"
            )
            facts = {
                "name": "sample area",
                "format": "jpg",
                "minzoom": str(_ZOOM),
                "maxzoom": str(_ZOOM),
                "bounds": f"{west},{south},{east},{north}",
                "attribution": "Drawn: no place looks like this",
            }
            database.executemany("INSERT INTO metadata VALUES (?, ?)", facts.items())
            for index in track(range(len(x)), "sample", len(x)):
                content = io.BytesIO()
                label = "school" if is_school[index] else "not-school"
                draw_tile(label, index, _SEED).save(content, "JPEG", quality=85)
                place = (_ZOOM, int(x[index]), south_row(int(y[index]), _ZOOM))
                database.execute("INSERT INTO tiles VALUES (?, ?, ?, ?)", (*place, content.getvalue()))
        outline = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        write_json(work / "area.geojson", _collection([{"type": "Polygon", "coordinates": [outline]}]))
        centres = np.stack(grid_to_lonlat(x[is_known] + 0.5, y[is_known] + 0.5, _ZOOM), axis=1)
        points = [{"type": "Point", "coordinates": centre} for centre in centres.tolist()]
        write_json(work / "schools.geojson", _collection(points))
    return SampleAreaResult(config.out, len(x), int(is_school.sum()), len(points))


def _collection(geometries: list[dict[str, Any]]) -> dict[str, Any]:
    features = [{"type": "Feature", "properties": {}, "geometry": geometry} for geometry in geometries]
    return {"type": "FeatureCollection", "features": features}
