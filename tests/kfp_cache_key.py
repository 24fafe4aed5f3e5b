"""The key that Kubeflow Pipelines looks a task up by in its cache, computed as its backend does.

The rules are those of `backend/src/v2/cacheutils/cache.go` and `backend/src/v2/driver/cache.go`, which are the same in
2.16.0 and in 2.17.0. In the key are: the *ids* of input artifacts (not their addresses or metadata); the values of
input parameters, and among these the number and kind of GPUs where they come from the pipeline's parameters; names,
types and metadata of outputs; the image as it is written, command and arguments; names of mounted volume claims. Not in
the key: variables, Secrets, labels, requests and limits, timeouts, retries, display names, and what an image holds
under the same name. A task whose key is known, in the same pipeline and namespace, isn't run again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

__all__ = ["cache_key", "fingerprint"]


def fingerprint(
    executor_input: Mapping[str, Any],
    component: Mapping[str, Any],
    container: Mapping[str, Any],
    volume_claims: Sequence[str] = (),
) -> str:
    """Return the key, as 64 hexadecimal digits.

    Args:
        executor_input: What the driver resolved, with inputs and outputs.
        component: The component of the compiled pipeline, for the types of its output parameters.
        container: Its container: image, command and args.
        volume_claims: Names of the volume claims that are mounted.
    """
    text = _go_json(cache_key(executor_input, component, container, volume_claims))
    return hashlib.sha256(text.encode()).hexdigest()


def cache_key(
    executor_input: Mapping[str, Any],
    component: Mapping[str, Any],
    container: Mapping[str, Any],
    volume_claims: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what the key is a digest of, for a test to say where two keys differ; see `fingerprint`."""
    inputs, outputs = executor_input.get("inputs", {}), executor_input.get("outputs", {})
    types = component.get("outputDefinitions", {}).get("parameters", {})
    spec = {"image": container.get("image", ""), "cmdArgs": [*container.get("command", []), *container.get("args", [])]}
    key = {
        "inputArtifactNames": {
            name: _without_empty({"artifactNames": [artifact["name"] for artifact in given.get("artifacts", [])]})
            for name, given in inputs.get("artifacts", {}).items()
        },
        "inputParameterValues": dict(inputs.get("parameterValues", {})),
        "outputArtifactsSpec": {
            name: {part: value for part, value in given["artifacts"][0].items() if part in ("name", "type", "metadata")}
            for name, given in outputs.get("artifacts", {}).items()
            if given.get("artifacts")
        },
        "outputParametersSpec": {name: types[name]["parameterType"] for name in outputs.get("parameters", {})},
        "containerSpec": _without_empty({**spec, "pvcNames": sorted(set(volume_claims))}),
    }
    return {name: part for name, part in key.items() if part or name == "containerSpec"}


def _without_empty(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message as protobuf writes it: fields with their default value are left out."""
    return {name: value for name, value in message.items() if value}


def _go_json(value: Any) -> str:
    """Return JSON as Go's encoding/json writes it, to the byte: sorted keys, no spaces, its numbers and escapes."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_go_json(key)}:{_go_json(value[key])}" for key in sorted(value, key=str.encode)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_go_json(item) for item in value) + "]"
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
        return re.sub("[<>&\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text)
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return _go_number(float(value))


def _go_number(value: float) -> str:
    """Return a number as Go does: whole numbers without a point, exponents only below 1e-6 and from 1e21 on."""
    if value and not 1e-6 <= abs(value) < 1e21:
        return re.sub(r"e([+-])0(\d)$", r"e\1\2", repr(value).replace(".0e", "e"))
    text = format(Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
