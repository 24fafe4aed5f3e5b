"""Turn labelled places into labelled tiles: one row a tile.

A point labels the tile that it lies in. A polygon labels every tile whose centre it covers, and the tile
of a point inside it. Where a tile gets several labels:

- the class that is looked for wins: a tile with a school in it shows a school, whatever else is there;
- otherwise nothing says which is right, and the tile is left out, with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import shapely

from sat_xception.errors import ConfigError, DataError
from sat_xception.geo.tiles import grid_to_lonlat, lonlat_to_tiles
from sat_xception.geo.vectors import Geometries, Layer
from sat_xception.log import get_logger

__all__ = ["LabelledTile", "label_tiles"]

_log = get_logger(__name__)
_MOST_TILES_OF_A_POLYGON = 1_000_000


@dataclass(frozen=True)
class LabelledTile:
    """A tile to gather.

    Attributes:
        x: Column in the grid.
        y: Row in the grid, from the north.
        label: Class name; of a tile that is left out, the first of its labels.
        source: Layer that labelled it.
        slices: Value of each slice column, as text.
        conflict: Why the tile is left out; "" when it isn't.
    """

    x: int
    y: int
    label: str
    source: str
    slices: dict[str, str] = field(default_factory=dict)
    conflict: str = ""


def label_tiles(
    layer: Layer, zoom: int, label_column: str, label: str, slice_columns: Sequence[str], positive: str
) -> list[LabelledTile]:
    """Return the tiles that a layer labels, sorted by x and y.

    Args:
        layer: Labelled places.
        zoom: Zoom of the tiles.
        label_column: Column that holds the class; ignored when `label` is given.
        label: Class of every row.
        slice_columns: Columns to keep with the tile; of several rows in a tile, the first one's that has the tile's
            label, in the layer's order.
        positive: The class that is looked for, which wins conflicts; "" when there is none.

    Raises:
        ConfigError: A column isn't there, or the layer names tiles of another zoom.
        DataError: A row has no label.
    """
    if layer.zoom is not None and layer.zoom != zoom:
        raise ConfigError(f"{layer.name} names tiles of zoom {layer.zoom}, --zoom is {zoom}; give --zoom {layer.zoom}")
    labels = [label] * len(layer.geometry) if label else _column(layer, label_column, "--label-column or --label")
    if not all(labels):
        raise DataError(f"row {labels.index('') + 1} of {layer.name} has no {label_column!r}; remove it or fill it in")
    slices = {name: _column(layer, name, "--slice-columns") for name in slice_columns}
    rows, x, y = _tiles_of(layer.geometry, zoom)
    by_tile: dict[tuple[int, int], list[int]] = {}
    for row, *tile in zip(rows.tolist(), x.tolist(), y.tolist(), strict=True):
        by_tile.setdefault((tile[0], tile[1]), []).append(row)
    tiles = [
        _merge(
            tile,
            members,
            labels,
            {name: [values[row] for row in members] for name, values in slices.items()},
            layer,
            positive,
        )
        for tile, members in sorted(by_tile.items())
    ]
    _report(tiles, len(labels), layer)
    return tiles


def _column(layer: Layer, name: str, flag: str) -> list[str]:
    if name not in layer.columns.column_names:
        known = ", ".join(layer.columns.column_names) or "none"
        raise ConfigError(f"{layer.name} has no column {name!r}; its columns are {known}. Name one with {flag}")
    try:
        texts = layer.columns.column(name).cast(pa.string()).to_pylist()
    except pa.ArrowNotImplementedError:
        raise ConfigError(
            f"column {name!r} of {layer.name} holds nested values; name one of texts or numbers"
        ) from None
    return ["" if text is None else text.strip() for text in texts]


def _tiles_of(geometry: Geometries, zoom: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the number of the row, x and y of every tile that a row labels."""
    inside = shapely.point_on_surface(geometry)
    x, y = lonlat_to_tiles(shapely.get_x(inside), shapely.get_y(inside), zoom)
    found = [(np.arange(len(geometry)), x, y)]
    west, south, east, north = shapely.bounds(geometry).T
    left, top = lonlat_to_tiles(west, north, zoom)
    right, bottom = lonlat_to_tiles(east, south, zoom)
    for row in np.flatnonzero((right > left) | (bottom > top)):
        width, height = int(right[row] - left[row] + 1), int(bottom[row] - top[row] + 1)
        if width * height > _MOST_TILES_OF_A_POLYGON:
            raise DataError(
                f"row {row + 1} spans {width * height:,} tiles at zoom {zoom}, more than {_MOST_TILES_OF_A_POLYGON:,}; "
                "lower --zoom or cut the polygon"
            )
        xs, ys = (axis.ravel() for axis in np.meshgrid(left[row] + np.arange(width), top[row] + np.arange(height)))
        covered = shapely.contains_xy(geometry[row], *grid_to_lonlat(xs + 0.5, ys + 0.5, zoom))
        found.append((np.full(int(covered.sum()), row), xs[covered], ys[covered]))
    rows, x, y = (np.concatenate(parts) for parts in zip(*found, strict=True))
    unique = np.unique(np.stack([rows, x, y]), axis=1)
    return unique[0], unique[1], unique[2]


def _merge(
    tile: tuple[int, int], rows: list[int], labels: list[str], slices: dict[str, list[str]], layer: Layer, positive: str
) -> LabelledTile:
    named = sorted({labels[row] for row in rows})
    label, conflict = named[0], ""
    if len(named) > 1 and positive in named:
        label = positive
    elif len(named) > 1:
        conflict = f"labelled {' and '.join(named)}; nothing says which is right"
    first = next(place for place, row in enumerate(rows) if labels[row] == label)
    return LabelledTile(*tile, label, layer.name, {name: values[first] for name, values in slices.items()}, conflict)


def _report(tiles: list[LabelledTile], rows: int, layer: Layer) -> None:
    counts = Counter(tile.label for tile in tiles if not tile.conflict)
    conflicts = sum(1 for tile in tiles if tile.conflict)
    classes = "  ".join(f"{label} {number:,}" for label, number in sorted(counts.items()))
    _log.info("labels    %s: %s rows in %s tiles | %s", layer.name, f"{rows:,}", f"{len(tiles):,}", classes)
    if conflicts:
        _log.warning("left out  %s tiles of %s with several labels", f"{conflicts:,}", layer.name)
