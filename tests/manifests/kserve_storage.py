"""What KServe gives its storage-initializer: the environment of a Secret, and which container takes an address.

As pkg/credentials/s3 and storage_container_types.go of KServe do, 0.16 to August 2026; its ConfigMap as it comes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

__all__ = ["S3_SETTINGS", "initializer_environment", "provider_of", "supports"]

_ENDPOINT, _HTTPS = "serving.kserve.io/s3-endpoint", "serving.kserve.io/s3-usehttps"
# Variables of the storage-initializer by the annotation of the Secret.
S3_SETTINGS = {
    _ENDPOINT: "S3_ENDPOINT",
    _HTTPS: "S3_USE_HTTPS",
    "serving.kserve.io/s3-region": "AWS_DEFAULT_REGION",
    "serving.kserve.io/s3-verifyssl": "S3_VERIFY_SSL",
    "serving.kserve.io/s3-usevirtualbucket": "S3_USER_VIRTUAL_BUCKET",
    "serving.kserve.io/s3-useaccelerate": "S3_USE_ACCELERATE",
    "serving.kserve.io/s3-useanoncredential": "awsAnonymousCredential",
    "serving.kserve.io/s3-cabundle": "AWS_CA_BUNDLE",
    "serving.kserve.io/s3-cabundle-configmap": "AWS_CA_BUNDLE_CONFIGMAP",
}
_RECOGNIZED = {
    "AWS_SECRET_ACCESS_KEY": "s3://",
    "gcloud-application-credentials.json": "gs://",
    "AZ_CLIENT_ID": "https://",
    "AZURE_CLIENT_ID": "https://",
    "AZURE_ACCESS_TOKEN": "https://",
    "AZURE_STORAGE_ACCESS_KEY": "https://",
}
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def initializer_environment(secret: dict[str, Any], keys: dict[str, str], release: str = "0.21") -> dict[str, str]:
    """Return the variables that a Secret of S3 sets.

    Args:
        secret: The Secret.
        keys: Its data, decoded.
        release: Release of KServe. Until 0.16 the address may not say https:// or http:// itself.
    """
    if _KEYS[1] not in keys:
        return {}  # "Skipping unsupported secret"
    annotations = secret["metadata"].get("annotations", {})
    found = {name: annotations[key] for key, name in S3_SETTINGS.items() if annotations.get(key)}
    if endpoint := found.get("S3_ENDPOINT"):
        scheme, _, host = endpoint.rpartition("://")
        if not scheme or release == "0.16":
            found["AWS_ENDPOINT_URL"] = f"{'http' if found.get('S3_USE_HTTPS') == '0' else 'https'}://{endpoint}"
        else:
            found |= {"AWS_ENDPOINT_URL": endpoint, "S3_ENDPOINT": host}
            found["S3_USE_HTTPS"] = "1" if scheme.lower() == "https" else "0"
    else:
        found.pop("S3_USE_HTTPS", None)
    return found | {name: keys[name] for name in _KEYS}


def provider_of(keys: Iterable[str]) -> str:
    """Return whose Secret one with these keys is, as `mountSecretCredential` finds it; "" for nobody's.

    The first key that is there decides; then the variables of that provider are set, and no others.
    """
    return next((provider for key, provider in _RECOGNIZED.items() if key in keys), "")


def supports(container: dict[str, Any], address: str) -> bool:
    """Return whether a ClusterStorageContainer takes the address of a model."""
    return any(
        address.startswith(form["prefix"]) if form.get("prefix") else re.search(form["regex"], address) is not None
        for form in container["spec"]["supportedUriFormats"]
    )
