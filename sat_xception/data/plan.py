"""Plan a dataset from labelled places: which tiles, their labels and splits.

Where layers disagree about a tile, a person who looked at it is right (the review), then the labels, then the
look-alikes; random negatives take what is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

from sat_xception.data.folders import Candidate, TilePlace
from sat_xception.data.labels import LabelledTile, label_tiles
from sat_xception.data.negatives import NegativesConfig, are_clear, draw_negatives
from sat_xception.data.split import split_of, stable_fraction
from sat_xception.errors import DataError
from sat_xception.geo.tiles import ancestors, grid_to_lonlat
from sat_xception.geo.vectors import Geometries, read_layer
from sat_xception.steps import AssembleConfig

__all__ = ["Plan", "plan_tiles"]

_VERDICT = "verdict"
_UNSURE = "unsure"
_DEFAULT_POSITIVE = "school"

Tiles = dict[tuple[int, int], LabelledTile]


@dataclass(frozen=True)
class Plan:
    """What is to be gathered.

    Attributes:
        candidates: Every tile that the labels and the negatives ask for, sorted by id.
        bounds: West, south, east and north of the labels, in degrees.
    """

    candidates: list[Candidate]
    bounds: tuple[float, float, float, float]


def plan_tiles(config: AssembleConfig) -> Plan:
    """Return every tile that the labels and the negatives ask for.

    Raises:
        ConfigError: A setting doesn't fit the layers.
        DataError: A layer can't be used, there is only one class, or there is no room for the negatives.
    """
    positive = config.positive_label or config.label or _DEFAULT_POSITIVE
    layer = read_layer(Path(config.labels or ""))
    labelled = label_tiles(layer, config.zoom, config.label_column, config.label, config.slice_columns, positive)
    tiles = {(tile.x, tile.y): tile for tile in labelled}
    negative = config.negative_label or f"not-{positive}"
    unsure = _add_reviewed(tiles, config, positive, negative)
    places = layer.geometry
    if config.negatives_lookalikes:
        _add_lookalikes(tiles, unsure, places, config, negative)
    if config.negatives_ratio:
        _add_random(tiles, unsure, places, config, positive, negative)
    west, south, east, north = shapely.total_bounds(places).tolist()
    planned = [tile for key, tile in tiles.items() if key not in unsure]
    labels = {tile.label for tile in planned}
    if len(labels) < 2:
        raise DataError(
            f"all {len(planned):,} tiles are labelled {', '.join(labels) or 'nothing'}, a classifier needs at least 2 "
            "classes: draw negatives with --negatives-ratio, or name a column of classes with --label-column"
        )
    return Plan(_candidates(planned, config), (west, south, east, north))


def _add_reviewed(tiles: Tiles, config: AssembleConfig, positive: str, negative: str) -> set[tuple[int, int]]:
    """Add what a person said of tiles; return those that nobody is sure of."""
    if config.negatives_review is None:
        return set()
    layer = read_layer(config.negatives_review)
    reviewed = label_tiles(layer, config.zoom, _VERDICT, "", (), "yes")
    unknown = sorted({tile.label for tile in reviewed} - {"yes", "no", _UNSURE})
    if unknown:
        raise DataError(f"{layer.name} has the verdict {unknown[0]!r}; expected yes, no or unsure")
    for tile in reviewed:
        before = tiles.get((tile.x, tile.y))
        label = positive if tile.label == "yes" else negative
        slices = before.slices if before else dict.fromkeys(config.slice_columns, "")
        tiles[tile.x, tile.y] = LabelledTile(tile.x, tile.y, label, layer.name, slices, tile.conflict)
    return {(tile.x, tile.y) for tile in reviewed if tile.label == _UNSURE}


def _add_lookalikes(
    tiles: Tiles, unsure: set[tuple[int, int]], places: Geometries, config: AssembleConfig, negative: str
) -> None:
    layer = read_layer(config.negatives_lookalikes or Path())
    found = label_tiles(layer, config.zoom, "", negative, (), "")
    clear = are_clear(np.array([(tile.x, tile.y) for tile in found]), places, config.zoom, config.negatives_buffer_m)
    slices = dict.fromkeys(config.slice_columns, "")
    for tile, is_clear in zip(found, clear.tolist(), strict=True):
        if is_clear and (tile.x, tile.y) not in tiles and (tile.x, tile.y) not in unsure:
            tiles[tile.x, tile.y] = LabelledTile(tile.x, tile.y, negative, layer.name, slices)


def _add_random(
    tiles: Tiles,
    unsure: set[tuple[int, int]],
    places: Geometries,
    config: AssembleConfig,
    positive: str,
    negative: str,
) -> None:
    positives = sum(1 for tile in tiles.values() if tile.label == positive and not tile.conflict)
    drawing = NegativesConfig(
        count=round(config.negatives_ratio * positives),
        zoom=config.zoom,
        buffer_m=config.negatives_buffer_m,
        distance_m=config.negatives_distance_m,
        seed=config.seed,
    )
    area = read_layer(config.negatives_within).geometry if config.negatives_within else None
    slices = dict.fromkeys(config.slice_columns, "")
    for x, y in draw_negatives(places, drawing, area, taken=tiles.keys() | unsure).tolist():
        tiles[x, y] = LabelledTile(x, y, negative, "random", slices)


def _candidates(tiles: list[LabelledTile], config: AssembleConfig) -> list[Candidate]:
    zoom = config.zoom
    x, y = (np.array([getattr(tile, axis) for tile in tiles], dtype=np.int64) for axis in ("x", "y"))
    lon, lat = grid_to_lonlat(x + 0.5, y + 0.5, zoom)
    blocks = np.stack(ancestors(x, y, zoom, config.block_zoom), axis=1)
    candidates = []
    for tile, block, *centre in zip(tiles, blocks.tolist(), lon.tolist(), lat.tolist(), strict=True):
        # The block decides, so neighbours, which look alike, are in one split.
        position = stable_fraction(f"block:{config.block_zoom}/{block[0]}/{block[1]}", config.seed)
        candidates.append(
            Candidate(
                id=f"{zoom}/{tile.x}/{tile.y}",
                path=None,
                label=tile.label,
                split=split_of(position, config.fractions),
                place=TilePlace(tile.x, tile.y, zoom, centre[0], centre[1]),
                labelled_by=tile.source,
                slices=tile.slices,
                conflict=tile.conflict,
            )
        )
    return sorted(candidates, key=lambda candidate: candidate.id)
