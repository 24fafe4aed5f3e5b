"""Kubernetes objects as a rollout reads them: the fields that it uses have names and types, all others are kept.

Objects that are written back are made of `manifest()`, which returns everything that was read. The classes of the
`kubernetes` package drop fields that they don't know, and there are none for KServe and the Gateway API.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from sat_xception.errors import ServiceError, faults_of

__all__ = [
    "AccessReview",
    "BackendRef",
    "Condition",
    "ConfigMap",
    "ContainerStatus",
    "CustomResourceDefinition",
    "Deployment",
    "Event",
    "HTTPRoute",
    "KubernetesObject",
    "Lease",
    "ObjectList",
    "Part",
    "PersistentVolumeClaim",
    "Pod",
    "RouteRule",
    "SchemaVersion",
    "ServiceAccount",
    "Status",
    "conditions_by_type",
]

Object = dict[str, Any]


class Part(BaseModel):
    """A part of an object: fields that are used have names and types, and all are kept."""

    model_config = ConfigDict(
        frozen=True, extra="allow", strict=True, alias_generator=to_camel, populate_by_name=True, defer_build=True
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_out_null(cls, value: Any) -> Any:  # noqa: ANN401 - as in the JSON
        return {key: part for key, part in value.items() if part is not None} if isinstance(value, Mapping) else value

    def manifest(self) -> Object:
        """Return all fields that were read or set."""
        return self.model_dump(by_alias=True, exclude_unset=True)


class _Metadata(Part):
    name: str = ""
    namespace: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str = ""


class KubernetesObject(Part):
    """An object of any kind."""

    metadata: _Metadata = _Metadata()

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """Return an object of the API server.

        Raises:
            ServiceError: A field has another type.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = faults_of(error)[0]
            raise ServiceError(
                f"the cluster sent another {cls.__name__} than the releases in docs/rollout.md do: {first.field}: "
                f"{first.why}, got {first.value!r}"
            ) from None


class Condition(Part):
    """A condition in the status of an object."""

    type: str = ""
    status: str = "Unknown"
    reason: str = ""
    message: str = ""
    observed_generation: int | None = None

    @property
    def said(self) -> str:
        """Reason and message; "" without them."""
        return ": ".join(filter(None, (self.reason, self.message)))


def conditions_by_type(conditions: Iterable[Condition]) -> dict[str, Condition]:
    """Return conditions by their type."""
    return {condition.type: condition for condition in conditions}


class _PodTemplate(Part):
    metadata: _Metadata = _Metadata()


class _DeploymentSpec(Part):
    template: _PodTemplate = _PodTemplate()


class _DeploymentStatus(Part):
    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    available_replicas: int = 0
    conditions: list[Condition] = []


class Deployment(KubernetesObject):
    """A Deployment."""

    spec: _DeploymentSpec = _DeploymentSpec()
    status: _DeploymentStatus = _DeploymentStatus()

    @property
    def is_observed(self) -> bool:
        """Whether its status is of its present generation."""
        return self.status.observed_generation >= self.metadata.generation


class _Waiting(Part):
    reason: str = ""
    message: str = ""


class _Terminated(Part):
    reason: str = ""
    exit_code: int | None = None


class _ContainerState(Part):
    waiting: _Waiting = _Waiting()
    running: Object | None = None
    terminated: _Terminated | None = None


class ContainerStatus(Part):
    """State of a container of a pod."""

    name: str = ""
    restart_count: int = 0
    state: _ContainerState = _ContainerState()
    last_state: _ContainerState = _ContainerState()

    @property
    def ended(self) -> _Terminated | None:
        """How its last run ended; None if none has."""
        return self.last_state.terminated or self.state.terminated


class _PodStatus(Part):
    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: list[Condition] = []
    init_container_statuses: list[ContainerStatus] = []
    container_statuses: list[ContainerStatus] = []


class Pod(KubernetesObject):
    """A pod."""

    status: _PodStatus = _PodStatus()


class _ObjectReference(Part):
    name: str = ""


class Event(KubernetesObject):
    """An event."""

    involved_object: _ObjectReference = _ObjectReference()
    reason: str = ""
    message: str = ""
    last_timestamp: str = ""
    event_time: str = ""

    @property
    def time(self) -> str:
        """Its time; "" if it has none."""
        return self.last_timestamp or self.event_time


class _LeaseSpec(Part):
    holder_identity: str = ""
    lease_duration_seconds: int = 0


class Lease(KubernetesObject):
    """A Lease."""

    spec: _LeaseSpec = _LeaseSpec()


class BackendRef(Part):
    """A backend of a rule, with its weight."""

    name: str
    weight: int = 1


class RouteRule(Part):
    """A rule of an HTTPRoute."""

    backend_refs: list[BackendRef] = []


class _RouteSpec(Part):
    hostnames: list[str] = []
    parent_refs: list[Object] = []
    rules: list[RouteRule] = []


class _RouteParent(Part):
    conditions: list[Condition] = []


class _RouteStatus(Part):
    parents: list[_RouteParent] = []


class HTTPRoute(KubernetesObject):
    """An HTTPRoute of the Gateway API."""

    spec: _RouteSpec = _RouteSpec()
    status: _RouteStatus = _RouteStatus()


class _SpecSchema(Part):
    properties: Object = {}


class _Properties(Part):
    spec: _SpecSchema = _SpecSchema()


class _OpenAPISchema(Part):
    properties: _Properties = _Properties()


class _Validation(Part):
    open_api: _OpenAPISchema = Field(_OpenAPISchema(), alias="openAPIV3Schema")


class SchemaVersion(Part):
    """A version in a CustomResourceDefinition."""

    name: str = ""
    served: bool = False
    validation: _Validation = Field(_Validation(), alias="schema")

    @property
    def fields(self) -> set[str]:
        """Names of the fields in `spec`."""
        return set(self.validation.open_api.properties.spec.properties)


class _CRDSpec(Part):
    versions: list[SchemaVersion] = []


class CustomResourceDefinition(KubernetesObject):
    """A CustomResourceDefinition."""

    spec: _CRDSpec = _CRDSpec()


class ConfigMap(KubernetesObject):
    """A ConfigMap."""

    data: dict[str, str] = {}


class ObjectList(KubernetesObject):
    """A list of objects, as they were sent."""

    items: list[Object] = []


class _Cause(Part):
    reason: str = ""
    field: str = ""
    message: str = ""


class _Details(Part):
    name: str = ""
    causes: list[_Cause] = []


class Status(KubernetesObject):
    """Body of an error."""

    message: str = ""
    details: _Details = _Details()


class _Allowed(Part):
    allowed: bool = False


class AccessReview(KubernetesObject):
    """A SelfSubjectAccessReview."""

    status: _Allowed = _Allowed()


class ServiceAccount(KubernetesObject):
    """A ServiceAccount."""

    secrets: list[Object] = []


class _Access(Part):
    access_modes: list[str] = []


class PersistentVolumeClaim(KubernetesObject):
    """A PersistentVolumeClaim."""

    spec: _Access = _Access()
    status: _Access = _Access()

    @property
    def access_modes(self) -> set[str]:
        """Access modes of its volume; those that it asks for, as long as it has none."""
        return set(self.status.access_modes or self.spec.access_modes)
