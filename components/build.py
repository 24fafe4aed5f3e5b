"""Build and push the images: `python -m components.build [--push REGISTRY] [IMAGE ...]`.

An image's tag is the digest of its content, so an image that exists under its tag is not built again, unless its base
has changed. The options and each image built are written to `components/images.lock`, which the next build, `--push`
and compiling read.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from components.context import make_context
from components.images import (
    IMAGES,
    LOCAL_REGISTRY,
    LOCK_FILE,
    ROOT,
    TRAIN_DEVICES,
    chosen_images,
    content_tag,
    read_lock,
)
from sat_xception import __version__
from sat_xception.errors import ConfigError, SatXceptionError, ServiceError
from sat_xception.log import duration, get_logger, set_up_logging

__all__ = ["BuiltImage", "Choices", "build_image", "choose", "find_image", "main", "push_image", "write_lock"]

_log = get_logger(__name__)
_BASE_IMAGE = "python:3.13-slim-trixie"
_BASE_ID_LABEL = "org.opencontainers.image.base.digest"
_BASE_NAME_LABEL = "org.opencontainers.image.base.name"
# Given to a build where the environment has them: how the machine reaches PyPI.
_PASSED_ON = ("PIP_INDEX_URL", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


@dataclass(frozen=True)
class BuiltImage:
    """An image that exists on this machine.

    Attributes:
        name: Its name in `IMAGES`.
        tag: Digest of its content.
        image_id: Docker's digest of the image.
        size_bytes: Size of its layers, unpacked.
        base_id: Docker's digest of the image that it was built on.
        seconds: Build time; 0 if it existed already.
    """

    name: str
    tag: str
    image_id: str
    size_bytes: int
    base_id: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Choices:
    """Build options; stored in `images.lock`, so that commands after `make images` needn't repeat them.

    Attributes:
        base_image: Python image of Debian trixie that they are built on.
        base_id: Docker's digest of that image.
        train_device: One of `TRAIN_DEVICES`; "" as long as only some images, by name, were asked for.
    """

    base_image: str
    base_id: str
    train_device: str


def choose(base_image: str, train_device: str, *, push: bool, every: bool = True) -> Choices:
    """Return the build options: as given, or as in the last build, or the defaults.

    Args:
        base_image: "" when not given.
        train_device: "" when not given.
        push: Whether existing images are pushed, so that their options can't change.
        every: Whether all images are built, not only some by name.

    Raises:
        ConfigError: The images to push were built with other options.
        ServiceError: The base image can't be pulled.
    """
    recorded = read_lock().get("choices", {})
    if push:
        for variable, given, built in (
            ("BASE_IMAGE", base_image, recorded.get("base_image")),
            ("TRAIN_DEVICE", train_device, recorded.get("train_device")),
        ):
            if given and built and given != built:
                raise ConfigError(
                    f"{variable} is {given}, but the images were built with {variable}={built}. To push these, leave "
                    f"{variable} out (it may be set in the environment). To push others, build them first: "
                    f"make images {variable}={given}"
                )
    base_image = base_image or recorded.get("base_image") or _BASE_IMAGE
    base_id = recorded["base_id"] if push and recorded else _pull_missing(base_image)
    train_device = train_device or recorded.get("train_device") or ("gpu" if every else "")
    return Choices(base_image, base_id, train_device)


def build_image(name: str, choices: Choices, context: Path) -> BuiltImage:
    """Build an image, unless it is there already with the same content on the same base.

    Args:
        name: One of `IMAGES`.
        choices: What to build it on.
        context: The folder to build from; an empty one is filled if there is something to build.

    Raises:
        ConfigError: The base image is another one now than the one that was chosen.
        ServiceError: Docker isn't installed, the base can't be pulled, or the build failed.
    """
    base_image, base_id = choices.base_image, choices.base_id
    found = find_image(name)
    if found is not None and found.base_id == base_id:
        return found
    if (present := _pull_missing(base_image)) != base_id:
        raise ConfigError(
            f"{name} has to be built, and {base_image} is another image now ({_short(present)}) than the one that the "
            f"others were built on ({_short(base_id)}); run `make images`, which builds all of them on it"
        )
    started = time.monotonic()
    reference = _reference(name)
    _log.info("build     %s", reference)
    if not any(context.iterdir()):
        make_context(context)
    _docker("build", *_build_arguments(name, reference, base_image, base_id), str(context))
    found = find_image(name)
    if found is None:
        raise ServiceError(f"docker build said that it made {reference}, and there is no such image")
    return replace(found, seconds=time.monotonic() - started)


def find_image(name: str) -> BuiltImage | None:
    """Return an image on this machine with the present content, or None.

    Raises:
        ServiceError: The Docker daemon doesn't answer.
    """
    found = _inspect(_reference(name))
    if found is None:
        return None
    base_id = (found["Config"]["Labels"] or {}).get(_BASE_ID_LABEL, "")
    return BuiltImage(name, content_tag(name), found["Id"], found["Size"], base_id)


def push_image(built: BuiltImage, registry: str) -> str:
    """Push an image to a registry; return its reference there.

    Raises:
        ServiceError: The registry refuses it or can't be reached.
    """
    reference = f"{registry.rstrip('/')}/{built.name}:{built.tag}"
    _docker("tag", _reference(built.name), reference)
    _docker("push", reference)
    _log.info("pushed    %s", reference)
    return reference


def write_lock(images: Sequence[BuiltImage] = (), registry: str = "", choices: Choices | None = None) -> None:
    """Record images that were built, where they were pushed to, or what was chosen; everything else in the lock stays.

    An interruption leaves the old lock or the new one, never a part.

    Raises:
        ConfigError: The lock can't be read.
        ServiceError: It can't be written.
    """
    lock = read_lock()
    if choices is not None:
        lock["choices"] = asdict(choices)
    for built in images:
        facts = {"tag": built.tag, "id": built.image_id, "size_mb": round(built.size_bytes / 1e6)}
        lock.setdefault("images", {})[built.name] = facts
    if registry:
        lock["registry"] = registry.rstrip("/")
    part = LOCK_FILE.with_name(f"{LOCK_FILE.name}.part")
    try:
        part.write_text(json.dumps(lock, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        part.replace(LOCK_FILE)
    except OSError as problem:
        raise ServiceError(
            f"can't write {LOCK_FILE}: {problem.strerror or problem}. Once it can be written, run the same again"
        ) from problem


def _short(image_id: str) -> str:
    return image_id.removeprefix("sha256:")[:12]


def _reference(name: str) -> str:
    return f"{LOCAL_REGISTRY}/{name}:{content_tag(name)}"


def _build_arguments(name: str, reference: str, base_image: str, base_id: str) -> list[str]:
    arguments = ["--target", name, "--tag", reference]
    values = {"BASE_IMAGE": base_image, **{key: os.environ[key] for key in _PASSED_ON if os.environ.get(key)}}
    labels = {
        "org.opencontainers.image.version": __version__,
        "org.opencontainers.image.revision": _revision(),
        _BASE_NAME_LABEL: base_image,
        _BASE_ID_LABEL: base_id,
    }
    for key, value in values.items():
        arguments += ["--build-arg", f"{key}={value}"]
    for key, value in labels.items():
        arguments += ["--label", f"{key}={value}"]
    return arguments


def _revision() -> str:
    """Return the commit that is checked out; "" outside a checkout."""
    git = shutil.which("git")
    if git is None:
        return ""
    command = [git, "-C", str(ROOT), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _pull_missing(base_image: str) -> str:
    """Return Docker's digest of an image, pulled if it isn't on this machine."""
    found = _inspect(base_image)
    if found is None:
        try:
            _docker("pull", base_image)
        except ServiceError as problem:
            raise ServiceError(f"{problem}. The images are built on {base_image}; BASE_IMAGE=… names another") from None
        found = _inspect(base_image)
    if found is None:
        raise ServiceError(f"docker pulled {base_image}, and there is no such image")
    return str(found["Id"])


def _inspect(reference: str) -> dict[str, Any] | None:
    command = [_docker_path(), "image", "inspect", reference]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode == 0:
        found: dict[str, Any] = json.loads(finished.stdout)[0]
        return found
    if "no such image" in finished.stderr.lower():
        return None
    raise ServiceError(f"docker image inspect {reference} failed: {finished.stderr.strip()}. Is the Docker daemon up?")


def _docker(*arguments: str) -> None:
    """Run docker, with its output on stderr."""
    finished = subprocess.run([_docker_path(), *arguments], stdout=2, check=False)
    if finished.returncode:
        raise ServiceError(f"docker {arguments[0]} failed with exit code {finished.returncode}; its output is above")


def _docker_path() -> str:
    found = shutil.which("docker")
    if found is None:
        raise ConfigError("there is no `docker` on the path; install Docker to build images")
    return found


def main(arguments: Sequence[str]) -> None:
    """Build the images named on the command line, and push them if --push is given."""
    parser = argparse.ArgumentParser(prog="python -m components.build", description=__doc__)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help=f"one of {', '.join(IMAGES)}; default: all")
    again = "default: as the last time, or "
    parser.add_argument("--base-image", default="", help=f"Python image of Debian trixie; {again}{_BASE_IMAGE}")
    parser.add_argument("--train-device", default="", help=f"gpu, or cpu to leave out train-gpu; {again}gpu")
    parser.add_argument("--push", default="", metavar="REGISTRY", help="push to this registry, as ghcr.io/me/project")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.images) - set(IMAGES))
    if unknown:
        parser.error(f"unknown image {unknown[0]!r}; there are {', '.join(IMAGES)}")
    if options.train_device and options.train_device not in TRAIN_DEVICES:
        parser.error(f"TRAIN_DEVICE is {options.train_device!r}; it must be {' or '.join(TRAIN_DEVICES)}")
    choices = choose(options.base_image, options.train_device, push=bool(options.push), every=not options.images)
    write_lock(choices=choices)
    left_out = ", without train-gpu" if choices.train_device == "cpu" else ""
    _log.info("base      %s (%s)%s", choices.base_image, _short(choices.base_id), left_out)
    images = []
    with tempfile.TemporaryDirectory() as context:
        for name in options.images or chosen_images(choices.train_device):
            built = build_image(name, choices, Path(context))
            write_lock([built])
            images.append(built)
            how = duration(built.seconds) if built.seconds else "unchanged"
            print(f"{_reference(built.name):45} {built.size_bytes / 1e6:8,.0f} MB  {how}", flush=True)
    if options.push:
        for built in images:
            push_image(built, options.push)
        write_lock(registry=options.push)
    print(f"wrote     {os.path.relpath(LOCK_FILE)}")


if __name__ == "__main__":
    set_up_logging()
    try:
        main(sys.argv[1:])
    except SatXceptionError as problem:
        _log.error("error     %s", problem)
        sys.exit(problem.exit_code)
    except KeyboardInterrupt:
        _log.error("stopped   by the keyboard; what was built is kept: run the same command again to go on")
        sys.exit(130)
