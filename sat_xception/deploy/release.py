"""Releases: each version in a folder of its own, so that a predictor's pods can't load another version.

When a pod starts, KServe copies everything below its storageUri into it, and TensorFlow Serving loads the newest
version in there. If the storageUri were a model's folder, a restarted pod would serve any newer version in it. So each
release is stored in `<root>/<name>-releases/<version>/<version>/`, and the storageUri is the folder above the version.
See docs/decisions/0024-one-version-a-storage-uri.md.
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
        name: Name of the model.
        version: Number of the version.
        place: Local folder or bucket address of the version, as this program reads and writes it.
        storage_uri: Address of the folder above it for the cluster's pods.
        digest: SHA-256 of its digest file, which covers all its files.
        backbone: Name of the backbone.
        model: SHA-256 of the Keras model that was exported.
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
    """Return the release for a packaged version; nothing is copied yet.

    Args:
        source: Local folder of the packaged version.
        root: Model root, in a folder or a bucket.
        name: Name of the model.
        storage_uri: Address of the root for the cluster's pods; "" if it is `root`.

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
        storage_uri=f"{storage_uri or _for_pods(root)}/{below}",
        digest=file_digest(source / DIGESTS_FILE),
        backbone=served.backbone,
        model=served.model,
        classes=served.classes,
    )


def _for_pods(root: Path) -> str:
    """Return the address of a model root as KServe knows it."""
    return str(root).replace("minio://", "s3://", 1) if str(root).startswith("minio://") else str(root)


def open_release(release: Release, place: Path) -> Path:
    """Return the local folder of a release, after checking it against the recorded digest.

    Raises:
        ConfigError: The release is missing.
        DataError: The digest differs.
        ServiceError: The bucket can't be read.
    """
    version = resolve_version(place, release.name)
    check_digests(version)
    if file_digest(version / DIGESTS_FILE) != release.digest:
        raise DataError(f"{place} isn't the package that was rolled out as version {release.version}; restore it")
    return version


def copy_version(source: Path, target: Path) -> bool:
    """Copy a version atomically; return whether it existed already.

    Raises:
        DataError: Another model has this version number.
    """
    if has_version(target):
        if folder_digests(here(target)) != folder_digests(source):
            raise DataError(f"{target} holds another model of this version; a version never changes, package a new one")
        return True
    with new_version(target) as work:
        shutil.copytree(source, work, dirs_exist_ok=True)
    return False
