"""Turn labelled sites into labelled tiles: one row per tile.

A point labels the tile that it lies in. A polygon labels every tile whose centre it covers, and the tile of a point
inside it; a line labels the tile of a point on it. Each part of a multi-part geometry is treated like this. If a tile
gets several labels:

- the positive class wins: a tile with a school shows a school, whatever else is in it;
- otherwise it isn't known which label is right, and the tile is left out, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from sat_xception.dataset.split import SPLIT_NAMES, SPLITS
from sat_xception.errors import ConfigError, DataError
from sat_xception.geo.tiles import grid_to_lonlat, lonlat_to_tiles
from sat_xception.geo.vectors import Geometries, Layer, parts_of
from sat_xception.log import get_logger

__all__ = ["LabelColumns", "label_tiles", "tile_table"]

_log = get_logger(__name__)
_MAX_TILES_OF_A_POLYGON = 1_000_000
_SPLIT = "split"
_ROWS = 8192
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelColumns:
    """Names of the columns of a layer.

    Attributes:
        label: Column of the class.
        every_label: Class of every row, instead of a column; "" uses the column.
        slices: Columns to keep with the tile.
        split: Column of the split; "" uses the column `split` if it exists.
    """

    label: str = ""
    every_label: str = ""
    slices: Sequence[str] = ()
    split: str = ""


def label_tiles(layer: Layer, zoom: int, columns: LabelColumns, positive: str) -> pa.Table:
    """Return the tiles that a layer labels, sorted by x and y.

    Args:
        layer: Labelled sites.
        zoom: Zoom of the tiles.
        columns: Columns of the layer. If a tile has several rows, its slices are those of the first row with the tile's
            label.
        positive: The positive class, which wins conflicts; "" if there is none.

    Returns:
        One row per tile, with the columns of `tile_table`. `conflict` is the reason to leave a tile out; such a tile
        has the first of its labels.

    Raises:
        ConfigError: A column is missing, or the layer has tiles of another zoom.
        DataError: A row has no label, or an unknown split.
    """
    if layer.zoom is not None and layer.zoom != zoom:
        raise ConfigError(f"{layer.name} names tiles of zoom {layer.zoom}, --zoom is {zoom}; give --zoom {layer.zoom}")
    names, labels = _labels(layer, columns)
    slices = {f"slice/{name}": layer.texts(name, "--slice-columns") for name in columns.slices}
    rows, x, y = _tiles_of(layer, zoom)
    begins = _begins(x, y)
    first, tile_of = np.flatnonzero(begins), np.cumsum(begins) - 1
    lowest, highest = _range_of(labels[rows], first)
    several = lowest != highest
    wins = np.zeros(len(first), dtype=bool)
    if positive in names:
        wins = several & np.logical_or.reduceat(labels[rows] == names.index(positive), first)
    label = np.where(wins, names.index(positive) if positive in names else 0, lowest)
    # The first row of each tile that has the tile's label.
    agreeing = np.flatnonzero(labels[rows] == label[tile_of])
    told_by = rows[agreeing[np.unique(tile_of[agreeing], return_index=True)[1]]]
    split, torn = _splits(layer, columns, rows, first)
    conflict = np.full(len(first), "", dtype=object)
    for tile in np.flatnonzero(torn).tolist():
        conflict[tile] = "labelled in two splits; it isn't known which is right"
    ends = np.append(first[1:], len(rows))
    for tile in np.flatnonzero(several & ~wins).tolist():
        named = np.unique(labels[rows[first[tile] : ends[tile]]]).tolist()
        conflict[tile] = f"labelled {' and '.join(names[each] for each in named)}; it isn't known which is right"
    found = tile_table(
        x[first],
        y[first],
        pa.array(names).take(pa.array(label)),
        layer.name,
        split=split,
        conflict=pa.array(conflict, pa.string()),
        slices={name: values.take(pa.array(told_by)) for name, values in slices.items()},
    )
    _report(found, len(labels), layer)
    return found


def tile_table(
    x: Integers,
    y: Integers,
    label: pa.Array | str,
    source: str,
    *,
    split: pa.Array | str = "",
    conflict: pa.Array | str = "",
    slices: dict[str, pa.Array | str] | None = None,
    weight: float = 1.0,
) -> pa.Table:
    """Return a table with one row per tile. Scalar arguments are broadcast to all rows.

    Args:
        x: Columns in the grid.
        y: Rows in the grid, from the north.
        label: Class names.
        source: Layer that labelled the tiles.
        split: Split given by the labels; "" if none is given.
        conflict: Reason to leave a tile out; "" if there is none.
        slices: Values by `slice/<name>`.
        weight: Sample weight of the tiles in training.
    """
    known = {"label": label, "source": source, "split": split, "conflict": conflict, **(slices or {})}
    texts = {
        name: pa.array([value]).take(pa.array(np.zeros(len(x), dtype=np.int64))) if isinstance(value, str) else value
        for name, value in known.items()
    }
    return pa.table({"x": x, "y": y, **texts, "weight": np.full(len(x), weight)})


def _labels(layer: Layer, columns: LabelColumns) -> tuple[list[str], Integers]:
    """Return the class names, sorted, and the class index of each row."""
    if columns.every_label:
        return [columns.every_label], np.zeros(len(layer.geometry), dtype=np.int64)
    texts = layer.texts(columns.label, "--label-column or --label")
    empty = pc.index(texts, "").as_py()
    if empty >= 0:
        raise DataError(f"row {layer.number(empty)} of {layer.name} has no {columns.label!r}; remove it or fill it in")
    names = sorted(texts.unique().to_pylist())
    return names, pc.index_in(texts, value_set=pa.array(names)).to_numpy().astype(np.int64)


def _splits(
    layer: Layer, columns: LabelColumns, rows: Integers, first: Integers
) -> tuple[pa.Array | str, npt.NDArray[np.bool_]]:
    """Return the given split of each tile, and whether its rows give several."""
    if not columns.split and _SPLIT not in layer.columns.column_names:
        return "", np.zeros(len(first), dtype=bool)
    name = columns.split or _SPLIT
    texts = layer.texts(name, "--split-column")
    numbers = {"": 0} | {text: SPLITS.index(split) + 1 for text, split in SPLIT_NAMES.items()}
    unknown = [text for text in texts.unique().to_pylist() if text.casefold() not in numbers]
    if unknown:
        raise DataError(
            f"column {name!r} of {layer.name} has the split {unknown[0]!r}; expected train, valid, test or nothing"
        )
    given = np.array([numbers[text.casefold()] for text in texts.to_pylist()], dtype=np.int64)[rows]
    _, highest = _range_of(given, first)
    lowest, _ = _range_of(np.where(given == 0, len(SPLITS), given), first)
    # A row without a split takes that of the other rows of its tile.
    return pa.array(["", *SPLITS]).take(pa.array(highest)), (highest > 0) & (lowest != highest)


def _begins(*sorted_by: Integers) -> npt.NDArray[np.bool_]:
    """Return for each index whether any of the arrays has another value than at the index before."""
    begins = np.ones(len(sorted_by[0]), dtype=bool)
    begins[1:] = np.logical_or.reduce([np.diff(values) != 0 for values in sorted_by])
    return begins


def _range_of(values: Integers, first: Integers) -> tuple[Integers, Integers]:
    """Return the smallest and the largest value of each group."""
    return np.minimum.reduceat(values, first), np.maximum.reduceat(values, first)


def _tiles_of(layer: Layer, zoom: int) -> tuple[Integers, Integers, Integers]:
    """Return the index of the row, x and y of every tile that a row labels, sorted by x, y and row."""
    # In chunks, so that a million sites aren't held twice in memory.
    geometry, row = parts_of(layer.geometry)
    pages = [slice(first, first + _ROWS) for first in range(0, len(geometry), _ROWS)]
    found = [_tiles_of_some(layer, geometry[page], row[page], zoom) for page in pages]
    rows, x, y = (np.concatenate([part[place] for part in found]) for place in range(3))
    order = np.lexsort((rows, y, x))
    rows, x, y = rows[order], x[order], y[order]
    fresh = _begins(x, y, rows)
    return rows[fresh], x[fresh], y[fresh]


def _tiles_of_some(layer: Layer, some: Geometries, rows: Integers, zoom: int) -> tuple[Integers, Integers, Integers]:
    inside = shapely.point_on_surface(some)
    x, y = lonlat_to_tiles(shapely.get_x(inside), shapely.get_y(inside), zoom)
    found = [(rows, x, y)]
    west, south, east, north = shapely.bounds(some).T
    left, top = lonlat_to_tiles(west, north, zoom)
    right, bottom = lonlat_to_tiles(east, south, zoom)
    for part in np.flatnonzero((right > left) | (bottom > top)):
        width, height = int(right[part] - left[part] + 1), int(bottom[part] - top[part] + 1)
        if width * height > _MAX_TILES_OF_A_POLYGON:
            raise DataError(
                f"row {layer.number(rows[part])} of {layer.name} spans {width * height:,} tiles at zoom {zoom}, more "
                f"than {_MAX_TILES_OF_A_POLYGON:,}; lower --zoom or cut the polygon"
            )
        xs, ys = (axis.ravel() for axis in np.meshgrid(left[part] + np.arange(width), top[part] + np.arange(height)))
        covered = shapely.contains_xy(some[part], *grid_to_lonlat(xs + 0.5, ys + 0.5, zoom))
        found.append((np.full(int(covered.sum()), rows[part]), xs[covered], ys[covered]))
    rows, x, y = (np.concatenate(columns) for columns in zip(*found, strict=True))
    return rows, x, y


def _report(tiles: pa.Table, rows: int, layer: Layer) -> None:
    usable = tiles.filter(pc.equal(tiles["conflict"], ""))
    counts = sorted((item["values"], item["counts"]) for item in usable["label"].value_counts().to_pylist())
    classes = "  ".join(f"{label} {number:,}" for label, number in counts)
    _log.info("labels    %s: %s rows in %s tiles | %s", layer.name, f"{rows:,}", f"{len(tiles):,}", classes)
    if len(usable) < len(tiles):
        _log.warning("left out  %s tiles of %s with several labels", f"{len(tiles) - len(usable):,}", layer.name)
