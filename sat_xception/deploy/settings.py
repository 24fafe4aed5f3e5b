"""Settings of deployments and rollbacks."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from sat_xception.settings.config import StepConfig, second_name
from sat_xception.settings.types import (
    Address,
    FolderOrNone,
    Fraction,
    LocalFolderOrNone,
    Place,
    ResultOrNone,
    model_name,
)
from sat_xception.storage import is_remote

__all__ = ["DeployConfig", "DeploymentsConfig", "KubernetesConfig", "RollbackConfig", "RolloutConfig"]

# Addresses that mean the same to KServe as here; it has no az://, but https:// of an account.
_READ_BY_KSERVE = ("gs://", "s3://", "minio://")


def _goes_up_to_all(steps: tuple[int, ...]) -> tuple[int, ...]:
    rising = all(before < after for before, after in itertools.pairwise((0, *steps)))
    if not rising or steps[-1:] != (100,):
        raise ValueError("expected rising shares in % of which the last is 100, as 10 50 100")
    return steps


def _is_template(address: str) -> str:
    try:
        shown = address.format(service="service", namespace="namespace")
    except (LookupError, ValueError):
        shown = ""
    if "{service}" not in address or not shown.startswith(("http://", "https://")):
        raise ValueError("expected http://… or https://… with {service}, and {namespace} if need be")
    return address


def _is_storage_uri(address: str) -> str:
    if address and not address.startswith((*_READ_BY_KSERVE, "pvc://", "https://", "http://")):
        raise ValueError("expected what KServe reads: gs://, s3://, pvc:// or https://")
    return address.rstrip("/")


class KubernetesConfig(StepConfig):
    """The endpoint and its cluster."""

    name: str = model_name()
    namespace: str = Field(
        "sat-xception",
        pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        description="Namespace of the endpoint on the cluster.",
    )
    kubeconfig: LocalFolderOrNone = Field(
        None, description="Kubeconfig file. Default: $KUBECONFIG; the cluster's own inside a pod; ~/.kube/config."
    )
    context: str = Field("", description="Context in the kubeconfig. Default: the current one.")


class RolloutConfig(KubernetesConfig):
    """How a version is rolled out on a cluster, and the checks at each step."""

    endpoint: Address = Field(
        "",
        description="Address of the endpoint, as users reach it. Default: that of the HTTPRoute's Gateway, with the "
        "route's host name.",
    )
    endpoint_host: str = Field(
        "", description="Host header for --endpoint, if that is a gateway's IP address. Only on a cluster."
    )
    predictor_url: Annotated[str, AfterValidator(_is_template)] = Field(
        "http://{service}.{namespace}.svc.cluster.local",
        description="Address of a predictor's Service, as reached from this machine. Only on a cluster.",
    )
    strategy: Literal["auto", "two-services", "canary"] = Field(
        "auto",
        description="How traffic is split: KServe's own `spec.canary`, or two InferenceServices behind one HTTPRoute.",
    )
    traffic_steps: Annotated[tuple[int, ...], AfterValidator(_goes_up_to_all)] = Field(
        (10, 50, 100), description="Successive percentages of the traffic for the new version. Only on a cluster."
    )
    step_minutes: float = Field(
        2.0, ge=0, description="Minutes that each traffic percentage is observed. Only on a cluster."
    )
    start_minutes: float = Field(
        15.0, gt=0, description="Timeout for new pods to become ready, in minutes. Only on a cluster."
    )
    # Gateways took new weights up to 15 s after their HTTPRoute's condition said so; then requests have time to end.
    drain_s: float = Field(
        30.0,
        ge=0,
        description="Seconds that a predictor keeps running after it stops receiving traffic. Only on a cluster.",
    )
    tiles: FolderOrNone = Field(
        None,
        description="Folder of images for comparing the old and new version, in addition to the golden tiles. Only on "
        "a cluster.",
    )
    min_agreement: Fraction = Field(
        0.7,
        description="Minimum fraction of tiles that get the same class from the old and new version; 0 disables the "
        "check.",
    )
    max_errors: Fraction = Field(0.01, description="Maximum fraction of the rollout's own requests that may fail.")
    max_slowdown: float = Field(
        2.0,
        ge=0,
        description="Maximum ratio of the new version's 95th-percentile latency to the old one's; 0 disables the "
        "check.",
    )
    force_conflicts: bool = Field(False, description="Take over fields that other managers own. Only on a cluster.")
    timeout_s: float = Field(120.0, gt=0, description="Timeout for the new version to answer, in seconds.")
    out: ResultOrNone = Field(None, description="Folder to write the deployment record to.")


# Settings of a rollout that a local deployment uses too.
_LOCAL = ("name", "endpoint", "timeout_s", "out")


class DeployConfig(RolloutConfig):
    """Deploy a packaged model, and verify with its golden tiles that the endpoint serves it."""

    target: Literal["auto", "local", "kserve", "none"] = Field(
        "local",
        description="Deployment target: a model root that `sat_xception serve` watches, or KServe on a cluster. With "
        "none, the package is only checked. auto is local here; a pipeline on a cluster deploys to KServe with it if "
        "KServe and the manifests are there, and else ends with the package.",
    )
    package: Place = Field(description="Model root written by package.")
    model_root: Place = Field(description="Model root of the endpoint.")
    endpoint: Address = Field(
        "",
        description="REST address of a running server. Default: a temporary server is started for the check. With "
        "--target kserve, the address that users call; by default that of the HTTPRoute's Gateway.",
    )
    storage_uri: Annotated[str, AfterValidator(_is_storage_uri)] = Field(
        "",
        description="The model root as the cluster's pods address it, such as pvc://models/serving. Default: "
        "--model-root, if at gs:// or s3://; for one at minio://, the same at s3://.",
    )
    reason: str = Field("", description="Why the package is only checked, with --target none; shown in the result.")
    dry_run: bool = Field(False, description="Check the cluster and show what would change, without changing it.")

    @model_validator(mode="after")
    def _fits_the_target(self) -> DeployConfig:
        if self.reason and self.target != "none":
            raise ValueError("--reason goes with --target none")
        if self.target in ("none", "auto"):  # what auto becomes is checked then
            return self
        if self.target == "local":
            fields = {**RolloutConfig.model_fields, "storage_uri": None, "dry_run": None}
            for name in fields.keys() - set(_LOCAL):
                if getattr(self, name) != DeployConfig.model_fields[name].default:
                    raise ValueError(f"--{name.replace('_', '-')} needs --target kserve")
            return self
        _check_endpoint(self)
        if not self.storage_uri and not str(self.model_root).startswith(_READ_BY_KSERVE):
            where = "is in Azure" if is_remote(self.model_root) else "is a folder here"
            raise ValueError(
                f"--model-root {self.model_root} {where}; give an address at gs:// or s3://, or the one that the "
                "cluster's pods use as --storage-uri, as pvc://models/serving or "
                "https://ACCOUNT.blob.core.windows.net/CONTAINER/serving"
            )
        return self


class RollbackConfig(RolloutConfig):
    """Roll back to an earlier version on a cluster: the last verified one, or one that you name."""

    to: int = Field(
        0, ge=0, description="Version to roll back to. Default: the last verified one before the current one."
    )
    traffic_steps: Annotated[tuple[int, ...], AfterValidator(_goes_up_to_all)] = Field(
        (100,), description="Successive percentages of the traffic for that version."
    )
    step_minutes: float = Field(0.0, ge=0, description="Minutes that each traffic percentage is observed.")
    min_agreement: Fraction = Field(
        0.0, description="Minimum fraction of tiles that get the same class from both versions; 0 disables the check."
    )
    max_slowdown: float = Field(
        0.0,
        ge=0,
        description="Maximum ratio of its 95th-percentile latency to the current version's; 0 disables the check.",
    )

    @model_validator(mode="after")
    def _has_an_endpoint(self) -> RollbackConfig:
        _check_endpoint(self)
        return self


class DeploymentsConfig(KubernetesConfig):
    """List the rollouts on a cluster, newest first, with their outcomes and reasons."""

    as_json: bool = Field(False, description="Print the records as JSON.", json_schema_extra=second_name("--json"))


def _check_endpoint(config: RolloutConfig) -> None:
    if config.endpoint and not config.endpoint.startswith(("http://", "https://")):
        raise ValueError(
            f"--endpoint must be the http:// or https:// address that users use, on a cluster; got {config.endpoint!r}"
        )
