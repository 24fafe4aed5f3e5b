"""Plan a dataset from labelled sites: its tiles with their labels, slices and weights.

If layers disagree about a tile, the review takes precedence, then the labels, then the look-alikes. Random negatives
are drawn from the remaining tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from sat_xception.dataset.folders import TileCandidate, TilePlace
from sat_xception.dataset.labels import LabelColumns, label_tiles, tile_table
from sat_xception.dataset.negatives import NegativesConfig, are_clear, draw_negatives
from sat_xception.dataset.settings import DEFAULT_POSITIVE_LABEL, AssembleConfig
from sat_xception.errors import ConfigError, DataError
from sat_xception.geo.tiles import grid_to_lonlat
from sat_xception.geo.vectors import Geometries, Layer, read_layer

__all__ = ["Plan", "plan_tiles"]

_VERDICT = "verdict"
_UNSURE = "unsure"
_ZOOM = "z"
_PAGE = 1000


class _PlannedTile(NamedTuple):
    """Columns of `tile_table`, without the slices."""

    x: int
    y: int
    label: str
    source: str
    split: str
    conflict: str
    weight: float


@dataclass(frozen=True)
class Plan:
    """The tiles of a dataset, before their images are fetched.

    Attributes:
        tiles: All tiles of the labels and the negatives, sorted by x and y, with the columns of `tile_table`.
        zoom: Zoom of the tiles.
        bounds: West, south, east and north of the labels, in degrees.
    """

    tiles: pa.Table
    zoom: int
    bounds: tuple[float, float, float, float]

    def wanted(self) -> pa.Table:
        """Return the tiles whose images are needed, which are those without a conflict."""
        return self.tiles.filter(pc.equal(self.tiles["conflict"], ""))

    def candidates(self) -> Iterator[TileCandidate]:
        """Yield the tiles one by one."""
        for page in self.tiles.to_batches(_PAGE):
            x, y = _addresses(page)
            lon, lat = grid_to_lonlat(x + 0.5, y + 0.5, self.zoom)
            names = [name for name in page.schema.names if name.startswith("slice/")]
            slices = [page.column(name).to_pylist() for name in names]
            columns = (page.column(name).to_pylist() for name in _PlannedTile._fields)
            for index, tile in enumerate(map(_PlannedTile._make, zip(*columns, strict=True))):
                yield TileCandidate(
                    id=f"{self.zoom}/{tile.x}/{tile.y}",
                    path=None,
                    label=tile.label,
                    split=tile.split,
                    place=TilePlace(tile.x, tile.y, self.zoom, float(lon[index]), float(lat[index])),
                    labelled_by=tile.source,
                    slices={
                        name.removeprefix("slice/"): values[index] for name, values in zip(names, slices, strict=True)
                    },
                    conflict=tile.conflict,
                    weight=tile.weight,
                )


def plan_tiles(config: AssembleConfig) -> Plan:
    """Return all tiles of the labels and the negatives.

    Raises:
        ConfigError: A setting doesn't fit the layers.
        DataError: A layer can't be used, there is only one class, or too few tiles qualify as negatives.
    """
    positive = config.positive_label or config.label or DEFAULT_POSITIVE_LABEL
    negative = config.negative_label or f"not-{positive}"
    layer = read_layer(config.labels or Path(), config.labels_layer, "--labels")
    columns = LabelColumns(config.label_column, config.label, config.slice_columns, config.split_column)
    tiles = label_tiles(layer, config.zoom, columns, positive)
    places = layer.geometry
    unsure = np.empty(0, dtype=np.int64)
    if config.negatives_review:
        reviewed, unsure = _reviewed(config, tiles, positive, negative)
        tiles = _first_of_each(pa.concat_tables([reviewed, tiles]), config.zoom)
    if config.negatives_lookalikes:
        tiles = _first_of_each(pa.concat_tables([tiles, _lookalikes(config, places, negative)]), config.zoom)
    tiles = tiles.filter(pa.array(~np.isin(_keys(tiles, config.zoom), unsure)))
    if config.negatives_ratio:
        tiles = pa.concat_tables([tiles, _random(config, tiles, unsure, places, positive, negative)])
    labels = tiles["label"].unique().to_pylist()
    if len(labels) < 2:
        raise DataError(
            f"all {len(tiles):,} tiles are labelled {', '.join(labels) or 'nothing'}, a classifier needs at least 2 "
            "classes: draw negatives with --negatives-ratio, or name a column of classes with --label-column"
        )
    west, south, east, north = shapely.total_bounds(places).tolist()
    return Plan(tiles.sort_by([("x", "ascending"), ("y", "ascending")]), config.zoom, (west, south, east, north))


def _addresses(tiles: pa.Table | pa.RecordBatch) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return x and y of each tile."""
    return tiles.column("x").to_numpy(), tiles.column("y").to_numpy()


