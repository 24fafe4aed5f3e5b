"""Find a model's versions on disk: `<model root>/<name>/<version>/saved_model.pb`, with `model.json` beside it."""

from __future__ import annotations

from pathlib import Path

from sat_xception.errors import ConfigError, ModelError
from sat_xception.storage import read_json

__all__ = ["DIGESTS_FILE", "SAVED_MODEL_FILE", "find_versions", "read_classes", "resolve_version"]

SAVED_MODEL_FILE = "saved_model.pb"
# SHA-256 of every other file of a packaged version.
DIGESTS_FILE = "digests.json"
_MAX_VERSION = 2**63 - 1  # ModelSpec.version is an int64


def find_versions(folder: Path) -> dict[int, Path]:
    """Return the versions in a model's folder by number, ascending.

    Folders whose name isn't a number, or that hold no `saved_model.pb` yet, are copies under way and left out.

    Raises:
        OSError: The folder can't be listed, or doesn't exist.
    """
    versions: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        name = path.name
        if name.isascii() and name.isdecimal() and int(name) <= _MAX_VERSION and (path / SAVED_MODEL_FILE).is_file():
            versions.setdefault(int(name), path)
    return dict(sorted(versions.items()))


def resolve_version(path: Path, name: str) -> Path:
    """Return the folder of one version.

    Args:
        path: A version's folder, a model's folder (its newest version counts), or a model root that holds `name`.
        name: Name of the model in a model root.

    Raises:
        ConfigError: There is no version at any of these places.
    """
    if (path / SAVED_MODEL_FILE).is_file():
        return path
    for folder in (path, path / name):
        if folder.is_dir() and (versions := find_versions(folder)):
            return versions[max(versions)]
    raise ConfigError(
        f"no packaged model at {path}: looked for {SAVED_MODEL_FILE}, <version>/{SAVED_MODEL_FILE} and "
        f"{name}/<version>/{SAVED_MODEL_FILE}. Name what `sat_xception package` wrote as --model and --name"
    )


def read_classes(version: Path) -> list[str]:
    """Return the class names of a packaged version in the order of its probabilities, from its model.json.

    Raises:
        DataError: No model.json, or a damaged one.
        ModelError: It doesn't list the classes.
    """
    classes = read_json(version / "model.json", made_by="package").get("classes")
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise ModelError(
            f"{version / 'model.json'} lists no classes (found {classes!r}); run `sat_xception package` again"
        )
    return classes
