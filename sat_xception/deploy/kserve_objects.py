"""KServe's objects as a rollout reads them; see `k8s_objects`."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from sat_xception.deploy.k8s_objects import Condition, KubernetesObject, Object, Part

__all__ = [
    "Canary",
    "CanaryStatus",
    "InferenceService",
    "ModelStatus",
    "PredictorSpec",
    "ServingRuntime",
]


class _Model(Part):
    name: str = ""
    storage_uri: str = ""
    runtime: str = ""
    args: list[str] = Field(default_factory=list)


class PredictorSpec(Part):
    """A predictor of an InferenceService."""

    name: str = ""
    min_replicas: int | None = None
    max_replicas: int | None = None
    annotations: dict[str, str] = Field(default_factory=dict)
    service_account_name: str = ""
    model: _Model = _Model()


class Canary(Part):
    """A canary of an InferenceService."""

    traffic_percent: int = 0
    predictor: PredictorSpec = PredictorSpec()


class _InferenceServiceSpec(Part):
    predictor: PredictorSpec = PredictorSpec()
    canary: list[Canary] = Field(default_factory=list)


class _Failure(Part):
    reason: str = ""
    message: str = ""
    exit_code: int | None = None


class _ModelStates(Part):
    target_model_state: str = ""


class ModelStatus(Part):
    """State of a model, as KServe reports it."""

    transition_status: str = ""
    states: _ModelStates = _ModelStates()
    last_failure_info: _Failure = _Failure()


class CanaryStatus(Part):
    """State of a canary, as KServe reports it."""

    name: str = ""
    ready: bool = False
    model_status: ModelStatus = ModelStatus()


class _InferenceServiceStatus(Part):
    conditions: list[Condition] = Field(default_factory=list)
    model_status: ModelStatus = ModelStatus()
    canary_statuses: list[CanaryStatus] = Field(default_factory=list)


class InferenceService(KubernetesObject):
    """An InferenceService of KServe."""

    spec: _InferenceServiceSpec = _InferenceServiceSpec()
    status: _InferenceServiceStatus = _InferenceServiceStatus()

    def manifest_with(self, predictor: Object, canaries: Iterable[Object] = ()) -> Object:
        """Return a manifest that can be applied: with another predictor, these canaries, and all else as it was."""
        kept = {"name", "namespace", "labels", "annotations"}
        metadata = self.metadata.model_dump(include=kept, exclude_unset=True)
        spec = {key: value for key, value in self.spec.manifest().items() if key != "canary"}
        changed: Object = {"predictor": predictor}
        if canary := list(canaries):
            changed |= {"canary": canary}
        return {"metadata": {"annotations": {}} | metadata, "spec": spec | changed}


class _Container(Part):
    image: str = "no image"
    command: list[str] = Field(default_factory=list)
    args: list[str] = Field(default_factory=list)


class _RuntimeSpec(Part):
    containers: list[_Container] = Field(default_factory=list)


class ServingRuntime(KubernetesObject):
    """A ServingRuntime of KServe."""

    spec: _RuntimeSpec = _RuntimeSpec()
