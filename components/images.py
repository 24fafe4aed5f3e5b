"""The container image of each step: the files that go into it, and the reference that follows from them.

An image holds only the modules that its step imports, so a change in one step's code changes the tags of only the
images that contain it. Kubeflow's cache compares image references, so only tasks whose code changed run again.

Dockerfiles run this module as a script to select the files, before anything else is installed, so it imports only the
standard library.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

__all__ = [
    "IMAGES",
    "LOCAL_REGISTRY",
    "LOCK_FILE",
    "TRAIN_DEVICES",
    "chosen_images",
    "content_tag",
    "copy_code",
    "image",
    "read_lock",
    "step_code",
    "step_of",
    "train_device",
    "training_note",
    "unbuilt_images",
]

ROOT = Path(__file__).resolve().parents[1]
# Written by `make images` and `make push`: their options, the images built, and the registry pushed to.
LOCK_FILE = ROOT / "components" / "images.lock"
# Repository name of each image. `train` has two variants, which differ in their TensorFlow.
IMAGES = (
    "assemble",
    "convert",
    "validate",
    "train",
    "train-gpu",
    "evaluate",
    "gate",
    "package",
    "deploy",
    "serve",
    "notify",
    "bulk_plan",
    "bulk_predict",
    "bulk_publish",
)
# Device of trainings: values of $TRAIN_DEVICE and `make images TRAIN_DEVICE=…`.
TRAIN_DEVICES = ("gpu", "cpu")
_PACKAGE = "sat_xception"
# Components that share an image, where it isn't the one of their own name.
_SHARING = {"assemble": ("check",), "evaluate": ("evaluate_serving",)}
# Registry part of the names of images that are not pushed yet.
LOCAL_REGISTRY = "sat-xception"
# Modules that every step needs: the command line and the registry of steps.
_ENTRY_MODULES = (f"{_PACKAGE}.__main__", f"{_PACKAGE}.cli", f"{_PACKAGE}.steps")
# Files that a module reads beside it.
_DATA = {
    f"{_PACKAGE}/reports/page.py": f"{_PACKAGE}/reports/templates",
    f"{_PACKAGE}/review/page.py": f"{_PACKAGE}/review/static",
}


def image(step: str) -> str:
    """Return the reference of a step's image, for instance `sat-xception/gate:3f9c2a81d0e4`.

    $IMAGE_REGISTRY sets the registry (default: the one of the last `make push`, or `sat-xception`), $IMAGE_TAG replaces
    the tag, and `train_device` selects one of the two images of `train`.
    """
    name = "train-gpu" if step == "train" and train_device() == "gpu" else step
    registry = os.environ.get("IMAGE_REGISTRY") or read_lock().get("registry") or LOCAL_REGISTRY
    return f"{registry.rstrip('/')}/{name}:{os.environ.get('IMAGE_TAG') or content_tag(name)}"


def train_device() -> str:
    """Return the device of trainings, "gpu" or "cpu": $TRAIN_DEVICE, or that of the last `make images`, or "gpu".

    Raises:
        ConfigError: $TRAIN_DEVICE is neither.
    """
    given = os.environ.get("TRAIN_DEVICE")
    if given and given not in TRAIN_DEVICES:
        from sat_xception.errors import ConfigError

        raise ConfigError(f"TRAIN_DEVICE is {given!r} in the environment; it must be {' or '.join(TRAIN_DEVICES)}")
    return given or read_lock().get("choices", {}).get("train_device") or "gpu"


def training_note() -> str:
    """Return a note for the user if the training pipeline is compiled for CPUs; "" if for GPUs."""
    if train_device() == "gpu":
        return ""
    return f"trainings use the CPU image {image('train')} (TRAIN_DEVICE=cpu), and gpu_count is 0 unless a run gives it"


def chosen_images(device: str) -> tuple[str, ...]:
    """Return the images to build and push: all of them, or with "cpu" all but the ones for GPUs."""
    return tuple(name for name in IMAGES if device != "cpu" or name == step_of(name))


def unbuilt_images() -> list[str]:
    """Return the chosen images that `make images` hasn't built since their content changed."""
    known = read_lock().get("images", {})
    chosen = chosen_images(train_device())
    return [name for name in chosen if known.get(name, {}).get("tag") != content_tag(name)]


def step_of(name: str) -> str:
    """Return the step of an image: `train` for both of its variants."""
    return name.removesuffix("-gpu")


@cache
def content_tag(name: str) -> str:
    """Return the tag of an image: the first 12 hexadecimal digits of the SHA-256 of its files."""
    step = step_of(name)
    folder = ROOT / "components" / step
    requirements = folder / ("requirements-gpu.txt" if name != step else "requirements.txt")
    files = [folder / "Dockerfile", requirements, ROOT / "components" / "kfp-runtime.txt"]
    digest = hashlib.sha256()
    for path in sorted({*files, *(ROOT / file for file in step_code(step))}):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


@cache
def step_code(step: str) -> tuple[str, ...]:
    """Return the files of the package that a step can reach by its imports, relative to the repository, sorted.

    Imports inside functions count too. It begins at the module that `sat_xception/steps/registry.py` names for the
    step, and at what the components that run in the image import.
    """
    found: set[str] = set()
    waiting = [file for module in (*_ENTRY_MODULES, _module_of(step)) if (file := _file_of(module))]
    for component in (step, *_SHARING.get(step, ())):
        if (contract := ROOT / "components" / component / "component.py").is_file():
            waiting += _imports(contract)
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += _imports(ROOT / file)
    for file, folder in _DATA.items():
        if file in found:
            found |= {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*") if path.is_file()}
    return tuple(sorted(found))


def copy_code(step: str, target: Path) -> None:
    """Copy what `step_code` names into a folder that is on Python's path."""
    for file in step_code(step):
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, target / file)


def read_lock() -> dict[str, Any]:
    """Return what `make images` and `make push` wrote: their `choices`, `images` by name, the `registry` they went to.

    Raises:
        ConfigError: The file isn't what they write.
    """
    try:
        lock = json.loads(LOCK_FILE.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        lock = None
    if not isinstance(lock, dict):
        from sat_xception.errors import ConfigError

        raise ConfigError(f"{LOCK_FILE} isn't the JSON that `make images` writes; remove it, then run `make images`")
    return lock


def _module_of(step: str) -> str:
    """Return the module of `step_named(step)`, read from the source: importing it would take pydantic."""
    group, _, verb = step.rpartition("_")
    wanted, key = ("BULK_VERBS", verb) if group == "bulk" else ("STEPS", step)
    tree = ast.parse((ROOT / _PACKAGE / "steps" / "registry.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == wanted):
            continue
        table = node.value
        assert isinstance(table, ast.Dict)
        for name, value in zip(table.keys, table.values, strict=True):
            if isinstance(name, ast.Constant) and name.value == key and isinstance(value, ast.Call):
                return str(ast.literal_eval(value.args[1])).split(":")[0]
    raise LookupError(f"{_PACKAGE}/steps/registry.py has no step {step!r}")


@cache
def _imports(path: Path) -> tuple[str, ...]:
    """Return the files of the package that a file imports, with those of the packages that they are in."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            if parts[0] == _PACKAGE:
                modules |= {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
    return tuple(file for module in sorted(modules) if (file := _file_of(module)))


def _file_of(module: str) -> str | None:
    """Return the file of a module, relative to the repository; None for a name inside a module."""
    path = Path(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if (ROOT / file).is_file():
            return file.as_posix()
    return None


if __name__ == "__main__":
    copy_code(sys.argv[1], Path(sys.argv[2]))
