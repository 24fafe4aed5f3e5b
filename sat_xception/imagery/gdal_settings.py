"""Options of GDAL for files in buckets: it reads other names from the environment than the tools of the providers."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

__all__ = ["gdal_settings"]


def gdal_settings(address: str) -> dict[str, str]:
    """Return the options for what GDAL opens; credentials of S3, which have the same names, it finds by itself.

    Args:
        address: A path or `/vsi…/bucket/object`.
    """
    if address.startswith("/vsis3/"):
        return _of_s3()
    return _of_azure() if address.startswith("/vsiaz/") else {}


def _of_s3() -> dict[str, str]:
    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "")
    options: dict[str, str] = {}
    if endpoint.netloc:
        virtual = os.environ.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "").lower() == "true"
        options = {
            "AWS_S3_ENDPOINT": endpoint.netloc,
            "AWS_HTTPS": "NO" if endpoint.scheme == "http" else "YES",
            "AWS_VIRTUAL_HOSTING": "TRUE" if virtual else "FALSE",
        }
    if bundle := os.environ.get("AWS_CA_BUNDLE"):
        options["CURL_CA_BUNDLE"] = bundle
    return options


def _of_azure() -> dict[str, str]:
    names = {
        "AccountName": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"),
        "AccountKey": ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY"),
        "SharedAccessSignature": ("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"),
        "BlobEndpoint": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
    }
    found = {key: next(filter(None, map(os.environ.get, each)), "") for key, each in names.items()}
    options = {"AZURE_STORAGE_ACCOUNT": found["AccountName"]} if found["AccountName"] else {}
    if found["AccountKey"] or found["SharedAccessSignature"]:
        scheme = urlsplit(found["BlobEndpoint"]).scheme or "https"
        parts = {"DefaultEndpointsProtocol": scheme, **{key: value for key, value in found.items() if value}}
        options["AZURE_STORAGE_CONNECTION_STRING"] = ";".join(f"{key}={value}" for key, value in parts.items())
    return options
