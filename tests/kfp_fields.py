"""Hold a compiled pipeline against the fields that one version of Kubeflow Pipelines knows.

What the API server doesn't know in the specification of a pipeline it refuses. What it doesn't know in the settings for
Kubernetes has it leave *all* of them out, without a word: Secrets, nodes, deadlines, users. The executors of both are
parsed when a run starts, as strictly, and fail it. Here it is one pass.
The fields of a version are in `kfp_source/fields`, written by `kfp_source/write_fields.py`.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import yaml

__all__ = ["VERSIONS", "compiled_problems", "problems"]

_FOLDER = Path(__file__).with_name("kfp_source") / "fields"
VERSIONS = tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))

_PYTHON = {"str": str, "int": (int, str), "number": (int, float), "bool": bool, "object": dict, "list": list}
# Structs that are parsed into a message later: the field that holds it, and its kind.
_LATER = {
    ("ml_pipelines.PipelineSpec", "deploymentSpec"): "ml_pipelines.PipelineDeploymentConfig",
    ("ml_pipelines.PlatformDeploymentConfig", "executors"): "{}kfp_kubernetes.KubernetesExecutorConfig",
}


def compiled_problems(text: str, version: str) -> list[str]:
    """Return what a version of KFP doesn't know in a compiled pipeline, one line per place."""
    specification, *platforms = [document for document in yaml.safe_load_all(text) if document]
    found = problems(specification, "ml_pipelines.PipelineSpec", version)
    for platform in platforms:
        found += problems(platform, "ml_pipelines.PlatformSpec", version)
    return found


def problems(value: object, kind: str, version: str, where: str = "") -> list[str]:
    """Return the fields below a value that a version doesn't know, and the values of another kind than theirs.

    Args:
        value: From JSON or YAML.
        kind: A message by its full name, a scalar kind, or one of these with "[]" (repeated) or "{}" (a map) before it.
        version: One of `VERSIONS`.
        where: Path of the value, for the messages.
    """
    if kind == "any":
        return []
    if kind.startswith("[]"):
        if not isinstance(value, list):
            return [f"{where}: {value!r} is no list"]
        return [line for i, item in enumerate(value) for line in problems(item, kind[2:], version, f"{where}[{i}]")]
    if kind.startswith("{}"):
        if not isinstance(value, dict):
            return [f"{where}: {value!r} is no map"]
        return [line for key, item in value.items() for line in problems(item, kind[2:], version, f"{where}.{key}")]
    if kind.startswith("enum:"):
        return [] if value in kind[5:].split("|") else [f"{where}: {value!r} isn't one of {kind[5:]}"]
    if kind in _PYTHON:
        wrong = not isinstance(value, _PYTHON[kind]) or (kind in ("int", "number") and isinstance(value, bool))
        wrong = wrong or (kind == "int" and isinstance(value, str) and not re.fullmatch(r"-?\d+", value))
        return [f"{where}: {value!r} is no {kind}"] if wrong else []
    return _message(value, kind, version, where)


def _message(value: object, kind: str, version: str, where: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{where}: {value!r} is no {kind}"]
    fields = _fields(version)[kind]
    found = []
    for key, item in value.items():
        name = key if key in fields else _json_name(key)
        place = f"{where}.{key}".lstrip(".")
        if name not in fields:
            found.append(f"{place}: KFP {version} knows no field {key!r} of {kind.rpartition('.')[2]}")
        else:
            found += problems(item, _LATER.get((kind, name), fields[name]), version, place)
    return found


@cache
def _fields(version: str) -> dict[str, dict[str, str]]:
    return json.loads((_FOLDER / f"{version}.json").read_text("utf-8"))


def _json_name(name: str) -> str:
    """Return the JSON name of a field of a proto file; both are taken."""
    return re.sub(r"_([a-z0-9])", lambda match: match[1].upper(), name)
