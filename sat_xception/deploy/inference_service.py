"""Build the InferenceService of a version from the template InferenceService on the cluster."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import yaml

from sat_xception.deploy.k8s_objects import KubernetesObject
from sat_xception.deploy.kserve_objects import InferenceService, ServingRuntime
from sat_xception.deploy.release import Release

__all__ = [
    "STOP_ANNOTATION",
    "annotations_of",
    "changed_fields",
    "copy_of",
    "difference",
    "model_name_problem",
    "predictor_of",
    "service_of",
    "version_of",
]

Object = dict[str, Any]

STOP_ANNOTATION = "serving.kserve.io/stop"
_VERSION = "sat-xception/version"
_DIGEST = "sat-xception/package-digest"
# Metadata that must not be copied from the template: tools such as Argo CD would take the copy for a part of the
# template's application, and delete it because it isn't in the repository.
_OF_THE_TEMPLATE = (
    STOP_ANNOTATION,
    "kubectl.kubernetes.io/",
    "argocd.argoproj.io/",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "kustomize.toolkit.fluxcd.io/",
    "helm.toolkit.fluxcd.io/",
    "meta.helm.sh/",
    "helm.sh/",
)
# Fields that the cluster sets, and that aren't compared.
_OF_THE_CLUSTER = ("managedFields", "resourceVersion", "uid", "creationTimestamp", "generation")


def service_of(template: Object, name: str, release: Release) -> Object:
    """Return the manifest of an InferenceService for a release, with the settings of the template.

    Args:
        template: The template InferenceService from the cluster.
        name: Name of the new InferenceService.
        release: Release to serve.
    """
    return copy_of(template, name, predictor_of(template, release), annotations_of(release))


def copy_of(template: Object, name: str, predictor: Object, annotations: Mapping[str, str] | None = None) -> Object:
    """Return the manifest of an InferenceService with the settings of the template and another predictor.

    Args:
        template: The template InferenceService from the cluster.
        name: Name of the new InferenceService.
        predictor: Its predictor.
        annotations: Further annotations.
    """
    service = InferenceService.of(template)
    return {
        "metadata": {
            "name": name,
            "namespace": service.metadata.namespace,
            "labels": _kept(service.metadata.labels),
            "annotations": {**_kept(service.metadata.annotations), **(annotations or {})},
        },
        "spec": {**service.spec.manifest(), "predictor": predictor},
    }


def annotations_of(release: Release) -> dict[str, str]:
    """Return the annotations that identify a release on the cluster.

    KServe copies an InferenceService's annotations into the pods of all its predictors. If there are two, each
    predictor gets its own annotations instead.
    """
    return {_VERSION: str(release.version), _DIGEST: release.digest}


def predictor_of(template: Object, release: Release) -> Object:
    """Return the template's predictor with a release's storageUri, and no other storage."""
    predictor = InferenceService.of(template).spec.predictor
    model = {**predictor.model.manifest(), "storageUri": release.storage_uri}
    model.pop("storage", None)
    return {**predictor.manifest(), "model": model}


def version_of(service: Object) -> int:
    """Return the version that an InferenceService serves, by its annotation; 0 without one."""
    said = InferenceService.of(service).metadata.annotations.get(_VERSION, "")
    return int(said) if said.isdecimal() else 0


def model_name_problem(template: Object, runtime: Object, name: str) -> str:
    """Return why the predictor wouldn't serve the model under `name`, or "".

    KServe's own runtime names the model after the InferenceService. Two InferenceServices would then have different
    paths, and no route could split traffic between them.
    """
    model = InferenceService.of(template).spec.predictor.model
    containers = ServingRuntime.of(runtime).spec.containers
    arguments = [argument for container in containers for argument in (*container.command, *container.args)]
    names = [argument.partition("=")[2] for argument in (*arguments, *model.args) if "model_name=" in argument]
    if not names or names[-1] == name:
        return ""
    place = "the args of the template's model, or of the runtime"
    return f"it serves the model as {names[-1]!r}; set --model_name={name} in {place}"


def changed_fields(before: Object, after: Object, path: str = "") -> list[str]:
    """Return the paths of fields that differ, such as ".model.resources.limits"; lists are compared as a whole."""
    found = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += changed_fields(old, new, f"{path}.{key}")
        elif old != new:
            found.append(f"{path}.{key}")
    return found


def difference(before: Object | None, after: Object) -> str:
    """Return a unified diff of two states of an object, as YAML; "" if they are equal."""
    title = f"{after['kind'].lower()}/{KubernetesObject.of(after).metadata.name}"
    old = _text(before) if before else []
    lines = difflib.unified_diff(old, _text(after), f"{title} (now)", f"{title} (planned)", lineterm="", n=2)
    return "\n".join(lines)


def _text(value: Object) -> list[str]:
    shown = {key: part for key, part in value.items() if key != "status"}
    metadata = KubernetesObject.of(value).metadata.manifest()
    metadata = {key: part for key, part in metadata.items() if key not in _OF_THE_CLUSTER}
    return yaml.safe_dump({**shown, "metadata": metadata}, sort_keys=True, allow_unicode=True).splitlines()


def _kept(values: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in values.items() if not key.startswith(_OF_THE_TEMPLATE)}
