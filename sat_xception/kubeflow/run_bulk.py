"""Run the bulk pipeline on this machine, with its steps as processes."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sat_xception.clock import run_stamp
from sat_xception.kubeflow.checkout import pipeline_function
from sat_xception.kubeflow.local_runner import FAILURE, check_path, check_steps_ran, run_pipeline, whole_path
from sat_xception.kubeflow.run_settings import BulkRunConfig
from sat_xception.log import duration, get_logger
from sat_xception.settings.step import TERMINATION_LOG_ENV

__all__ = ["BulkRunResult", "run_bulk"]

_log = get_logger(__name__)
# The parts' outputs are in folders of their own; the step that closes the ledger checks that all of them ran.
_STEPS = ("bulk-plan", "bulk-predict-2", "bulk-publish")
# Settings whose pipeline parameter has another name; the other settings of imagery get the prefix `imagery_`.
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


@dataclass(frozen=True)
class BulkRunResult:
    """Result of a run.

    Attributes:
        folder: Folder of the run, with the outputs of every step, `run.log` and `report.html`.
        published: Folder of the maps and the review page; None if nothing was new.
        seconds: Duration.
    """

    folder: Path
    published: Path | None
    seconds: float

    def summary(self) -> str:
        """Return the path of the report, and the command to review."""
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
        StepFailedError: A step failed; the message is the step's.
    """
    started = time.monotonic()
    run_id = run_stamp()
    folder = (config.out / run_id).resolve()
    _log.info("run       tile-bulk-inference on this machine; everything goes to %s", config.out / run_id)
    check_path(folder)
    folder.mkdir(parents=True)
    from kfp import local

    os.environ[TERMINATION_LOG_ENV] = str(folder / FAILURE)
    runner = local.SubprocessRunner(use_venv=False)
    outputs = run_pipeline(pipeline_function("bulk_inference"), runner, folder, pipeline_arguments(config))
    check_steps_ran(outputs, _STEPS)
    shutil.copyfile(outputs / "bulk-publish" / "report", folder / "report.html")
    published = outputs / "bulk-publish" / "publication"
    shown = config.out / run_id / published.relative_to(folder)
    return BulkRunResult(config.out / run_id, shown if published.is_dir() else None, time.monotonic() - started)


def pipeline_arguments(config: BulkRunConfig) -> dict[str, Any]:
    """Return the pipeline's parameters for a run, with absolute paths."""
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
