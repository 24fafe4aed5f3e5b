"""Decide in the first task of a training run where its model is deployed, by asking the cluster.

With the default `deploy_target`, a run on a cluster deploys to KServe if KServe and the manifests of this project are
there, and otherwise ends with a packaged model and the reason. The default model root is in the store that Kubeflow
Pipelines keeps its artifacts in, which an artifact's address shows. See docs/decisions/0032-default-on-a-cluster.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from sat_xception.deploy.k8s_client import connect
from sat_xception.deploy.preflight import inspect_cluster
from sat_xception.deploy.preflight_report import Preflight, Row
from sat_xception.deploy.settings import DeployConfig
from sat_xception.errors import ConfigError, SatXceptionError, ServiceError
from sat_xception.kubeflow.claims import warn_of_claims
from sat_xception.kubeflow.pipeline_settings import Resolved
from sat_xception.kubeflow.pod import in_pod
from sat_xception.kubeflow.task_settings import TaskSettings
from sat_xception.kubeflow.training_settings import INSTALLATION_ROOT, LOCAL_ROOT, TRAINING, set_model_root
from sat_xception.log import get_logger
from sat_xception.reports.markdown import plain, table
from sat_xception.storage import check_writable, is_remote

__all__ = ["DeployTarget", "check_training", "model_root_beside"]

_log = get_logger(__name__)
_FOLDER = "sat-xception/models"
_STORE_TIMEOUT_S = 10.0
_SET_UP = "kubectl apply -k manifests/overlays/kubeflow"


@dataclass(frozen=True)
class DeployTarget:
    """Where the model of a run is deployed.

    Attributes:
        target: "local", "kserve" or "none".
        model_root: Model root.
        why_not_kserve: Why a run that would deploy to KServe by default doesn't; "" if it does, or isn't to.
        rows: Checks of the cluster, if it was asked.
    """

    target: str
    model_root: str = ""
    why_not_kserve: str = ""
    rows: tuple[Row, ...] = ()

    @property
    def reason(self) -> str:
        """Why the run ends with a packaged model, although this wasn't asked for; "" if it doesn't."""
        return self.why_not_kserve if self.target == "none" else ""

    def headline(self) -> str:
        """Return what happens to a model that passes the gate."""
        return {
            "kserve": f"a model that passes the gate is deployed to KServe from {self.model_root}",
            "local": f"a model that passes the gate is copied to {self.model_root}",
            "none": "this run ends with a packaged model, the artifact served_model of Package: nothing is deployed",
        }[self.target]

    def log(self) -> None:
        """Log the headline, and as a warning why the cluster isn't used."""
        _log.info("target    %s", self.headline())
        if self.why_not_kserve:
            _log.warning("target    not to KServe: %s. `%s` sets it up", self.why_not_kserve, _SET_UP)

    def markdown(self) -> str:
        """Return the decision and the checks of the cluster as a page of the Kubeflow UI."""
        headline = self.headline()
        lines = ["# Deployment", "", f"{plain(headline[0].upper() + headline[1:])}.", ""]
        if self.why_not_kserve:
            lines += [
                f"**Not to KServe**: {plain(self.why_not_kserve)}.",
                "",
                f"`{_SET_UP}` and the gateway of docs/kubeflow.md set it up; then start the run again: what it has "
                "computed comes from the cache. Or download the package, and serve it with `sat_xception serve`. With "
                "`deploy_target` `none` the cluster isn't asked.",
                "",
            ]
        if self.rows:
            cells = [(row.subject, "problem" if row.problem else "ok", row.problem or row.found) for row in self.rows]
            lines += table(("check", "result", "found"), cells, numbers_from=3)
        return "\n".join([*lines, ""])


