"""Upload a pipeline, run it with typed parameters, and wait for it: `sat_xception submit`."""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from sat_xception.clock import run_stamp
from sat_xception.kubeflow.answers import PipelineVersion, Run
from sat_xception.kubeflow.checkout import compile_pipeline, image_notes
from sat_xception.kubeflow.failure import describe_failures, failure
from sat_xception.kubeflow.kfp_api import KfpClient
from sat_xception.kubeflow.kfp_catalog import ensure_experiment, upload
from sat_xception.kubeflow.parameters import parse_assignments, read_parameters, typed_parameters
from sat_xception.kubeflow.settings import SubmitConfig
from sat_xception.kubeflow.spec import CompiledPipeline, read_pipeline
from sat_xception.kubeflow.training_settings import TRAINING
from sat_xception.kubeflow.volumes import using_volumes
from sat_xception.kubeflow.watch import TaskState, watch
from sat_xception.log import duration, get_logger

__all__ = ["SubmitResult", "submit"]

_log = get_logger(__name__)


@dataclass(frozen=True)
class SubmitResult:
    """Result of a submission.

    Attributes:
        lines: Lines about the upload and the run.
        tasks: States of the tasks at the end of the run; empty without waiting.
    """

    lines: list[str]
    tasks: list[TaskState] = field(default_factory=list)

    def summary(self) -> str:
        """Return the lines, and the number of tasks by state."""
        counts = Counter(task.state.lower() for task in self.tasks if not task.is_group)
        counted = ", ".join(f"{count} {state}" for state, count in sorted(counts.items(), key=lambda item: -item[1]))
        tasks = [f"tasks     {counted}"] if counts else []
        return "\n".join([*self.lines, *tasks])


def submit(config: SubmitConfig) -> SubmitResult:
    """Upload the pipeline as a version, start a run of it, and watch the run to its end.

    The version's name is made from its content, so that an unchanged pipeline isn't uploaded again.

    Raises:
        ConfigError: A parameter is unknown or has the wrong type, or the pipeline can't be read; nothing was sent.
        KfpError: Kubeflow Pipelines can't be reached or refuses.
        RunFailedError: The run ended without success.
        StillRunningError: The wait ended before the run did.

    Example:
        result = submit(SubmitConfig(endpoint="http://localhost:8080", param=("gate_min_accuracy=0.9",)))
        print(result.summary())
    """
    with using_volumes(config.data_volume, config.results_volume):
        pipeline = read_pipeline(config.file) if config.file else _compile()
        parameters = _parameters(config, pipeline)
    if config.dry_run:
        return SubmitResult(_plan(config, pipeline, parameters))
    with KfpClient(config) as cluster:
        return _submit(cluster, config, pipeline, parameters)


def _submit(
    cluster: KfpClient, config: SubmitConfig, pipeline: CompiledPipeline, parameters: dict[str, Any]
) -> SubmitResult:
    version: PipelineVersion | None = None
    lines = []
    if config.cache or not config.run:
        version, new = upload(cluster, pipeline)
        lines.append(f"pipeline  {pipeline.name} version {pipeline.version_name} {'uploaded' if new else 'was there'}")
        if not config.run:
            place = f"pipelines/details/{version.pipeline_id}/version/{version.pipeline_version_id}"
            return SubmitResult([*lines, f"link      {cluster.link(place)}"])
    started = time.monotonic()
    run = _start(cluster, config, pipeline, version, parameters)
    link = cluster.link(f"runs/details/{run.run_id}")
    name = run.display_name or run.run_id
    _log.info("run       %s: %s", name, link)
    link_line = f"link      {link}"
    if not config.wait:
        return SubmitResult([*lines, f"run       {name} started", link_line])
    run, tasks = watch(cluster, run.run_id, pipeline, config.timeout_s, config.poll_s)
    if run.state != "SUCCEEDED":
        raise failure(cluster, run, pipeline)
    if any(task.state == "FAILED" for task in tasks):
        # The exit task doesn't affect the run's state.
        count, told = describe_failures(cluster, run, pipeline)
        _log.warning("warning   the run succeeded, but %d of its tasks failed:\n%s", count, "\n".join(told))
    took = duration(time.monotonic() - started)
    return SubmitResult([*lines, f"run       {name} SUCCEEDED in {took}", link_line], tasks)


def _compile() -> CompiledPipeline:
    """Compile the training pipeline, and warn if its images aren't in a registry."""
    for note in image_notes():
        _log.warning("images    %s", note)
    return compile_pipeline("training")


def _parameters(config: SubmitConfig, pipeline: CompiledPipeline) -> dict[str, Any]:
    given = read_parameters(config.params) if config.params else {}
    given |= parse_assignments(pipeline.parameters, config.param)
    origin = f"{config.params} and --param" if config.params else "--param"
    typed = typed_parameters(pipeline.parameters, given, origin, pipeline.name)
    if not config.file:
        # As the first step does, but before anything is sent. A pipeline from a file may be of another version.
        TRAINING.check(typed)
    return typed


def _start(
    cluster: KfpClient,
    config: SubmitConfig,
    pipeline: CompiledPipeline,
    version: PipelineVersion | None,
    parameters: dict[str, Any],
) -> Run:
    """Create the run. Its description holds a unique id, by which it is found if the response is lost."""
    experiment_id = ensure_experiment(cluster, config.experiment).experiment_id
    mark = f"sat_xception submit {uuid.uuid4()}"
    body: dict[str, Any] = {
        "display_name": config.run_name or f"{pipeline.name}-{run_stamp()}",
        "description": mark,
        "experiment_id": experiment_id,
        "runtime_config": {"parameters": parameters},
    }
    if config.service_account:
        body["service_account"] = config.service_account
    if version:
        body["pipeline_version_reference"] = version.reference
    else:
        # A run of an uploaded version can't disable caching: the server has no such setting.
        body["pipeline_spec"] = pipeline.without_cache()

    def find() -> Run | None:
        newest, _ = cluster.page("/runs", Run, experiment_id=experiment_id, sort_by="created_at desc", page_size=50)
        return next((run for run in newest if run.description == mark), None)

    return cluster.create_once("run", lambda: cluster.send("POST", "/runs", Run, body=body), find)


def _plan(config: SubmitConfig, pipeline: CompiledPipeline, parameters: dict[str, Any]) -> list[str]:
    left = len(pipeline.parameters) - len(parameters)
    sends = [f"parameter {name} = {json.dumps(value)}" for name, value in parameters.items()]
    run = [f"run       in experiment {config.experiment}", *sends, f"          {left} more at their defaults"]
    stored = f"version   {pipeline.version_name} (unless it is there), {len(pipeline.content):,} bytes"
    inline = "version   none: the run carries a copy with caching off"
    return [
        "dry run   nothing was sent",
        f"pipeline  {pipeline.name}",
        stored if config.cache or not config.run else inline,
        *(run if config.run else []),
    ]
