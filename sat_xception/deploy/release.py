"""A version in a place of its own, so that a predictor's pods can't load another one.

KServe copies what is below a predictor's storageUri into each pod when the pod starts, and TensorFlow Serving loads the
newest version it finds there. Pointed at a model's folder, a pod that restarts in the middle of the night would serve
whatever came there since. So each release is `<root>/<name>-releases/<version>/<version>/`, and the storageUri is the
folder above the version. See docs/decisions/0024-one-version-a-storage-uri.md.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from sat_xception.errors import DataError
from sat_xception.served_model.model_root import (
    DIGESTS_FILE,
    check_digests,
    has_version,
    here,
    new_version,
    resolve_version,
)
from sat_xception.served_model.packaged_model import PackagedModel
from sat_xception.storage import file_digest, folder_digests

__all__ = ["Release", "copy_version", "open_release", "release_of"]


@dataclass(frozen=True)
class Release:
    """A version that can be rolled out.

    Attributes:
        name: The model's name.
        version: Its version.
        place: Folder of the version, here or in a bucket, as this program reads and writes it.
        storage_uri: Folder above it, as the cluster's pods read it.
        digest: SHA-256 of its digest file, and so of all that is in it.
        backbone: Name of the network.
        model: SHA-256 of the Keras model that it was made of.
        classes: Class names, in the order of the probabilities.
    """

    name: str
    version: int
    place: str
    storage_uri: str
    digest: str
    backbone: str
    model: str
    classes: tuple[str, ...]


def release_of(source: Path, root: Path, name: str, storage_uri: str) -> Release:
    """Return what a packaged version is called as a release; nothing is copied yet.

    Args:
        source: The packaged version, on this machine.
        root: Model root, here or in a bucket.
        name: The model's name.
        storage_uri: The root as the cluster's pods name it; "" when that is `root`.

    Raises:
        DataError: The package is damaged.
    """
    check_digests(source)
    served = PackagedModel.read(source)
    below = f"{name}-releases/{served.version}"
    return Release(
        name=name,
        version=served.version,
        place=str(root / below / str(served.version)),
        storage_uri=f"{storage_uri or root}/{below}",
        digest=file_digest(source / DIGESTS_FILE),
        backbone=served.backbone,
        model=served.model,
        classes=served.classes,
    )


def open_release(release: Release, place: Path) -> Path:
    """Return a release's version on this machine, proved to be the one that was recorded.

    Raises:
        ConfigError: It is gone.
        DataError: It isn't what was recorded.
        ServiceError: The bucket can't be read.
    """
    version = resolve_version(place, release.name)
    check_digests(version)
    if file_digest(version / DIGESTS_FILE) != release.digest:
        raise DataError(f"{place} isn't the package that was rolled out as version {release.version}; restore it")
    return version


def copy_version(source: Path, target: Path) -> bool:
    """Copy a version so that it appears whole; return whether it was there already.

    Raises:
        DataError: Another model has this version.
    """
    if has_version(target):
        if folder_digests(here(target)) != folder_digests(source):
            raise DataError(f"{target} holds another model of this version; a version never changes, package a new one")
        return True
    with new_version(target) as work:
        shutil.copytree(source, work, dirs_exist_ok=True)
    return False
