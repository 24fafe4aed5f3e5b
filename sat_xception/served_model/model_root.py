"""Model roots: `<model root>/<name>/<version>/saved_model.pb` with `model.json`, in a folder or in a bucket.

Both have the same layout, so TensorFlow Serving and KServe can read a model root in a bucket as well.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from sat_xception.errors import ConfigError, DataError
from sat_xception.storage import (
    atomic_folder,
    folder_digests,
    is_committed,
    is_remote,
    local_folder,
    marked_below,
    prepare_upload,
    read_json,
    remove_committed,
    reporting_disk_errors,
    scratch_folder,
    upload_with_marker,
)

__all__ = [
    "DIGESTS_FILE",
    "MAX_VERSION",
    "SAVED_MODEL_FILE",
    "check_digests",
    "find_versions",
    "has_version",
    "here",
    "known_versions",
    "new_version",
    "read_digests",
    "remove_version",
    "resolve_version",
]

# TensorFlow Serving's ModelSpec.version is an int64.
MAX_VERSION = 2**63 - 1

SAVED_MODEL_FILE = "saved_model.pb"
# SHA-256 of every other file of a packaged version.
DIGESTS_FILE = "digests.json"


def find_versions(folder: Path) -> dict[int, Path]:
    """Return the versions in a model's folder by number, ascending; those in a bucket by their addresses.

    Folders whose name isn't a number, or that hold no `saved_model.pb` yet, are incomplete copies and left out. In a
    bucket a version counts once its digest file exists, which is written last.

    Raises:
        OSError: The folder can't be listed, or doesn't exist.
        ConfigError: There is no such bucket.
        ServiceError: The bucket can't be read.
    """
    if is_remote(folder):
        paths: Iterable[Path] = marked_below(folder, DIGESTS_FILE)
    else:
        paths = (path for path in sorted(folder.iterdir()) if (path / SAVED_MODEL_FILE).is_file())
    versions: dict[int, Path] = {}
    for path in paths:
        if path.name.isascii() and path.name.isdecimal() and int(path.name) <= MAX_VERSION:
            versions.setdefault(int(path.name), path)
    return dict(sorted(versions.items()))


def known_versions(folder: Path) -> dict[int, Path]:
    """Return the versions in a model's folder, as `find_versions` does; {} if the folder doesn't exist.

    Raises:
        OSError: The folder can't be listed.
        ConfigError: There is no such bucket.
        ServiceError: The bucket can't be read.
    """
    return find_versions(folder) if is_remote(folder) or folder.is_dir() else {}


def has_version(version: Path) -> bool:
    """Return whether a version exists; in a bucket, whether it is complete.

    Raises:
        ConfigError: There is no such bucket.
        ServiceError: The bucket can't be read.
    """
    return is_committed(version, DIGESTS_FILE) if is_remote(version) else version.exists()


def here(version: Path) -> Path:
    """Return the local folder of a version; one in a bucket is downloaded once.

    Raises:
        DataError: The version is incomplete.
        ServiceError: The bucket can't be read.
    """
    return local_folder(version, DIGESTS_FILE)


@contextlib.contextmanager
def new_version(version: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it becomes the version atomically if the block ends without an error.

    Args:
        version: `<model root>/<name>/<version>`, a local path or an address in a bucket.

    Raises:
        ConfigError: The version can't be written, or exists by now.
        ServiceError: The disk is full, or the bucket can't be written.
    """
    if not is_remote(version):
        with atomic_folder(version) as work:
            yield work
        return
    prepare_upload(version)
    with scratch_folder() as folder:
        with reporting_disk_errors(version, f"free some in {folder}, or set $TMPDIR to a folder on another disk"):
            yield folder
        upload_with_marker(folder, version, last=(SAVED_MODEL_FILE, DIGESTS_FILE))


def remove_version(version: Path) -> None:
    """Remove a version.

    Raises:
        ConfigError: There is no such bucket.
        ServiceError: The bucket can't be written.
    """
    if is_remote(version):
        remove_committed(version, DIGESTS_FILE)
    else:
        shutil.rmtree(version)


def resolve_version(path: Path, name: str) -> Path:
    """Return the local folder of a version.

    Args:
        path: Folder of a version, of a model (for its newest version), or a model root that holds `name`; local or in a
            bucket.
        name: Name of the model in a model root.

    Raises:
        ConfigError: No version was found.
        ServiceError: The bucket can't be read.
    """
    if is_committed(path, DIGESTS_FILE) if is_remote(path) else (path / SAVED_MODEL_FILE).is_file():
        return here(path)
    for folder in (path, path / name):
        if versions := known_versions(folder):
            return here(versions[max(versions)])
    raise ConfigError(
        f"no packaged model at {path}: looked for {SAVED_MODEL_FILE}, <version>/{SAVED_MODEL_FILE} and "
        f"{name}/<version>/{SAVED_MODEL_FILE}. Name what `sat_xception package` wrote as --model and --name"
    )


def read_digests(version: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a version, by its path relative to the version, as package wrote them.

    Raises:
        DataError: The digest file is missing or damaged.
    """
    digests = read_json(version / DIGESTS_FILE, made_by="package")
    for name, digest in digests.items():
        if not isinstance(digest, str):
            raise DataError(
                f"{version / DIGESTS_FILE} has {digest!r} as the digest of {name}, expected hexadecimal digits; "
                "package the model again"
            )
    return digests


def check_digests(version: Path) -> int:
    """Check a version's files against the digests that package wrote; return the number of files.

    Raises:
        DataError: A file is missing, changed or unexpected.
    """
    expected = read_digests(version)
    found = {name: digest for name, digest in folder_digests(version).items() if name != DIGESTS_FILE}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            state = (
                "is missing"
                if name not in found
                else "isn't in the package's digests"
                if name not in expected
                else "changed"
            )
            raise DataError(f"{version}/{name} {state} since it was packaged; package the model again")
    return len(found)
