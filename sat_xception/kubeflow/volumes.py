"""Volumes of the pipelines on a cluster: existing claims, one for data and one for results.

Kubeflow's driver can't leave a mount out while a pipeline runs: an empty name of a claim is an error, and a path in it
is constant (`makeVolumeMountPatch` in driver/k8s.go of 2.16 and 2.17). So volumes are variables of the environment when
a pipeline is compiled, and the tasks get the same variables. See docs/decisions/0031-volumes-when-compiled.md.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from sat_xception.errors import ConfigError

__all__ = ["DATA_FOLDER", "RESULTS_FOLDER", "Volume", "claim_address", "find_volumes", "mounted_path", "using_volumes"]

# Where tasks find the volumes.
DATA_FOLDER = "/data"
RESULTS_FOLDER = "/results"
_FOLDERS = {"DATA_VOLUME": DATA_FOLDER, "RESULTS_VOLUME": RESULTS_FOLDER}
_SCHEME = "pvc://"
# A label of RFC 1123. Claims may have dots in their names, but Kubeflow's driver names a pod's volume after its claim.
_CLAIM = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
# Names of the other volumes of the pods: of our Secrets, and Kubeflow's own.
_TAKEN = ("custom-ca", "kfp-launcher", "kfp-workspace", "sat-xception-endpoint", "sat-xception-storage")
# Argo would replace {{…}}; the others are no part of a path, or not on every volume.
_REFUSED = re.compile(r"[\x00-\x1f\\:]|\{\{")


@dataclass(frozen=True)
class Volume:
    """A claim that tasks mount.

    Attributes:
        variable: The variable that names it.
        folder: Where it is mounted.
        claim: Name of the PersistentVolumeClaim, in the namespace of the runs.
        sub_path: Folder of the claim that is mounted; "" for all of it.
    """

    variable: str
    folder: str
    claim: str
    sub_path: str

    def __str__(self) -> str:
        """Return the value of the variable."""
        return f"{self.claim}/{self.sub_path}" if self.sub_path else self.claim

    @property
    def address(self) -> str:
        """The folder as pods that mount the claim themselves address it, `pvc://claim/path`."""
        return f"{_SCHEME}{self}"

    def holds(self, path: str) -> bool:
        """Return whether a path is in the volume."""
        return ".." not in PurePosixPath(path).parts and PurePosixPath(path).is_relative_to(self.folder)


def find_volumes() -> tuple[Volume, ...]:
    """Return the volumes that $DATA_VOLUME and $RESULTS_VOLUME name, each as CLAIM or CLAIM/FOLDER.

    Raises:
        ConfigError: A name or a path can't be right, or both are one claim.
    """
    given = {variable: os.environ.get(variable, "").strip() for variable in _FOLDERS}
    found = tuple(_volume(variable, text) for variable, text in given.items() if text)
    if len({volume.claim for volume in found}) < len(found):
        raise ConfigError(
            f"DATA_VOLUME={given['DATA_VOLUME']}, RESULTS_VOLUME={given['RESULTS_VOLUME']}: Kubeflow can't mount one "
            f"claim twice in a task. Give RESULTS_VOLUME={found[0].claim} alone, and data as a path below "
            f"{RESULTS_FOLDER}"
        )
    return found


def _volume(variable: str, text: str) -> Volume:
    claim, _, folder = text.partition("/")
    sub_path = folder.rstrip("/")
    if not _CLAIM.fullmatch(claim):
        raise ConfigError(
            f"{variable}={text}: {claim!r} can't be mounted; expected the name of a PersistentVolumeClaim, at most 63 "
            "lower-case letters, digits and hyphens, and perhaps a folder in it, as nas/tiles"
        )
    if claim in _TAKEN:
        raise ConfigError(
            f"{variable}={text}: the tasks have another volume of the name {claim!r}; use a claim of another name"
        )
    if any(part in ("", ".", "..") for part in sub_path.split("/") if sub_path) or _REFUSED.search(sub_path):
        raise ConfigError(
            f"{variable}={text}: {folder!r} is no folder of a claim; expected a path such as tiles/2026, without '..', "
            "'//', a colon, a backslash or '{{'"
        )
    return Volume(variable, _FOLDERS[variable], claim, sub_path)


@contextlib.contextmanager
def using_volumes(data: str, results: str) -> Iterator[None]:
    """Set the variables for the block; "" leaves one as it is."""
    given = {name: value for name, value in zip(_FOLDERS, (data, results), strict=True) if value}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def mounted_path(address: str) -> str:
    """Return the path in a task of an address `pvc://claim/path`; "" if no volume holds it."""
    wanted = PurePosixPath(address.removeprefix(_SCHEME))
    if not address.startswith(_SCHEME) or ".." in wanted.parts:
        return ""
    held = (volume for volume in find_volumes() if wanted.is_relative_to(str(volume)))
    return next((str(PurePosixPath(volume.folder, wanted.relative_to(str(volume)))) for volume in held), "")


def claim_address(path: str) -> str:
    """Return the address `pvc://claim/path` of a path in a task; "" if it is in no volume."""
    volume = next((volume for volume in find_volumes() if volume.holds(path)), None)
    if volume is None:
        return ""
    below = PurePosixPath(path).relative_to(volume.folder)
    return volume.address if below == PurePosixPath() else f"{volume.address}/{below}"
