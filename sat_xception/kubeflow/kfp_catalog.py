"""Find pipelines, versions and experiments on the API server by name, and create missing ones."""

from __future__ import annotations

from typing import TypeVar

from sat_xception.errors import ConfigError
from sat_xception.kubeflow.answers import Experiment, Pipeline, PipelineVersion
from sat_xception.kubeflow.kfp_api import KfpClient, equals
from sat_xception.kubeflow.spec import CompiledPipeline
from sat_xception.log import get_logger

__all__ = ["ensure_experiment", "find_experiment", "find_pipeline", "find_version", "pinned", "upload"]

_log = get_logger(__name__)
N = TypeVar("N", Pipeline, PipelineVersion, Experiment)


def find_pipeline(cluster: KfpClient, name: str) -> Pipeline | None:
    """Return the pipeline with this name, or None."""
    return _named(cluster, "/pipelines", Pipeline, name, ("name", "display_name"), _scope(cluster))


def find_version(cluster: KfpClient, pipeline_id: str, name: str) -> PipelineVersion | None:
    """Return the version with this name, or None; "latest" is the one that was created last."""
    path = f"/pipelines/{pipeline_id}/versions"
    if name == "latest":
        newest, _ = cluster.page(path, PipelineVersion, sort_by="created_at desc", page_size=1)
        return newest[0] if newest else None
    return _named(cluster, path, PipelineVersion, name, ("name", "display_name"), {})


def find_experiment(cluster: KfpClient, name: str) -> Experiment | None:
    """Return the experiment with this name, or None."""
    return _named(cluster, "/experiments", Experiment, name, ("display_name",), _scope(cluster))


def ensure_experiment(cluster: KfpClient, name: str) -> Experiment:
    """Return the experiment with this name; a missing one is created."""
    body = {"display_name": name, **_scope(cluster)}
    return find_experiment(cluster, name) or cluster.create_once(
        "experiment",
        lambda: cluster.send("POST", "/experiments", Experiment, body=body),
        lambda: find_experiment(cluster, name),
    )


def upload(cluster: KfpClient, pipeline: CompiledPipeline) -> tuple[PipelineVersion, bool]:
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
        lambda: cluster.send("POST", "/pipelines", Pipeline, body=body),
        lambda: find_pipeline(cluster, name),
    )
    version = find_version(cluster, found.pipeline_id, version_name)
    if version:
        return version, False
    query = {"name": version_name, "pipelineid": found.pipeline_id, "description": f"sha256 {pipeline.digest}"}
    _log.info("upload    %s as version %s", name, version_name)
    version = cluster.create_once(
        "pipeline version",
        lambda: cluster.send("POST", "/pipelines/upload_version", PipelineVersion, query, file=pipeline.content),
        lambda: find_version(cluster, found.pipeline_id, version_name),
    )
    return version, True


def pinned(cluster: KfpClient, pipeline_name: str, version_name: str) -> PipelineVersion:
    """Return an existing version of a pipeline.

    Raises:
        ConfigError: The pipeline or its version isn't on the server.
    """
    pipeline = find_pipeline(cluster, pipeline_name)
    if pipeline is None:
        raise ConfigError(
            f"there is no pipeline {pipeline_name!r} at {cluster.endpoint}; `sat_xception submit --no-run` uploads it"
        )
    version = find_version(cluster, pipeline.pipeline_id, version_name)
    if version is None:
        raise ConfigError(
            f"pipeline {pipeline_name!r} at {cluster.endpoint} has no version {version_name!r}; "
            f"`kfp pipeline list-versions {pipeline.pipeline_id}` lists them"
        )
    return version


def _scope(cluster: KfpClient) -> dict[str, str]:
    return {"namespace": cluster.namespace} if cluster.namespace else {}


def _named(
    cluster: KfpClient, path: str, kind: type[N], name: str, fields: tuple[str, ...], query: dict[str, str]
) -> N | None:
    """Return the item of a list with this name.

    Pipelines and versions have a name and a display name; older servers have only the display name.
    """
    for field in fields:
        for item in cluster.pages(path, kind, filter=equals(field, name), **query):
            # The server's filter is case-insensitive.
            if item.is_called(name):
                return item
    return None


def _description(pipeline: CompiledPipeline) -> str:
    return pipeline.parsed.pipeline_info.description
