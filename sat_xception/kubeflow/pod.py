"""Detect a pod of Kubeflow Pipelines, and paths whose content would be lost with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from sat_xception.storage.object_store import INSTALLATION_KEYS

__all__ = ["find_lost", "in_pod", "is_lost", "record_folder"]

# Set by the Argo compiler in the pod of every task (argocompiler/common.go, `commonEnvs`), and nowhere else.
_POD_ENV = "KFP_POD_NAME"
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
# Of Kubeflow Pipelines, with all that isn't a profile's; its bucket is named in the manifests of the installation.
_OWN_NAMESPACE, _BUCKET = "kubeflow", "mlpipeline"


def in_pod() -> bool:
    """Return whether this process is a task of Kubeflow Pipelines on a cluster, where each task has its own disk."""
    return _POD_ENV in os.environ


def record_folder() -> str:
    """Return the address for the record of a run without a baseline: in the store of the installation, if there is one.

    All tasks of a run must find it, also notify, which gets nothing from the others; so it is that of an installation
    as it comes. A profile's keys reach the folder `private/<namespace>/` (see `deploy_target.model_root_beside`).
    """
    if not in_pod() or not os.environ.get(INSTALLATION_KEYS["accesskey"]):
        return ""
    namespace = _NAMESPACE.read_text(encoding="utf-8").strip() if _NAMESPACE.is_file() else _OWN_NAMESPACE
    profile = "" if namespace == _OWN_NAMESPACE else f"private/{namespace}/"
    return f"minio://{_BUCKET}/{profile}sat-xception/last-run"


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
