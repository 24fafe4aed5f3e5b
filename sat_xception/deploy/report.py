"""The results of deploy, their summaries, and the deployment record as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from sat_xception.deploy.deployment import CheckedPackage, Deployment
from sat_xception.deploy.rollout_record import RolloutRecord
from sat_xception.reports.markdown import plain, table

__all__ = ["DeployResult", "NotDeployedResult", "PlanResult", "deployment_markdown"]


@dataclass(frozen=True)
class DeployResult:
    """Result of a deployment.

    Attributes:
        record: Content of `deployment.json`.
        failed: Why other candidates of the run have no model, by backbone.
    """

    record: Deployment
    failed: Mapping[str, str] = field(default_factory=dict)

    def outcome(self) -> str:
        """Return what is deployed, in one phrase, and the other candidates whose training failed."""
        what = f"{self.record.backbone} is deployed as {self.record.name} version {self.record.version}"
        return what + _told_of_others(self.failed)

    def summary(self) -> str:
        """Return the deployed version, and the command that starts the endpoint."""
        record = self.record
        where = f"at {_shown_endpoint(record)}" if record.endpoint else "over REST and gRPC"
        lines = [
            f"deploy    {record.name} version {record.version} answers its {record.golden_tiles} golden tiles "
            f"{where} within {record.golden_difference:.1g}"
        ]
        if record.rollout:
            lines += _rollout_lines(record.rollout)
        if not record.endpoint:
            lines.append(f"start it  {record.serve_command}")
        return "\n".join(lines)

    def markdown(self) -> str:
        """Return the record as a page of the Kubeflow UI."""
        return deployment_markdown(self.record)


@dataclass(frozen=True)
class NotDeployedResult:
    """A package that was checked, and not deployed.

    Attributes:
        record: Content of `deployment.json`.
        failed: Why other candidates of the run have no model, by backbone.
        reason: Why it isn't deployed; "" if this was asked for.
    """

    record: CheckedPackage
    failed: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""

    def outcome(self) -> str:
        """Return what was packaged, in one phrase, and the other candidates whose training failed."""
        what = f"{self.record.backbone} is packaged as {self.record.name} version {self.record.version}"
        what += f" and not deployed: {self.reason}" if self.reason else ""
        return what + _told_of_others(self.failed)

    def summary(self) -> str:
        """Return what was packaged, and that nothing was deployed."""
        return f"deploy    nothing (target none): {self.outcome()}"

    def markdown(self) -> str:
        """Return what to do with the package, as a page of the Kubeflow UI."""
        name = self.record.name
        why = plain(self.reason) if self.reason else "`deploy_target` is `none`"
        return (
            f"# {plain(name)} version {self.record.version} is packaged and not deployed\n\n"
            f"{why}.\n\nThe package is the artifact `served_model` of the task Package. Download it, and serve it:\n\n"
            f"    sat_xception serve --model-root served_model --name {name}\n"
        )


@dataclass(frozen=True)
class PlanResult:
    """Plan of a deployment, or a list of deployments.

    Attributes:
        text: Text for stdout, such as the checks of the cluster and the planned changes.
    """

    text: str

    def summary(self) -> str:
        """Return the text."""
        return self.text


def _told_of_others(failed: Mapping[str, str]) -> str:
    return "".join(f"; the training of {backbone} failed: {reason}" for backbone, reason in failed.items())


def deployment_markdown(record: Deployment) -> str:
    """Return a deployment record as Markdown, with a link to the version's status and the commands to inspect it."""
    name, version, endpoint = record.name, record.version, record.endpoint
    facts = [
        ("version", str(version)),
        ("version before", str(record.version_before or "none")),
        ("backbone", record.backbone),
        ("digest of the Keras model", record.model),
        ("model root", record.model_root),
        ("endpoint", _shown_endpoint(record) or "none was given: a server was started for the proof alone"),
        ("golden tiles", f"{record.golden_tiles} answered within {record.golden_difference:.1g}"),
        ("deployed at", record.deployed_at),
    ]
    lines = [f"# {plain(name)} version {version} answers", "", *table(("model", name), facts, numbers_from=2), ""]
    if record.rollout:
        lines += [*_rollout_table(record.rollout), ""]
    if not endpoint:
        return "\n".join([*lines, "Start the endpoint:", "", f"    {record.serve_command}", ""])
    if endpoint.startswith(("grpc://", "grpcs://")):
        return "\n".join([*lines, "It speaks gRPC; ask it:", "", f"    {_predict(name, endpoint)}", ""])
    host = record.endpoint_host
    status = f"{endpoint.rstrip('/')}/v1/models/{quote(name)}/versions/{version}"
    lines += [] if host else [f"[Status of the version]({quote(status, safe=':/')})", ""]
    lines += [
        "Ask for its status, and for a prediction:",
        "",
    ]
    header = f" -H 'Host: {host}'" if host else ""
    return "\n".join([*lines, f"    curl -s{header} {status}", f"    {_predict(name, endpoint, host)}", ""])


def _predict(name: str, endpoint: str, host: str = "") -> str:
    command = f"sat_xception predict tile.jpg --name {name} --endpoint {endpoint}"
    return f"{command} --host-header {host}" if host else command


def _shown_endpoint(record: Deployment) -> str:
    return record.endpoint + (f", host {record.endpoint_host}" if record.endpoint_host else "")


def _rollout_lines(rollout: RolloutRecord) -> list[str]:
    return [f"traffic   {' | '.join(cells)}" for cells in _steps(rollout)]


def _rollout_table(rollout: RolloutRecord) -> list[str]:
    return table(("traffic", "requests", "failed", "p95 new", "p95 old"), _steps(rollout), numbers_from=2)


def _steps(rollout: RolloutRecord) -> list[tuple[str, ...]]:
    def milliseconds(value: float | None) -> str:
        return "" if value is None else f"{value:g} ms"

    return [
        (
            f"{step.percent} %",
            f"{step.requests:,}",
            f"{step.failed:,}",
            milliseconds(step.p95_new_ms),
            milliseconds(step.p95_old_ms),
        )
        for step in rollout.steps
    ]
