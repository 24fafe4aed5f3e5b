"""Plan a run: its tiles and shards, with an estimate of time, bytes and cost before the run."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import shapely

from sat_xception.bulk.already_scored import check_scored, find_scored, scored_ids, scored_runs
from sat_xception.bulk.measure import measure
from sat_xception.bulk.plan_document import BulkPlan, DatasetImages, GridImagery, PlannedTiles
from sat_xception.bulk.plan_file import Plan, PlanWriter, dataset_columns, dataset_files
from sat_xception.bulk.scorer import ScoringModel, model_id
from sat_xception.bulk.settings import BulkPlanConfig
from sat_xception.bulk.sizing import estimate, read_backends
from sat_xception.dataset.record import DatasetRecord
from sat_xception.errors import ConfigError, DataError
from sat_xception.geo.morton import Keys, Runs, keys_of, merged, runs_of, tile_ids, without
from sat_xception.geo.near import tiles_near
from sat_xception.geo.text import is_text, read_text
from sat_xception.geo.tile_cover import box_area, cover, grid_area
from sat_xception.geo.tiles import lonlat_to_tiles
from sat_xception.geo.vectors import read_layer
from sat_xception.imagery.open import file_state
from sat_xception.log import duration, get_logger
from sat_xception.reports.markdown import plain
from sat_xception.served_model.model_root import resolve_version
from sat_xception.settings.config import shown
from sat_xception.storage import atomic_folder

__all__ = ["BulkPlanResult", "plan_tiles"]

_log = get_logger(__name__)
_ROWS = 2**16
_LOG_EVERY_S = 5.0


@dataclass(frozen=True)
class BulkPlanResult:
    """Result of planning.

    Attributes:
        folder: Of the plan.
        plan: Content of `plan.json`.
        seconds: Duration of the planning.
    """

    folder: Path
    plan: BulkPlan
    seconds: float

    def parts(self, most: int) -> list[str]:
        """Return the parts for up to `most` parallel tasks, "1/4" and so on; at most one per shard."""
        parts = max(1, min(most, self.plan.shards))
        return [f"{number}/{parts}" for number in range(1, parts + 1)]

    def markdown(self) -> str:
        """Return the summary as Markdown, for the Kubeflow UI."""
        return f"# Plan of {plain(self.plan.area)}\n\n```\n{self.summary()}\n```\n"

    def summary(self) -> str:
        """Return tiles, time, bytes, cost, and the path of the plan."""
        left = f", {self.plan.left_out:,} scored already" if self.plan.left_out else ""
        return "\n".join(
            [
                f"plan      {self.plan.planned:,} tiles in {self.plan.shards:,} shards{left} | "
                f"{duration(self.seconds)}",
                *self.plan.estimate.lines(),
                f"wrote     {self.folder}",
            ]
        )


def plan_tiles(config: BulkPlanConfig) -> BulkPlanResult:
    """Write a plan: `plan.json` and the runs of its shards. Memory grows with the area's border, not with the area.

    Raises:
        ConfigError: A setting is wrong.
        DataError: The area is empty or can't be read, or all its tiles are scored already.
        ServiceError: The imagery can't be read.

    Example:
        result = plan_tiles(BulkPlanConfig(area="area.geojson", imagery="imagery.mbtiles", out="plan"))
        print(result.summary())
    """
    started = time.monotonic()
    backends = read_backends(config.prices)
    if config.backend not in backends:
        raise ConfigError(f"--backend {config.backend} isn't known; there are {', '.join(sorted(backends))}")
    model = ScoringModel.read(resolve_version(config.model, config.name)) if config.model else None
    with atomic_folder(config.out, record=BulkPlan.file_name) as work:
        source = _dataset(config) if config.dataset else _grid(config)
        runs = _without_scored(config, source, model) if model else source.runs
        with PlanWriter(work, config.shard_tiles, source.ids) as writer:
            for some in _logged(runs, writer):
                writer.add(*some)
        if not writer.planned and not (config.scored_under and source.counter.tiles):
            why = "all of its tiles are scored already" if source.counter.tiles else "there are no tiles in it"
            raise DataError(f"nothing to plan: {why}")
        tiles = PlannedTiles(
            area=source.area,
            zoom=source.zoom,
            imagery=source.imagery,
            dataset=source.dataset,
            dataset_digest=source.dataset_digest,
            **writer.counts()._asdict(),
            left_out=source.counter.tiles - writer.planned,
            model=model_id(model) if model else None,
        )
        probe = measure(Plan(work, tiles), config if tiles.planned else config.model_copy(update={"probe": 0}), model)
        plan = BulkPlan(
            **dict(tiles),
            estimate=estimate(tiles.planned, probe, backends[config.backend], config.machines),
            config=config.resolved(),
        )
        plan.write(work)
    return BulkPlanResult(config.out, plan, time.monotonic() - started)


def _without_scored(config: BulkPlanConfig, source: _Source, model: ScoringModel) -> Runs:
    """Return the runs of a source without the tiles that the model has scored."""
    imagery = source.imagery.identity() | {"file": file_state(config.imagery) or None}
    folders = check_scored(config.scored, model_id(model), imagery)
    if config.scored_under:
        folders += find_scored(config.scored_under, model_id(model), imagery)
    if source.zoom is None:
        done = scored_ids(folders, str(model.version))
        return _unscored_rows(source, done) if done else source.runs
    first, count = scored_runs(folders, str(model.version), source.zoom)
    return without(source.runs, first, count) if len(first) else source.runs


class _Counter:
    """Counts the tiles of the runs that pass through it."""

    def __init__(self) -> None:
        self.tiles = 0

    def __call__(self, runs: Runs) -> Runs:
        for first, count in runs:
            self.tiles += int(count.sum())
            yield first, count


@dataclass(frozen=True)
class _Source:
    """Tiles to plan: their runs, a counter of those that passed, the ids of keys, and their part of `plan.json`."""

    runs: Runs
    counter: _Counter
    ids: Callable[[Keys], pa.Array]
    area: str
    zoom: int | None
    imagery: GridImagery | DatasetImages
    dataset: str | None = None
    dataset_digest: str | None = None


def _grid(config: BulkPlanConfig) -> _Source:
    counter = _Counter()
    zoom = config.zoom
    if config.tiles:
        keys, zoom = _listed(config.tiles)
        runs: Runs = iter([runs_of(keys)])
        area = f"{len(keys):,} tiles of {config.tiles.name}"
    else:
        runs = _covered(config)
        area = config.area.name if config.area else config.bbox
    imagery = GridImagery(url=shown(config.imagery), max_pixels=config.max_pixels, **dict(config.stored()))
    return _Source(counter(runs), counter, lambda keys: tile_ids(keys, zoom), area, zoom, imagery)


def _covered(config: BulkPlanConfig) -> Runs:
    """Return the runs of the tiles of an area, including the buffer around it."""
    if not config.area:
        return cover(grid_area(box_area(config.bbox), config.zoom), config.zoom)
    places = read_layer(config.area, config.area_layer, "--area").geometry
    if config.buffer_m:
        return iter([tiles_near(places, config.buffer_m, config.zoom)])
    return cover(grid_area(places, config.zoom), config.zoom)


def _listed(path: Path) -> tuple[Keys, int]:
    """Return the keys of a list of tiles, without repetitions, and their zoom."""
    if not _is_list(path):
        layer = read_layer(path, flag="--tiles")
        if layer.zoom is None:
            raise DataError(f"{path} has no columns x, y, z; give points or polygons, which aren't tiles, as --area")
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
    """Return whether a file has lines of z/x/y, by its suffix or, without one, by its first line."""
    if path.suffix:
        return path.suffix.casefold() == ".txt"
    return is_text(path) and re.match(r"\s*\d+/\d+/\d+\s", read_text(path) + "\n") is not None


def _dataset(config: BulkPlanConfig) -> _Source:
    folder = Path(config.dataset or "").resolve()
    record = DatasetRecord.read(folder)
    rows = dataset_files(folder)[-1][2] if record.shards else 0
    counter = _Counter()
    imagery = DatasetImages(
        url=shown(str(record.config.get("imagery", ""))),
        attribution=record.attribution,
        tile_size=0,
        max_pixels=config.max_pixels,
    )
    runs: Runs = iter([(np.array([0]), np.array([rows]))] if rows else [])
    return _Source(
        counter(runs),
        counter,
        lambda keys: _names(folder, keys),
        record.name,
        None,
        imagery,
        str(folder),
        record.digest,
    )


def _names(folder: Path, keys: Keys) -> pa.Array:
    return dataset_columns(folder, keys, ["id"])["id"].combine_chunks()


def _unscored_rows(source: _Source, done: set[str]) -> Runs:
    for first, count in source.runs:
        for begin in range(int(first[0]), int(first[0] + count[0]), _ROWS):
            keys = np.arange(begin, min(begin + _ROWS, int(first[0] + count[0])), dtype=np.int64)
            kept = keys[[name not in done for name in source.ids(keys).to_pylist()]]
            if len(kept):
                yield merged(*runs_of(kept))


def _logged(runs: Runs, writer: PlanWriter) -> Iterator[tuple[Keys, Keys]]:
    """Yield runs, and log the number of tiles so far; the total isn't known beforehand."""
    logged_at = time.monotonic()
    for some in runs:
        yield some
        if time.monotonic() - logged_at >= _LOG_EVERY_S:
            logged_at = time.monotonic()
            _log.info("plan      %s tiles so far", f"{writer.planned:,}")
