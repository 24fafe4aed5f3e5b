"""Detect a pod of Kubeflow Pipelines, and paths whose content would be lost with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["find_lost", "in_pod", "is_lost"]

# Set by the Argo compiler in the pod of every task (argocompiler/common.go, `commonEnvs`), and nowhere else.
_POD_ENV = "KFP_POD_NAME"


def in_pod() -> bool:
    """Return whether this process is a task of Kubeflow Pipelines on a cluster, where each task has its own disk."""
    return _POD_ENV in os.environ


def is_lost(path: str) -> bool:
    """Return whether files at a path are lost with the pod: it is neither an address nor in a mounted folder."""
    return "://" not in path and not (Path(path).is_absolute() and Path(path).is_dir())


def find_lost(parameters: Mapping[str, str]) -> list[str]:
    """Return a message for each parameter whose path is on the pod's own disk; "" is ignored.

    Args:
        parameters: Paths or addresses by name of the parameter.
    """
    return [
        f"{name}: {path!r} is lost with its pod; give an address in a bucket, or a folder of a mounted volume"
        for name, path in parameters.items()
        if path and is_lost(path)
    ]
