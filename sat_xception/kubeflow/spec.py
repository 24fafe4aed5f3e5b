"""A compiled pipeline: its name, parameters, tasks and digest."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from sat_xception.errors import ConfigError
from sat_xception.kubeflow.answers import PipelineVersion
from sat_xception.kubeflow.pipeline_spec import PipelineSpec, Task

__all__ = ["YAML_LOADER", "CompiledPipeline", "read_pipeline"]

# Some ten times as fast as PyYAML's own, and missing where it was built without libyaml.
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# The API server checks a pipeline's name with this (backend/src/apiserver/template/v2_template.go).
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


@dataclass(frozen=True)
class CompiledPipeline:
    """A parsed pipeline YAML.

    Attributes:
        content: The YAML to upload; b"" for a version that was fetched from the API server.
        spec: The pipeline spec.
        platform: The platform spec; empty if the pipeline has no Kubernetes settings.
    """

    content: bytes
    spec: dict[str, Any]
    platform: dict[str, Any]

    @classmethod
    def from_version(cls, version: PipelineVersion) -> CompiledPipeline:
        """Return the pipeline of a version from the API server; a spec with a platform spec is nested there.

        Raises:
            ConfigError: The version has no v2 pipeline: the server stores v1 pipelines too, which are Argo Workflows.
        """
        found = version.pipeline_spec or {}
        spec, platform = found.get("pipeline_spec", found), found.get("platform_spec")
        if not _is_spec(spec) or not isinstance(platform or {}, dict):
            name = version.display_name or version.pipeline_version_id
            raise ConfigError(f"the pipeline version {name!r} has no v2 pipeline in it; compile it with kfp 2")
        return cls(b"", spec, platform or {})

    @cached_property
    def parsed(self) -> PipelineSpec:
        """The pipeline spec with names for its parts."""
        return PipelineSpec.model_validate(self.spec)

    @property
    def name(self) -> str:
        """Name of the pipeline in its spec."""
        return self.parsed.pipeline_info.name

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content, in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def version_name(self) -> str:
        """Name of the version, made from the content, so that the same pipeline uploaded twice is one version.

        It begins with the pipeline's name: if the API server stores pipelines as Kubernetes objects, a version's name
        must be unique in the whole namespace.
        """
        return f"{self.name}-{self.digest[:12]}"

    @property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """Definitions of the pipeline's parameters, by name."""
        definitions: dict[str, dict[str, Any]] = self.spec["root"].get("inputDefinitions", {}).get("parameters", {})
        return definitions

    @property
    def task_labels(self) -> dict[str, str]:
        """Labels of the tasks in the UI, by name of the task."""
        return {name: task.task_info.name or name for name, task in self.parsed.tasks}

    @cached_property
    def groups(self) -> frozenset[str]:
        """Names of the tasks that contain others: conditions, exit handlers, loops, nested pipelines."""
        return frozenset(name for name, task in self.parsed.tasks if self.parsed.component_of(task).dag)

    def describe_task(self, steps: Sequence[str]) -> tuple[str, bool] | None:
        """Return the display name of the task of a workflow node, and whether it is a group.

        Args:
            steps: The node's name, from the outermost group to the node: `root`, `condition-1`, `train`, `executor`.
                Several tasks may have the same name in different groups; a single step means any of them.

        Returns:
            Name and whether it is a group; None if the node belongs to no task.
        """
        tasks = dict(self.parsed.tasks) if len(steps) == 1 else self.parsed.root.tasks
        outer = tasks
        found: tuple[str, Task] | None = None
        for step in steps:
            name = re.sub(r"\(.*\)$", "", step)
            if name == "onExit":  # an exit task is a sibling of the task that it follows
                tasks = outer
            name = name if name in tasks else name.removesuffix("-driver")
            if name in tasks:
                found, outer = (name, tasks[name]), tasks
                tasks = self.parsed.component_of(tasks[name]).tasks
        if found is None:
            return None
        name, task = found
        label = task.task_info.name or name
        return (label if label == name else f"{label} ({name})"), name in self.groups

    def without_cache(self) -> dict[str, Any]:
        """Return the spec for an inline run, with caching disabled in every task, also inside conditions."""
        spec = copy.deepcopy(self.spec)
        for component in (spec.get("root", {}), *spec.get("components", {}).values()):
            for task in component.get("dag", {}).get("tasks", {}).values():
                task["cachingOptions"] = {}
        return {"pipeline_spec": spec, "platform_spec": self.platform} if self.platform else spec


def read_pipeline(path: Path) -> CompiledPipeline:
    """Read a compiled pipeline.

    Raises:
        ConfigError: The file doesn't exist, or isn't a compiled pipeline.
    """
    try:
        content = path.read_bytes()
        documents = [document for document in yaml.load_all(content, YAML_LOADER) if document]
    except OSError as error:
        raise ConfigError(f"can't read the pipeline {path}: {error.strerror}; `make compile` writes one") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    specs = [document for document in documents if isinstance(document, dict) and "pipelineInfo" in document]
    platforms = [document for document in documents if isinstance(document, dict) and "platforms" in document]
    if len(specs) != 1 or not _is_spec(specs[0]):
        raise ConfigError(f"{path} is no compiled pipeline (no pipelineInfo and root in it); `make compile` writes one")
    pipeline = CompiledPipeline(content, specs[0], platforms[0] if platforms else {})
    if not _NAME.fullmatch(pipeline.name):
        raise ConfigError(f"{path}: the pipeline's name {pipeline.name!r} isn't one that Kubernetes takes")
    return pipeline


def _is_spec(spec: object) -> bool:
    """Return whether a document has the parts of a pipeline spec: name, parameters and tasks."""
    try:
        PipelineSpec.model_validate(spec)
    except ValidationError:
        return False
    return True
