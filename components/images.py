"""The container images of the steps, and the reference of each, whose tag follows from its content.

Five images by the packages that steps need, and `train-gpu`, the second variant of `train`; all of them hold the whole
of `sat_xception`, as its wheel. `components/Dockerfile` has a target for each.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from sat_xception.errors import ConfigError

__all__ = [
    "IMAGES",
    "LOCAL_REGISTRY",
    "LOCK_FILE",
    "TRAIN_DEVICES",
    "build_files",
    "chosen_images",
    "content_tag",
    "image",
    "read_lock",
    "train_device",
    "training_note",
    "unbuilt_images",
]

ROOT = Path(__file__).resolve().parents[1]
# Written by `make images` and `make push`: their options, the images built, and the registry pushed to.
LOCK_FILE = ROOT / "components" / "images.lock"
# By the repository name of each image: the locks in `components/locks/` of its layers, the lowest first. In the order
# of the Dockerfile's targets: Docker's classic builder also makes the stages before a target.
IMAGES: dict[str, tuple[str, ...]] = {
    "light": ("light",),
    "data": ("light", "data"),
    "train": ("light", "train"),
    "validate": ("light", "train", "validate"),
    "score": ("light", "train", "score"),
    "train-gpu": ("light", "train-gpu"),
}
# Device of trainings: values of $TRAIN_DEVICE and `make images TRAIN_DEVICE=…`.
TRAIN_DEVICES = ("gpu", "cpu")
# Registry part of the names of images that are not pushed yet.
LOCAL_REGISTRY = "sat-xception"
_GPU_IMAGE = "train-gpu"


def image(name: str) -> str:
    """Return the reference of an image, for instance `sat-xception/light:3f9c2a81d0e4`.

    $IMAGE_REGISTRY sets the registry (default: the one of the last `make push`, or `sat-xception`), $IMAGE_TAG replaces
    the tag, and `train_device` selects one of the two variants of `train`.
    """
    if name == "train" and train_device() == "gpu":
        name = _GPU_IMAGE
    registry = os.environ.get("IMAGE_REGISTRY") or read_lock().get("registry") or LOCAL_REGISTRY
    return f"{registry.rstrip('/')}/{name}:{os.environ.get('IMAGE_TAG') or content_tag(name)}"


def train_device() -> str:
    """Return the device of trainings, "gpu" or "cpu": $TRAIN_DEVICE, or that of the last `make images`, or "gpu".

    Raises:
        ConfigError: $TRAIN_DEVICE is neither.
    """
    given = os.environ.get("TRAIN_DEVICE")
    if given and given not in TRAIN_DEVICES:
        raise ConfigError(f"TRAIN_DEVICE is {given!r} in the environment; it must be {' or '.join(TRAIN_DEVICES)}")
    return given or read_lock().get("choices", {}).get("train_device") or "gpu"


def training_note() -> str:
    """Return a note for the user if the training pipeline is compiled for CPUs; "" if for GPUs."""
    if train_device() == "gpu":
        return ""
    return f"trainings use the CPU image {image('train')} (TRAIN_DEVICE=cpu), and gpu_count is 0 unless a run gives it"


def chosen_images(device: str) -> tuple[str, ...]:
    """Return the images to build and push: all of them, or with "cpu" all but the one for GPUs."""
    return tuple(name for name in IMAGES if device != "cpu" or name != _GPU_IMAGE)


def unbuilt_images() -> list[str]:
    """Return the chosen images that `make images` hasn't built since their content changed."""
    known = read_lock().get("images", {})
    chosen = chosen_images(train_device())
    return [name for name in chosen if known.get(name, {}).get("tag") != content_tag(name)]


@cache
def content_tag(name: str) -> str:
    """Return the tag of an image: the first 12 hexadecimal digits of the SHA-256 of its Dockerfile, locks and code.

    The code is what the wheel is made of. The README, which is in the wheel's metadata, doesn't count.

    Raises:
        KeyError: There is no such image.
    """
    digest = hashlib.sha256(_code_digest())
    for path, content in build_files(IMAGES[name]):
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def build_files(locks: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Yield the files, but for the wheel, that images with these locks are built from: path in the context, content."""
    components = ROOT / "components"
    yield "Dockerfile", (components / "Dockerfile").read_bytes()
    yield "LICENSE", (ROOT / "LICENSE").read_bytes()
    for lock in ("kfp-runtime", *locks):
        yield f"locks/{lock}.txt", (components / "locks" / f"{lock}.txt").read_bytes()


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
        raise ConfigError(f"{LOCK_FILE} isn't the JSON that `make images` writes; remove it, then run `make images`")
    return lock


@cache
def _code_digest() -> bytes:
    """Return the SHA-256 of the package's files, and of the settings that the wheel is built with."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = {key: value for key, value in settings["project"].items() if key != "optional-dependencies"}
    built_with = [project, settings["build-system"], settings["tool"]["hatch"]]
    digest = hashlib.sha256(json.dumps(built_with, sort_keys=True).encode())
    for path in sorted((ROOT / "sat_xception").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(ROOT).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.digest()
