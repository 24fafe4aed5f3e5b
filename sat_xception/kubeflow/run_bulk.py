"""Run the bulk pipeline on this machine, with its steps as processes."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sat_xception.clock import run_stamp
from sat_xception.kubeflow.bulk_settings import BULK
from sat_xception.kubeflow.checkout import pipeline_function
from sat_xception.kubeflow.local_runner import FAILURE, check_path, check_steps_ran, run_pipeline, whole_path
from sat_xception.kubeflow.pipeline_settings import SETTINGS, Headline
from sat_xception.kubeflow.run_arguments import resolve_settings
from sat_xception.kubeflow.run_settings import BulkRunConfig, flag_of
from sat_xception.kubeflow.task_settings import plain
from sat_xception.log import duration, get_logger
from sat_xception.settings.step import TERMINATION_LOG_ENV

__all__ = ["BulkRunResult", "bulk_arguments", "run_bulk"]

_log = get_logger(__name__)
# The parts' outputs are in folders of their own; the step that closes the ledger checks that all of them ran.
_STEPS = ("bulk-check", "bulk-plan", "bulk-predict-2", "bulk-publish")
# Settings of the run that set those of steps.
_FLAGS = {
    "imagery": "imagery.imagery",
    "area": "plan.area",
    "bbox": "plan.bbox",
    "tiles": "plan.tiles",
    "zoom": "plan.zoom",
    "endpoint": "predict.endpoint",
    "known": "publish.known",
    "areas": "publish.areas",
    "threshold": "publish.threshold",
}
_LOCAL = dataclasses.replace(
    BULK,
    headlines={
        flag_of(name): Headline((address,), plain(BulkRunConfig.model_fields[name].default))
        for name, address in _FLAGS.items()
    },
    find_problems=lambda resolved: [],
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
        ConfigError: Settings are wrong, or a path can't be used.
        StepFailedError: A step failed; the message is the step's.
    """
    started = time.monotonic()
    run_id = run_stamp()
    folder = (config.out / run_id).resolve()
    _log.info("run       tile-bulk-inference on this machine; everything goes to %s", config.out / run_id)
    check_path(folder)
    arguments = bulk_arguments(config)
    folder.mkdir(parents=True)
    from kfp import local

    os.environ[TERMINATION_LOG_ENV] = str(folder / FAILURE)
    runner = local.SubprocessRunner(use_venv=False)
    outputs = run_pipeline(pipeline_function("bulk_inference"), runner, folder, arguments)
    check_steps_ran(outputs, _STEPS)
    shutil.copyfile(outputs / "bulk-publish" / "report", folder / "report.html")
    published = outputs / "bulk-publish" / "publication"
    shown = config.out / run_id / published.relative_to(folder)
    return BulkRunResult(config.out / run_id, shown if published.is_dir() else None, time.monotonic() - started)


def bulk_arguments(config: BulkRunConfig) -> dict[str, Any]:
    """Return the pipeline's parameters for a run, with absolute paths.

    Raises:
        ConfigError: Settings are wrong.
    """
    given = {flag_of(name): plain(getattr(config, name)) for name in _FLAGS}
    own = {
        "model_root": whole_path(config.model_root),
        "scores": whole_path(config.scores),
        "model_name": config.name,
        "scoring_parts": config.parts,
    }
    _, sections = resolve_settings(_LOCAL, given | own, config.settings)
    return {**own, "imagery": sections["imagery"]["imagery"], SETTINGS: yaml.safe_dump(sections, allow_unicode=True)}
