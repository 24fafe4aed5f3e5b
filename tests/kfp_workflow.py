"""The Argo workflow of a run, node by node, as Kubeflow Pipelines 2.16 and 2.17 make it, and what the API says of it.

Which nodes there are: kubeflow/pipelines, backend/src/v2/compiler/argocompiler/{dag,container,importer}.go. How they
are named: argo-workflows 4.0, workflow/controller/{dag,operator,exit_handler}.go and workflow/util/pod_name.go. What
becomes of them in the API: kubeflow/pipelines, backend/src/common/util/workflow.go (NodeStatuses) and
backend/src/apiserver/server/api_converter.go (toModelTask, toApiPipelineTaskDetail): name, state and times, and
neither a node's own id, nor its pod, nor its message. A node's children, which both have, are left out here: nothing of
ours reads them, since Argo makes the task after it a node's child as well.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Look", "Node", "task_details", "workflow", "workflow_nodes"]

# Phase of a node to the API's state (backend/src/apiserver/model/run.go, RuntimeState.ToV2); others have none.
STATES = {
    "Pending": "PENDING",
    "Running": "RUNNING",
    "Succeeded": "SUCCEEDED",
    "Skipped": "SKIPPED",
    "Failed": "FAILED",
    "Error": "FAILED",
}


@dataclass(frozen=True)
class Look:
    """What one look at a run shows.

    Attributes:
        state: State of the run.
        tasks: State of each task; `TASK: "FAILED: why"` gives the message of its pod, and TASK may be the driver of a
            task, `train-driver`, in whose stead the task is omitted then.
        retried: Phase and message of each attempt of a task with retries.
        message: The workflow's own message.
        history: States that the run had.
    """

    state: str
    tasks: dict[str, str] = field(default_factory=dict)
    retried: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    message: str = ""
    history: tuple[str, ...] = ()


@dataclass
class Node:
    """A node of the workflow."""

    name: str
    type: str
    template: str
    phase: str
    message: str = ""
    id: str = ""
    pod: str = ""

    @property
    def display_name(self) -> str:
        return self.name.removesuffix(".onExit").rpartition(".")[2] + (
            ".onExit" if self.name.endswith(".onExit") else ""
        )


def workflow_nodes(name: str, spec: dict[str, Any], look: Look) -> list[Node]:
    """Return the nodes of a run of a pipeline."""
    if not look.tasks:
        return []
    top = _phase(look.state)
    nodes = [
        Node(name, "DAG", "entrypoint", top),
        Node(f"{name}.root-driver", "Pod", "system-dag-driver", *_told(look, "root-driver")),
    ]
    if nodes[-1].phase == "Succeeded":
        nodes += [Node(f"{name}.root", "DAG", "root", top), *_dag(f"{name}.root", spec, spec["root"], look)]
    for node in nodes:
        number = _fnv1a(node.name)
        node.id = name if node.name == name else f"{name}-{number}"
        node.pod = name if node.name == name else f"{name}-{node.template}-{number}"
    return nodes


def _dag(path: str, spec: dict[str, Any], component: dict[str, Any], look: Look) -> list[Node]:
    nodes = []
    for name, task in component["dag"]["tasks"].items():
        inner = task["componentRef"]["name"]
        place, around = path, []
        if task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED":
            place = f"{path}.{task['dependentTasks'][0]}.onExit"
            around = [Node(place, "DAG", f"exit-hook-root-{name}", _told(look, name)[0])]
        found = _task(f"{place}.{name}", name, spec, inner, look)
        nodes += [*around, *found] if found else []
    return nodes


def _task(path: str, name: str, spec: dict[str, Any], component_name: str, look: Look) -> list[Node]:
    component = spec["components"][component_name]
    executor = spec["deploymentSpec"]["executors"].get(component.get("executorLabel"), {})
    if "importer" in executor:
        return [Node(path, "Pod", "system-importer", *_told(look, name))] if name in look.tasks else []
    within = _dag(path, spec, component, look) if "dag" in component else []
    driver = f"{name}-driver"
    if not within and name not in look.tasks and driver not in look.tasks:
        return []
    template = "system-dag-driver" if "dag" in component else "system-container-driver"
    nodes = [Node(f"{path}-driver", "Pod", template, *_told(look, driver))]
    if nodes[0].phase in ("Failed", "Error"):
        return [*nodes, Node(path, "Skipped", "", "Omitted", "omitted: depends condition not met")]
    if "dag" in component:
        worst = "Failed" if any(node.phase in ("Failed", "Error") for node in within) else _phase(look.state)
        phase, message = _told(look, name, worst)
        return [*nodes, Node(path, "DAG", component_name, phase, message), *within]
    phase, message = _told(look, name)
    nodes.append(Node(path, "DAG", "system-container-executor", phase))
    if name not in look.retried:
        return [*nodes, Node(f"{path}.executor", "Pod", "system-container-impl", phase, message)]
    attempts = look.retried[name]
    left = "No more retries left" if phase == "Failed" else ""
    nodes.append(Node(f"{path}.executor", "Retry", "retry-system-container-impl", phase, left))
    return nodes + [
        Node(f"{path}.executor({index})", "Pod", "retry-system-container-impl", *attempt)
        for index, attempt in enumerate(attempts)
    ]


def _told(look: Look, name: str, otherwise: str = "Succeeded") -> tuple[str, str]:
    state, _, message = look.tasks.get(name, "").partition(": ")
    return (_phase(state) if state else otherwise), message


def _phase(state: str) -> str:
    return next((phase for phase, known in STATES.items() if known == state), state.title())


def workflow(name: str, run_id: str, nodes: list[Node], look: Look) -> dict[str, Any]:
    """Return the workflow as the API server stores it."""
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {
            "name": name,
            "namespace": "kubeflow",
            "labels": {"pipeline/runid": run_id},
            "annotations": {"workflows.argoproj.io/pod-name-format": "v2"},
        },
        "spec": {},
        "status": {
            "phase": _phase(look.state),
            "message": look.message,
            "nodes": {
                node.id: {
                    "id": node.id,
                    "name": node.name,
                    "displayName": node.display_name,
                    "type": node.type,
                    "templateName": node.template,
                    "phase": node.phase,
                    "message": node.message,
                    "startedAt": "2026-01-01T00:00:00Z",
                    "finishedAt": None if node.phase in ("Pending", "Running") else f"2026-01-01T00:{index:02}:00Z",
                }
                for index, node in enumerate(nodes)
            },
        },
    }


def task_details(run_id: str, nodes: list[Node]) -> list[dict[str, Any]]:
    """Return the nodes as the API tells of them, in the order of their ids."""
    details = []
    for node in sorted(nodes, key=lambda node: node.id):
        state = STATES.get(node.phase)
        details.append(
            {
                "run_id": run_id,
                "task_id": str(uuid.uuid5(uuid.NAMESPACE_URL, node.pod)),
                "display_name": node.display_name,
                "create_time": "2026-01-01T00:00:00Z",
                "start_time": "2026-01-01T00:00:00Z",
                "end_time": "2026-01-01T00:00:09Z",
                **({"state": state} if state else {}),
                "state_history": [{"update_time": "2026-01-01T00:00:09Z", **({"state": state} if state else {})}],
            }
        )
    return details


def _fnv1a(text: str) -> int:
    value = 2166136261
    for byte in text.encode():
        value = (value ^ byte) * 16777619 % 2**32
    return value
