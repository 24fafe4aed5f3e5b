"""Check that the endpoint's pods can read models from where they will be, before anything is written there."""

from __future__ import annotations

import os
from typing import Any

from sat_xception.deploy.k8s_client import KubernetesClient
from sat_xception.deploy.k8s_kinds import ACCOUNT, CLAIM
from sat_xception.deploy.k8s_objects import PersistentVolumeClaim, ServiceAccount
from sat_xception.deploy.kserve_objects import InferenceService
from sat_xception.deploy.settings import DeployConfig
from sat_xception.errors import ConfigError
from sat_xception.log import get_logger

__all__ = ["check_model_access"]

_log = get_logger(__name__)
# Annotations of the ServiceAccount by which a provider knows who its pods are.
_IDENTITY = {
    "gs": "iam.gke.io/gcp-service-account",
    "s3": "eks.amazonaws.com/role-arn",
    "https": "azure.workload.identity/client-id",
}
# Tokens and pull secrets that clusters add to an account themselves.
_OF_THE_CLUSTER = ("-token-", "-dockercfg-")


def check_model_access(cluster: KubernetesClient, config: DeployConfig, template: dict[str, Any]) -> str:
    """Return how the endpoint's pods read the model root. Secrets can't be looked into: no account may read them.

    Args:
        cluster: Client of the cluster.
        config: Settings of the deployment.
        template: The template InferenceService.

    Raises:
        ConfigError: They can't: the account, its Secret or the claim is missing.
        ServiceError: The cluster doesn't answer.
    """
    address = config.storage_uri or str(config.model_root)
    name = InferenceService.of(template).spec.predictor.service_account_name or "default"
    found = cluster.get(ACCOUNT, name)
    if found is None:
        raise ConfigError(
            f"there is no ServiceAccount {name} in namespace {cluster.namespace}, and no pod can start without it: "
            "apply the manifests"
        )
    if address.startswith("pvc://"):
        return _claim(cluster, address)
    return _credentials(ServiceAccount.of(found), name, address)


def _claim(cluster: KubernetesClient, address: str) -> str:
    name = address.removeprefix("pvc://").partition("/")[0]
    found = cluster.get(CLAIM, name)
    if found is None:
        raise ConfigError(
            f"there is no PersistentVolumeClaim {name} in namespace {cluster.namespace}, and pods mount only claims of "
            "their own namespace: create one of the same share there, or give the address of another as --storage-uri"
        )
    modes = PersistentVolumeClaim.of(found).access_modes
    if modes == {"ReadWriteOncePod"}:
        raise ConfigError(
            f"PersistentVolumeClaim {name} is ReadWriteOncePod: one pod alone can mount it, and a rollout runs both "
            "versions at once; use a claim with ReadWriteMany"
        )
    if modes.isdisjoint({"ReadWriteMany", "ReadOnlyMany"}):
        _log.warning(
            "claim %s is %s: pods on other nodes than the first wait until they are given up; see 'Models on a volume' "
            "in docs/serving.md",
            name,
            ", ".join(sorted(modes)) or "of unknown access",
        )
        return f"claim {name}, which only one node can mount at a time"
    return f"claim {name}, {' and '.join(sorted(modes))}"


def _credentials(account: ServiceAccount, name: str, address: str) -> str:
    scheme = address.partition("://")[0]
    own = [str(secret.get("name", "")) for secret in account.secrets]
    own = [secret for secret in own if not any(mark in secret for mark in _OF_THE_CLUSTER)]
    if own:
        return f"ServiceAccount {name} with Secret {', '.join(own)}"
    identity = _IDENTITY.get("s3" if scheme == "minio" else scheme, "")
    if account.metadata.annotations.get(identity):
        return f"ServiceAccount {name} with {identity}"
    if scheme == "minio" or (scheme == "s3" and os.environ.get("AWS_ENDPOINT_URL")):
        raise ConfigError(
            f"ServiceAccount {name} names no Secret, by which KServe knows the address and the keys of the store of "
            f"{address}; it would ask Amazon: add manifests/components/storage-s3 to your overlay, see 'Models in a "
            "bucket' in docs/serving.md"
        )
    _log.warning(
        "ServiceAccount %s names no Secret and no workload identity: KServe reads %s without credentials or with those "
        "of the node; see 'Models in a bucket' in docs/serving.md",
        name,
        address,
    )
    return f"ServiceAccount {name} without credentials"
