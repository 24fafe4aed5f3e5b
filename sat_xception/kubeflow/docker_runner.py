"""Run each step of a pipeline in a container: kfp's DockerRunner, and the server that deploy checks a model with."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import docker.errors
from kfp import local

from sat_xception.errors import ConfigError, ServiceError
from sat_xception.log import get_logger

__all__ = ["Server", "check_images", "step_containers"]

_log = get_logger(__name__)
# User of the images, used if root starts them. Other users run them as themselves, so that they own the files.
_IMAGE_USER = 65532
# The requirements of Kubernetes' `restricted` policy, and a read-only root filesystem.
_CONFINED: dict[str, Any] = {
    "read_only": True,
    "tmpfs": {"/tmp": "exec"},
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
}
_SERVER_REST_PORT = 8501


def check_images(references: Iterable[str]) -> None:
    """Check that images exist on this machine.

    Raises:
        ServiceError: No Docker daemon answers.
        ConfigError: An image is missing.
    """
    with _client() as client:
        known = {tag for found in client.images.list() for tag in found.tags}
    missing = sorted(set(references) - known)
    if missing:
        raise ConfigError(f"{len(missing)} images aren't on this machine, {missing[0]} is the first; run `make images`")


@dataclass(frozen=True)
class Server:
    """The server of the model root.

    Attributes:
        image: Image that has the serve step.
        model_root: Folder that deploy writes to and the server reads.
        name: Name that the model is served as.
    """

    image: str
    model_root: Path
    name: str


@contextlib.contextmanager
def step_containers(
    folder: Path,
    server: Server,
    read: Iterable[Path],
    write: Collection[Path],
    environment: dict[str, str],
) -> Iterator[tuple[local.DockerRunner, str]]:
    """Yield kfp's runner for steps in containers, and the address at which they reach a server of the model root.

    Steps and server share a network of their own, and run unprivileged with read-only root filesystems. Only `folder`,
    the model root, `read` and `write` are mounted, each at the same path as on this machine.

    Args:
        folder: The pipeline root, which steps write to.
        server: The server to start; its model root is the folder that deploy writes to.
        read: Files and folders that steps read.
        write: Further folders that steps write to; missing ones are created.
        environment: Environment variables of the steps.

    Raises:
        ServiceError: No Docker daemon answers, or the server can't be started.
    """
    for writable in (folder, server.model_root, *write):
        writable.mkdir(parents=True, exist_ok=True)
        if os.getuid() == 0:
            os.chown(writable, _IMAGE_USER, _IMAGE_USER)
    user = f"{os.getuid() or _IMAGE_USER}:{os.getgid() or _IMAGE_USER}"
    with _client() as client, _network(client, f"sat-xception-{folder.name}") as network:
        shared = {**_CONFINED, "user": user, "network": network}
        mounts = [docker.types.Mount(str(path), str(path), "bind", read_only=True) for path in read]
        mounts += [docker.types.Mount(str(path), str(path), "bind") for path in (server.model_root, *write)]
        with _serving(client, server, shared) as host:
            # As in Kubernetes, kfp's command replaces the image's entry point.
            runner = local.DockerRunner(**shared, entrypoint=[""], mounts=mounts, environment=environment)
            yield runner, f"http://{host}:{_SERVER_REST_PORT}"


@contextlib.contextmanager
def _client() -> Iterator[Any]:
    try:
        client = docker.from_env()
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        raise ServiceError(
            f"no Docker daemon answers: {error}. Start Docker, set $DOCKER_HOST, or leave out --runner docker"
        ) from None
    with contextlib.closing(client):
        yield client


@contextlib.contextmanager
def _network(client: Any, name: str) -> Iterator[str]:  # noqa: ANN401 - docker's client has no types
    network = client.networks.create(name, driver="bridge")
    try:
        yield name
    finally:
        # After an interrupt, the step's container is still running.
        network.reload()
        for container in network.containers:
            container.remove(force=True)
        network.remove()


@contextlib.contextmanager
def _serving(client: Any, server: Server, shared: dict[str, Any]) -> Iterator[str]:  # noqa: ANN401
    """Start the embedded server on a model root that may still be empty; yield its host name."""
    host = "endpoint"
    try:
        container = client.containers.run(
            server.image,
            ["serve", "--wait", "--host", "0.0.0.0", "--model-root", str(server.model_root), "--name", server.name],
            name=f"{shared['network']}-{host}",
            hostname=host,
            networking_config={shared["network"]: client.api.create_endpoint_config(aliases=[host])},
            volumes={str(server.model_root): {"bind": str(server.model_root), "mode": "ro"}},
            detach=True,
            **shared,
        )
    except docker.errors.DockerException as error:
        raise ServiceError(f"the server of the model root can't be started: {error}") from None
    try:
        yield host
    finally:
        _log.debug("serve     %s", container.logs().decode(errors="replace"))
        container.remove(force=True)