def _keys(tiles: pa.Table, zoom: int) -> npt.NDArray[np.int64]:
    """Return a unique number for each tile."""
    x, y = _addresses(tiles)
    return x << zoom | y


def _first_of_each(tiles: pa.Table, zoom: int) -> pa.Table:
    """Return the first row of each tile."""
    _, first = np.unique(_keys(tiles, zoom), return_index=True)
    return tiles.take(pa.array(np.sort(first)))


def _no_slices(config: AssembleConfig) -> dict[str, pa.Array | str]:
    return {f"slice/{name}": "" for name in config.slice_columns}


def _reviewed(
    config: AssembleConfig, tiles: pa.Table, positive: str, negative: str
) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """Return the tiles with the verdicts of the review, and the keys of those with the verdict "unsure"."""
    layer = read_layer(config.negatives_review or Path(), config.negatives_review_layer, "--negatives-review")
    _check_zoom(layer, config.zoom)
    said = label_tiles(layer, config.zoom, LabelColumns(_VERDICT), "yes")
    unknown = sorted(set(said["label"].unique().to_pylist()) - {"yes", "no", _UNSURE})
    if unknown:
        raise DataError(f"{layer.name} has the verdict {unknown[0]!r}; expected yes, no or unsure")
    keys = _keys(said, config.zoom)
    planned = pa.array(_keys(tiles, config.zoom))
    unsure = keys[pc.equal(said["label"], _UNSURE).to_numpy()]
    parts = []
    for verdict, label, weight in (("yes", positive, 1.0), ("no", negative, config.negatives_review_weight)):
        some = said.filter(pc.equal(said["label"], verdict))
        # A tile that is also in the labels gets its slices and split from there.
        known = pc.index_in(pa.array(_keys(some, config.zoom)), value_set=planned)
        kept = {
            name: pc.fill_null(tiles[name].combine_chunks().take(known), "")
            for name in tiles.column_names
            if name.startswith("slice/") or name == "split"
        }
        split = kept.pop("split")
        conflict = some["conflict"].combine_chunks()
        x, y = _addresses(some)
        parts.append(tile_table(x, y, label, layer.name, split=split, conflict=conflict, slices=kept, weight=weight))
    return pa.concat_tables(parts), unsure


def _check_zoom(layer: Layer, zoom: int) -> None:
    """Refuse a review at another zoom: a verdict on a tile needn't be true for each of its four children."""
    if _ZOOM in layer.columns.column_names:
        zooms = layer.texts(_ZOOM, "--negatives-review").unique().to_pylist()
        if other := [item for item in zooms if item not in ("", str(zoom))]:
            raise ConfigError(f"{layer.name} is a review of tiles of zoom {other[0]}, --zoom is {zoom}; give --zoom "
                              f"{other[0]}, or review tiles of zoom {zoom}")  # fmt: skip


def _lookalikes(config: AssembleConfig, places: Geometries, negative: str) -> pa.Table:
    layer = read_layer(
        config.negatives_lookalikes or Path(), config.negatives_lookalikes_layer, "--negatives-lookalikes"
    )
    found = label_tiles(layer, config.zoom, LabelColumns(every_label=negative), "")
    x, y = _addresses(found)
    clear = are_clear(np.stack([x, y], axis=1), places, config.zoom, config.negatives_buffer_m)
    return tile_table(x[clear], y[clear], negative, layer.name, slices=_no_slices(config))


def _random(
    config: AssembleConfig,
    tiles: pa.Table,
    unsure: npt.NDArray[np.int64],
    places: Geometries,
    positive: str,
    negative: str,
) -> pa.Table:
    usable = pc.and_(pc.equal(tiles["label"], positive), pc.equal(tiles["conflict"], ""))
    drawing = NegativesConfig(
        count=round(config.negatives_ratio * (pc.sum(usable).as_py() or 0)),
        zoom=config.zoom,
        buffer_m=config.negatives_buffer_m,
        distance_m=config.negatives_distance_m,
        seed=config.seed,
    )
    area = None
    if config.negatives_within:
        area = read_layer(config.negatives_within, config.negatives_within_layer, "--negatives-within").geometry
    taken = np.concatenate([_keys(tiles, config.zoom), unsure])
    x, y = draw_negatives(places, drawing, area, taken).T
    return tile_table(x, y, negative, "random", slices=_no_slices(config))
