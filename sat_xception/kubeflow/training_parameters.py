"""The training pipeline's parameters: the setting of a step behind each, and a check of all of them at once.

The first step checks them, so that a wrong one ends a run in seconds and not hours later, when its own step starts. The
rules are those of the steps' settings classes. Only the GPU parameters, which no step has, get rules of their own here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sat_xception.dataset.settings import AssembleConfig
from sat_xception.deploy.settings import DeployConfig
from sat_xception.errors import ConfigError
from sat_xception.evaluate.settings import EvaluateConfig, GateConfig
from sat_xception.kubeflow.pod import find_lost, in_pod, is_lost
from sat_xception.kubeflow.run_settings import TRAINED_BACKBONES
from sat_xception.model.backbones import get_backbone
from sat_xception.model.settings import TrainConfig
from sat_xception.package.settings import PackageConfig
from sat_xception.settings.config import StepConfig
from sat_xception.settings.types import ResultOrNone
from sat_xception.validation.settings import ValidateConfig

__all__ = [
    "NO_PARAMETERS",
    "TASKS",
    "DatasetStore",
    "GpuRequest",
    "TaskParameters",
    "Toleration",
    "check_parameters",
]

_FLAG = re.compile(r"--([a-z][a-z-]*)")
_SAMPLE = "sample"


class Toleration(BaseModel):
    """A toleration of a pod, with the names that Kubernetes has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    tolerationSeconds: int | None = None

    @model_validator(mode="after")
    def _says_which_taint(self) -> Toleration:
        if not self.key and self.operator != "Exists":
            raise ValueError("a toleration without a key must have the operator 'Exists'")
        return self