def check_training(parameters: Mapping[str, object], artifact: str) -> tuple[dict[str, str], DeployTarget]:
    """Check all parameters of a training run, and decide where its model is deployed.

    Args:
        parameters: Parameters of the pipeline.
        artifact: Address of an artifact of the run, in the store of Kubeflow Pipelines.

    Returns:
        Settings of each task as JSON, and the decision.

    Raises:
        ConfigError: Settings are wrong, or "kserve" was asked for and something is missing on the cluster.
        ServiceError: "kserve" was asked for, and the cluster doesn't answer or a permission is missing.
    """
    TRAINING.check(parameters)  # names every mistake, before the cluster is asked
    if in_pod():
        warn_of_claims()
    decided: list[DeployTarget] = []
    texts = TRAINING.check(parameters, settle=lambda resolved: decided.append(_decide(resolved, artifact)))
    decided[0].log()
    return texts, decided[0]


def model_root_beside(artifact: str) -> str:
    """Return the default model root of a run, by the address of one of its artifacts.

    A profile's keys for the store of a multi-user Kubeflow only reach folders of the profile: artifacts are below
    `private-artifacts/<namespace>/`, whose files Kubeflow may delete after some days, and `private/<namespace>/` is
    for everything else (its pipelines-profile-controller, `sync.py`).
    """
    parts = urlsplit(artifact)
    if parts.scheme not in ("minio", "s3", "gs"):
        return INSTALLATION_ROOT
    first, _, rest = parts.path.strip("/").partition("/")
    profile = rest.partition("/")[0] if first == "private-artifacts" else ""
    return f"{parts.scheme}://{parts.netloc}/{f'private/{profile}/' if profile else ''}{_FOLDER}"


def _decide(resolved: Resolved, artifact: str) -> DeployTarget:
    deploy, serving = resolved.tasks["deploy"], resolved.tasks["evaluate_serving"]
    wanted, by_default = str(deploy.get("target")), deploy.get("model_root") == INSTALLATION_ROOT
    if not in_pod() or wanted not in ("auto", "kserve"):
        target = "local" if wanted == "auto" else wanted
        deploy.values["target"] = target
        return DeployTarget(target, str(deploy.get("model_root")))
    if by_default:
        set_model_root(resolved, model_root_beside(artifact))
    root = str(deploy.get("model_root"))
    deploy.values["target"] = "kserve"
    config, report = _ask(deploy)
    report.rows[:] = [row._replace(problem=deploy.renamed(row.problem)) for row in report.rows]
    if config and not report.problems:
        found = report.complete(config)
        # Until the first deployment the gateway has nothing to send requests to, and answers them with an error.
        endpoint = found.endpoint if report.has_traffic else ""
        serving.values |= {"endpoint": endpoint, "endpoint_host": found.endpoint_host if endpoint else ""}
        return DeployTarget("kserve", root, rows=tuple(report.rows))
    if wanted == "kserve":
        error = ServiceError if report.outside else ConfigError
        raise error(
            f"{deploy.names['target']} is 'kserve', and the cluster isn't ready for it: {report.problems} to put "
            f"right; no data was read. docs/kubeflow.md has the set-up; with 'none' the run ends with a packaged "
            f"model\n{report.table()}"
        )
    why, rows = report.problem_text, tuple(report.rows)
    if deploy.get("endpoint") and not by_default:  # a server that follows the model root
        deploy.values["target"] = "local"
        deploy.values.pop("storage_uri", None)  # of a volume, for KServe's pods
        return DeployTarget("local", root, why, rows)
    deploy.values["target"] = "none"
    if by_default:
        set_model_root(resolved, LOCAL_ROOT)  # nothing is there, and nothing is served
    return DeployTarget("none", root, why, rows)


def _ask(deploy: TaskSettings) -> tuple[DeployConfig | None, Preflight]:
    """Check the cluster for a deployment with these settings."""
    checked, faults = deploy.check()
    report = Preflight()
    if not isinstance(checked, DeployConfig):
        report.rows += [Row("settings", deploy.explain(fault), "") for fault in faults]
        return None, report
    config = checked
    try:
        with connect(config) as cluster:
            return config, inspect_cluster(cluster, config, lambda: _storage_row(config))
    except SatXceptionError as error:
        report.outside = isinstance(error, ServiceError)
        report.rows.append(Row("API server", str(error), ""))
    return config, report


def _storage_row(config: DeployConfig) -> str:
    if is_remote(config.model_root):
        check_writable(config.model_root, _STORE_TIMEOUT_S)
    return f"{config.model_root}: can be written"
