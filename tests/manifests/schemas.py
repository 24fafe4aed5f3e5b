"""Holds Kubernetes objects strictly against the schema of their kind: a field that it doesn't have is an error.

Kubernetes' own kinds have schemas in the package kubernetes-validate. Those of KServe and the Gateway API come from a
folder of CustomResourceDefinitions, which `kubectl get crd NAME -o yaml` writes. Those of the Prometheus operator are
here, for what we use of them. Rules in CEL (`x-kubernetes-validations`) aren't evaluated: only an API server does that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jsonschema
import kubernetes_validate
import yaml
from pydantic import BaseModel, ConfigDict, Field

# PyYAML's loader in C, where it has it: KServe's definitions are 2 MB, half a minute in Python.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Kubernetes 1.32 is KServe's minimum.
KUBERNETES = "1.32"
# No dots in parts, as of RFC 1123.
_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_METADATA = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "pattern": _NAME, "maxLength": 253},
        "namespace": {"type": "string", "pattern": _NAME, "maxLength": 63},
        "labels": {"type": "object", "additionalProperties": {"type": "string", "pattern": r"^[-\w.]{0,63}$"}},
        "annotations": _TEXTS,
    },
    "additionalProperties": False,
}


class Schemas:
    """The schemas that objects are held against.

    Args:
        crds: Folder of CustomResourceDefinitions in YAML, one or several a file.
    """

    def __init__(self, crds: Path) -> None:
        self.crds = crds
        self._known: dict[str, list[str]] = {}

    def errors(self, item: dict[str, Any]) -> list[str]:
        """Return what is wrong with an object, each as `field: reason`; nothing if all is well.

        Raises:
            LookupError: There is no schema for its kind.
        """
        # Overlays share most of their objects.
        key = json.dumps(item, sort_keys=True)
        if key not in self._known:
            self._known[key] = self._errors(item)
        return self._known[key]

    def _errors(self, item: dict[str, Any]) -> list[str]:
        custom = self._custom.get((item["apiVersion"], item["kind"]))
        if custom is not None:
            scope, validator = custom
            found = [_reason(error) for error in validator.iter_errors(item)]
            if scope == "Cluster" and "namespace" in item["metadata"]:
                found.append("metadata.namespace: the kind belongs to the cluster, not to a namespace")
            if scope == "Namespaced" and "namespace" not in item["metadata"]:
                found.append("metadata.namespace: missing")
            return found
        try:
            kubernetes_validate.validate(item, KUBERNETES, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            raise LookupError(f"no schema for {item['kind']} of {item['apiVersion']} in {self.crds}") from None
        except kubernetes_validate.ValidationError as error:
            return [_reason(error)]
        return []

    @cached_property
    def _custom(self) -> dict[tuple[str, str], tuple[str, jsonschema.Validator]]:
        """Schemas by apiVersion and kind, each with its scope."""
        found: dict[tuple[str, str], tuple[str, jsonschema.Validator]] = {}
        for model in (PodMonitor, PrometheusRule):
            schema = jsonschema.Draft202012Validator(model.model_json_schema(by_alias=True))
            found["monitoring.coreos.com/v1", model.__name__] = ("Namespaced", schema)
        for definition in _definitions(self.crds):
            spec = definition["spec"]
            for version in spec["versions"]:
                schema = json_schema(version["schema"]["openAPIV3Schema"])
                schema["properties"] |= {
                    "apiVersion": {"type": "string"},
                    "kind": {"type": "string"},
                    "metadata": _METADATA,
                }
                key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
                found[key] = (spec["scope"], jsonschema.Draft202012Validator(schema))
        return found


def json_schema(openapi: dict[str, Any]) -> dict[str, Any]:
    """Return an openAPIV3Schema of a CustomResourceDefinition as a JSON schema that takes known fields alone."""
    if openapi.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]} | {key: openapi[key] for key in ("pattern",) if key in openapi}
    dropped = ("properties", "items", "additionalProperties", "nullable", "default", "description", "format")
    schema = {
        key: value for key, value in openapi.items() if key not in dropped and not key.startswith("x-kubernetes-")
    }
    if "properties" in openapi:
        schema["properties"] = {name: json_schema(field) for name, field in openapi["properties"].items()}
    if "items" in openapi:
        schema["items"] = json_schema(openapi["items"])
    if isinstance(openapi.get("additionalProperties"), dict):
        schema["additionalProperties"] = json_schema(openapi["additionalProperties"])
    elif openapi.get("type") == "object" and not openapi.get("x-kubernetes-preserve-unknown-fields"):
        schema["additionalProperties"] = False
    if openapi.get("nullable"):
        schema["type"] = [schema["type"], "null"]
    return schema


def _definitions(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.yaml")):
        for document in yaml.load_all(path.read_text(encoding="utf-8"), Loader=LOADER):
            found = document or {}
            # What kubectl writes of several is a List.
            yield from (part for part in found.get("items", [found]) if part.get("kind") == "CustomResourceDefinition")


def _reason(error: jsonschema.ValidationError) -> str:
    return f"{'.'.join(str(part) for part in error.absolute_path) or '(object)'}: {error.message}"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Metadata(_Strict):
    name: str = Field(pattern=_NAME)
    namespace: str
    labels: dict[str, str]


class _Expression(_Strict):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[str] = []


class _Selector(_Strict):
    matchLabels: dict[str, str] = {}
    matchExpressions: list[_Expression] = []


class _Endpoint(_Strict):
    port: str
    path: str = Field(pattern="^/")
    interval: str = Field(pattern=r"^(\d+h)?(\d+m)?(\d+s)?$")


class _PodMonitorSpec(_Strict):
    selector: _Selector
    podMetricsEndpoints: list[_Endpoint] = Field(min_length=1)
    podTargetLabels: list[str] = []


class PodMonitor(_Strict):
    """monitoring.coreos.com/v1, prometheus-operator v0.95, pkg/apis/monitoring/v1/podmonitor_types.go."""

    apiVersion: Literal["monitoring.coreos.com/v1"]
    kind: Literal["PodMonitor"]
    metadata: _Metadata
    spec: _PodMonitorSpec


class _Rule(_Strict):
    alert: str = Field(pattern=r"^[A-Z]\w+$")
    expr: str
    for_: str = Field("0s", alias="for", pattern=r"^(\d+h)?(\d+m)?(\d+s)?$")
    labels: dict[str, str]
    annotations: dict[str, str]


class _Group(_Strict):
    name: str
    rules: list[_Rule]


class _PrometheusRuleSpec(_Strict):
    groups: list[_Group]


class PrometheusRule(_Strict):
    """monitoring.coreos.com/v1, prometheus-operator v0.95, pkg/apis/monitoring/v1/prometheusrule_types.go."""

    apiVersion: Literal["monitoring.coreos.com/v1"]
    kind: Literal["PrometheusRule"]
    metadata: _Metadata
    spec: _PrometheusRuleSpec
