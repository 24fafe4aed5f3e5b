"""Check that all references in a compiled pipeline can be resolved by Kubeflow's driver.

The compiler of kfp 2.17 can write pipelines that the driver can't run, and neither the compiler nor the local runners
report it: the driver resolves each input of a task among the inputs of the enclosing group, and the compiler doesn't
pass on everything that a task refers to. So each reference is checked here: inputs of tasks, conditions, loops,
placeholders in containers, and parameters in the Kubernetes settings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["find_problems"]

Spec = Mapping[str, Any]

_PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.(parameters|artifacts)\['([^']+)'\]")
_IN_CONDITION = re.compile(r"inputs\.parameter_values\['([^']+)'\]")


def find_problems(spec: Spec, platform: Spec) -> list[str]:
    """Return one line for each reference of a compiled pipeline that can't be resolved.

    Args:
        spec: The pipeline spec.
        platform: The platform spec; empty if the pipeline has no Kubernetes settings.
    """
    found: list[str] = []
    executors = spec.get("deploymentSpec", {}).get("executors", {})
    kubernetes = (
        platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
        if platform
        else {}
    )
    for where, dag, around in _dags(spec):
        for name, task in dag["tasks"].items():
            at = f"{where}, task {name}"
            component = spec["components"].get(task["componentRef"]["name"])
            if component is None:
                found.append(f"{at}: there is no component {task['componentRef']['name']}")
                continue
            found += [f"{at}: {problem}" for problem in _of_task(task, component, dag, around, spec)]
            if label := component.get("executorLabel"):
                if label not in executors:
                    found.append(f"{at}: there is no executor {label}")
                    continue
                container = executors[label].get("container", {})
                found += [f"{at}: {problem}" for problem in _of_container(container, task, component)]
                found += [f"{at}: {problem}" for problem in _of_settings(kubernetes.get(label, {}), dag, around, spec)]
        found += [f"{where}, outputs: {problem}" for problem in _of_outputs(dag, spec)]
    return found


def _dags(spec: Spec) -> Iterator[tuple[str, Spec, Spec]]:
    """Yield each group of tasks: its name, its tasks, and its declared inputs."""
    for name, component in (("root", spec["root"]), *spec.get("components", {}).items()):
        if "dag" in component:
            yield name, component["dag"], component.get("inputDefinitions", {})


def _of_task(task: Spec, component: Spec, dag: Spec, around: Spec, spec: Spec) -> Iterator[str]:
    given = task.get("inputs", {})
    declared = component.get("inputDefinitions", {})
    for kind in ("parameters", "artifacts"):
        for name, source in given.get(kind, {}).items():
            yield from (f"input {name} {problem}" for problem in _of_source(source, dag, around, spec))
            if "dag" in component and name not in declared.get(kind, {}):
                yield f"passes {name}, which {task['componentRef']['name']} doesn't declare"
        for name, definition in declared.get(kind, {}).items():
            if kind == "artifacts" and definition.get("isOptional"):
                yield f"artifact {name} is optional, and the executor can't make an artifact of an optional type"
            optional = definition.get("isOptional") or "defaultValue" in definition
            looped = task.get("parameterIterator", {}).get("itemInput") == name
            if name not in given.get(kind, {}) and not optional and not looped:
                yield f"doesn't pass {name}, which {task['componentRef']['name']} needs"
    yield from (
        f"waits for {name}, which isn't beside it"
        for name in task.get("dependentTasks", [])
        if name not in dag["tasks"]
    )
    for name in _IN_CONDITION.findall(task.get("triggerPolicy", {}).get("condition", "")):
        if name not in given.get("parameters", {}):
            yield f"its condition names {name}, which isn't passed to it"
    if iterator := task.get("parameterIterator"):
        items = iterator["items"].get("inputParameter")
        if items and items not in given.get("parameters", {}):
            yield f"it loops over {items}, which isn't passed to it"
        if iterator["itemInput"] not in declared.get("parameters", {}):
            yield f"its loop item {iterator['itemInput']} isn't declared"


def _of_source(source: Spec, dag: Spec, around: Spec, spec: Spec) -> Iterator[str]:
    """Yield the problems of an input's source."""
    for key, kind in (("componentInputParameter", "parameters"), ("componentInputArtifact", "artifacts")):
        if key in source and source[key] not in around.get(kind, {}):
            yield f"is {source[key]} of the group around it, which has no such input"
    for key, output, kind in (
        ("taskOutputParameter", "outputParameterKey", "parameters"),
        ("taskOutputArtifact", "outputArtifactKey", "artifacts"),
    ):
        if key in source:
            producer = source[key]["producerTask"]
            if producer not in dag["tasks"]:
                yield f"comes from task {producer}, which isn't beside it"
            elif source[key][output] not in _outputs_of(dag["tasks"][producer], spec).get(kind, {}):
                yield f"is {source[key][output]} of task {producer}, which has no such output"
    if "taskFinalStatus" in source and source["taskFinalStatus"]["producerTask"] not in dag["tasks"]:
        yield f"is the status of task {source['taskFinalStatus']['producerTask']}, which isn't beside it"


def _outputs_of(task: Spec, spec: Spec) -> Spec:
    outputs: Spec = spec["components"].get(task["componentRef"]["name"], {}).get("outputDefinitions", {})
    return outputs


def _of_container(container: Spec, task: Spec, component: Spec) -> Iterator[str]:
    given = task.get("inputs", {})
    declared = component.get("inputDefinitions", {})
    for text in _texts(container):
        for kind, name in _PLACEHOLDER.findall(text):
            if name not in given.get(kind, {}) and name not in declared.get(kind, {}):
                yield f"its container names {name}, which isn't passed to it"


def _of_settings(settings: object, dag: Spec, around: Spec, spec: Spec) -> Iterator[str]:
    """Yield the problems in the Kubernetes settings of an executor; its sources are those of a task."""
    if isinstance(settings, Mapping):
        yield from (f"a Kubernetes setting {problem}" for problem in _of_source(settings, dag, around, spec))
        for value in settings.values():
            yield from _of_settings(value, dag, around, spec)
    elif isinstance(settings, list):
        for value in settings:
            yield from _of_settings(value, dag, around, spec)


def _of_outputs(dag: Spec, spec: Spec) -> Iterator[str]:
    for kind, output in (("parameters", "outputParameterKey"), ("artifacts", "outputArtifactKey")):
        for name, definition in dag.get("outputs", {}).get(kind, {}).items():
            for selector in _selectors(definition):
                task = dag["tasks"].get(selector["producerSubtask"])
                if task is None or selector[output] not in _outputs_of(task, spec).get(kind, {}):
                    yield f"{name} is {selector[output]} of {selector['producerSubtask']}, which has no such output"


def _selectors(definition: object) -> Iterator[Spec]:
    if isinstance(definition, Mapping):
        if "producerSubtask" in definition:
            yield definition
        for value in definition.values():
            yield from _selectors(value)
    elif isinstance(definition, list):
        for value in definition:
            yield from _selectors(value)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
