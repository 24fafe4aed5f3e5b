"""Wait until a new predictor really is the one that answers, or say why it won't.

An InferenceService's own status can't be trusted for this: `observedGeneration` is copied from the Deployment
(kserve/kserve#6081), and Ready stays True while a rollout goes on (#4626). So what is asked is the Deployment, whether
its pods have fetched what was applied; and the pods themselves, why they haven't. What never was made comes first: pods
that a quota or a policy refuses are in no status of an InferenceService.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sat_xception.deploy.k8s_client import KubernetesClient
from sat_xception.deploy.k8s_kinds import DEPLOYMENT, INFERENCE_SERVICE, SERVICE
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
Object = dict[str, Any]

# Seconds between two looks when nothing is said to have changed, and between two lines that tell of waiting.
_LOOK_S = 5.0
_LINE_EVERY_S = 15.0
# A cluster's autoscaler takes minutes to start a node; longer than this part of the time it won't.
_PATIENCE_FOR_A_NODE = 1 / 2


@dataclass(frozen=True)
class Predictor:
    """What serves one release.

    Attributes:
        service: Name of its InferenceService.
        backend: Name of its Service, and of its Deployment.
        version: Version of the model.
        storage_uri: What its pods fetch.
        conditions: Conditions of the InferenceService that must be True.
        min_replicas: Its minReplicas and maxReplicas, where a rollout changes those of what answers and puts them back;
            None for none.
        max_replicas: See above.
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
    """Wait until a predictor's pods run the model that was applied, all of them and no other.

    Args:
        cluster: Where it is.
        predictor: What was applied.
        generation: Generation of the InferenceService after it was applied.
        timeout_s: How long it may take.
        still_ours: Raises when somebody else has the rollout's lock.

    Raises:
        ConfigError: A policy doesn't let its pods come into being.
        ModelError: The model doesn't load, or its container ends.
        ServiceError: It isn't ready in time, or never will be: no image, no quota, no node.
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
        if not trouble.reason:  # a container that ends again and again says more than any condition
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
        cluster.await_change(INFERENCE_SERVICE, service, min(_LOOK_S, max(0.1, timeout_s - waited)))


class _PodProblem:
    """How long the present kind of trouble has lasted."""

    def __init__(self) -> None:
        self._kind, self._since = "", time.monotonic()

    def lasted_s(self, trouble: PodProblem) -> float:
        if trouble.kind != self._kind:
            self._kind, self._since = trouble.kind, time.monotonic()
        return time.monotonic() - self._since


def _service(cluster: KubernetesClient, predictor: Predictor, generation: int) -> Object:
    service = cluster.get(INFERENCE_SERVICE, predictor.service)
    if service is None or service["metadata"].get("deletionTimestamp"):
        raise ServiceError(f"somebody deleted the InferenceService {predictor.service} while it was rolled out")
    if service["metadata"]["generation"] != generation:
        raise ServiceError(
            f"somebody changed the InferenceService {predictor.service} while it was rolled out (generation "
            f"{service['metadata']['generation']}, ours is {generation}); see who with `kubectl get inferenceservice "
            f"{predictor.service} -n {cluster.namespace} -o yaml --show-managed-fields`, then deploy again"
        )
    return service


def _blocked(service: Object, predictor: Predictor) -> PodProblem | None:
    """Return why KServe says that the model can't be served: also after a first failure, that a second try may mend."""
    status = _model_status(service, predictor)
    transition = status.get("transitionStatus")
    if transition not in ("InvalidSpec", "BlockedByFailedLoad"):
        return None
    failure = status.get("lastFailureInfo", {})
    said = ": ".join(str(failure[key]) for key in ("reason", "message") if failure.get(key)) or "no reason given"
    code = f" (exit code {failure['exitCode']})" if failure.get("exitCode") else ""
    reason = f"KServe says that it can't serve version {predictor.version}: {transition}: {said}{code}"
    return PodProblem(reason, "blocked", ModelError)


def _canary_status(service: Object, predictor: Predictor) -> Object | None:
    """Return what KServe says of the predictor as a canary; None where it isn't one."""
    canaries: list[Object] = service.get("status", {}).get("canaryStatuses") or []
    backends = {f"{predictor.service}-{canary['name']}-predictor": canary for canary in canaries}
    return backends.get(predictor.backend)


def _model_status(service: Object, predictor: Predictor) -> Object:
    """Return what KServe says of the predictor's model; {} where it says nothing.

    A canary's `modelStatus` is always there and never filled (KServe of August 2026): no transition is no word.
    """
    canary = _canary_status(service, predictor)
    status: Object = (canary if canary is not None else service.get("status", {})).get("modelStatus") or {}
    return status if status.get("transitionStatus") else {}


def _not_ready(service: Object, predictor: Predictor) -> str:
    """Return what of the InferenceService's status isn't as it should be, or ""."""
    conditions = {item["type"]: item for item in service.get("status", {}).get("conditions", ())}
    wanted = [*predictor.conditions, *(["IngressReady"] if "IngressReady" in conditions else [])]
    for kind in wanted:
        condition = conditions.get(kind, {})
        if condition.get("status") != "True":
            said = ": ".join(str(condition[key]) for key in ("reason", "message") if condition.get(key))
            return f"{kind} is {condition.get('status', 'not said')}{f' ({said})' if said else ''}"
    status, canary = _model_status(service, predictor), _canary_status(service, predictor)
    if canary is not None and not status:  # a canary's own is optional
        return "" if canary.get("ready") else "the canary isn't ready"
    if status.get("transitionStatus") != "UpToDate" or status.get("states", {}).get("targetModelState") != "Loaded":
        return f"the model is {status.get('states', {}).get('targetModelState') or 'not loaded'}"
    return ""


def _not_rolled_out(cluster: KubernetesClient, predictor: Predictor) -> str:
    """Return why not all pods of the Deployment run the model that was applied, or ""."""
    deployment = cluster.get(DEPLOYMENT, predictor.backend)
    if deployment is None:
        return f"there is no Deployment {predictor.backend} yet"
    template = deployment["spec"]["template"]["metadata"].get("annotations", {})
    source, status = template.get(SOURCE_ANNOTATION), deployment.get("status", {})
    if source != predictor.storage_uri:
        return f"the Deployment's pods still fetch {source}"
    if status.get("observedGeneration", 0) < deployment["metadata"]["generation"]:
        return "the Deployment's controller hasn't seen the change"
    replicas, updated, available = (status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas"))
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
