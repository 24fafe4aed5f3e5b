"""The kinds of objects that a rollout deals with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = [
    "ACCESS_REVIEW",
    "CONFIG_MAP",
    "CRD",
    "DEPLOYMENT",
    "EVENT",
    "HTTP_ROUTE",
    "INFERENCE_SERVICE",
    "LEASE",
    "POD",
    "RUNTIME",
    "SERVICE",
    "Kind",
    "Planned",
]


@dataclass(frozen=True)
class Kind:
    """A kind of objects, as addresses of the API name it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """Return what an object has as `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def __str__(self) -> str:
        """Return the name that Roles and `kubectl` know."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


@dataclass(frozen=True)
class Planned:
    """What a rollout would apply.

    Attributes:
        kind: Kind of the object.
        manifest: The object, as far as the rollout says what it is.
        force: Whether it takes fields over that others own.
    """

    kind: Kind
    manifest: dict[str, Any]
    force: bool


INFERENCE_SERVICE = Kind("serving.kserve.io", "v1beta1", "inferenceservices", "InferenceService")
RUNTIME = Kind("serving.kserve.io", "v1alpha1", "servingruntimes", "ServingRuntime")
HTTP_ROUTE = Kind("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")
DEPLOYMENT = Kind("apps", "v1", "deployments", "Deployment")
POD = Kind("", "v1", "pods", "Pod")
SERVICE = Kind("", "v1", "services", "Service")
EVENT = Kind("", "v1", "events", "Event")
CONFIG_MAP = Kind("", "v1", "configmaps", "ConfigMap")
LEASE = Kind("coordination.k8s.io", "v1", "leases", "Lease")
CRD = Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)
ACCESS_REVIEW = Kind("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False)
