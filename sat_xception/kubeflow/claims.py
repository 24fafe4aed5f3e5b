"""Check the volumes of a run in its first task: results can be written, and all tasks can mount the claims at once."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from sat_xception.deploy.k8s_client import connect
from sat_xception.deploy.k8s_kinds import CLAIM
from sat_xception.deploy.k8s_objects import PersistentVolumeClaim
from sat_xception.errors import ConfigError, SatXceptionError
from sat_xception.kubeflow.pod import own_namespace
from sat_xception.kubeflow.volumes import RESULTS_FOLDER, Volume, find_volumes
from sat_xception.log import get_logger

__all__ = ["find_volume_problems", "warn_of_claims"]

_log = get_logger(__name__)
# Access modes in which all nodes can mount a claim: to write, and to read.
_WRITTEN_BY_ALL = {"ReadWriteMany"}
_READ_BY_ALL = {"ReadWriteMany", "ReadOnlyMany"}


@dataclass(frozen=True)
class _OwnCluster:
    """The cluster and the namespace of this pod."""

    namespace: str
    kubeconfig: Path | None = None
    context: str = ""


def find_volume_problems() -> list[str]:
    """Return what is wrong with the volumes of this task."""
    return [problem for volume in find_volumes() if (problem := _problem(volume))]


def warn_of_claims() -> None:
    """Ask the cluster for the claims of this task, and warn of those that not all tasks can mount at once.

    The tasks of a run may be on several nodes. A claim that one node alone can mount is right on a cluster of one node,
    so it is no error.
    """
    for volume in find_volumes():
        _warn_of_access_modes(volume)


def _problem(volume: Volume) -> str:
    folder = Path(volume.folder)
    if not folder.is_dir():
        return f"{volume.variable}: {volume} isn't mounted at {folder}: compile the pipeline again"
    if volume.folder != RESULTS_FOLDER:
        return ""
    try:
        # Asking for permissions isn't enough: a server of NFS has rules of its own.
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return (
            f"{volume.variable}: the tasks, user and group 65532, can't write to {volume}: {error.strerror}. Let them "
            f"write to it (`chown 65532:65532` of that folder), or give another folder"
        )
    return ""


def _warn_of_access_modes(volume: Volume) -> None:
    try:
        modes = _access_modes(volume.claim)
    except (SatXceptionError, OSError) as error:
        _log.warning(
            "volume    couldn't ask how many nodes can mount claim %s (%s). If only one can, tasks that run at the "
            "same time wait for each other: see docs/storage.md",
            volume.claim,
            error,
        )
        return
    if modes & (_WRITTEN_BY_ALL if volume.folder == RESULTS_FOLDER else _READ_BY_ALL):
        return
    whose = "pod" if modes == {"ReadWriteOncePod"} else "node"
    _log.warning(
        "volume    claim %s (%s) is %s: one %s at a time mounts it. Tasks that run at the same time, such as the "
        "trainings, wait for each other%s. Use a claim with %s: see docs/storage.md",
        volume.claim,
        volume.variable,
        ", ".join(sorted(modes)) or "of unknown access",
        whose,
        " unless they are on one node" if whose == "node" else "",
        "ReadWriteMany" if volume.folder == RESULTS_FOLDER else "ReadOnlyMany or ReadWriteMany",
    )


def _access_modes(claim: str) -> set[str]:
    """Return the access modes of a claim: those of its volume, once it has one."""
    namespace = own_namespace()
    with connect(_OwnCluster(namespace)) as cluster:
        found = cluster.get(CLAIM, claim)
    if found is None:
        raise ConfigError(f"there is no PersistentVolumeClaim {claim} in namespace {namespace}")
    return PersistentVolumeClaim.of(found).access_modes
