"""Deploy to KServe: roll out a release, roll back, and list the rollouts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from sat_xception.deploy.deployment import Deployment
from sat_xception.deploy.history import History
from sat_xception.deploy.inference_service import difference
from sat_xception.deploy.k8s_client import KubernetesClient, connect
from sat_xception.deploy.k8s_objects import KubernetesObject
from sat_xception.deploy.lock import rollout_lock
from sat_xception.deploy.preflight import inspect_cluster, storage_row
from sat_xception.deploy.preflight_report import Preflight
from sat_xception.deploy.release import Release, copy_version, open_release, release_of
from sat_xception.deploy.report import DeployResult, PlanResult
from sat_xception.deploy.rollout import Rollout, strategy_of
from sat_xception.deploy.rollout_record import REPLACED, SERVING, RolloutRecord
from sat_xception.deploy.settings import DeployConfig, DeploymentsConfig, RollbackConfig, RolloutConfig
from sat_xception.errors import ConfigError
from sat_xception.log import get_logger
from sat_xception.process import ending_well
from sat_xception.served_model.model_root import has_version, resolve_version
from sat_xception.storage import atomic_folder, folder_digests, stored_path
from sat_xception.storage.files import dump_json

__all__ = ["deploy_to_cluster", "list_deployments", "rollback"]

_log = get_logger(__name__)


def deploy_to_cluster(config: DeployConfig) -> DeployResult | PlanResult:
    """Roll out the newest packaged version on a cluster, or with `dry_run` report what would change.

    A version that is deployed already is verified again. After a kill, the next run first restores the traffic.

    Raises:
        ConfigError: No package, no cluster, or the cluster isn't ready; nothing was changed.
        DataError: The package is damaged.
        ModelError: The version doesn't load or gives wrong results. The previous version serves again.
        ServiceError: The cluster, the endpoint or the bucket fails. The previous version serves again.
    """
    source = resolve_version(config.package, config.name)
    release = release_of(source, config.model_root, config.name, config.storage_uri)
    place = stored_path(release.place)
    with connect(config) as cluster:
        report = inspect_cluster(
            cluster, config, lambda: storage_row(place, has_version(place), len(folder_digests(source)))
        )
        if config.dry_run:
            return PlanResult(f"{report.table()}\n\n{_plan(cluster, config, report, release)}")
        report.check()
        config = report.complete(config)
        with _rollout(cluster, config, report) as rollout:
            rollout.recover()
            copy_version(source, place)
            record = rollout.run(source, release)
    return _report(config, release, record, config.out)


def rollback(config: RollbackConfig) -> DeployResult:
    """Roll out an earlier release again: the given version, or the last verified one before the current one.

    Without a version, a rollout that was killed is the one that is rolled back.

    Raises:
        ConfigError: There is no such release, or the cluster isn't ready.
        DataError: The release's files have changed since it was rolled out.
        ModelError: The release doesn't give the same results as before.
        ServiceError: The cluster, the endpoint or the bucket fails; or a rollout is in progress.

    Example:
        result = rollback(RollbackConfig(endpoint="https://classifier.example.org"))
        print(result.summary())
    """
    with connect(config) as cluster:
        history = History(cluster, config.name)
        report = inspect_cluster(cluster, config, lambda: f"{len(history.records)} rollouts are on record")
        report.check()
        config = report.complete(config)
        with _rollout(cluster, config, report) as rollout:
            recovered = rollout.recover()
            serving = rollout.history.serving
            if recovered and serving and config.to in (0, serving.version):
                release = serving.release
            else:
                release = _earlier(rollout.history, config.to)
            place = stored_path(release.place)
            record = rollout.run(open_release(release, place), release, may_be_older=True)
    return _report(config, release, record, config.out)


def list_deployments(config: DeploymentsConfig) -> PlanResult:
    """List the rollouts on record, the newest first.

    Raises:
        ConfigError: There is no cluster.
        DataError: The history is damaged.
        ServiceError: The cluster doesn't answer.
    """
    with connect(config) as cluster:
        records = History(cluster, config.name).records
    if config.as_json:
        return PlanResult(dump_json([record.content() for record in records], indent=2, ensure_ascii=False))
    if not records:
        return PlanResult(f"no rollout of {config.name} is on record in namespace {config.namespace}")
    cells = [("version", "state", "backbone", "strategy", "began", "why")]
    cells += [
        (
            str(record.version),
            record.state,
            record.backbone,
            record.strategy,
            record.started_at,
            " ".join(record.reason.split()) or (record.stage if not record.finished_at else ""),
        )
        for record in records
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return PlanResult("\n".join(lines))


@contextlib.contextmanager
def _rollout(cluster: KubernetesClient, config: RolloutConfig, report: Preflight) -> Iterator[Rollout]:
    strategy = strategy_of(report.strategy, cluster, config, report.template)
    with ending_well(), rollout_lock(cluster, config.name) as lock:
        yield Rollout(cluster, config, strategy, report.template, lock)


def _plan(cluster: KubernetesClient, config: DeployConfig, report: Preflight, release: Release) -> str:
    """Return the plan of a rollout, as far as the cluster permits a dry run."""
    if report.problems:
        return "plan      none, until the problems above are put right"
    strategy = strategy_of(report.strategy, cluster, config, report.template)
    current = strategy.current()
    before = f"version {current.version} ({current.service})" if current else "nothing"
    steps = " -> ".join(f"{percent} %" for percent in (config.traffic_steps if current else (100,)))
    lines = [
        f"plan      version {release.version} of {release.name}, {release.backbone}; now: {before}; traffic: {steps}, "
        f"{config.step_minutes:g} minutes each",
        f"storage   {release.storage_uri}",
    ]
    for planned in strategy.plan(release, current):
        name = KubernetesObject.of(planned.manifest).metadata.name
        live = cluster.get(planned.kind, name)
        after = cluster.apply(planned.kind, planned.manifest, dry_run=True, force=planned.force)
        lines.append(difference(live, after) or f"{planned.kind.kind} {name}: no change")
    return "\n".join([*lines, "dry run: nothing was changed"])


def _earlier(history: History, version: int) -> Release:
    record = history.proved(version)
    if record is None:
        known = sorted({one.version for one in history.records if one.state in (SERVING, REPLACED)})
        wanted = f"version {version}" if version else "an earlier version"
        raise ConfigError(
            f"no rollout of {wanted} that passed its proof is on record; on record: "
            f"{', '.join(map(str, known)) or 'none'}. Deploy a package instead"
        )
    return record.release


def _report(config: RolloutConfig, release: Release, record: RolloutRecord, out: Path | None) -> DeployResult:
    """Return the deployment record, and write it to `out` if given."""
    assert record.golden_tiles is not None and record.golden_difference is not None, "it serves, so it was proved"
    deployment = Deployment(
        name=release.name,
        version=release.version,
        version_before=record.before.version if record.before else None,
        backbone=release.backbone,
        model=release.model,
        model_root=release.storage_uri,
        endpoint=config.endpoint,
        endpoint_host=config.endpoint_host,
        golden_tiles=record.golden_tiles,
        golden_difference=record.golden_difference,
        serve_command="",
        deployed_at=record.finished_at,
        rollout=record,
    )
    if out:
        with atomic_folder(out, record=deployment.file_name) as work:
            deployment.write(work)
    return DeployResult(deployment)