class GpuRequest(StepConfig):
    """GPUs of each training task, and the nodes it may run on."""

    type: str = Field(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$", description="Resource name, as nodes offer it.")
    # Text, because Kubeflow's driver reads only text: with a number the training would silently get no GPU.
    count: str = Field(pattern=r"^[0-9]{1,2}$", description="Number of GPUs, in digits; 0 trains on CPUs.")
    node_selector: dict[str, str] = Field(description="Labels that a node must have.")
    tolerations: tuple[Toleration, ...] = Field(description="Taints that don't keep the training off a node.")


class DatasetStore(StepConfig):
    """Folder or bucket that stores datasets between runs."""

    store: ResultOrNone = Field(None, description="Folder or gs:// address that keeps datasets by their digest.")


@dataclass(frozen=True)
class TaskParameters:
    """Mapping from the pipeline's parameters to the settings of a task.

    Attributes:
        config: Settings class of the step.
        settings: Name of the parameter for each setting.
        fixed: Settings that the pipeline sets itself.
        outputs: Settings that are outputs of other tasks, besides the required ones.
    """

    config: type[StepConfig]
    settings: Mapping[str, str]
    fixed: Mapping[str, object] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()

    def values(self, given: Mapping[str, object]) -> dict[str, object]:
        """Return the task's settings from the given parameters."""
        return {setting: given[parameter] for setting, parameter in self.settings.items()} | dict(self.fixed)


_SHARED = {
    "batch_size": "train_batch_size",
    "checkpoints": "train_checkpoints",
    "head_epochs": "train_head_epochs",
    "fine_tune_epochs": "train_fine_tune_epochs",
    "search_trials": "train_search_trials",
    "seed": "data_seed",
}
# Settings of train with a parameter per backbone; backbones with a width multiplier have `alpha`, too.
_OWN = ("weights", "input_size", "scratch_epochs")
_LIMITS = (
    "min_accuracy",
    "min_gain",
    "min_recall",
    "min_precision",
    "min_slice_accuracy",
    "min_slice_recall",
    "min_slice_tiles",
    "max_calibration_error",
    "max_loss",
)
_SCORING = {"batch_size": "train_batch_size", "goal": "evaluate_goal"}
_WHERE_SERVING = {"name": "deploy_model_name", "model_root": "deploy_model_root", "endpoint": "deploy_endpoint"}

_ROLLOUT = (
    "target",
    "namespace",
    "endpoint_host",
    "storage_uri",
    "strategy",
    "traffic_steps",
    "step_minutes",
    "start_minutes",
    "min_agreement",
    "max_slowdown",
)

# Settings of assemble without a parameter, and why.
NO_PARAMETERS = {
    "train": "the folders of the splits are below `data`, as DIR/train/<class>",
    "valid": "see train",
    "test": "see train",
    "out": "where Kubeflow keeps the task's output",
    "max_pixels": "a guard against decompression bombs, not a choice of a run",
}


def _train(backbone: str) -> TaskParameters:
    own = (*_OWN, "alpha") if get_backbone(backbone).has_alpha else _OWN
    return TaskParameters(
        TrainConfig, {**_SHARED, **{name: f"{backbone}_{name}" for name in own}}, {"backbone": backbone}
    )


_ASSEMBLE = {name: f"data_{name}" for name in AssembleConfig.model_fields if name not in NO_PARAMETERS}

TASKS: Mapping[str, TaskParameters] = {
    "assemble": TaskParameters(AssembleConfig, {**_ASSEMBLE, "data": "data"}),
    "validate": TaskParameters(
        ValidateConfig,
        {
            "accept": "data_accept_anomalies",
            "max_skew": "data_max_skew",
            "max_drift": "data_max_drift",
            "baseline": "data_baseline",
        },
    ),
    **{task: _train(name) for task, name in zip(("train", "train-2"), TRAINED_BACKBONES, strict=True)},
    "evaluate": TaskParameters(EvaluateConfig, _SCORING, outputs=("model",)),
    "evaluate-2": TaskParameters(EvaluateConfig, _SCORING, outputs=("model",)),
    "evaluate-serving": TaskParameters(EvaluateConfig, {**_SCORING, **_WHERE_SERVING}),
    "gate": TaskParameters(GateConfig, {name: f"gate_{name}" for name in _LIMITS}),
    "package": TaskParameters(PackageConfig, {"name": "deploy_model_name"}),
    "deploy": TaskParameters(DeployConfig, {**_WHERE_SERVING, **{name: f"deploy_{name}" for name in _ROLLOUT}}),
}
_GPUS = TaskParameters(GpuRequest, {name: f"gpu_{name}" for name in ("type", "count", "node_selector", "tolerations")})
_STORE = TaskParameters(DatasetStore, {"store": "data_store"})
# Parameters with paths that one task writes and another task, or the next run, reads.
_KEPT = ("data_baseline", "data_store", "data_tile_cache", "train_checkpoints")
# Placeholders for outputs of other tasks, whose existence isn't checked with the parameters.
_PLACES = {"evaluations": (Path("."),)}


def check_parameters(given: Mapping[str, object]) -> dict[str, object]:
    """Check every parameter of the pipeline by the rules of its step.

    In a pod of Kubeflow Pipelines, also check that results are stored outside the pod, and that the deploy target works
    there.

    Args:
        given: Every parameter of the pipeline by its name; other keys are ignored.

    Returns:
        Settings of the assemble step.

    Raises:
        ConfigError: Parameters are wrong; the message names each of them.
    """
    given, problems = _with_one_source(given)
    wrong = dict.fromkeys(problems)  # without duplicates, in order: several tasks may use the same parameter
    for task in (*TASKS.values(), _GPUS, _STORE):
        wrong |= dict.fromkeys(_check(task, given))
    if in_pod():
        wrong |= dict.fromkeys(_problems_in_a_pod(given))
    if wrong:
        raise ConfigError(
            f"wrong pipeline parameters: {'; '.join(wrong)}. No data was read; start a run with other values"
        )
    return TASKS["assemble"].values(given)


def _problems_in_a_pod(given: Mapping[str, object]) -> list[str]:
    """Return the problems on a cluster, where each task has its own pod, and so its own disk."""
    problems = find_lost({name: str(given[name]) for name in _KEPT})
    root, target = str(given["deploy_model_root"]), given["deploy_target"]
    if target != "none" and is_lost(root):
        problems.append(
            f"deploy_model_root: {root!r} is lost with its pod, and nothing could serve it; give a gs:// address that "
            "the endpoint's pods can read, or set deploy_target to 'none' to end with a packaged model"
        )
    if target == "local" and not given["deploy_endpoint"]:
        problems.append(
            "deploy_target: 'local' needs deploy_endpoint on a cluster, the address of a server that follows "
            "deploy_model_root; set deploy_target to 'kserve' to deploy to KServe, or to 'none' to end with a packaged "
            "model"
        )
    return problems


def _with_one_source(given: Mapping[str, object]) -> tuple[Mapping[str, object], list[str]]:
    """Return the parameters reduced to one source of tiles, and the problems found.

    `data_labels` overrides the default of `data`, the sample. `data_labels` together with a folder is an error.
    """
    data, labels = given["data"], given["data_labels"]
    if labels and data not in ("", _SAMPLE):
        return {**given, "data": ""}, [f"data, data_labels: give one of them; got {data!r} and {labels!r}"]
    if not labels and data == "":
        return {**given, "data": _SAMPLE}, ["data: give a folder, 'sample', or data_labels instead; got ''"]
    return ({**given, "data": ""} if labels else given), []


def _check(task: TaskParameters, given: Mapping[str, object]) -> list[str]:
    values = task.values(given)
    needed = [name for name, setting in task.config.model_fields.items() if setting.is_required()]
    needed += task.outputs
    places = {name: _PLACES.get(name, Path("of-the-task")) for name in needed if name not in values}
    try:
        task.config.model_validate({**places, **values})
    except ValidationError as error:
        return [_explain(item, task) for item in error.errors()]
    return []


def _explain(item: Any, task: TaskParameters) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    """Return the message of an error, with the parameter and the position in it."""
    message = item["msg"].removeprefix("Value error, ")
    if not item["loc"]:  # an error of several settings together
        return _FLAG.sub(lambda flag: task.settings.get(flag[1].replace("-", "_"), flag[0]), message)
    setting, *inside = item["loc"]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in inside)
    return f"{task.settings[str(setting)]}{place}: {message}; got {item['input']!r}"
