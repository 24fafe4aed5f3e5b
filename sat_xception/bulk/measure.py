"""Measure a few tiles of a plan, and the model's speed, before the run."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass

import numpy as np

from sat_xception.bulk.engines import open_engine, prepare_engine
from sat_xception.bulk.plan_file import Plan
from sat_xception.bulk.scorer import ScoringModel, choose_engine
from sat_xception.bulk.settings import BulkPlanConfig
from sat_xception.bulk.tiles import LoadedTile, Pixels, TileSource, load_batches
from sat_xception.errors import ServiceError
from sat_xception.geo.morton import Keys
from sat_xception.log import get_logger
from sat_xception.storage import scratch_folder

__all__ = ["Probe", "measure"]

_log = get_logger(__name__)
_BATCH = 32
_MEASURE_S = 3.0
# If no tile could be fetched, the model is timed on noise of the usual tile size.
_USUAL_SIDE = 256


@dataclass(frozen=True)
class Probe:
    """Measurements; None if one isn't available.

    Attributes:
        tiles: Number of tiles that were fetched.
        bytes_per_tile: Mean size of an encoded image.
        fetched_per_s: Tiles per second that this machine reads, with as many in flight as in the run.
        scored_per_s: Tiles per second that the model scores on this machine.
        backbone: Backbone of the model; "" without a model.
    """

    tiles: int = 0
    bytes_per_tile: float | None = None
    fetched_per_s: float | None = None
    scored_per_s: float | None = None
    backbone: str = ""


def measure(plan: Plan, config: BulkPlanConfig, model: ScoringModel | None) -> Probe:
    """Fetch some tiles spread over the plan, and score them long enough to measure the rate.

    Raises:
        ConfigError: The imagery can't be opened, or the engine isn't installed.
        ModelError: The model's results differ from its package's.
    """
    tiles, seconds = _fetched(plan, config) if config.probe else ([], 0.0)
    sound = [tile for tile in tiles if tile.data]
    for reason in sorted({tile.reason for tile in tiles if not tile.data}):
        _log.warning("probe     %d of %d tiles: %s", sum(tile.reason == reason for tile in tiles), len(tiles), reason)
    return Probe(
        tiles=len(sound),
        bytes_per_tile=float(np.mean([len(tile.data) for tile in sound])) if sound else None,
        fetched_per_s=len(sound) / seconds if sound else None,
        scored_per_s=_scored_per_s(model, config.engine, [tile.pixels for tile in sound]) if model else None,
        backbone=model.backbone if model else "",
    )


def _fetched(plan: Plan, config: BulkPlanConfig) -> tuple[list[LoadedTile], float]:
    tiles = plan.document
    source = TileSource(config.imagery, tiles.imagery, config.workers, config.rate_per_s, tiles.dataset or "")
    keys = _spread_out(plan, config.probe)
    started = time.monotonic()
    try:
        batches = load_batches(source, plan, keys, len(keys), lambda pixels: pixels)
        loaded = list(itertools.chain.from_iterable(batch.tiles for batch in batches))
    except ServiceError as error:
        _log.warning("probe     %s", error)
        return [], 0.0
    return loaded, time.monotonic() - started


def _spread_out(plan: Plan, count: int) -> Keys:
    """Return the keys of `count` evenly spaced tiles of the plan."""
    places = np.unique(np.linspace(0, plan.planned - 1, min(count, plan.planned)).astype(np.int64))
    shards, within = np.divmod(places, plan.document.shard_tiles)
    found = [plan.keys(int(shard))[within[shards == shard]] for shard in np.unique(shards)]
    keys: Keys = np.concatenate(found)
    return keys


def _scored_per_s(model: ScoringModel, wanted: str, tiles: list[Pixels]) -> float:
    random = np.random.default_rng(0)
    if not tiles:
        tiles = [random.integers(0, 256, (_USUAL_SIDE, _USUAL_SIDE, 3), dtype=np.uint8)]
    shape = tiles[0].shape
    same = [tile for tile in tiles if tile.shape == shape]
    pixels = np.stack(list(itertools.islice(itertools.cycle(same), _BATCH)))
    with scratch_folder() as work:
        engine = open_engine(model, prepare_engine(model, choose_engine(wanted), "fp32", None, work), work)
        pixels = np.stack([engine.fit(tile) for tile in pixels])
        engine.run(pixels)
        started, batches = time.monotonic(), 0
        while time.monotonic() - started < _MEASURE_S:
            engine.run(pixels)
            batches += 1
        seconds = time.monotonic() - started
        engine.close()
    return batches * _BATCH / seconds
