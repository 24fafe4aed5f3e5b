"""Run the bulk pipeline on this machine: the very same, with its steps as processes."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field, model_validator

from pipelines.local_runner import FAILURE, check_path, check_steps_ran, run_pipeline, whole_path
from sat_xception.cli import add_step, run_app
from sat_xception.config import setting_of
from sat_xception.log import duration, get_logger
from sat_xception.steps import TERMINATION_LOG_ENV, BulkPlanConfig, BulkPredictConfig, PublishConfig, ServeConfig, Step
from sat_xception.steps.bulk import BulkImageryConfig
from sat_xception.steps.kinds import Place
from sat_xception.storage import Stored

__all__ = ["BulkRunConfig", "BulkRunResult", "run_bulk"]

_log = get_logger(__name__)
# The parts are in folders of their own; the predict that closes the ledger proves that they ran.
_STEPS = ("bulk-plan", "bulk-predict-2", "bulk-publish")
# Settings that the pipeline's parameters call otherwise; the others of imagery begin with `imagery_`.
_AREA = {"area": "area", "bbox": "area_bbox", "tiles": "area_tiles", "zoom": "area_zoom", "buffer_m": "area_buffer_m"}
_SCORING = ("endpoint", "engine", "batch_size", "in_flight", "shard_tiles", "parts")
_LAYERS = ("area_layer", "known_layer", "areas_layer")
_PUBLISH = (
    "area_name",
    "areas",
    "areas_layer",
    "known",
    "known_distance_m",
    "known_layer",
    "most_reviewed",
    "with_tiles",
)


class BulkRunConfig(BulkImageryConfig):
    """Run the whole bulk pipeline on this machine: plan, score in parts, close the ledger, publish."""

    imagery: str = Field(description="Where the tiles' images come from; see `assemble --help`.")
    area: Annotated[str, Stored("file")] = Field("", description="Polygons, or places with --buffer-m.")
    area_layer: tuple[str, ...] = setting_of(BulkPlanConfig, "area_layer")
    bbox: str = setting_of(BulkPlanConfig, "bbox")
    tiles: Annotated[str, Stored("file")] = Field("", description="Instead: a list of tiles.")
    zoom: int = setting_of(BulkPlanConfig, "zoom")
    buffer_m: float = setting_of(BulkPlanConfig, "buffer_m")
    model_root: Place = setting_of(ServeConfig, "model_root")
    name: str = setting_of(BulkPlanConfig, "name")
    scores: Place = Field(
        Path("scores"), description="Folder of the scores of all runs; what is in it isn't scored again."
    )
    out: Path = Field(Path("bulk-runs"), description="Folder that gets a folder for this run.")
    parts: int = Field(1, gt=0, le=64, description="Tasks that score; here one after the other, or two at a time.")
    endpoint: str = setting_of(BulkPredictConfig, "endpoint")
    in_flight: int = setting_of(BulkPredictConfig, "in_flight")
    engine: str = setting_of(BulkPredictConfig, "engine")
    batch_size: int = setting_of(BulkPredictConfig, "batch_size")
    shard_tiles: int = setting_of(BulkPlanConfig, "shard_tiles")
    threshold: float = Field(0.0, ge=0, le=1, description="Threshold of candidates. Default: the model's own.")
    known: Annotated[str, Stored("file")] = Field("", description="Places that are known.")
    known_layer: tuple[str, ...] = setting_of(PublishConfig, "known_layer")
    known_distance_m: float = setting_of(PublishConfig, "known_distance_m")
    areas: Annotated[str, Stored("file")] = Field("", description="Polygons, such as provinces, to count by.")
    areas_layer: tuple[str, ...] = setting_of(PublishConfig, "areas_layer")
    area_name: str = setting_of(PublishConfig, "area_name")
    most_reviewed: int = setting_of(PublishConfig, "most_reviewed")
    with_tiles: bool = setting_of(PublishConfig, "with_tiles")

    @model_validator(mode="after")
    def _has_one_area(self) -> BulkRunConfig:
        if sum(map(bool, (self.area, self.bbox, self.tiles))) != 1:
            raise ValueError("give one of --area, --bbox and --tiles")
        return self


@dataclass(frozen=True)
class BulkRunResult:
    """How a run ended.

    Attributes:
        folder: The run's folder: outputs of every step, `run.log`, `report.html`.
        published: Folder of the maps and the review page; None when nothing was new.
        seconds: Whole time.
    """

    folder: Path
    published: Path | None
    seconds: float

    def summary(self) -> str:
        """Return where the report is, and how to review."""
        if self.published is None:
            return f"run       nothing new: all tiles are scored already | {duration(self.seconds)}"
        return (
            f"run       {duration(self.seconds)}\nreport    {self.folder}/report.html\n"
            f"next      sat_xception review {self.published}"
        )


def run_bulk(config: BulkRunConfig) -> BulkRunResult:
    """Run the pipeline and check that every step did.

    Raises:
        ConfigError: A path can't be used.
        StepFailedError: A step failed; the message is its own.
    """
    started = time.monotonic()
    run_id = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    folder = (config.out / run_id).resolve()
    _log.info("run       tile-bulk-inference on this machine; everything goes to %s", config.out / run_id)
    check_path(folder)
    folder.mkdir(parents=True)
    from kfp import local

    from pipelines.bulk_inference import bulk_inference

    os.environ[TERMINATION_LOG_ENV] = str(folder / FAILURE)
    runner = local.SubprocessRunner(use_venv=False)
    outputs = run_pipeline(bulk_inference, runner, folder, pipeline_arguments(config))
    check_steps_ran(outputs, _STEPS)
    shutil.copyfile(outputs / "bulk-publish" / "report", folder / "report.html")
    published = outputs / "bulk-publish" / "publication"
    shown = config.out / run_id / published.relative_to(folder)
    return BulkRunResult(config.out / run_id, shown if published.is_dir() else None, time.monotonic() - started)


def pipeline_arguments(config: BulkRunConfig) -> dict[str, Any]:
    """Return the pipeline's parameters for a run; files are named by their whole path."""
    given = {name: getattr(config, name) for name in type(config).model_fields}
    files = {name: whole_path(given[name]) for name in ("area", "tiles", "imagery", "known", "areas")}
    given |= files | {"model_root": whole_path(config.model_root), "scores": whole_path(config.scores)}
    given |= {name: list(given[name]) for name in ("imagery_bands", "imagery_scale", *_LAYERS)}
    imagery = {name: value for name, value in given.items() if name.startswith("imagery_")}
    asking = {f"imagery_{name}": given[name] for name in ("tile_size", "workers", "rate_per_s")}
    return {
        **{parameter: given[name] for name, parameter in _AREA.items()},
        "area_layer": given["area_layer"],
        **{f"scoring_{name}": given[name] for name in _SCORING},
        **{f"publish_{name}": given[name] for name in (*_PUBLISH, "threshold")},
        **imagery,
        **asking,
        "imagery": given["imagery"],
        "model_name": config.name,
        "model_root": given["model_root"],
        "scores": given["scores"],
    }


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
add_step(app, "run", Step(BulkRunConfig, "pipelines.bulk_local:run_bulk"))
app.callback()(lambda: None)


if __name__ == "__main__":
    # Without a handler kfp gives the root logger one, which prints every line of ours a second time.
    logging.getLogger().addHandler(logging.NullHandler())
    run_app(app, sys.argv[1:])
