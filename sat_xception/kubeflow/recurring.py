"""KFP's recurring runs as schedules: create, compare and delete them.

A recurring run can't be changed, only enabled and disabled. An update therefore first creates the new one and then
deletes the old one; if it is interrupted in between, the next update completes it.

Deleting a recurring run must not kill a run that it started. By default it does: the run's workflow is owned by the
schedule's ScheduledWorkflow, and Kubernetes deletes both (kubeflow/pipelines#7421, #12573). Newer servers accept
`propagation_policy=ORPHAN` to prevent that (#12574); older ones ignore it. So the old one is disabled at once, deleted
only if none of its runs is active, and then deleted with ORPHAN, in case a run started in between.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sat_xception.clock import timestamp
from sat_xception.kubeflow.answers import PipelineVersion, RecurringRun, RecurringRunSettings, Run, Trigger
from sat_xception.kubeflow.kfp_api import KfpClient, equals, one_of
from sat_xception.kubeflow.schedule_file import Schedule
from sat_xception.kubeflow.spec import CompiledPipeline

__all__ = ["changes", "desired_body", "named", "retire", "set_enabled"]

_UNFINISHED = frozenset({"PENDING", "RUNNING", "CANCELING", "PAUSED", "RUNTIME_STATE_UNSPECIFIED"})
_COPY = "copy without caching: sha256 "


def desired_body(
    cluster: KfpClient, schedule: Schedule, version: PipelineVersion, parameters: dict[str, Any], experiment_id: str
) -> dict[str, Any]:
    """Return the body of the recurring run for a schedule.

    Without a version id the server uses the newest version at each run (kubeflow/pipelines#11560, from 2.5 on).
    """
    trigger: dict[str, Any] = {}
    if schedule.start:
        trigger["start_time"] = timestamp(schedule.start)
    if schedule.end:
        trigger["end_time"] = timestamp(schedule.end)
    if schedule.interval_s is not None:
        triggers = {"periodic_schedule": {**trigger, "interval_second": str(schedule.interval_s)}}
    else:
        triggers = {"cron_schedule": {**trigger, "cron": schedule.utc_cron}}
    body: dict[str, Any] = {
        "display_name": schedule.name,
        "description": schedule.description,
        "experiment_id": experiment_id,
        "runtime_config": {"parameters": parameters},
        "trigger": triggers,
        "max_concurrency": str(schedule.max_concurrency),
        "no_catchup": not schedule.catchup,
        "mode": "ENABLE" if schedule.enabled else "DISABLE",
    }
    if cluster.namespace:
        body["namespace"] = cluster.namespace
    if schedule.service_account:
        body["service_account"] = schedule.service_account
    if not schedule.caching:
        spec = CompiledPipeline.from_version(version).without_cache()
        body["pipeline_spec"] = spec
        digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
        # The server doesn't return a spec unchanged, so the digest shows whether it is the same.
        body["description"] = f"{schedule.description}\n{_COPY}{digest}".strip()
    else:
        latest = schedule.pipeline_version == "latest"
        body["pipeline_version_reference"] = {"pipeline_id": version.pipeline_id} if latest else version.reference
    return body


def changes(found: RecurringRun, wanted: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the fields that differ, as (found, wanted); `enabled` isn't compared."""
    settings = RecurringRunSettings.model_validate(wanted)
    before, after = _compared(found), _compared(settings)
    if not settings.service_account:
        # The server fills in its default service account, and has no API to ask which one it is.
        before |= {"service account": ""}
    return {key: (before[key], after[key]) for key in after if before[key] != after[key]}


def _compared(run: RecurringRunSettings) -> dict[str, Any]:
    cron, periodic, reference = run.cron, run.periodic, run.pipeline_version_reference
    trigger: Trigger | None = cron or periodic
    return {
        "experiment": run.experiment_id,
        "description": run.description or "",
        "pipeline": reference.pipeline_id if reference else "",
        "version": (reference.pipeline_version_id or "latest") if reference else "a copy",
        "cron": (cron and cron.cron) or "",
        "interval": int((periodic and periodic.interval_second) or 0),
        "start": _moment(trigger.start_time if trigger else None),
        "end": _moment(trigger.end_time if trigger else None),
        "max_concurrency": int(run.max_concurrency or 0),
        "catchup": not run.no_catchup,
        "service account": run.service_account or "",
        "parameters": (run.runtime_config and run.runtime_config.parameters) or {},
    }


def named(cluster: KfpClient, name: str = "") -> Iterator[RecurringRun]:
    """Yield the recurring runs of the namespace, oldest first; with `name`, only those with this name."""
    query = {"namespace": cluster.namespace} if cluster.namespace else {}
    if name:
        query["filter"] = equals("display_name", name)
    for found in cluster.pages("/recurringruns", RecurringRun, sort_by="created_at asc", **query):
        if not name or found.display_name == name:
            yield found


def set_enabled(cluster: KfpClient, recurring_run: RecurringRun, enabled: bool) -> None:
    """Enable or disable a recurring run; active runs continue."""
    cluster.act(f"/recurringruns/{recurring_run.recurring_run_id}:{'enable' if enabled else 'disable'}")


def retire(cluster: KfpClient, recurring_run: RecurringRun) -> str:
    """Disable a recurring run, and delete it if none of its runs is active.

    Returns:
        "" if it was deleted; else the id of the active run.
    """
    identifier = recurring_run.recurring_run_id
    if recurring_run.is_enabled:
        set_enabled(cluster, recurring_run, False)
    # Filtered by state: older servers fail on a filter by recurring run, since they have no such column.
    unfinished = one_of("state", _UNFINISHED)
    for run in cluster.pages("/runs", Run, experiment_id=recurring_run.experiment_id, filter=unfinished):
        if run.recurring_run_id == identifier and (run.state or "PENDING") in _UNFINISHED:
            return run.run_id
    cluster.delete(f"/recurringruns/{identifier}", propagation_policy="ORPHAN")
    return ""


def _moment(text: str | None) -> str:
    return timestamp(datetime.fromisoformat(text)) if text else ""
