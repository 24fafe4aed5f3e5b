"""Deploy a packaged model.

Target "local" is a model root, in a folder or a bucket, that `sat_xception serve` watches as TensorFlow Serving does.
The version is copied, and its golden tiles are scored at the endpoint. If the results differ, the version is removed,
and the previous one goes on serving. Target "kserve" is a cluster: see `kserve`. With target "none" the package is only
checked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sat_xception.clock import timestamp
from sat_xception.deploy.availability import wait_until_available
from sat_xception.deploy.deployment import CheckedPackage, Deployment
from sat_xception.deploy.release import copy_version
from sat_xception.deploy.report import DeployResult, NotDeployedResult, PlanResult
from sat_xception.deploy.settings import DeployConfig
from sat_xception.errors import ConfigError
from sat_xception.log import get_logger
from sat_xception.serve.access import Access
from sat_xception.serve.client import EndpointClient
from sat_xception.serve.settings import ServeConfig
from sat_xception.served_model.golden import GoldenTiles, check_golden
from sat_xception.served_model.model_root import (
    check_digests,
    known_versions,
    remove_version,
    resolve_version,
)
from sat_xception.served_model.packaged_model import PackagedModel
from sat_xception.settings.config import load_config
from sat_xception.storage import atomic_folder

__all__ = ["deploy", "deploy_locally"]

_log = get_logger(__name__)


def deploy(config: DeployConfig) -> DeployResult | NotDeployedResult | PlanResult:
    """Deploy the newest packaged version, and verify with its golden tiles that the endpoint serves it.

    Raises:
        SatXceptionError: See `deploy_locally` and `deploy_to_cluster`.

    Example:
        result = deploy(DeployConfig(package="models/serving", model_root="endpoint", target="local"))
        print(result.summary())
    """
    if config.target == "auto":
        config = load_config(DeployConfig, None, {**config.model_dump(), "target": "local"})
    if config.target == "none":
        result: DeployResult | NotDeployedResult | PlanResult = _check_package(config)
    elif config.target == "kserve":
        from sat_xception.deploy.kserve import deploy_to_cluster

        result = deploy_to_cluster(config)
    else:
        result = deploy_locally(config)
    if isinstance(result, PlanResult):
        return result
    return replace(result, failed=PackagedModel.read(resolve_version(config.package, config.name)).failed_candidates)


def _check_package(config: DeployConfig) -> NotDeployedResult:
    source = resolve_version(config.package, config.name)
    check_digests(source)
    served = PackagedModel.read(source)
    record = CheckedPackage(name=served.name, version=served.version, backbone=served.backbone, model=served.model)
    if config.out:
        with atomic_folder(config.out, record=record.file_name) as work:
            record.write(work)
    return NotDeployedResult(record, reason=config.reason)


def deploy_locally(config: DeployConfig) -> DeployResult:
    """Copy the newest packaged version into the model root, and verify that it answers.

    If the version is deployed already, it is only verified again.

    Raises:
        ConfigError: The model root holds a newer version or can't be written, or there is no package.
        DataError: The package is damaged: a file differs from its digest.
        ModelError: The version doesn't load, or its golden tiles get other scores; it has been removed again.
        ServiceError: The running endpoint doesn't answer, or a bucket can't be read or written.
    """
    source = resolve_version(config.package, config.name)
    check_digests(source)
    served = PackagedModel.read(source)
    version = served.version
    target = config.model_root / config.name / str(version)
    before = max((number for number in known_versions(target.parent) if number != version), default=None)
    if before is not None and before > version:
        raise ConfigError(
            f"{target.parent} holds version {before}, which is newer than {version}, and the newest is the one that "
            "answers; package the model again, or remove the newer version"
        )
    was_there = copy_version(source, target)
    try:
        difference = _prove(config, source, version)
    except BaseException:
        if not was_there:
            remove_version(target)
            _log.error("rolled back: version %s is out of %s again", target.name, target.parent)
        raise
    record = Deployment(
        name=config.name,
        version=version,
        version_before=before,
        backbone=served.backbone,
        model=served.model,
        model_root=str(config.model_root),
        endpoint=config.endpoint,
        golden_tiles=len(GoldenTiles.read(source).tiles),
        golden_difference=difference,
        serve_command=f"sat_xception serve --model-root {config.model_root} --name {config.name}",
        deployed_at=timestamp(),
    )
    if config.out:
        with atomic_folder(config.out, record=record.file_name) as work:
            record.write(work)
    return DeployResult(record)


def _prove(config: DeployConfig, source: Path, version: int) -> float:
    with _endpoint(config) as addresses:
        differences = []
        access = Access.find() if config.endpoint else Access()
        for address in addresses:
            with EndpointClient(address, config.name, version=version, access=access) as client:
                wait_until_available(client, version, config.timeout_s)
                differences.append(check_golden(source, client))
    return max(differences)


@contextlib.contextmanager
def _endpoint(config: DeployConfig) -> Iterator[list[str]]:
    """Yield the addresses to verify: those of the running endpoint, or of a temporary server."""
    if config.endpoint:
        yield [config.endpoint]
        return
    try:
        # Imported here: it needs TensorFlow, which the image of this step doesn't have.
        from sat_xception.serve.server import RunningServer
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"no server can be started here for the proof ({error.name} isn't installed); start one that follows "
            f"{config.model_root}, with `sat_xception serve --wait`, and give its address as --endpoint"
        ) from None
    settings = ServeConfig(model_root=config.model_root, name=config.name, rest_port=0, grpc_port=0)
    with RunningServer(settings) as server:
        yield [server.rest_url, f"grpc://{server.grpc_address}"]
