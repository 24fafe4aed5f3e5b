"""Wait until all pods of a new predictor serve the new model, or report why they don't.

An InferenceService's own status isn't reliable for this: `observedGeneration` is copied from the Deployment
(kserve/kserve#6081), and Ready stays True during a rollout (#4626). So the Deployment is checked for whether its pods
run the applied model, and the pods for problems. Refused pods are checked first: pods that a quota or a policy refuses
don't appear in the status of an InferenceService.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sat_xception.deploy.k8s_client import KubernetesClient
from sat_xception.deploy.k8s_kinds import DEPLOYMENT, INFERENCE_SERVICE, SERVICE
from sat_xception.deploy.k8s_objects import Condition, Deployment, conditions_by_type
from sat_xception.deploy.kserve_objects import CanaryStatus, InferenceService, ModelStatus
from sat_xception.deploy.pod_diagnosis import (
    PATIENCE_S,
    SOURCE_ANNOTATION,
    PodProblem,
    look_at_deployment,
    look_at_pods,
)
from sat_xception.errors import ModelError, SatXceptionError, ServiceError
from sat_xception.log import duration, get_logger

__all__ = ["Predictor", "await_predictor"]

_log = get_logger(__name__)

# Poll interval in seconds if no watch event arrives, and the interval of log lines while waiting.
_LOOK_S = 5.0
_LINE_EVERY_S = 15.0
# Fraction of the timeout to wait for a node: a cluster's autoscaler takes minutes to start one.
_PATIENCE_FOR_A_NODE = 1 / 2


@dataclass(frozen=True)
class Predictor:
    """A predictor that serves one release.

    Attributes:
        service: Name of the InferenceService.
        backend: Name of the Service and of the Deployment.
        version: Version of the model.
        storage_uri: storageUri of the pods.
        conditions: Conditions of the InferenceService that must be True.
        min_replicas: minReplicas to restore, if the rollout changes them; None otherwise.
        max_replicas: maxReplicas to restore, if the rollout changes them; None otherwise.
    """

    service: str
    backend: str
    version: int
    storage_uri: str
    conditions: tuple[str, ...] = ("Ready", "PredictorReady")
    min_replicas: int | None = None
    max_replicas: int | None = None


def await_predictor(
    cluster: KubernetesClient, predictor: Predictor, generation: int, timeout_s: float, still_ours: Callable[[], None]
) -> None:
    """Wait until all pods of a predictor run the applied model.

    Args:
        cluster: Client of the cluster.
        predictor: The applied predictor.
        generation: Generation of the InferenceService after the apply.
        timeout_s: Timeout in seconds.
        still_ours: Raises if another process has taken over the rollout's lock.

    Raises:
        ConfigError: A policy refuses its pods.
        ModelError: The model doesn't load, or its container exits.
        ServiceError: The pods aren't ready in time, or can't become ready: no image, no quota, no node.
    """
    started = told = time.monotonic()
    seen = _PodProblem()
    while True:
        still_ours()
        service = _service(cluster, predictor, generation)
        trouble = look_at_deployment(cluster, predictor.service, predictor.backend, predictor.storage_uri)
        waiting_for = trouble.reason or _not_ready(service, predictor) or _not_rolled_out(cluster, predictor)
        if not waiting_for:
            return
        if not trouble.reason:  # a crashing container is more informative than the conditions
            trouble = look_at_pods(cluster, predictor.service, predictor.storage_uri)
        if not trouble.kind:
            trouble = _blocked(service, predictor) or trouble
        lasted_s, waited = seen.lasted_s(trouble), time.monotonic() - started
        patience_s = timeout_s * _PATIENCE_FOR_A_NODE if trouble.kind == "no node" else PATIENCE_S.get(trouble.kind)
        if patience_s is not None and lasted_s >= patience_s:
            since = f" (for {duration(lasted_s)})" if patience_s else ""
            raise trouble.error(f"{predictor.service} doesn't start: {trouble}{since}")
        if waited > timeout_s:
            raise _too_late(predictor, waiting_for, trouble, timeout_s)
        if time.monotonic() - told >= _LINE_EVERY_S or told == started:
            told = time.monotonic()
            _log.info("wait      %s: %s (%s)", predictor.service, trouble.reason or waiting_for, duration(waited))
        cluster.await_change(INFERENCE_SERVICE, service.manifest(), min(_LOOK_S, max(0.1, timeout_s - waited)))


class _PodProblem:
    """Measures how long the present kind of problem has lasted."""

    def __init__(self) -> None:
        self._kind, self._since = "", time.monotonic()

    def lasted_s(self, trouble: PodProblem) -> float:
        if trouble.kind != self._kind:
            self._kind, self._since = trouble.kind, time.monotonic()
        return time.monotonic() - self._since


def _service(cluster: KubernetesClient, predictor: Predictor, generation: int) -> InferenceService:
    found = cluster.get(INFERENCE_SERVICE, predictor.service)
    service = InferenceService.of(found or {})
    if found is None or service.metadata.deletion_timestamp:
        raise ServiceError(f"somebody deleted the InferenceService {predictor.service} while it was rolled out")
    if service.metadata.generation != generation:
        raise ServiceError(
            f"somebody changed the InferenceService {predictor.service} while it was rolled out (generation "
            f"{service.metadata.generation}, ours is {generation}); see who with `kubectl get inferenceservice "
            f"{predictor.service} -n {cluster.namespace} -o yaml --show-managed-fields`, then deploy again"
        )
    return service


def _blocked(service: InferenceService, predictor: Predictor) -> PodProblem | None:
    """Return KServe's reason why the model can't be served; the first failure may be followed by a successful retry."""
    status = _model_status(service, predictor)
    transition = status.transition_status
    if transition not in ("InvalidSpec", "BlockedByFailedLoad"):
        return None
    failure = status.last_failure_info
    said = ": ".join(filter(None, (failure.reason, failure.message))) or "no reason given"
    code = f" (exit code {failure.exit_code})" if failure.exit_code else ""
    reason = f"KServe says that it can't serve version {predictor.version}: {transition}: {said}{code}"
    return PodProblem(reason, "blocked", ModelError)


def _canary_status(service: InferenceService, predictor: Predictor) -> CanaryStatus | None:
    """Return KServe's status of the predictor as a canary; None if it isn't one."""
    canaries = service.status.canary_statuses
    backends = {f"{predictor.service}-{canary.name}-predictor": canary for canary in canaries}
    return backends.get(predictor.backend)


def _model_status(service: InferenceService, predictor: Predictor) -> ModelStatus:
    """Return KServe's status of the predictor's model; an empty one if there is none.

    A canary's `modelStatus` is always present and never filled (KServe, August 2026), so it is ignored without a
    transition status.
    """
    canary = _canary_status(service, predictor)
    status = canary.model_status if canary is not None else service.status.model_status
    return status if status.transition_status else ModelStatus()


def _not_ready(service: InferenceService, predictor: Predictor) -> str:
    """Return the first part of the InferenceService's status that isn't ready, or ""."""
    conditions = conditions_by_type(service.status.conditions)
    wanted = [*predictor.conditions, *(["IngressReady"] if "IngressReady" in conditions else [])]
    for kind in wanted:
        condition = conditions.get(kind, Condition(status="not said"))
        if condition.status != "True":
            return f"{kind} is {condition.status}{f' ({condition.said})' if condition.said else ''}"
    status, canary = _model_status(service, predictor), _canary_status(service, predictor)
    if canary is not None and not status.transition_status:  # a canary's modelStatus is optional
        return "" if canary.ready else "the canary isn't ready"
    state = status.states.target_model_state
    if status.transition_status != "UpToDate" or state != "Loaded":
        return f"the model is {state or 'not loaded'}"
    return ""


def _not_rolled_out(cluster: KubernetesClient, predictor: Predictor) -> str:
    """Return why not all pods of the Deployment run the applied model, or ""."""
    found = cluster.get(DEPLOYMENT, predictor.backend)
    if found is None:
        return f"there is no Deployment {predictor.backend} yet"
    deployment = Deployment.of(found)
    source, status = deployment.spec.template.metadata.annotations.get(SOURCE_ANNOTATION), deployment.status
    if source != predictor.storage_uri:
        return f"the Deployment's pods still fetch {source}"
    if not deployment.is_observed:
        return "the Deployment's controller hasn't seen the change"
    replicas, updated, available = status.replicas, status.updated_replicas, status.available_replicas
    if not (replicas == updated == available and replicas):
        return f"{updated} of {max(replicas, 1)} pods run the new model, {available} are available"
    if cluster.get(SERVICE, predictor.backend) is None:
        return f"there is no Service {predictor.backend} yet"
    return ""


def _too_late(predictor: Predictor, waiting_for: str, trouble: PodProblem, timeout_s: float) -> SatXceptionError:
    return trouble.error(
        f"{predictor.service} isn't ready after {duration(timeout_s)}: {trouble.reason or waiting_for}. If it only "
        "needs longer, raise --start-minutes"
    )
