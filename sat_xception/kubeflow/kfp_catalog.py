"""Find pipelines, versions and experiments on the API server by name, and create missing ones."""

from __future__ import annotations

from typing import Any

from sat_xception.errors import ConfigError
from sat_xception.kubeflow.kfp_api import KfpClient, equals
from sat_xception.kubeflow.spec import CompiledPipeline
from sat_xception.log import get_logger

__all__ = ["ensure_experiment", "find_experiment", "find_pipeline", "find_version", "pinned", "upload"]

_log = get_logger(__name__)


def find_pipeline(cluster: KfpClient, name: str) -> dict[str, Any] | None:
    """Return the pipeline with this name, or None."""
    return _named(cluster, "/pipelines", "pipelines", name, ("name", "display_name"), _scope(cluster))


def find_version(cluster: KfpClient, pipeline_id: str, name: str) -> dict[str, Any] | None:
    """Return the version with this name, or None; "latest" is the one that was created last."""
    path = f"/pipelines/{pipeline_id}/versions"
    if name == "latest":
        newest, _ = cluster.page(path, "pipeline_versions", sort_by="created_at desc", page_size=1)
        return newest[0] if newest else None
    return _named(cluster, path, "pipeline_versions", name, ("name", "display_name"), {})


def find_experiment(cluster: KfpClient, name: str) -> dict[str, Any] | None:
    """Return the experiment with this name, or None."""
    return _named(cluster, "/experiments", "experiments", name, ("display_name",), _scope(cluster))


def ensure_experiment(cluster: KfpClient, name: str) -> dict[str, Any]:
    """Return the experiment with this name; a missing one is created."""
    body = {"display_name": name, **_scope(cluster)}
    return find_experiment(cluster, name) or cluster.create_once(
        "experiment",
        lambda: cluster.send("POST", "/experiments", body=body, kind="experiment"),
        lambda: find_experiment(cluster, name),
    )


def upload(cluster: KfpClient, pipeline: CompiledPipeline) -> tuple[dict[str, Any], bool]:
    """Upload the pipeline as a version, unless a version with exactly this content exists.

    The pipeline is created empty before the version is uploaded, so that the first version too gets a name made from
    its content.

    Returns:
        The version, and whether it was uploaded now.
    """
    name, version_name = pipeline.name, pipeline.version_name
    body = {"display_name": name, "description": _description(pipeline), **_scope(cluster)}
    found = find_pipeline(cluster, name) or cluster.create_once(
        "pipeline",
        lambda: cluster.send("POST", "/pipelines", body=body, kind="pipeline"),
        lambda: find_pipeline(cluster, name),
    )
    pipeline_id = str(found["pipeline_id"])
    version = find_version(cluster, pipeline_id, version_name)
    if version:
        return version, False
    query = {"name": version_name, "pipelineid": pipeline_id, "description": f"sha256 {pipeline.digest}"}
    _log.info("upload    %s as version %s", name, version_name)
    version = cluster.create_once(
        "pipeline version",
        lambda: cluster.send(
            "POST", "/pipelines/upload_version", query, file=pipeline.content, kind="pipeline version"
        ),
        lambda: find_version(cluster, pipeline_id, version_name),
    )
    return version, True


def pinned(cluster: KfpClient, pipeline_name: str, version_name: str) -> dict[str, Any]:
    """Return an existing version of a pipeline.

    Raises:
        ConfigError: The pipeline or its version isn't on the server.
    """
    pipeline = find_pipeline(cluster, pipeline_name)
    if pipeline is None:
        raise ConfigError(
            f"there is no pipeline {pipeline_name!r} at {cluster.endpoint}; `sat_xception submit --no-run` uploads it"
        )
    version = find_version(cluster, str(pipeline["pipeline_id"]), version_name)
    if version is None:
        raise ConfigError(
            f"pipeline {pipeline_name!r} at {cluster.endpoint} has no version {version_name!r}; "
            f"`kfp pipeline list-versions {pipeline['pipeline_id']}` lists them"
        )
    return version


def _scope(cluster: KfpClient) -> dict[str, str]:
    return {"namespace": cluster.namespace} if cluster.namespace else {}


def _named(
    cluster: KfpClient, path: str, key: str, name: str, fields: tuple[str, ...], query: dict[str, str]
) -> dict[str, Any] | None:
    """Return the item of a list with this name.

    Pipelines and versions have a name and a display name; older servers have only the display name.
    """
    for field in fields:
        for item in cluster.pages(path, key, filter=equals(field, name), **query):
            # The server's filter is case-insensitive.
            if item.get(field) == name:
                return item
    return None


def _description(pipeline: CompiledPipeline) -> str:
    return str(pipeline.spec["pipelineInfo"].get("description", ""))
