"""Build and push the images of the steps: `python -m components.build [--push REGISTRY] [IMAGE ...]`.

An image's tag is the digest of what goes into it, so an image that exists under its tag is not built again, unless its
base has changed. What there is afterwards is written to `components/images.lock`, which compiling reads.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from components.images import IMAGES, LOCAL_REGISTRY, LOCK_FILE, ROOT, content_tag, read_lock, step_of
from sat_xception import __version__
from sat_xception.errors import ConfigError, SatXceptionError, ServiceError
from sat_xception.log import duration, get_logger, set_up_logging

__all__ = ["BuiltImage", "build_image", "find_image", "push_image", "write_lock"]

_log = get_logger(__name__)
_BASE_ID_LABEL = "org.opencontainers.image.base.digest"
_BASE_NAME_LABEL = "org.opencontainers.image.base.name"
# Given to a build where the environment has them: how the machine reaches PyPI.
_PASSED_ON = ("PIP_INDEX_URL", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


@dataclass(frozen=True)
class BuiltImage:
    """An image that exists on this machine.

    Attributes:
        name: Its name in `IMAGES`.
        tag: Digest of what went into it.
        image_id: Docker's digest of the image.
        size_bytes: Size of its layers, unpacked.
        base_id: Docker's digest of the image that it was built on.
        seconds: What building it took; 0 when it was there already.
    """

    name: str
    tag: str
    image_id: str
    size_bytes: int
    base_id: str
    seconds: float = 0.0


def build_image(name: str, base_image: str) -> BuiltImage:
    """Build an image, unless it is there already with the same content on the same base.

    Args:
        name: One of `IMAGES`.
        base_image: Python image of Debian trixie to build on.

    Raises:
        ServiceError: Docker isn't there, the base can't be had, or the build failed.
    """
    base_id = _pull_missing(base_image)
    found = find_image(name)
    if found is not None and found.base_id == base_id:
        return found
    started = time.monotonic()
    reference = _reference(name)
    _log.info("build     %s", reference)
    _docker("build", *_build_arguments(name, reference, base_image, base_id), str(ROOT))
    found = find_image(name)
    if found is None:
        raise ServiceError(f"docker build said that it made {reference}, and there is no such image")
    return replace(found, seconds=time.monotonic() - started)


def find_image(name: str) -> BuiltImage | None:
    """Return an image that is on this machine with its present content; None where there is none.

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


def write_lock(images: Sequence[BuiltImage], registry: str = "") -> None:
    """Record what was built and, if it was pushed, where to; what is said of other images stays."""
    lock = read_lock()
    for built in images:
        facts = {"tag": built.tag, "id": built.image_id, "size_mb": round(built.size_bytes / 1e6)}
        lock.setdefault("images", {})[built.name] = facts
    if registry:
        lock["registry"] = registry.rstrip("/")
    LOCK_FILE.write_text(json.dumps(lock, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _reference(name: str) -> str:
    return f"{LOCAL_REGISTRY}/{name}:{content_tag(name)}"


def _build_arguments(name: str, reference: str, base_image: str, base_id: str) -> list[str]:
    step = step_of(name)
    arguments = ["--file", str(ROOT / "components" / step / "Dockerfile"), "--tag", reference]
    values = {"BASE_IMAGE": base_image, **{key: os.environ[key] for key in _PASSED_ON if os.environ.get(key)}}
    if name != step:
        values["REQUIREMENTS"] = "requirements-gpu.txt"
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
    found = _inspect(base_image)
    if found is None:
        _docker("pull", base_image)
        found = _inspect(base_image)
    if found is None:
        raise ServiceError(f"there is no image {base_image}; name another as BASE_IMAGE")
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
    """Run docker; what it says goes to stderr."""
    finished = subprocess.run([_docker_path(), *arguments], stdout=2, check=False)
    if finished.returncode:
        raise ServiceError(f"docker {arguments[0]} failed with exit code {finished.returncode}; what it said is above")


def _docker_path() -> str:
    found = shutil.which("docker")
    if found is None:
        raise ConfigError("there is no `docker` on the path; install Docker to build images")
    return found


def _main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m components.build", description=__doc__)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help=f"one of {', '.join(IMAGES)}; default: all")
    parser.add_argument("--base-image", required=True, help="Python image of Debian trixie to build on")
    parser.add_argument("--push", default="", metavar="REGISTRY", help="push to this registry, as ghcr.io/me/project")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.images) - set(IMAGES))
    if unknown:
        parser.error(f"unknown image {unknown[0]!r}; there are {', '.join(IMAGES)}")
    images = [build_image(name, options.base_image) for name in options.images or IMAGES]
    for built in images:
        how = duration(built.seconds) if built.seconds else "unchanged"
        print(f"{_reference(built.name):45} {built.size_bytes / 1e6:8,.0f} MB  {how}")
    if options.push:
        for built in images:
            push_image(built, options.push)
    write_lock(images, options.push)
    print(f"wrote     {LOCK_FILE.relative_to(ROOT)}")


if __name__ == "__main__":
    set_up_logging()
    try:
        _main(sys.argv[1:])
    except SatXceptionError as problem:
        _log.error("error     %s", problem)
        sys.exit(problem.exit_code)
