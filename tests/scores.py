"""Scores of many tiles as `bulk predict` writes them, of what a test makes up."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from sat_xception.bulk.plan_document import ModelId
from sat_xception.bulk.run_document import BulkScores, PreparedEngine, ScoredImagery
from sat_xception.geo.tiles import grid_to_lonlat
from sat_xception.storage import write_json

Tile = tuple[int, int, int]


def write_scores(
    folder: Path,
    scores: Mapping[Tile, float | None],
    *,
    classes: Sequence[str] = ("not-school", "school"),
    shards: int = 1,
    row_group: int = 1000,
    imagery: Mapping[str, str] | None = None,
    **changes: Any,
) -> Path:
    """Write scores: the probability of the last class by (x, y, z); None is a tile that failed."""
    folder.mkdir(parents=True)
    tiles = list(scores)
    x, y, z = (np.array([tile[axis] for tile in tiles], dtype=np.int32) for axis in range(3))
    score = np.array([np.nan if value is None else value for value in scores.values()], dtype=np.float32)
    table = score_table(x, y, z, score, classes)
    for index, rows in enumerate(np.array_split(np.arange(len(tiles)), shards)):
        path = folder / f"scores-{index:05d}-of-{shards:05d}.parquet"
        pq.write_table(table.take(pa.array(rows)), path, compression="zstd", row_group_size=row_group)
    failed = int(np.isnan(score).sum())
    zoom = int(z[0]) if len(z) else 18
    description = describe_scores(classes, len(tiles), failed, zoom, imagery) | changes
    write_json(folder / "scores.json", description)
    return folder


def describe_scores(
    classes: Sequence[str], planned: int, failed: int, zoom: int, imagery: Mapping[str, str] | None = None
) -> dict[str, Any]:
    document = BulkScores(
        classes=tuple(classes),
        positive_label=classes[-1],
        threshold=0.5,
        model=ModelId(name="school-classifier", version=7, digest="0" * 64),
        engine=PreparedEngine(name="tensorflow", precision="fp32", made_by="tensorflow 2"),
        planned=planned,
        tile_ids_digest="1" * 64,
        imagery=ScoredImagery(**(imagery or {})),
        zoom=zoom,
        run="2" * 64,
        scored=planned - failed,
        failed=failed,
        reasons={"HTTP 404": failed} if failed else {},
    )
    return document.content()


def score_table(x: np.ndarray, y: np.ndarray, z: np.ndarray, score: np.ndarray, classes: Sequence[str]) -> pa.Table:
    """Return rows of tiles; a score of NaN is a tile that failed."""
    failed = np.isnan(score)
    west, north = grid_to_lonlat(x, y, int(z[0]) if len(z) else 0)
    east, south = grid_to_lonlat(x + 1, y + 1, int(z[0]) if len(z) else 0)
    probabilities = {f"probability_{name}": (1 - score) / max(1, len(classes) - 1) for name in classes[:-1]}
    probabilities[f"probability_{classes[-1]}"] = score
    labels = np.where(score >= 0.5, classes[-1], classes[0]).astype(object)
    return pa.table(
        {
            "tile_id": [f"{c}/{a}/{b}" for a, b, c in zip(x.tolist(), y.tolist(), z.tolist(), strict=True)],
            "x": pa.array(x, pa.int32()),
            "y": pa.array(y, pa.int32()),
            "z": pa.array(z, pa.int32()),
            "label": pa.array(labels, pa.string(), mask=failed),
            **{name: pa.array(values, pa.float32(), from_pandas=True) for name, values in probabilities.items()},
            "model_version": ["7"] * len(x),
            "status": pa.array(np.where(failed, "failed", "scored").astype(object), pa.string()),
            "reason": pa.array(np.where(failed, "HTTP 404", "").astype(object), pa.string(), mask=~failed),
            "geometry": pa.array(shapely.to_wkb(shapely.box(west, south, east, north)), pa.binary()),
        }
    )
