"""The files of scores: GeoParquet, with one file per shard and one row per planned tile, in the order of the plan.

GeoParquet 1.1 (https://geoparquet.org/releases/v1.1.0/): the outline of a tile as WKB in longitude and latitude, and
its bounds in a covering column, by which readers skip row groups. Tiles without coordinates have neither.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely

from sat_xception.geo.tiles import grid_to_lonlat
from sat_xception.serve.probabilities import find_flaws
from sat_xception.storage import read_stored_bytes, write_stored_bytes
from sat_xception.storage.files import dump_json

__all__ = [
    "Row",
    "ShardFacts",
    "count_unscored",
    "count_values",
    "facts_of",
    "present_column",
    "probabilities_of",
    "probability_column",
    "read_shard",
    "shard_facts",
    "shard_name",
    "stored_columns",
    "write_shard",
]

_ROW_GROUP = 2**16
_FACTS = b"sat_xception"
# Prefix of columns with probabilities, now and in files of the first version.
_PROBABILITY, _FIRST_PROBABILITY = "probability_", "probability/"
# Probabilities `float32 [classes]` of a scored tile, or the reason of its failure.
Row = npt.NDArray[np.float32] | str


@dataclass(frozen=True)
class ShardFacts:
    """Metadata of a finished shard's file, which can be read without its rows.

    Attributes:
        run: Digest of the run's identity; see `run_identity`.
        plan: Digest of the plan's tile ids.
        model_version: Version of the model.
        scored: Number of rows with scores.
        failed: Number of rows with a reason.
    """

    run: str
    plan: str
    model_version: str
    scored: int
    failed: int


def shard_name(shard: int, shards: int) -> str:
    """Return the name of a shard's file."""
    return f"scores-{shard:05d}-of-{shards:05d}.parquet"


def write_shard(
    path: Path, tiles: pa.Table, rows: Sequence[Row], classes: Sequence[str], run: str, plan: str, version: str
) -> None:
    """Write a shard's scores atomically, to a local file or a bucket.

    Args:
        path: Path of the file.
        tiles: `tile_id`, `x`, `y`, `z`; see `Plan.rows`.
        rows: Result of each tile.
        classes: Names in the order of the probabilities.
        run: Digest of the run.
        plan: Digest of the plan.
        version: Version of the model.

    Raises:
        ConfigError: The file can't be written.
        ServiceError: The bucket can't be written.
    """
    failed = np.array([isinstance(row, str) for row in rows], bool)
    values = np.full((len(rows), len(classes)), np.nan, np.float32)
    for index in np.flatnonzero(~failed).tolist():
        values[index] = rows[index]
    best = np.where(failed, 0, np.nan_to_num(values, nan=-1.0).argmax(axis=1)) if len(rows) else np.empty(0, int)
    tile_id, x, y, z = (tiles[name].combine_chunks() for name in ("tile_id", "x", "y", "z"))
    bounds, outlines = _places(x, y, z)
    columns = {
        "tile_id": tile_id,
        "x": x,
        "y": y,
        "z": z,
        "label": pa.array(np.array([*classes], object)[best], pa.string(), mask=failed),
        **{
            probability_column(name): pa.array(values[:, index], pa.float32(), mask=failed)
            for index, name in enumerate(classes)
        },
        "model_version": pa.repeat(pa.scalar(version), len(rows)),
        "status": pa.array(np.where(failed, "failed", "scored").tolist(), pa.string()),
        "reason": pa.array([row if isinstance(row, str) else None for row in rows], pa.string()),
        "bbox": bounds,
        "geometry": outlines,
    }
    counts = {"scored": int((~failed).sum()), "failed": int(failed.sum())}
    facts = {"run": run, "plan": plan, "model_version": version, **counts}
    metadata = {b"geo": dump_json(_geo(bounds)).encode(), _FACTS: dump_json(facts).encode()}
    table = pa.table(columns).replace_schema_metadata(metadata)
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd", row_group_size=_ROW_GROUP)
    write_stored_bytes(content.getvalue(), path)


