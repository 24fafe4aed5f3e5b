"""Check values of pipeline parameters against the pipeline's definitions, and write their table into the docs.

`python -m sat_xception.kubeflow.parameters` updates the tables in docs/kubeflow.md and docs/bulk-pipeline.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from sat_xception.errors import ConfigError, did_you_mean
from sat_xception.kubeflow.checkout import compile_pipeline
from sat_xception.kubeflow.markdown import replace_between, table_cell
from sat_xception.kubeflow.pipeline_settings import SETTINGS
from sat_xception.kubeflow.pipelines import moved_setting

__all__ = ["parameter_table", "parse_assignments", "read_parameters", "typed_parameters", "write_table"]

Definitions = Mapping[str, Mapping[str, Any]]

# Names of the types in kfp.pipeline_spec's ParameterType, for messages and the table.
_TYPES = {
    "NUMBER_INTEGER": "whole number",
    "NUMBER_DOUBLE": "number",
    "BOOLEAN": "true or false",
    "STRING": "text",
    "LIST": "list",
    "STRUCT": "mapping",
}


def typed_parameters(
    definitions: Definitions, values: Mapping[str, object], origin: str, pipeline: str = ""
) -> dict[str, Any]:
    """Return the values, each with the type of its parameter.

    The API server refuses a value of another type, but only when the run is created; kfp's command line guesses types,
    and sends "123" for a text parameter as a number.

    Args:
        definitions: The pipeline's `inputDefinitions.parameters`.
        values: Value of each parameter that isn't left at its default.
        origin: Where the values come from, for messages.
        pipeline: Name of the pipeline, to name the new address of parameters that moved into `settings`.

    Raises:
        ConfigError: A name is unknown, a value has the wrong type, or a parameter without default is missing.
    """
    unknown = [_unknown(name, definitions, origin, pipeline) for name in values if name not in definitions]
    if unknown:
        raise ConfigError("; ".join(unknown))
    typed = {name: _typed(name, value, definitions[name], origin) for name, value in values.items()}
    missing = [
        name
        for name, definition in definitions.items()
        if name not in typed and "defaultValue" not in definition and not definition.get("isOptional")
    ]
    if missing:
        raise ConfigError(f"these parameters have no default and no value in {origin}: {', '.join(missing)}")
    return typed


def _unknown(name: str, definitions: Definitions, origin: str, pipeline: str) -> str:
    if address := moved_setting(pipeline, name):
        return f"{name!r} in {origin} is no parameter any more: it is now `{address}` in the parameter `{SETTINGS}`"
    hint = did_you_mean(name, definitions, f"known ones: {', '.join(sorted(definitions))}")
    return f"unknown parameter {name!r} in {origin}; {hint}"


def parse_assignments(definitions: Definitions, assignments: Iterable[str]) -> dict[str, object]:
    """Parse `name=value` arguments by the type of the parameter.

    Raises:
        ConfigError: There is no `=`, or the value can't be parsed as its type.
    """
    values: dict[str, object] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise ConfigError(f"--param {assignment!r} must be NAME=VALUE")
        values[name] = _parsed(name, text, str(definitions.get(name, {}).get("parameterType")))
    return values


def read_parameters(path: Path) -> dict[str, object]:
    """Read a YAML mapping of parameters.

    Raises:
        ConfigError: The file can't be read, or holds no mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't read the parameters {path}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold a mapping of parameters, found a {type(content).__name__}")
    return {str(name): value for name, value in content.items()}


def _typed(name: str, value: object, definition: Mapping[str, Any], origin: str) -> object:
    kind = str(definition["parameterType"])
    if name == SETTINGS and kind == "STRING" and isinstance(value, dict):
        # As people write it in a file; it is sent as text.
        return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    whole = isinstance(value, int) and not isinstance(value, bool)
    fits = {
        "NUMBER_INTEGER": whole,
        "NUMBER_DOUBLE": whole or (isinstance(value, float) and math.isfinite(value)),
        "BOOLEAN": isinstance(value, bool),
        "STRING": isinstance(value, str),
        "LIST": isinstance(value, list),
        "STRUCT": isinstance(value, dict),
    }
    if not fits.get(kind, False):
        wanted = _TYPES.get(kind, kind)
        raise ConfigError(f"parameter {name!r} in {origin} must be a {wanted}, got {value!r} ({type(value).__name__})")
    try:
        json.dumps(value, allow_nan=False, default=str)
    except ValueError:
        raise ConfigError(f"parameter {name!r} in {origin} holds a number that isn't finite: {value!r}") from None
    return value


def _parsed(name: str, text: str, kind: str) -> object:
    try:
        match kind:
            case "NUMBER_INTEGER":
                return int(text)
            case "NUMBER_DOUBLE":
                return float(text)
            case "BOOLEAN":
                return {"true": True, "false": False}[text.lower()]
            case "LIST" | "STRUCT":
                return json.loads(text)
    except (ValueError, KeyError):
        form = " in JSON" if kind in ("LIST", "STRUCT") else ""
        raise ConfigError(f"--param {name}={text}: {text!r} can't be read as a {_TYPES[kind]}{form}") from None
    return text


def parameter_table(definitions: Definitions) -> str:
    """Return the parameters as a Markdown table, sorted by name, so that those with the same prefix are together."""
    rows = ["| parameter | type | default | what it does |", "|---|---|---|---|"]
    for name in sorted(definitions):
        definition = definitions[name]
        default = _default(definition)
        text = table_cell(" ".join(str(definition.get("description", "")).split()))
        kind = _TYPES.get(str(definition["parameterType"]), str(definition["parameterType"]))
        rows.append(f"| `{name}` | {kind} | {f'`{default}`' if default else 'none: required'} | {text} |")
    return "\n".join(rows)


def _default(definition: Mapping[str, Any]) -> str:
    if "defaultValue" not in definition:
        return ""
    value = definition["defaultValue"]
    # kfp writes every number as a float.
    return json.dumps(int(value) if definition["parameterType"] == "NUMBER_INTEGER" else value)


def write_table(path: Path, definitions: Definitions) -> None:
    """Replace the table between its two markers in a Markdown file."""
    replace_between(path, "parameters", f"{parameter_table(definitions)}\n")


if __name__ == "__main__":
    for document, compiled in (("docs/kubeflow.md", "training"), ("docs/bulk-pipeline.md", "bulk-inference")):
        write_table(Path(document), compile_pipeline(compiled).parameters)
        print(f"wrote     the parameters into {document}")
