"""The error for a failed run: the failed tasks, their reasons, the end of their logs, and links to the details."""

from __future__ import annotations

from collections.abc import Iterable

from sat_xception.errors import SatXceptionError
from sat_xception.kubeflow.answers import Run
from sat_xception.kubeflow.failed_tasks import FailedTask, Workflow, failed_by_details, read_workflow
from sat_xception.kubeflow.kfp_api import KfpClient, KfpError
from sat_xception.kubeflow.spec import CompiledPipeline
from sat_xception.kubeflow.task_logs import TaskLog, read_log

__all__ = ["RunFailedError", "describe_failures", "failure"]

# Maximum number of tasks in the message with their log; a loop can have hundreds.
_WITH_LOG = 5
_INDENT = " " * 10


class RunFailedError(SatXceptionError):
    """The run ended without success."""

    exit_code = 4


def failure(cluster: KfpClient, run: Run, pipeline: CompiledPipeline) -> RunFailedError:
    """Return the error for a failed run: which tasks failed, why, and where to look."""
    place = f"runs/details/{run.run_id}"
    link = f"{_INDENT}look at {cluster.link(place)}"
    if run.was_canceled:
        return RunFailedError(f"the run ended {run.state}: somebody cancelled it\n{link}")
    count, lines = describe_failures(cluster, run, pipeline)
    tasks = f"{count} {'task' if count == 1 else 'tasks'} failed" if count else "no task failed"
    return RunFailedError("\n".join([f"the run ended {run.state}: {tasks}", *lines, link]))


def describe_failures(cluster: KfpClient, run: Run, pipeline: CompiledPipeline) -> tuple[int, list[str]]:
    """Return the number of failed tasks of a run, and the lines of the message about them."""
    workflow, unknown = None, ""
    try:
        workflow = read_workflow(cluster, run.run_id)
    except KfpError as error:
        unknown = error.reason
    failed = (workflow.failed(pipeline) if workflow else []) or failed_by_details(run, pipeline)
    namespace = workflow.namespace if workflow else cluster.namespace or "kubeflow"
    if not failed:
        said = run.reason or (workflow.message if workflow else "")
        why = f"the workflow says: {said}" if said else "nor does the workflow say why"
        why += f" ({unknown})" if unknown else ""
        more = f"kubectl get workflows -n {namespace} -l pipeline/runid={run.run_id} -o yaml"
        return 0, [f"{_INDENT}{why}", f"{_INDENT}more: {more}"]
    lines = []
    for task in failed[:_WITH_LOG]:
        lines += _told(cluster, run, task, workflow, unknown, namespace)
    if rest := failed[_WITH_LOG:]:
        lines.append(f"{_INDENT}and {len(rest)} more: {_names(rest)}")
    return len(failed), lines


def _told(
    cluster: KfpClient, run: Run, task: FailedTask, workflow: Workflow | None, unknown: str, namespace: str
) -> list[str]:
    if task.pod:
        log = read_log(cluster, run, namespace, task.pod, task.is_driver)
        more = f"kubectl logs -n {namespace} {task.pod} -c main"
    else:
        why = f"its pod isn't known ({unknown})" if workflow is None else "it had no pod"
        log = TaskLog(why_not=why)
        more = f"kubectl logs -n {namespace} -l pipeline/runid={run.run_id} -c main --prefix --tail=100"
    inner = f"{_INDENT}  "
    whose = "the driver's log" if task.is_driver else "its log"
    lines = [f"{inner}| {line}" for line in log.lines] or [f"{inner}{whose} can't be shown: {log.why_not}"]
    lines.append(f"{inner}more: {more}")
    if log.address:
        lines.append(f"{inner}or, when the pod is gone: {cluster.curl(log.address)}")
    return [f"{_INDENT}{task.what}: {task.reason}", *lines]


def _names(tasks: Iterable[FailedTask]) -> str:
    return ", ".join(task.what for task in tasks)
