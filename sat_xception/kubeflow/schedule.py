"""Manage recurring runs declaratively, from a file: `sat_xception schedule apply|list|delete`."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sat_xception.kubeflow.answers import Pipeline, PipelineVersion, RecurringRun
from sat_xception.kubeflow.kfp_api import KfpClient, KfpError
from sat_xception.kubeflow.kfp_catalog import ensure_experiment, find_experiment, pinned
from sat_xception.kubeflow.parameters import typed_parameters
from sat_xception.kubeflow.recurring import changes, desired_body, named, retire, set_enabled
from sat_xception.kubeflow.schedule_file import Schedule, read_schedules
from sat_xception.kubeflow.settings import ApplyConfig, DeleteConfig, ListConfig
from sat_xception.kubeflow.spec import CompiledPipeline
from sat_xception.log import get_logger

__all__ = ["ScheduleResult", "apply", "delete", "list_schedules"]

_log = get_logger(__name__)


@dataclass(frozen=True)
class ScheduleResult:
    """Report of a schedule verb, as lines."""

    lines: list[str]

    def summary(self) -> str:
        """Return the lines."""
        return "\n".join(self.lines)


def apply(config: ApplyConfig) -> ScheduleResult:
    """Create or update the schedules of a file on the server.

    A schedule is identified by its name in the namespace. If there are several with the same name, as after an
    interrupted update, only one is kept.

    Raises:
        ConfigError: The file is invalid, or names a pipeline that isn't on the server; nothing was changed.
        KfpError: Kubeflow Pipelines can't be reached or refuses.
    """
    schedules = read_schedules(config.file)
    lines: list[str] = []
    with KfpClient(config) as cluster:
        checked = [(schedule, *_checked(cluster, schedule, config.file)) for schedule in schedules]
        for schedule, version, parameters in checked:
            lines += _apply(cluster, schedule, version, parameters, config.dry_run)
    return ScheduleResult(lines)


def list_schedules(config: ListConfig) -> ScheduleResult:
    """Return the schedules on the server, as a table or as JSON."""
    only = {schedule.name for schedule in read_schedules(config.file)} if config.file else None
    with KfpClient(config) as cluster:
        found = [item for item in named(cluster) if only is None or item.display_name in only]
        if config.as_json:
            return ScheduleResult([json.dumps([item.model_dump(exclude_unset=True) for item in found], indent=2)])
        if not found:
            return ScheduleResult([f"no schedules at {cluster.endpoint}"])
        identifiers = {item.pipeline_version_reference.pipeline_id for item in found if item.pipeline_version_reference}
        names = {identifier: _pipeline_name(cluster, identifier) for identifier in identifiers}
    return ScheduleResult([_table(found, names)])


def _table(found: list[RecurringRun], names: dict[str, str]) -> str:
    """Return recurring runs as a table; `names` are the pipelines' names by id."""
    table = Table("name", "state", "when", "pipeline", "version", "at once", "id")
    for item in found:
        reference = item.pipeline_version_reference
        table.add_row(
            str(item.display_name),
            "enabled" if item.is_enabled else "disabled",
            _when(item),
            names[reference.pipeline_id] if reference else "a copy",
            (reference.pipeline_version_id or "latest") if reference else "",
            str(item.max_concurrency),
            item.recurring_run_id,
        )
    buffer = io.StringIO()
    Console(file=buffer, width=180).print(table)
    return buffer.getvalue().rstrip()


def delete(config: DeleteConfig) -> ScheduleResult:
    """Delete schedules, but not their runs; a schedule with an active run is only disabled, and this is reported."""
    wanted = config.names or tuple(schedule.name for schedule in read_schedules(config.file or Path()))
    lines = []
    with KfpClient(config) as cluster:
        for name in wanted:
            found = list(named(cluster, name))
            kept = [run for run in (retire(cluster, item) for item in found) if run]
            if not found:
                lines.append(f"absent    {name}")
            elif not kept:
                lines.append(f"deleted   {name}")
            lines += [f"disabled  {name}; its run {run} goes on: delete again when that has ended" for run in kept]
    return ScheduleResult(lines)


def _checked(cluster: KfpClient, schedule: Schedule, file: Path) -> tuple[PipelineVersion, dict[str, Any]]:
    """Return the pipeline version of a schedule, and its parameters, checked against the version."""
    if schedule.cron and schedule.utc_cron != schedule.cron:
        _log.info(
            "cron      %s: %s in %s is %s in UTC", schedule.name, schedule.cron, schedule.timezone, schedule.utc_cron
        )
    version = pinned(cluster, schedule.pipeline, schedule.pipeline_version)
    pipeline = CompiledPipeline.from_version(version)
    origin = f"{file}, schedule {schedule.name!r}"
    return version, typed_parameters(pipeline.parameters, schedule.parameters, origin, pipeline.name)


def _apply(
    cluster: KfpClient, schedule: Schedule, version: PipelineVersion, parameters: dict[str, Any], dry_run: bool
) -> list[str]:
    experiment = (find_experiment if dry_run else ensure_experiment)(cluster, schedule.experiment)
    experiment_id = experiment.experiment_id if experiment else f"{schedule.experiment} (new)"
    wanted = desired_body(cluster, schedule, version, parameters, experiment_id)
    # If there are several, prefer the one whose `enabled` is right.
    found = sorted(named(cluster, schedule.name), key=lambda item: item.is_enabled != schedule.enabled)
    same = next((item for item in found if not changes(item, wanted)), None)
    spare = [item for item in found if item is not same]
    word, lines = _told(schedule, found, same, wanted)
    if dry_run:
        lines += [f"          would take away {item.recurring_run_id}" for item in spare]
        return [f"dry run   nothing was changed; {schedule.name} would be {word}", *lines]
    if same is None:
        same = cluster.create_once(
            "schedule",
            lambda: cluster.send("POST", "/recurringruns", RecurringRun, body=wanted),
            lambda: next((item for item in named(cluster, schedule.name) if not changes(item, wanted)), None),
        )
    elif same.is_enabled != schedule.enabled:
        set_enabled(cluster, same, schedule.enabled)
    kept = [run for run in (retire(cluster, item) for item in spare) if run]
    lines += [f"          an older one is disabled; its run {run} goes on, the next apply deletes it" for run in kept]
    link = cluster.link(f"recurringrun/details/{same.recurring_run_id}")
    return [f"{word:10}{schedule.name}", *lines, f"link      {link}"]


def _told(
    schedule: Schedule, found: list[RecurringRun], same: RecurringRun | None, wanted: dict[str, Any]
) -> tuple[str, list[str]]:
    """Return the action for a schedule, in one word, and its changes, as lines."""
    if same is None and not found:
        return "created", []
    if same is None:
        differences = changes(found[0], wanted)
        return "updated", [
            f"          {key}: {_shown(before)} -> {_shown(after)}" for key, (before, after) in differences.items()
        ]
    if same.is_enabled != schedule.enabled:
        return "updated", [f"          enabled: {_shown(same.is_enabled)} -> {_shown(schedule.enabled)}"]
    return "unchanged", []


def _pipeline_name(cluster: KfpClient, identifier: str) -> str:
    """Return a pipeline's name; its id if it has been deleted."""
    try:
        return str(cluster.get(f"/pipelines/{identifier}", Pipeline).display_name)
    except KfpError as error:
        if not error.absent:
            raise
        return f"{identifier} (deleted)"


def _when(item: RecurringRun) -> str:
    if item.cron:
        return f"{item.cron.cron or ''} UTC"
    return f"every {item.periodic and item.periodic.interval_second} s"


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
