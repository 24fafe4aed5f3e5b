"""Find the failed tasks of a run, from its Argo workflow or from the list of its nodes.

A task of the pipeline becomes several nodes of the workflow: `train-driver`, the pod that resolves its inputs; `train`,
a DAG of one node, `executor`, its pod; with retries `executor` is a parent of `executor(0)`, `executor(1)` and so on. A
group is a DAG with a driver of its own. An exit task is attached to another task's node as `….onExit`. So one failure
appears in many nodes, and only the innermost of them has a reason.
(kubeflow/pipelines, backend/src/v2/compiler/argocompiler; argo-workflows, workflow/controller.)
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from sat_xception.kubeflow.answers import ArgoWorkflow, Node, Run, RunV1, UnexpectedAnswerError, parse
from sat_xception.kubeflow.kfp_api import KfpClient, KfpError
from sat_xception.kubeflow.spec import CompiledPipeline

__all__ = ["FailedTask", "Workflow", "failed_by_details", "read_workflow"]

_FAILED = frozenset({"Failed", "Error"})
_DRIVERS = ("system-container-driver", "system-dag-driver")
# An attempt of a retry, `executor(1)`, or an item of a loop, `iteration-iterations(3:3)`.
_NUMBERED = re.compile(r"(.*)\((\d+)(?::.*)?\)$")


@dataclass(frozen=True)
class FailedTask:
    """A task of the pipeline that failed.

    Attributes:
        what: Name of the task in the UI and in the pipeline.
        reason: Reason of the failure, as far as the workflow contains it.
        pod: Pod whose log has the details; "" if unknown, or if there was none.
        is_driver: Whether that pod is the task's driver, so that the task itself never started.
    """

    what: str
    reason: str
    pod: str
    is_driver: bool = False


@dataclass(frozen=True)
class Workflow:
    """The Argo workflow of a run; the API server stores it beyond the workflow's life in Kubernetes."""

    name: str
    namespace: str
    message: str
    nodes: tuple[Node, ...]
    pods_by_id: bool

    def failed(self, pipeline: CompiledPipeline) -> list[FailedTask]:
        """Return the tasks that failed, the first to fail first."""
        failed = [node for node in self.nodes if node.phase in _FAILED and not self._was_tried_again(node)]
        names = [node.name for node in failed]
        innermost = [node for node in failed if not any(_is_within(name, node.name) for name in names)]
        innermost.sort(key=lambda node: (node.finished_at or "", node.name))
        return [self._task(node, pipeline) for node in innermost]

    def _was_tried_again(self, node: Node) -> bool:
        """Return whether the node is an attempt that was retried."""
        match = _NUMBERED.match(node.name)
        parent = next((other for other in self.nodes if match and other.name == match[1]), None)
        if match is None or parent is None or parent.type != "Retry":
            return False
        attempts = [found for other in self.nodes if (found := _NUMBERED.match(other.name)) and found[1] == match[1]]
        return parent.phase not in _FAILED or int(match[2]) < max(int(found[2]) for found in attempts)

    def _task(self, node: Node, pipeline: CompiledPipeline) -> FailedTask:
        steps = node.name.removeprefix(f"{self.name}.").split(".")
        what, is_group = pipeline.describe_task(steps) or ("the pipeline", True)
        what += "".join(f", item {match[2]}" for step in steps if (match := _NUMBERED.match(step)) and ":" in step)
        reason = " ".join((node.message or "").split())
        pod = self._pod(node) if node.type == "Pod" else ""
        if node.template_name not in _DRIVERS:
            return FailedTask(what, reason or str(node.phase).lower(), pod)
        return FailedTask(what, _driver_reason(reason, is_group), pod, is_driver=True)

    def _pod(self, node: Node) -> str:
        """Return the name of a node's pod (argo-workflows, workflow/util/pod_name.go)."""
        if self.pods_by_id:
            return node.id
        prefix = f"{self.name}-{node.template_name}"[:242]
        return f"{prefix}-{node.id.rpartition('-')[2]}"


def read_workflow(cluster: KfpClient, run_id: str) -> Workflow:
    """Return the workflow of a run. Only version v1beta1 of the API returns it, for runs of either version.

    Raises:
        KfpError: The server doesn't return it.
    """
    detail = cluster.get(f"/runs/{run_id}", RunV1, api="/apis/v1beta1")
    try:
        workflow = parse(ArgoWorkflow, json.loads(detail.workflow_manifest))
    except (ValueError, RecursionError, UnexpectedAnswerError):
        raise KfpError("the server sends no workflow with the run") from None
    metadata, status = workflow.metadata, workflow.status
    by_id = (metadata.annotations or {}).get("workflows.argoproj.io/pod-name-format") == "v1"
    nodes = tuple((status.nodes or {}).values())
    return Workflow(metadata.name, metadata.namespace, status.message or "", nodes, by_id)


def failed_by_details(run: Run, pipeline: CompiledPipeline) -> list[FailedTask]:
    """Return the failed tasks from the run's own list of nodes, which has neither reasons nor pods."""
    found: dict[str, FailedTask] = {}
    groups: dict[str, FailedTask] = {}
    for task in run.tasks:
        if task.state != "FAILED":
            continue
        name, reason = task.display_name or "", " ".join(task.reason.split())
        described = pipeline.describe_task([name])
        if described is None:
            continue
        what, is_group = described
        is_driver = name not in pipeline.task_labels
        if is_driver:
            found[what] = FailedTask(what, _driver_reason(reason, is_group), "", is_driver=True)
        else:
            (groups if is_group else found)[what] = FailedTask(what, reason or "failed", "")
    return list((found or groups).values())


def _driver_reason(reason: str, is_group: bool) -> str:
    why = f" ({reason})" if reason else ""
    return f"{'its tasks' if is_group else 'it'} never started: its driver failed{why}"


def _is_within(name: str, outer: str) -> bool:
    """Return whether a node lies within another one, by their names."""
    return name != outer and name.startswith((f"{outer}.", f"{outer}("))
