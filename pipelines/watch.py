"""Follow a run until it ends: a table on a terminal, one line a change in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from pipelines.cluster import Cluster, ClusterError
from sat_xception.errors import SatXceptionError
from sat_xception.log import duration, get_logger

__all__ = ["RunFailedError", "StillRunningError", "TaskState", "failure", "task_states", "watch"]

_log = get_logger(__name__)
_ENDED = frozenset({"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"})
# A run of hours outlives many a port-forward: how long the server may be away before the watch gives up.
_PATIENCE_S = 300.0


class RunFailedError(SatXceptionError):
    """The run ended, and not well."""

    exit_code = 4


class StillRunningError(SatXceptionError):
    """Nobody waits for the run any longer, but it goes on."""

    def __init__(self, message: str, exit_code: int) -> None:
        """Say why the wait ended."""
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class TaskState:
    """A task of a run.

    Attributes:
        name: Its name in the pipeline.
        label: What the UI calls it.
        state: One of KFP's runtime states.
        error: Why it failed, as far as the server knows.
    """

    name: str
    label: str
    state: str
    error: str

    def __str__(self) -> str:
        """Return the label, and the name where it says more."""
        return self.label if self.label == self.name else f"{self.label} ({self.name})"


def task_states(run: Mapping[str, Any], labels: Mapping[str, str]) -> list[TaskState]:
    """Return the tasks of a run as the pipeline knows them.

    The server lists the nodes of the workflow beneath: a driver and an executor for each task, and groups. They are
    left out, unless one of them failed, for then its message is often the only one.
    """
    details = (run.get("run_details") or {}).get("task_details") or []
    states = []
    for detail in details:
        name = str(detail.get("display_name", ""))
        state = str(detail.get("state") or "PENDING")
        if name in labels or state == "FAILED":
            error = str((detail.get("error") or {}).get("message", ""))
            states.append(TaskState(name, labels.get(name, name), state, " ".join(error.split())))
    return states


def watch(
    cluster: Cluster, run_id: str, labels: Mapping[str, str], timeout_s: float, poll_s: float
) -> tuple[dict[str, Any], list[TaskState]]:
    """Return a run and its tasks when it has ended.

    Args:
        cluster: The API server.
        run_id: The run.
        labels: Label of each task of the pipeline.
        timeout_s: How long to wait; 0 is without limit.
        poll_s: Seconds between looks.

    Raises:
        StillRunningError: The time is over, the keyboard said stop, or the server was away too long. The run goes on.
    """
    link = cluster.link(f"runs/details/{run_id}")
    started = time.monotonic()
    show = _show_table if sys.stderr.isatty() else _show_lines
    try:
        for run in show(_looks(cluster, run_id, poll_s), labels):
            if run.get("state") in _ENDED:
                return run, task_states(run, labels)
            if timeout_s and time.monotonic() - started > timeout_s:
                raise StillRunningError(
                    f"the run hasn't ended within {duration(timeout_s)} (it is {run.get('state')}); it goes on: {link}",
                    4,
                )
    except KeyboardInterrupt:
        raise StillRunningError(f"stopped waiting, by the keyboard; the run goes on: {link}", 130) from None
    raise AssertionError("unreachable")


def failure(run: Mapping[str, Any], tasks: list[TaskState], link: str, namespace: str) -> RunFailedError:
    """Return the error that says which tasks of a run failed, why, and where to look."""
    failed = [task for task in tasks if task.state == "FAILED"]
    # A group fails with a task in it, and has no reason of its own.
    told = [task for task in failed if task.error] or failed
    said = [f"{task}: {task.error or 'no reason given'}" for task in told]
    if not said:
        said = [str((run.get("error") or {}).get("message") or "no task is known to have failed")]
    pods = f"pipeline/runid={run['run_id']}"
    lines = [
        f"the run ended {run['state']}",
        *(f"          {line}" for line in said),
        f"          look at {link}",
        f"          kubectl logs -n {namespace or 'kubeflow'} -l {pods} -c main --prefix --tail=100",
    ]
    return RunFailedError("\n".join(lines))


def _looks(cluster: Cluster, run_id: str, poll_s: float) -> Iterator[dict[str, Any]]:
    """Yield the run as it is, again and again; that the server is away for a while does no harm."""
    seen, away = time.monotonic(), False
    while True:
        try:
            run = cluster.send("GET", f"/runs/{run_id}", kind="run")
            if run.get("error") and not run.get("state"):
                # The server has the run and can't put it into an answer (toApiRun in server/api_converter.go).
                raise ClusterError(f"Kubeflow Pipelines can't show the run: {run['error'].get('message')}")
        except ClusterError as error:
            if error.absent:
                raise ClusterError(
                    f"the run {run_id} isn't at {cluster.endpoint} any more", "somebody deleted it while it was watched"
                ) from None
            if not error.passing or time.monotonic() - seen > _PATIENCE_S:
                link = cluster.link(f"runs/details/{run_id}")
                raise StillRunningError(f"lost sight of the run, which goes on: {link}; {error}", 4) from None
            if not away:
                _log.warning("waiting   %s; the run goes on, looking again", error.reason)
            away = True
        else:
            seen, away = time.monotonic(), False
            yield run
        time.sleep(poll_s)


def _show_lines(looks: Iterator[dict[str, Any]], labels: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    told: dict[str, str] = {}
    for run in looks:
        lines = {
            "": (str(run.get("state")), "the run"),
            **{t.name: (t.state, str(t)) for t in task_states(run, labels)},
        }
        for name, (state, what) in lines.items():
            if told.get(name) != state:
                told[name] = state
                _log.info("%-10s%s", state.lower(), what)
        yield run


def _show_table(looks: Iterator[dict[str, Any]], labels: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    started = time.monotonic()
    with Live(console=Console(stderr=True), auto_refresh=False) as live:
        for run in looks:
            table = Table("task", "state", title=f"{run.get('state')}, {duration(time.monotonic() - started)}")
            for task in task_states(run, labels):
                table.add_row(str(task), task.state)
            live.update(table, refresh=True)
            yield run
