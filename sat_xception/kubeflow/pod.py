"""What a task knows of the pod of Kubeflow Pipelines that it runs in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from sat_xception.errors import ConfigError

__all__ = ["check_kept", "find_lost", "in_pod", "is_lost"]

# Set in the pod of every task by the Argo compiler (argocompiler/common.go, `commonEnvs`), and nowhere else.
_POD_ENV = "KFP_POD_NAME"


def in_pod() -> bool:
    """Return whether this process is a task of Kubeflow Pipelines on a cluster, where each task has its own disk."""
    return _POD_ENV in os.environ


def is_lost(path: str) -> bool:
    """Return whether what is written to a path is gone with the pod: it is no address and no mounted folder."""
    return "://" not in path and not (Path(path).is_absolute() and Path(path).is_dir())


def find_lost(parameters: Mapping[str, str]) -> list[str]:
    """Return a message for each parameter that names something to keep on the pod's own disk; "" names nothing.

    Args:
        parameters: Paths or addresses by the parameter that gives them.
    """
    return [
        f"{name}: {path!r} is lost with its pod; give a gs:// address, or a folder of a mounted volume"
        for name, path in parameters.items()
        if path and is_lost(path)
    ]


def check_kept(parameters: Mapping[str, str]) -> None:
    """Refuse parameters that name something to keep on the disk of a pod; elsewhere than in a pod all is well.

    Args:
        parameters: Paths or addresses by the parameter that gives them.

    Raises:
        ConfigError: In a pod, some would be lost.
    """
    if in_pod() and (lost := find_lost(parameters)):
        raise ConfigError(
            f"wrong pipeline parameters: {'; '.join(lost)}. Nothing was read; start a run with other values"
        )
