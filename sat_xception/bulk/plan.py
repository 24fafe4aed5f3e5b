"""Plan what is scored: which tiles, in which shards, and what it takes, told before anything is fetched or paid."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from sat_xception.bulk.already_scored import earlier_scores, scored_ids, scored_runs, scores_of
from sat_xception.bulk.measure import measure
from sat_xception.bulk.plan_file import PLAN_FILE, Plan, PlanWriter, dataset_columns, dataset_files, imagery_identity
from sat_xception.bulk.scorer import ScoringModel
from sat_xception.bulk.settings import BulkPlanConfig
from sat_xception.bulk.sizing import Estimate, estimate, read_backends
from sat_xception.dataset.record import DatasetRecord
from sat_xception.errors import ConfigError, DataError
from sat_xception.geo.morton import Keys, Runs, keys_of, merged, runs_of, tile_ids, without
from sat_xception.geo.near import tiles_near
from sat_xception.geo.text import is_text, read_text
from sat_xception.geo.tile_cover import box_area, cover, grid_area
from sat_xception.geo.tiles import lonlat_to_tiles
from sat_xception.geo.vectors import read_layer
from sat_xception.imagery import file_state
from sat_xception.log import duration, get_logger
from sat_xception.reports.markdown import plain
from sat_xception.served_model.model_root import resolve_version
from sat_xception.settings.config import shown
from sat_xception.storage import atomic_folder, write_json

__all__ = ["BulkPlanResult", "plan_tiles"]

_log = get_logger(__name__)
_ROWS = 2**16
_LOG_EVERY_S = 5.0


@dataclass(frozen=True)
class BulkPlanResult:
    """What was planned.

    Attributes:
        folder: Of the plan.
        facts: Content of `plan.json`.
        estimate: What it takes.
        seconds: Time that planning took.
    """

    folder: Path
    facts: dict[str, Any]
    estimate: Estimate
    seconds: float

    def parts(self, most: int) -> list[str]:
        """Return the parts that so many tasks score side by side, "1/4" and so on; never more than there are shards."""
        parts = max(1, min(most, int(self.facts["shards"])))
        return [f"{number}/{parts}" for number in range(1, parts + 1)]

    def markdown(self) -> str:
        """Return what the summary says, for the Kubeflow UI."""
        return f"# Plan of {plain(str(self.facts['area']))}\n\n```\n{self.summary()}\n```\n"

    def summary(self) -> str:
        """Return tiles, time, bytes, money, and where the plan is."""
        left = f", {self.facts['left out']:,} scored already" if self.facts["left out"] else ""
        return "\n".join(
            [
                f"plan      {self.facts['planned']:,} tiles in {self.facts['shards']:,} shards{left} | "
                f"{duration(self.seconds)}",
                *self.estimate.lines(),
                f"wrote     {self.folder}",
            ]
        )


def plan_tiles(config: BulkPlanConfig) -> BulkPlanResult:
    """Write a plan: `plan.json` and the runs of its shards. Memory grows with the area's border, not with the area.

    Raises:
        ConfigError: A setting is wrong.
        DataError: The area is empty or can't be read, or everything in it is scored already.
        ServiceError: The imagery can't be read.
    """
    started = time.monotonic()
    backends = read_backends(config.prices)
    if config.backend not in backends:
        raise ConfigError(f"--backend {config.backend} isn't known; there are {', '.join(sorted(backends))}")
    model = ScoringModel.read(resolve_version(config.model, config.name)) if config.model else None
    with atomic_folder(config.out, record=PLAN_FILE) as work:
        source = _dataset(config) if config.dataset else _grid(config)
        scored: list[Path] = []
        if model:
            seen = imagery_identity(source.facts["imagery"]) | {"file": file_state(config.imagery) or None}
            scored += scores_of(config.scored, model.facts(), seen)
            if config.scored_under:
                scored += earlier_scores(config.scored_under, model.facts(), seen)
        if source.zoom is None:
            done = scored_ids(scored, str(model.version)) if model else set()
            runs = _unscored_rows(source, done) if done else source.runs
        else:
            first, count = scored_runs(scored, str(model.version), source.zoom) if model else (_NONE, _NONE)
            runs = without(source.runs, first, count) if len(first) else source.runs
        with PlanWriter(work, config.shard_tiles, source.ids) as writer:
            for some in _told(runs, writer):
                writer.add(*some)
        if not writer.planned and not (config.scored_under and source.seen.tiles):
            told = "all of its tiles are scored already" if source.seen.tiles else "there are no tiles in it"
            raise DataError(f"nothing to plan: {told}")
        facts = {**source.facts, **writer.facts(), "left out": source.seen.tiles - writer.planned}
        facts |= {"model": model.facts() if model else None}
        plan = Plan(work, facts)
        probe = measure(plan, config if plan.planned else config.model_copy(update={"probe": 0}), model)
        result = estimate(plan.planned, probe, backends[config.backend], config.machines)
        write_json(work / PLAN_FILE, {**facts, "estimate": result.facts(), "config": config.resolved()})
    return BulkPlanResult(config.out, facts, result, time.monotonic() - started)


_NONE: Keys = np.empty(0, np.int64)


class _Seen:
    """Counts the tiles of runs as they pass."""

    def __init__(self) -> None:
        self.tiles = 0

    def __call__(self, runs: Runs) -> Runs:
        for first, count in runs:
            self.tiles += int(count.sum())
            yield first, count


@dataclass(frozen=True)
class _Source:
    """Tiles to be planned: their runs, how they are called, and what `plan.json` says of where they come from."""

    runs: Runs
    seen: _Seen
    ids: Any
    zoom: int | None
    facts: dict[str, Any]


def _grid(config: BulkPlanConfig) -> _Source:
    seen = _Seen()
    zoom = config.zoom
    if config.tiles:
        keys, zoom = _listed(config.tiles)
        runs: Runs = iter([runs_of(keys)])
        told = f"{len(keys):,} tiles of {config.tiles.name}"
    else:
        runs = _covered(config)
        told = config.area.name if config.area else config.bbox
    imagery = {
        "url": shown(config.imagery),
        "attribution": config.imagery_attribution,
        "token_env": config.imagery_token_env,
        "contact": config.imagery_contact,
        "tms": config.imagery_tms,
        "tile_size": config.tile_size,
        "bands": config.imagery_bands,
        "scale": config.imagery_scale,
        "max_pixels": config.max_pixels,
    }
    facts = {"area": told, "zoom": zoom, "imagery": imagery}
    return _Source(seen(runs), seen, lambda keys: tile_ids(keys, zoom), zoom, facts)


def _covered(config: BulkPlanConfig) -> Runs:
    """Return the runs of the tiles of an area, and of those within the buffer around it."""
    if not config.area:
        return cover(grid_area(box_area(config.bbox), config.zoom), config.zoom)
    places = read_layer(config.area, config.area_layer, "--area").geometry
    if config.buffer_m:
        return iter([tiles_near(places, config.buffer_m, config.zoom)])
    return cover(grid_area(places, config.zoom), config.zoom)


def _listed(path: Path) -> tuple[Keys, int]:
    """Return the keys of a list of tiles, each once, and their zoom."""
    if not _is_list(path):
        layer = read_layer(path, flag="--tiles")
        if layer.zoom is None:
            raise DataError(f"{path} has no columns x, y, z; give places, which aren't tiles, as --area")
        lon, lat = shapely.get_coordinates(layer.geometry).T
        return np.unique(keys_of(*lonlat_to_tiles(lon, lat, layer.zoom))), layer.zoom
    found = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            z, x, y = map(int, line.strip().split("/"))
        except ValueError:
            raise DataError(f"{path}, line {number}: expected z/x/y; got {line.strip()[:80]!r}") from None
        if not (0 <= z <= 30 and 0 <= x < 2**z and 0 <= y < 2**z):
            raise DataError(f"{path}, line {number}: there is no tile {line.strip()}; are z, x and y mixed up?")
        found.append((z, x, y))
    zooms = sorted({z for z, _, _ in found})
    if len(zooms) != 1:
        raise DataError(f"{path} names tiles of {len(zooms)} zooms; a plan has tiles of one")
    tiles = np.array(found, np.int64)
    return np.unique(keys_of(tiles[:, 1], tiles[:, 2])), zooms[0]


def _is_list(path: Path) -> bool:
    """Return whether a file has lines of z/x/y: its ending says so, or, where it has none, its first line."""
    if path.suffix:
        return path.suffix.casefold() == ".txt"
    return is_text(path) and re.match(r"\s*\d+/\d+/\d+\s", read_text(path) + "\n") is not None


def _dataset(config: BulkPlanConfig) -> _Source:
    folder = Path(config.dataset or "").resolve()
    record = DatasetRecord.read(folder)
    rows = dataset_files(folder)[-1][2] if record.shards else 0
    seen = _Seen()
    imagery = {"url": shown(str(record.config.get("imagery", ""))), "attribution": record.attribution}
    settings = {"tile_size": 0, "max_pixels": config.max_pixels}
    facts = {
        "area": record.name,
        "zoom": None,
        "dataset": str(folder),
        "dataset digest": record.digest,
        "imagery": imagery | settings,
    }
    runs: Runs = iter([(np.array([0]), np.array([rows]))] if rows else [])
    return _Source(seen(runs), seen, lambda keys: _names(folder, keys), None, facts)


def _names(folder: Path, keys: Keys) -> pa.Array:
    return dataset_columns(folder, keys, ["id"])["id"].combine_chunks()


def _unscored_rows(source: _Source, done: set[str]) -> Runs:
    for first, count in source.runs:
        for begin in range(int(first[0]), int(first[0] + count[0]), _ROWS):
            keys = np.arange(begin, min(begin + _ROWS, int(first[0] + count[0])), dtype=np.int64)
            kept = keys[[name not in done for name in source.ids(keys).to_pylist()]]
            if len(kept):
                yield merged(*runs_of(kept))


def _told(runs: Runs, writer: PlanWriter) -> Iterator[tuple[Keys, Keys]]:
    """Yield runs, and tell how many tiles there are by now; nobody knows beforehand how many there will be."""
    told = time.monotonic()
    for some in runs:
        yield some
        if time.monotonic() - told >= _LOG_EVERY_S:
            told = time.monotonic()
            _log.info("plan      %s tiles so far", f"{writer.planned:,}")
