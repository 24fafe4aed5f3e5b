"""What a deployment comes to, for people: which version answers where, and how to ask it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from sat_xception.markdown import plain, table

__all__ = ["deployment_markdown"]


def deployment_markdown(record: dict[str, Any]) -> str:
    """Return a deployment record as Markdown, with a link to the version's status and the commands to inspect it.

    Args:
        record: Content of `deployment.json`.
    """
    name, version, endpoint = record["name"], record["version"], record["endpoint"]
    facts = [
        ("version", str(version)),
        ("version before", str(record["version_before"] or "none")),
        ("backbone", record["backbone"]),
        ("digest of the Keras model", record["model"]),
        ("model root", record["model_root"]),
        ("endpoint", endpoint or "none was given: a server was started for the proof alone"),
        ("golden tiles", f"{record['golden_tiles']} answered within {record['golden_difference']:.1g}"),
        ("deployed at", record["deployed_at"]),
    ]
    lines = [f"# {plain(name)} version {version} answers", "", *table(("model", name), facts, numbers_from=2), ""]
    if not endpoint:
        return "\n".join([*lines, "Start the endpoint:", "", f"    {record['serve_command']}", ""])
    if endpoint.startswith(("grpc://", "grpcs://")):
        return "\n".join([*lines, "It speaks gRPC; ask it:", "", f"    {_predict(name, endpoint)}", ""])
    status = f"{endpoint.rstrip('/')}/v1/models/{quote(name)}/versions/{version}"
    lines += [
        f"[Status of the version]({quote(status, safe=':/')})",
        "",
        "Ask for its status, and for a prediction:",
        "",
    ]
    return "\n".join([*lines, f"    curl -s {status}", f"    {_predict(name, endpoint)}", ""])


def _predict(name: str, endpoint: str) -> str:
    return f"sat_xception predict tile.jpg --name {name} --endpoint {endpoint}"