def shard_facts(path: Path) -> ShardFacts | None:
    """Return the metadata of a shard's file; None if it is missing or incomplete."""
    try:
        content = _opened(path)
        if content is None:
            return None
        return facts_of(pq.read_metadata(content).metadata)
    except pa.ArrowInvalid:
        return None


def count_values(values: pa.Array | pa.ChunkedArray) -> dict[Any, int]:
    """Return how often each value of a column occurs; null is None."""
    distinct, counts = pc.value_counts(values).flatten()
    return dict(zip(distinct.to_pylist(), counts.to_pylist(), strict=True))


def facts_of(metadata: Mapping[bytes, bytes] | None) -> ShardFacts | None:
    """Return the facts in the metadata of a shard's table; None if there are none."""
    try:
        facts: Mapping[str, Any] = json.loads((metadata or {})[_FACTS])
        return ShardFacts(**facts)
    except (KeyError, TypeError, ValueError):
        return None


def read_shard(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of a shard, under the present names of columns.

    Raises:
        FileNotFoundError: The file doesn't exist.
    """
    content = _opened(path)
    if content is None:
        raise FileNotFoundError(path)
    stored = None if columns is None else stored_columns(pq.read_schema(content).names, columns)
    table = pq.read_table(content, columns=stored)
    renamed = table.rename_columns(list(map(present_column, table.column_names)))
    return renamed.replace_schema_metadata(table.schema.metadata)


def probability_column(label: str) -> str:
    """Return the name of the column with the probabilities of a class."""
    return f"{_PROBABILITY}{label}"


def present_column(name: str) -> str:
    """Return the present name of a column of a shard, which may be of the first version."""
    return probability_column(name.removeprefix(_FIRST_PROBABILITY)) if name.startswith(_FIRST_PROBABILITY) else name


def stored_columns(names: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Return the names that columns have in a shard whose columns are `names`."""
    stored = {present_column(name): name for name in names}
    return [stored.get(column, column) for column in columns]


def probabilities_of(table: pa.Table, classes: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return the probabilities of a shard's rows, `float32 [n, classes]`; NaN for failed tiles."""
    columns = [table[probability_column(name)].to_numpy() for name in classes]
    return np.stack(columns, axis=1).astype(np.float32)


def count_unscored(path: Path, classes: Sequence[str]) -> int:
    """Return the number of tiles without probabilities in an existing shard, by its rows and not its metadata."""
    table = read_shard(path, list(map(probability_column, classes)))
    return sum(map(bool, find_flaws(probabilities_of(table, classes))))


def _opened(path: Path) -> io.BytesIO | pa.BufferReader | None:
    content = read_stored_bytes(path)
    return None if content is None else pa.BufferReader(content)


def _places(x: pa.Array, y: pa.Array, z: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return bounds and outlines of tiles; null for tiles without coordinates."""
    absent = pc.is_null(z).to_numpy(zero_copy_only=False)
    across, down, zoom = (axis.fill_null(0).to_numpy(zero_copy_only=False).astype(np.float64) for axis in (x, y, z))
    west, north = _lonlat(across, down, zoom)
    east, south = _lonlat(across + 1, down + 1, zoom)
    outlines = shapely.to_wkb(shapely.box(west, south, east, north))
    names = ("xmin", "ymin", "xmax", "ymax")
    bounds = pa.StructArray.from_arrays(
        [pa.array(axis, pa.float64()) for axis in (west, south, east, north)], names, mask=pa.array(absent)
    )
    return bounds, pa.array(outlines, pa.binary(), mask=absent)


def _lonlat(across: npt.NDArray[np.float64], down: npt.NDArray[np.float64], zoom: npt.NDArray[np.float64]) -> Any:  # noqa: ANN401
    return grid_to_lonlat(across / 2**zoom, down / 2**zoom, 0)


def _geo(bounds: pa.StructArray) -> dict[str, Any]:
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "covering": {"bbox": {name: ["bbox", name] for name in ("xmin", "ymin", "xmax", "ymax")}},
    }
    if bounds.null_count < len(bounds):
        low = [pc.min(pc.struct_field(bounds, name)).as_py() for name in ("xmin", "ymin")]
        high = [pc.max(pc.struct_field(bounds, name)).as_py() for name in ("xmax", "ymax")]
        column["bbox"] = [*low, *high]
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
