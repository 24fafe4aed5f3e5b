"""A compiled pipeline as it is read here: the fields that are used, by name.

The message is `PipelineSpec` of kubeflow/pipelines, api/v2alpha1/pipeline_spec.proto. kfp has classes for it, but they
can't be imported without all of kfp, which `sat_xception submit` doesn't need.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

__all__ = [
    "Component",
    "Dag",
    "Definition",
    "Definitions",
    "PipelineSpec",
    "PlatformSpec",
    "Selector",
    "Source",
    "Task",
    "TaskOutput",
]

T = TypeVar("T")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)


class _ByKind(_Part, Generic[T]):
    parameters: dict[str, T] = {}
    artifacts: dict[str, T] = {}

    def of(self, kind: str) -> dict[str, T]:
        """Return the parameters or the artifacts, by name."""
        return self.artifacts if kind == "artifacts" else self.parameters


class Definition(_Part):
    """Definition of an input or an output."""

    is_optional: bool = False
    default_value: Any = None

    @property
    def has_default(self) -> bool:
        """Whether it has a default value, be it null."""
        return "default_value" in self.model_fields_set


class Definitions(_ByKind[Definition]):
    """Inputs or outputs that a component declares."""


class TaskOutput(_Part):
    """An output of another task."""

    producer_task: str
    output_parameter_key: str = ""
    output_artifact_key: str = ""


class Source(_Part):
    """Source of an input: one of these, or a constant."""

    component_input_parameter: str | None = None
    component_input_artifact: str | None = None
    task_output_parameter: TaskOutput | None = None
    task_output_artifact: TaskOutput | None = None
    task_final_status: TaskOutput | None = None


class Selector(_Part):
    """An output of a task in a group, which becomes an output of the group."""

    producer_subtask: str
    output_parameter_key: str = ""
    output_artifact_key: str = ""


class _ComponentRef(_Part):
    name: str = ""


class _TaskInfo(_Part):
    name: str = ""


class _TriggerPolicy(_Part):
    condition: str = ""


class _Items(_Part):
    input_parameter: str = ""


class _ParameterIterator(_Part):
    items: _Items
    item_input: str


class Task(_Part):
    """A task of a group."""

    component_ref: _ComponentRef = _ComponentRef()
    task_info: _TaskInfo = _TaskInfo()
    inputs: _ByKind[Source] = _ByKind[Source]()
    dependent_tasks: list[str] = []
    trigger_policy: _TriggerPolicy = _TriggerPolicy()
    parameter_iterator: _ParameterIterator | None = None

    @property
    def component(self) -> str:
        """Name of its component."""
        return self.component_ref.name


class Dag(_Part):
    """A group of tasks. An output is a selector of a task's output, or several."""

    tasks: dict[str, Task] = {}
    outputs: _ByKind[Any] = _ByKind[Any]()


class Component(_Part):
    """A component: a group of tasks, or what an executor runs."""

    dag: Dag | None = None
    executor_label: str = ""
    input_definitions: Definitions = Definitions()
    output_definitions: Definitions = Definitions()

    @property
    def tasks(self) -> dict[str, Task]:
        """Tasks of the group."""
        return self.dag.tasks if self.dag else {}


class _Executor(_Part):
    container: dict[str, Any] = {}


class _DeploymentSpec(_Part):
    executors: dict[str, _Executor] = {}


class _PipelineInfo(_Part):
    name: str
    description: str = ""


class PipelineSpec(_Part):
    """A pipeline."""

    pipeline_info: _PipelineInfo
    root: Component
    components: dict[str, Component] = {}
    deployment_spec: _DeploymentSpec = _DeploymentSpec()

    @property
    def tasks(self) -> Iterator[tuple[str, Task]]:
        """Every task by name, including those in groups."""
        for component in (self.root, *self.components.values()):
            yield from component.tasks.items()

    def component_of(self, task: Task) -> Component:
        """Return the component of a task; an empty one if there is none."""
        return self.components.get(task.component) or Component()


class _KubernetesDeployment(_Part):
    executors: dict[str, dict[str, Any]] = {}


class _Platform(_Part):
    deployment_spec: _KubernetesDeployment = _KubernetesDeployment()


class PlatformSpec(_Part):
    """Kubernetes settings of the executors of a pipeline."""

    platforms: dict[str, _Platform] = {}

    @property
    def executors(self) -> dict[str, dict[str, Any]]:
        """Kubernetes settings by executor."""
        return self.platforms.get("kubernetes", _Platform()).deployment_spec.executors
