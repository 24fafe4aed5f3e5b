"""Candidates as files: GeoJSON and FlatGeobuf for maps, CSV for tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyogrio
import shapely

from sat_xception.bulk.score_folder import ScoreFolder
from sat_xception.geo.sites import Sites
from sat_xception.publish.known_places import KnownPlaceMatches
from sat_xception.reports.spreadsheet import write_csv

__all__ = ["candidate_table", "write_candidates"]

_DRIVERS = {"geojson": "GeoJSON", "fgb": "FlatGeobuf"}


def candidate_table(
    sites: Sites, scores: ScoreFolder, comparison: KnownPlaceMatches | None, areas: Sequence[str] | None
) -> pa.Table:
    """Return one row per site, highest probability first.

    Columns: `site`, the name of its best tile; `rank`, from 1; `score`, that tile's; `label`; `tiles`, how many;
    `lon`, `lat` of its centre; `x`, `y`, `z` of the best tile; `members`; `comparison`, "known" or "new";
    `distance_m` from the nearest known place, and `place`, its row; `area`; `model_version`. What wasn't asked for is
    null.
    """
    size = len(sites)
    best = sites.first
    nothing = pa.nulls(size)
    compared, distance, place = nothing.cast(pa.string()), nothing.cast(pa.float64()), nothing.cast(pa.int64())
    if comparison is not None:
        compared = pa.array(np.where(comparison.known, "known", "new").astype(object), pa.string())
        distance, place = pa.array(np.round(comparison.distance_m, 1), from_pandas=True), pa.array(comparison.place + 1)
    return pa.table(
        {
            "site": pa.array(sites.ids(), pa.string()),
            "rank": np.arange(1, size + 1),
            "score": np.round(sites.score[best].astype(np.float64), 6),
            "label": pa.array([scores.positive] * size, pa.string()),
            "tiles": sites.count,
            "lon": np.round(sites.lon, 7),
            "lat": np.round(sites.lat, 7),
            "x": sites.x[best],
            "y": sites.y[best],
            "z": np.full(size, sites.zoom),
            "members": pa.array(sites.members(), pa.string()),
            "comparison": compared,
            "distance_m": distance,
            "place": place,
            "area": pa.array(areas, pa.string()) if areas is not None else nothing.cast(pa.string()),
            "model_version": pa.array([str(scores.document.model.version)] * size, pa.string()),
        }
    )


def write_candidates(table: pa.Table, folder: Path) -> None:
    """Write `candidates.geojson`, `candidates.fgb` and `candidates.csv`; a candidate is a point, its centre."""
    points = shapely.to_wkb(shapely.points(table["lon"].to_numpy(), table["lat"].to_numpy()))
    with_points = table.append_column("geometry", pa.array(points, pa.binary()))
    for ending, driver in _DRIVERS.items():
        pyogrio.write_arrow(
            with_points,
            folder / f"candidates.{ending}",
            driver=driver,
            layer="candidates",
            geometry_name="geometry",
            geometry_type="Point",
            crs="EPSG:4326",
        )
    write_csv(table, folder / "candidates.csv")
