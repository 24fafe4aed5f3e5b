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

from sat_xception.kubeflow.pipeline_spec import (
    Component,
    Dag,
    Definitions,
    PipelineSpec,
    PlatformSpec,
    Selector,
    Source,
    Task,
)

__all__ = ["find_problems"]

_PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.(parameters|artifacts)\['([^']+)'\]")
_IN_CONDITION = re.compile(r"inputs\.parameter_values\['([^']+)'\]")


def find_problems(spec: Mapping[str, Any], platform: Mapping[str, Any]) -> list[str]:
    """Return one line for each reference of a compiled pipeline that can't be resolved.

    Args:
        spec: The pipeline spec.
        platform: The platform spec; empty if the pipeline has no Kubernetes settings.
    """
    found: list[str] = []
    pipeline = PipelineSpec.model_validate(spec)
    executors = pipeline.deployment_spec.executors
    kubernetes = PlatformSpec.model_validate(platform or {}).executors
    for where, dag, around in _dags(pipeline):
        for name, task in dag.tasks.items():
            at = f"{where}, task {name}"
            component = pipeline.components.get(task.component)
            if component is None:
                found.append(f"{at}: there is no component {task.component}")
                continue
            found += [f"{at}: {problem}" for problem in _of_task(task, component, dag, around, pipeline)]
            if label := component.executor_label:
                if label not in executors:
                    found.append(f"{at}: there is no executor {label}")
                    continue
                container = executors[label].container
                found += [f"{at}: {problem}" for problem in _of_container(container, task, component)]
                settings = kubernetes.get(label, {})
                found += [f"{at}: {problem}" for problem in _of_settings(settings, dag, around, pipeline)]
        found += [f"{where}, outputs: {problem}" for problem in _of_outputs(dag, pipeline)]
    return found


def _dags(pipeline: PipelineSpec) -> Iterator[tuple[str, Dag, Definitions]]:
    """Yield each group of tasks: its name, its tasks, and its declared inputs."""
    for name, component in (("root", pipeline.root), *pipeline.components.items()):
        if component.dag:
            yield name, component.dag, component.input_definitions


def _of_task(task: Task, component: Component, dag: Dag, around: Definitions, pipeline: PipelineSpec) -> Iterator[str]:
    given, declared = task.inputs, component.input_definitions
    for kind in ("parameters", "artifacts"):
        for name, source in given.of(kind).items():
            yield from (f"input {name} {problem}" for problem in _of_source(source, dag, around, pipeline))
            if component.dag and name not in declared.of(kind):
                yield f"passes {name}, which {task.component} doesn't declare"
        for name, definition in declared.of(kind).items():
            if kind == "artifacts" and definition.is_optional:
                yield f"artifact {name} is optional, and the executor can't make an artifact of an optional type"
            optional = definition.is_optional or definition.has_default
            looped = task.parameter_iterator is not None and task.parameter_iterator.item_input == name
            if name not in given.of(kind) and not optional and not looped:
                yield f"doesn't pass {name}, which {task.component} needs"
    yield from (f"waits for {name}, which isn't beside it" for name in task.dependent_tasks if name not in dag.tasks)
    for name in _IN_CONDITION.findall(task.trigger_policy.condition):
        if name not in given.parameters:
            yield f"its condition names {name}, which isn't passed to it"
    if iterator := task.parameter_iterator:
        items = iterator.items.input_parameter
        if items and items not in given.parameters:
            yield f"it loops over {items}, which isn't passed to it"
        if iterator.item_input not in declared.parameters:
            yield f"its loop item {iterator.item_input} isn't declared"


def _of_source(source: Source, dag: Dag, around: Definitions, pipeline: PipelineSpec) -> Iterator[str]:
    """Yield the problems of an input's source."""
    for name, declared in (
        (source.component_input_parameter, around.parameters),
        (source.component_input_artifact, around.artifacts),
    ):
        if name is not None and name not in declared:
            yield f"is {name} of the group around it, which has no such input"
    for output, kind in ((source.task_output_parameter, "parameters"), (source.task_output_artifact, "artifacts")):
        if output:
            name = output.output_artifact_key if kind == "artifacts" else output.output_parameter_key
            producer = dag.tasks.get(output.producer_task)
            if producer is None:
                yield f"comes from task {output.producer_task}, which isn't beside it"
            elif name not in pipeline.component_of(producer).output_definitions.of(kind):
                yield f"is {name} of task {output.producer_task}, which has no such output"
    status = source.task_final_status
    if status and status.producer_task not in dag.tasks:
        yield f"is the status of task {status.producer_task}, which isn't beside it"


def _of_container(container: Mapping[str, Any], task: Task, component: Component) -> Iterator[str]:
    for text in _texts(container):
        for kind, name in _PLACEHOLDER.findall(text):
            if name not in task.inputs.of(kind) and name not in component.input_definitions.of(kind):
                yield f"its container names {name}, which isn't passed to it"


def _of_settings(settings: object, dag: Dag, around: Definitions, pipeline: PipelineSpec) -> Iterator[str]:
    """Yield the problems in the Kubernetes settings of an executor; its sources are those of a task."""
    if isinstance(settings, Mapping):
        source = Source.model_validate(settings)
        yield from (f"a Kubernetes setting {problem}" for problem in _of_source(source, dag, around, pipeline))
        for value in settings.values():
            yield from _of_settings(value, dag, around, pipeline)
    elif isinstance(settings, list):
        for value in settings:
            yield from _of_settings(value, dag, around, pipeline)


def _of_outputs(dag: Dag, pipeline: PipelineSpec) -> Iterator[str]:
    for kind in ("parameters", "artifacts"):
        for name, definition in dag.outputs.of(kind).items():
            for selector in _selectors(definition):
                output = selector.output_artifact_key if kind == "artifacts" else selector.output_parameter_key
                task = dag.tasks.get(selector.producer_subtask)
                if task is None or output not in pipeline.component_of(task).output_definitions.of(kind):
                    yield f"{name} is {output} of {selector.producer_subtask}, which has no such output"


def _selectors(definition: object) -> Iterator[Selector]:
    if isinstance(definition, Mapping):
        if "producerSubtask" in definition:
            yield Selector.model_validate(definition)
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
