"""Watch a run until it ends: a table on a terminal, one line per change elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table

from sat_xception.errors import SatXceptionError
from sat_xception.kubeflow.answers import Run
from sat_xception.kubeflow.kfp_api import KfpClient, KfpError
from sat_xception.kubeflow.spec import CompiledPipeline
from sat_xception.log import duration, get_logger

__all__ = ["StillRunningError", "TaskState", "task_states", "watch"]

_log = get_logger(__name__)
_ENDED = frozenset({"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"})
# Time without a response from the server before the watch gives up: long runs outlive many port-forwards.
_PATIENCE_S = 300.0


class StillRunningError(SatXceptionError):
    """The wait ended, but the run goes on."""

    def __init__(self, message: str, exit_code: int) -> None:
        """Create the error; `message` contains why the wait ended."""
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class TaskState:
    """A task of a run.

    Attributes:
        key: Unique key, also among tasks of the same name in different items of a loop.
        what: Name in the UI and in the pipeline.
        state: One of KFP's runtime states, or OMITTED if a task before it failed.
        is_group: Whether it contains other tasks.
    """

    key: str
    what: str
    state: str
    is_group: bool


def task_states(run: Run, pipeline: CompiledPipeline) -> list[TaskState]:
    """Return the tasks of a run, as defined in the pipeline.

    The server lists the nodes of the Argo workflow, among them a driver and an executor for each task; these are left
    out. A failed driver is a failure of its task, which doesn't start then. A node that Argo omitted has no state: the
    API has no fitting one, and doesn't send RUNTIME_STATE_UNSPECIFIED.
    """
    states: list[TaskState] = []
    for index, task in enumerate(run.tasks):
        name = task.display_name or ""
        described = pipeline.describe_task([name])
        state = task.state or "OMITTED"
        is_driver = name not in pipeline.task_labels
        if described and (not is_driver or state == "FAILED"):
            states.append(TaskState(task.task_id or str(index), described[0], state, described[1]))
    failed = {state.what for state in states if state.state == "FAILED"}
    return [state for state in states if state.state != "OMITTED" or state.what not in failed]


def watch(
    cluster: KfpClient, run_id: str, pipeline: CompiledPipeline, timeout_s: float, poll_s: float
) -> tuple[Run, list[TaskState]]:
    """Wait until a run has ended; return it and its tasks.

    Args:
        cluster: Client of the API server.
        run_id: Id of the run.
        pipeline: Pipeline of the run.
        timeout_s: Maximum wait, in seconds; 0 is unlimited.
        poll_s: Poll interval, in seconds.

    Raises:
        StillRunningError: Timeout, Ctrl-C, or no response from the server for too long. The run goes on.
    """
    link = cluster.link(f"runs/details/{run_id}")
    started = time.monotonic()
    show = _show_table if sys.stderr.isatty() else _show_lines
    try:
        for run in show(_looks(cluster, run_id, poll_s), pipeline):
            if run.state in _ENDED:
                return run, task_states(run, pipeline)
            if timeout_s and time.monotonic() - started > timeout_s:
                raise StillRunningError(
                    f"the run hasn't ended within {duration(timeout_s)} (it is {run.state}); it goes on: {link}",
                    4,
                )
    except KeyboardInterrupt:
        raise StillRunningError(f"stopped waiting, by the keyboard; the run goes on: {link}", 130) from None
    raise AssertionError("unreachable")


def _looks(cluster: KfpClient, run_id: str, poll_s: float) -> Iterator[Run]:
    """Poll the run and yield it each time; temporary failures of the server are tolerated."""
    seen, away = time.monotonic(), False
    while True:
        try:
            run = cluster.send("GET", f"/runs/{run_id}", Run)
            if run.error and not run.state:
                # The server has the run, but can't convert it into a response (toApiRun in server/api_converter.go).
                raise KfpError(f"Kubeflow Pipelines can't show the run: {run.error.message}")
        except KfpError as error:
            if error.absent:
                raise KfpError(
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


def _show_lines(looks: Iterator[Run], pipeline: CompiledPipeline) -> Iterator[Run]:
    told: dict[str, str] = {}
    for run in looks:
        lines = {
            **{task.key: (task.state, task.what) for task in task_states(run, pipeline)},
            "": (run.state or "PENDING", "the run"),
        }
        for key, (state, what) in lines.items():
            if told.get(key) != state:
                told[key] = state
                _log.info("%-10s%s", state.lower(), what)
        yield run


def _show_table(looks: Iterator[Run], pipeline: CompiledPipeline) -> Iterator[Run]:
    started = time.monotonic()
    with Live(console=Console(stderr=True), auto_refresh=False) as live:
        for run in looks:
            table = Table("task", "state", title=f"{run.state or 'PENDING'}, {duration(time.monotonic() - started)}")
            for task in task_states(run, pipeline):
                table.add_row(task.what, task.state)
            live.update(table, refresh=True)
            yield run
