"""Plan a dataset from labelled places: which tiles, their labels and splits, and where their images are.

Where layers disagree about a tile, a person who looked at it is right (the review), then the labels, then the
look-alikes; random negatives take what is left.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely

from sat_xception.data.folders import Candidate, TilePlace
from sat_xception.data.images import IMAGE_SUFFIXES
from sat_xception.data.labels import LabelledTile, label_tiles
from sat_xception.data.negatives import NegativesConfig, are_clear, draw_negatives
from sat_xception.data.split import split_of, stable_fraction
from sat_xception.errors import ConfigError, DataError
from sat_xception.geo.tiles import ancestors, grid_to_lonlat
from sat_xception.geo.vectors import Geometries, Layer, read_layer
from sat_xception.log import get_logger
from sat_xception.steps import AssembleConfig

__all__ = ["plan_candidates"]

_log = get_logger(__name__)
_VERDICT = "verdict"
_UNSURE = "unsure"
_DEFAULT_POSITIVE = "school"

Tiles = dict[tuple[int, int], LabelledTile]


def plan_candidates(config: AssembleConfig) -> list[Candidate]:
    """Return every tile that the labels and the negatives ask for, sorted by id.

    Raises:
        ConfigError: A setting doesn't fit the layers.
        DataError: A layer can't be used, there is no room for the negatives, or no tile has an image.
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
    return _candidates([tile for key, tile in sorted(tiles.items()) if key not in unsure], layer, config)


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


def _candidates(tiles: list[LabelledTile], layer: Layer, config: AssembleConfig) -> list[Candidate]:
    zoom = config.zoom
    folder = Path(config.imagery or "")
    x, y = (np.array([getattr(tile, axis) for tile in tiles], dtype=np.int64) for axis in ("x", "y"))
    files = _files(folder, zoom, x)
    if not any((tile.x, tile.y) in files for tile in tiles):
        raise DataError(_why_nothing(folder, zoom, len(tiles), layer))
    lon, lat = grid_to_lonlat(x + 0.5, y + 0.5, zoom)
    blocks = ancestors(x, y, zoom, config.block_zoom)
    candidates = []
    for index, tile in enumerate(tiles):
        # The block decides, so neighbours, which look alike, are in one split.
        block = f"block:{config.block_zoom}/{blocks[0][index]}/{blocks[1][index]}"
        candidates.append(
            Candidate(
                id=f"{zoom}/{tile.x}/{tile.y}",
                path=files.get((tile.x, tile.y), folder / f"{zoom}/{tile.x}/{tile.y}"),
                label=tile.label,
                split=split_of(stable_fraction(block, config.seed), config.fractions),
                place=TilePlace(tile.x, tile.y, zoom, float(lon[index]), float(lat[index])),
                labelled_by=tile.source,
                slices=tile.slices,
                conflict=tile.conflict,
            )
        )
    return sorted(candidates, key=lambda candidate: candidate.id)


def _files(folder: Path, zoom: int, x: npt.NDArray[np.int64]) -> dict[tuple[int, int], Path]:
    """Return the image files of these columns of tiles, `folder/zoom/x/y.*`, by x and y."""
    files: dict[tuple[int, int], Path] = {}
    for column in np.unique(x).tolist():
        place = folder / str(zoom) / str(column)
        if place.is_dir():
            for name in sorted(os.listdir(place)):
                stem, suffix = os.path.splitext(name)
                if stem.isdecimal() and suffix.lower() in IMAGE_SUFFIXES:
                    files.setdefault((column, int(stem)), place / name)
    return files


def _why_nothing(folder: Path, zoom: int, count: int, layer: Layer) -> str:
    """Say why no tile has an image, with what is known of both sides."""
    if not folder.is_dir():
        raise ConfigError(f"--imagery {folder} is no folder (seen from {Path.cwd()})")
    west, south, east, north = shapely.total_bounds(layer.geometry)
    reach = f"The labels reach from {west:.4f}, {south:.4f} to {east:.4f}, {north:.4f}"
    labels = f"0 of {count:,} tiles are in {folder}. {reach}"
    zooms = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
    if not zooms:
        return f"{labels}; the folder has no tiles, which would be {{z}}/{{x}}/{{y}}.jpg; is it the right one?"
    if zoom not in zooms:
        return f"{labels}; the imagery has zoom {', '.join(map(str, zooms))} and not {zoom}; give --zoom {zooms[-1]}"
    columns = sorted(int(path.name) for path in (folder / str(zoom)).iterdir() if path.name.isdecimal())
    files = _files(folder, zoom, np.array(columns, dtype=np.int64))
    if not files:
        return f"{labels}; the imagery has no image at zoom {zoom}"
    rows = [y for _, y in files]
    lon, lat = grid_to_lonlat(np.array([columns[0], columns[-1] + 1]), np.array([max(rows) + 1, min(rows)]), zoom)
    bounds = f"the imagery from {lon[0]:.4f}, {lat[0]:.4f} to {lon[1]:.4f}, {lat[1]:.4f} at zoom {zoom}"
    swapped = south < lon[1] and north > lon[0] and west < lat[1] and east > lat[0]
    hint = "longitude and latitude look swapped in the labels" if swapped else "do they show the same area?"
    return f"{labels}, {bounds}: {hint}"
