"""Upload a pipeline, run it with typed parameters, and wait for it: `sat_xception submit`."""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer
from pydantic import Field

from components.images import LOCAL_REGISTRY, image, training_note
from pipelines.catalog import ensure_experiment, upload
from pipelines.cluster import Cluster, ClusterConfig
from pipelines.failure import describe_failures, failure
from pipelines.parameters import parse_assignments, read_parameters, typed_parameters
from pipelines.spec import CompiledPipeline, compile_pipeline, read_pipeline
from pipelines.watch import TaskState, watch
from sat_xception.cli import add_step, run_app
from sat_xception.log import duration, get_logger
from sat_xception.steps import Step

__all__ = ["SubmitConfig", "SubmitResult", "submit"]

_log = get_logger(__name__)


class SubmitConfig(ClusterConfig):
    """Upload the training pipeline to Kubeflow, run it and wait for the result."""

    file: Path | None = Field(None, description="Compiled pipeline. Default: pipelines/training.py, compiled now.")
    experiment: str = Field("school-classifier", min_length=1, description="Experiment that the run belongs to.")
    run_name: str = Field("", description="Name of the run. Default: the pipeline's, and the UTC time.")
    params: Path | None = Field(None, description="YAML file of the pipeline's parameters.")
    param: tuple[str, ...] = Field((), description="A parameter as NAME=VALUE; overrides --params. Repeats.")
    service_account: str = Field("", description="Kubernetes service account of the run's pods. Default: KFP's own.")
    cache: bool = Field(
        True, description="Take results of equal tasks from earlier runs. Without, the run carries its own copy."
    )
    run: bool = Field(True, description="Start a run; otherwise the pipeline is only uploaded.")
    wait: bool = Field(True, description="Wait for the run and end with its result.")
    timeout_s: float = Field(0.0, ge=0, description="Longest wait in seconds; 0 is without limit. The run goes on.")
    poll_s: float = Field(5.0, gt=0, description="Seconds between looks at the run.")
    dry_run: bool = Field(False, description="Show what would be uploaded and sent; touch nothing.")


@dataclass(frozen=True)
class SubmitResult:
    """What was done.

    Attributes:
        lines: What was uploaded and sent.
        tasks: The tasks when the run ended; empty when nobody waited.
    """

    lines: list[str]
    tasks: list[TaskState] = field(default_factory=list)

    def summary(self) -> str:
        """Return the lines, and how many tasks ended how."""
        counts = Counter(task.state.lower() for task in self.tasks if not task.is_group)
        counted = ", ".join(f"{count} {state}" for state, count in sorted(counts.items(), key=lambda item: -item[1]))
        tasks = [f"tasks     {counted}"] if counts else []
        return "\n".join([*self.lines, *tasks])


def submit(config: SubmitConfig) -> SubmitResult:
    """Upload the pipeline as a version named by its content, start a run of it, and follow the run to its end.

    Raises:
        ConfigError: A parameter is unknown or has the wrong type, or the pipeline can't be read; nothing was sent.
        ClusterError: Kubeflow Pipelines can't be reached or refuses.
        RunFailedError: The run ended, and not well.
        StillRunningError: The wait ended before the run did.
    """
    pipeline = read_pipeline(config.file) if config.file else _compile()
    parameters = _parameters(config, pipeline)
    if config.dry_run:
        return SubmitResult(_plan(config, pipeline, parameters))
    with Cluster(config) as cluster:
        return _submit(cluster, config, pipeline, parameters)


def _submit(
    cluster: Cluster, config: SubmitConfig, pipeline: CompiledPipeline, parameters: dict[str, Any]
) -> SubmitResult:
    version = None
    lines = []
    if config.cache or not config.run:
        version, new = upload(cluster, pipeline)
        lines.append(f"pipeline  {pipeline.name} version {pipeline.version_name} {'uploaded' if new else 'was there'}")
    if not config.run:
        return SubmitResult([*lines, f"link      {cluster.link(_version_place(version or {}))}"])
    started = time.monotonic()
    run = _start(cluster, config, pipeline, version, parameters)
    link = cluster.link(f"runs/details/{run['run_id']}")
    name = run.get("display_name") or run["run_id"]
    _log.info("run       %s: %s", name, link)
    link_line = f"link      {link}"
    if not config.wait:
        return SubmitResult([*lines, f"run       {name} started", link_line])
    run, tasks = watch(cluster, run["run_id"], pipeline, config.timeout_s, config.poll_s)
    if run["state"] != "SUCCEEDED":
        raise failure(cluster, run, pipeline)
    if any(task.state == "FAILED" for task in tasks):
        # What runs at the end of a run doesn't count for how the run ends.
        count, told = describe_failures(cluster, run, pipeline)
        _log.warning("warning   the run succeeded, but %d of its tasks failed:\n%s", count, "\n".join(told))
    took = duration(time.monotonic() - started)
    return SubmitResult([*lines, f"run       {name} SUCCEEDED in {took}", link_line], tasks)


def _compile() -> CompiledPipeline:
    """Compile the training pipeline, and say so when its images are where no cluster can pull them."""
    if image("gate").startswith(f"{LOCAL_REGISTRY}/"):
        _log.warning("images    %s and the others are in no registry: make push REGISTRY=…", image("gate"))
    if note := training_note():
        _log.info("images    %s", note)
    return compile_pipeline("training")


def _parameters(config: SubmitConfig, pipeline: CompiledPipeline) -> dict[str, Any]:
    given = read_parameters(config.params) if config.params else {}
    given |= parse_assignments(pipeline.parameters, config.param)
    origin = f"{config.params} and --param" if config.params else "--param"
    return typed_parameters(pipeline.parameters, given, origin)


def _start(
    cluster: Cluster,
    config: SubmitConfig,
    pipeline: CompiledPipeline,
    version: dict[str, Any] | None,
    parameters: dict[str, Any],
) -> dict[str, Any]:
    """Create the run. Its description holds a number of its own, by which it is found when the answer gets lost."""
    experiment_id = ensure_experiment(cluster, config.experiment)["experiment_id"]
    mark = f"sat_xception submit {uuid.uuid4()}"
    body: dict[str, Any] = {
        "display_name": config.run_name or f"{pipeline.name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}",
        "description": mark,
        "experiment_id": experiment_id,
        "runtime_config": {"parameters": parameters},
    }
    if config.service_account:
        body["service_account"] = config.service_account
    if version:
        body["pipeline_version_reference"] = {key: version[key] for key in ("pipeline_id", "pipeline_version_id")}
    else:
        # A run of an uploaded version can't switch caching off: the server has no such setting.
        body["pipeline_spec"] = pipeline.without_cache()

    def find() -> dict[str, Any] | None:
        newest, _ = cluster.page("/runs", "runs", experiment_id=experiment_id, sort_by="created_at desc", page_size=50)
        return next((run for run in newest if run.get("description") == mark), None)

    return cluster.create_once("run", lambda: cluster.send("POST", "/runs", body=body, kind="run"), find)


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


def _version_place(version: dict[str, Any]) -> str:
    return f"pipelines/details/{version['pipeline_id']}/version/{version['pipeline_version_id']}"


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
add_step(app, "submit", Step(SubmitConfig, "pipelines.submit:submit"))
app.callback()(lambda: None)


if __name__ == "__main__":
    run_app(app, sys.argv[1:])
