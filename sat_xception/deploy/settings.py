"""Settings of deployments and rollbacks."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from sat_xception.settings.config import StepConfig, second_name
from sat_xception.settings.types import Address, FolderOrNone, Fraction, LocalFolderOrNone, Place, model_name
from sat_xception.storage import Stored

__all__ = ["DeployConfig", "DeploymentsConfig", "KubernetesConfig", "RollbackConfig", "RolloutConfig"]


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
    if address and not address.startswith(("gs://", "s3://", "pvc://", "https://", "http://")):
        raise ValueError("expected what KServe reads: gs://, s3://, pvc:// or https://")
    return address.rstrip("/")


class KubernetesConfig(StepConfig):
    """Which endpoint, on which cluster."""

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
    """How a version takes over on a cluster, and what is checked on the way."""

    endpoint: Address = Field("", description="Address that users use.")
    endpoint_host: str = Field(
        "", description="Host header for --endpoint, where that is a gateway's IP address. On a cluster only."
    )
    predictor_url: Annotated[str, AfterValidator(_is_template)] = Field(
        "http://{service}.{namespace}.svc.cluster.local",
        description="Address of a predictor's Service, as reached from here. On a cluster only.",
    )
    strategy: Literal["auto", "two-services", "canary"] = Field(
        "auto",
        description="How traffic is split: KServe's own `spec.canary`, or two InferenceServices behind one HTTPRoute.",
    )
    traffic_steps: Annotated[tuple[int, ...], AfterValidator(_goes_up_to_all)] = Field(
        (10, 50, 100), description="Shares of the traffic, in %, that the new version gets in turn. On a cluster only."
    )
    step_minutes: float = Field(2.0, ge=0, description="How long each share is watched, in minutes. On a cluster only.")
    start_minutes: float = Field(
        15.0, gt=0, description="How long new pods may take to be ready, in minutes. On a cluster only."
    )
    # Gateways took new weights up to 15 s after their HTTPRoute's condition said so; then requests have time to end.
    drain_s: float = Field(
        30.0, ge=0, description="How long a predictor stays after it lost its traffic, in seconds. On a cluster only."
    )
    tiles: FolderOrNone = Field(
        None, description="Folder of images to compare old and new with, beside the golden tiles. On a cluster only."
    )
    min_agreement: Fraction = Field(
        0.7, description="Least share of tiles that old and new give the same class; 0 doesn't compare."
    )
    max_errors: Fraction = Field(0.01, description="Largest share of the rollout's own requests that may fail.")
    max_slowdown: float = Field(
        2.0, ge=0, description="How many times slower than the old the new may be, at the 95th percentile; 0: any."
    )
    force_conflicts: bool = Field(False, description="Take over fields that others own. On a cluster only.")
    timeout_s: float = Field(120.0, gt=0, description="How long the new version may take to answer, in seconds.")
    out: Annotated[Path | None, Stored("result")] = Field(None, description="Folder to write the deployment record to.")


# Settings of a cluster that a local deployment has a use for.
_LOCAL = ("name", "endpoint", "timeout_s", "out")


class DeployConfig(RolloutConfig):
    """Put a packaged model where it answers, and prove with its golden tiles that it is the one that does."""

    target: Literal["local", "kserve", "none"] = Field(
        "local",
        description="Where to: a model root that `sat_xception serve` watches, or KServe on a cluster. With none, the "
        "package is checked and left where it is.",
    )
    package: Place = Field(description="Model root written by package.")
    model_root: Place = Field(description="Model root of the endpoint.")
    endpoint: Address = Field(
        "",
        description="REST address of a running server. Default: one is started for the proof. With --target kserve the "
        "address that users use.",
    )
    storage_uri: Annotated[str, AfterValidator(_is_storage_uri)] = Field(
        "", description="The model root as the cluster's pods name it, as pvc://models/serving. Default: a gs:// root."
    )
    dry_run: bool = Field(False, description="Check the cluster and show what would change on it; change nothing.")

    @model_validator(mode="after")
    def _fits_the_target(self) -> DeployConfig:
        if self.target == "none":
            return self
        if self.target == "local":
            fields = {**RolloutConfig.model_fields, "storage_uri": None, "dry_run": None}
            for name in fields.keys() - set(_LOCAL):
                if getattr(self, name) != DeployConfig.model_fields[name].default:
                    raise ValueError(f"--{name.replace('_', '-')} needs --target kserve")
            return self
        _check_endpoint(self)
        if not self.storage_uri and not str(self.model_root).startswith("gs://"):
            raise ValueError(
                f"--model-root {self.model_root} is a folder here; give a gs:// address, or what the cluster's pods "
                "call it as --storage-uri, as pvc://models/serving"
            )
        return self


class RollbackConfig(RolloutConfig):
    """Let an earlier version answer again on a cluster: the last one before whose proof passed, or one you name."""

    to: int = Field(0, ge=0, description="The version. Default: the last before the present one that was proved.")
    traffic_steps: Annotated[tuple[int, ...], AfterValidator(_goes_up_to_all)] = Field(
        (100,), description="Shares of the traffic, in %, that it gets in turn."
    )
    step_minutes: float = Field(0.0, ge=0, description="How long each share is watched, in minutes.")
    min_agreement: Fraction = Field(
        0.0, description="Least share of tiles that both versions give the same class; 0 doesn't compare."
    )
    max_slowdown: float = Field(
        0.0, ge=0, description="How many times slower than the present one it may be, at the 95th percentile; 0: any."
    )

    @model_validator(mode="after")
    def _has_an_endpoint(self) -> RollbackConfig:
        _check_endpoint(self)
        return self


class DeploymentsConfig(KubernetesConfig):
    """List what was rolled out on a cluster, the newest first, with why it ended as it did."""

    as_json: bool = Field(False, description="Print the records as JSON.", json_schema_extra=second_name("--json"))


def _check_endpoint(config: RolloutConfig) -> None:
    if not config.endpoint.startswith(("http://", "https://")):
        raise ValueError(
            f"--endpoint must be the http:// or https:// address that users use, on a cluster; got {config.endpoint!r}"
        )
