"""Detect a pod of Kubeflow Pipelines, and paths whose content would be lost with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from sat_xception.kubeflow.volumes import DATA_FOLDER, RESULTS_FOLDER, find_volumes
from sat_xception.storage.object_store import INSTALLATION_KEYS

__all__ = ["find_lost", "find_unmounted", "in_pod", "is_lost", "own_namespace", "record_folder", "where_to"]

# Set by the Argo compiler in the pod of every task (argocompiler/common.go, `commonEnvs`), and nowhere else.
_POD_ENV = "KFP_POD_NAME"
# Written by the kubelet into every pod that has the token of its service account.
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
# Of Kubeflow Pipelines, with all that isn't a profile's; its bucket is named in the manifests of the installation.
_OWN_NAMESPACE, _BUCKET = "kubeflow", "mlpipeline"


def in_pod() -> bool:
    """Return whether this process is a task of Kubeflow Pipelines on a cluster, where each task has its own disk."""
    return _POD_ENV in os.environ


def own_namespace() -> str:
    """Return the namespace of this pod.

    Raises:
        OSError: This is no pod, or one without the token of a service account.
    """
    return _NAMESPACE.read_text(encoding="utf-8").strip()


def record_folder() -> str:
    """Return the address for the record of a run without a baseline: in the store of the installation, if there is one.

    All tasks of a run must find it, also notify, which gets nothing from the others; so it is that of an installation
    as it comes. A profile's keys reach the folder `private/<namespace>/` (see `deploy_target.model_root_beside`).
    """
    if not in_pod() or not os.environ.get(INSTALLATION_KEYS["accesskey"]):
        return ""
    namespace = own_namespace() if _NAMESPACE.is_file() else _OWN_NAMESPACE
    profile = "" if namespace == _OWN_NAMESPACE else f"private/{namespace}/"
    return f"minio://{_BUCKET}/{profile}sat-xception/last-run"


def is_lost(path: str) -> bool:
    """Return whether files at a path are lost with the pod: it is neither an address nor on a mounted volume."""
    return "://" not in path and not _is_mounted(path)


def find_lost(written: Mapping[str, str], read: Mapping[str, str] | None = None) -> list[str]:
    """Return a message for each parameter whose path is on the pod's own disk, or that is written to the data.

    Args:
        written: Paths or addresses by name of the parameter; "" is ignored.
        read: The same for paths that tasks only read.
    """
    problems = []
    for name, path in {**written, **(read or {})}.items():
        if path and is_lost(path):
            problems.append(f"{name}: {path!r} is lost with its pod; give an address in a bucket, or {where_to()}")
        elif name in written and any(volume.folder == DATA_FOLDER and volume.holds(path) for volume in find_volumes()):
            problems.append(
                f"{name}: {path!r} is in the volume for data, which no task writes to; give an address in a bucket, or "
                f"{where_to()}"
            )
    return problems


def find_unmounted(parameters: Mapping[str, str]) -> list[str]:
    """Return a message for each parameter that is an address pvc:// of a claim that no task mounts.

    Args:
        parameters: Paths or addresses by name of the parameter, with those in volumes as paths in a task.
    """
    return [
        f"{name}: {address} isn't mounted in the tasks; compile the pipeline with RESULTS_VOLUME=CLAIM or CLAIM/FOLDER "
        "that holds it, as `sat_xception submit --results-volume CLAIM/FOLDER` does"
        for name, address in parameters.items()
        if address.startswith("pvc:/")
    ]


def where_to() -> str:
    """Return how to name a folder that is kept, for messages."""
    if any(volume.folder == RESULTS_FOLDER for volume in find_volumes()):
        return f"a path below {RESULTS_FOLDER}, where the volume for results is mounted"
    return (
        f"mount a volume for a path below {RESULTS_FOLDER}: compile the pipeline with RESULTS_VOLUME=CLAIM, as "
        "`sat_xception submit --results-volume CLAIM` does"
    )


def _is_mounted(path: str) -> bool:
    """Return whether a path is in one of our volumes, or on another disk than the root of the pod."""
    here = Path(path)
    if not here.is_absolute() or ".." in here.parts:
        return False
    if any(volume.holds(path) for volume in find_volumes()):
        return True
    there = next(folder for folder in (here, *here.parents) if folder.exists())
    return there.stat().st_dev != Path("/").stat().st_dev
