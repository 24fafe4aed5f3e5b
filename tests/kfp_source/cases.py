"""Runs of the pipelines that the walk takes, and what shall come of them: data alone, for the tests of this folder.

Tasks are called what kfp makes of their components' names; the second of a component ends in "-2".
"""

from __future__ import annotations

from typing import Any

from sat_xception.kubeflow.bulk_settings import BULK as BULK_SETTINGS
from sat_xception.kubeflow.training_settings import TRAINING as SETTINGS

__all__ = ["BULK", "BULK_PARAMETERS", "TRAINING", "Names", "checked", "planned"]


class Names:
    """Tasks of the training pipeline.

    Attributes:
        SOURCE: The task that returns what the dataset is made of, or its address in the store.
        CACHED: What a second run on the same source takes from the cache, whatever the gate's limits.
        BEFORE: What runs whatever the gate says, notify included.
        AFTER: What runs when a model passed.
        GROUP: The group of these.
        GATE: The task that returns the winner.
        TRAININGS: What asks for GPUs.
    """

    SOURCE = "check"
    CACHED = frozenset({"assemble", "convert", "validate", "train", "train-2", "evaluate", "evaluate-2"})
    BEFORE = CACHED | {"check", "evaluate-serving", "gate", "notify"}
    AFTER = frozenset({"package", "deploy"})
    GROUP = "condition-2"
    GATE = "gate"
    TRAININGS = frozenset({"train", "train-2"})


def checked(source: str = "gs://a/data/0", **parameters: object) -> dict[str, dict[str, str]]:
    """Return the outputs of the first task of the training for parameters of the pipeline."""
    settings = SETTINGS.check(parameters)
    settings.pop("assemble")
    return {Names.SOURCE: {"source": source, "baseline_run": "", **settings}}


_PASSED = {**checked(), Names.GATE: {"Output": "xception"}}
_NONE = {**checked(), Names.GATE: {"Output": "none"}}
_SELECTOR = {"cloud.google.com/gke-accelerator": "nvidia-l4"}
_TOLERATIONS = [
    {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "spot", "operator": "Equal", "value": "true", "effect": "NoExecute", "tolerationSeconds": 60},
]

# By the name of the case: the run, and of its trainings the GPUs, the node selector and the tolerations.
TRAINING: dict[str, tuple[dict[str, Any], dict[str, str], dict[str, str] | None, list[dict[str, Any]] | None]] = {
    "defaults": ({"outputs": _PASSED}, {"nvidia.com/gpu": "1"}, None, None),
    "no GPU": ({"outputs": _PASSED, "parameters": {"gpu_count": "0"}}, {"nvidia.com/gpu": "0"}, None, None),
    "two GPUs": ({"outputs": _PASSED, "parameters": {"gpu_count": "2"}}, {"nvidia.com/gpu": "2"}, None, None),
    "GPUs of another maker": (
        {"outputs": _PASSED, "parameters": {"gpu_type": "amd.com/gpu"}},
        {"amd.com/gpu": "1"},
        None,
        None,
    ),
    "chosen nodes": (
        {"outputs": _PASSED, "parameters": {"gpu_node_selector": _SELECTOR, "gpu_tolerations": _TOLERATIONS}},
        {"nvidia.com/gpu": "1"},
        _SELECTOR,
        _TOLERATIONS,
    ),
    "no model passes": ({"outputs": _NONE}, {"nvidia.com/gpu": "1"}, None, None),
}

BULK_PARAMETERS = {
    "area": "gs://bucket/area.gpkg",
    "imagery": "gs://bucket/{z}/{x}/{y}.jpg",
    "model_root": "gs://bucket/models",
    "scores": "gs://bucket/scores",
}


def planned(parts: list[str]) -> dict[str, dict[str, Any]]:
    """Return what the first two tasks of the bulk pipeline return."""
    texts = BULK_SETTINGS.check(BULK_PARAMETERS)
    return {"bulk-check": {name: texts[name] for name in ("plan", "publish")}, "bulk-plan": {"Output": parts}}


# By the name of the case: the parts that the plan returns, and the tasks that run.
BULK: dict[str, tuple[list[str], set[str]]] = {
    "one part": (["1/1"], {"bulk-check", "bulk-plan", "bulk-predict[0]", "bulk-predict-2", "bulk-publish", "notify"}),
    "three parts": (
        ["1/3", "2/3", "3/3"],
        {
            "bulk-check",
            "bulk-plan",
            "bulk-predict[0]",
            "bulk-predict[1]",
            "bulk-predict[2]",
            "bulk-predict-2",
            "bulk-publish",
            "notify",
        },
    ),
}
