"""Find out why a predictor's pods aren't created or don't become ready, from conditions, events and logs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sat_xception.deploy.k8s_client import KubernetesClient
from sat_xception.deploy.k8s_errors import refusal_of_pods
from sat_xception.deploy.k8s_kinds import DEPLOYMENT, EVENT, POD
from sat_xception.deploy.k8s_objects import Condition, ContainerStatus, Deployment, Event, Pod, conditions_by_type
from sat_xception.errors import ModelError, SatXceptionError, ServiceError

__all__ = ["PATIENCE_S", "SOURCE_ANNOTATION", "PodProblem", "look_at_deployment", "look_at_pods"]

# Annotation with the storageUri of KServe's storage initializer.
SOURCE_ANNOTATION = "internal.serving.kserve.io/storage-initializer-sourceuri"
_LOG_LINES = 12
# Seconds that each kind of problem may last before the wait fails; other kinds may last until the timeout.
PATIENCE_S = {
    # A quota is freed when pods end; a webhook is unavailable while it restarts.
    "refused": 30.0,
    # A kubelet reports ImagePullBackOff within a second of the first failed pull, and retries after 10, 20 and 40 s.
    "image": 90.0,
    # The kubelet retries every few seconds, and the missing object may just have been applied.
    "missing": 30.0,
    "node": 30.0,
    # KServe reports this after the first failed download, and until it has seen the runtime.
    "blocked": 30.0,
    "hopeless": 0.0,
}
# Reasons of a waiting container: the kind of problem, the error class, and its meaning. CrashLoopBackOff appears after
# the second exit, since the first restart isn't delayed.
_PULL = "its image can't be fetched; check the runtime's image and the pull secret"
_WAITING: dict[str, tuple[str, type[SatXceptionError], str]] = {
    "CrashLoopBackOff": ("hopeless", ModelError, "it starts and ends again and again"),
    "ErrImagePull": ("image", ServiceError, _PULL),
    "ImagePullBackOff": ("image", ServiceError, _PULL),
    "RegistryUnavailable": ("image", ServiceError, _PULL),
    "ImageInspectError": ("image", ServiceError, "the node can't read its image"),
    "SignatureValidationFailed": ("image", ServiceError, "its image isn't signed as the node wants it"),
    "ErrImageNeverPull": ("hopeless", ServiceError, "the node hasn't its image, and may not fetch it"),
    "InvalidImageName": ("hopeless", ServiceError, "its image has no valid name; check the runtime's image"),
    "CreateContainerConfigError": ("missing", ServiceError, "a Secret or ConfigMap that it needs is missing"),
    "CreateContainerError": ("node", ServiceError, "the node can't create it"),
    "RunContainerError": ("node", ServiceError, "the node can't start it"),
}
_OUT_OF_MEMORY: tuple[str, type[SatXceptionError], str] = (
    "hopeless",
    ModelError,
    "was killed for using more memory than its limit (OOMKilled); raise the template's memory limit",
)
_MISSING_VOLUME = re.compile(r"(configmap|secret) \S+ not found", re.IGNORECASE)


@dataclass(frozen=True)
class PodProblem:
    """A problem that keeps pods from becoming ready.

    Attributes:
        reason: The problem in one line; "" if there is none.
        kind: Kind of the problem, which determines how long it may last: a key of `PATIENCE_S`, "no node", or "" if
            waiting may help.
        error: Class of the error.
        log: Last lines of the container's log, if it has one.
    """

    reason: str = ""
    kind: str = ""
    error: type[SatXceptionError] = ServiceError
    log: str = ""

    def __str__(self) -> str:
        """Return the reason and the log."""
        return f"{self.reason}; its log ends:\n{self.log}" if self.log else self.reason


def look_at_deployment(cluster: KubernetesClient, service: str, backend: str, storage_uri: str) -> PodProblem:
    """Return why the pods of a predictor aren't created (a quota, a policy, a webhook), or that their deadline passed.

    The InferenceService's conditions don't show this: they are False or Unknown, as for pods that are starting.

    Args:
        cluster: Client of the cluster.
        service: Name of the InferenceService.
        backend: Name of the predictor's Deployment.
        storage_uri: storageUri of its pods.
    """
    found = cluster.get(DEPLOYMENT, backend)
    if found is None:
        return _refusal(_refused_deployment(cluster, service))
    deployment = Deployment.of(found)
    if not deployment.is_observed:
        return PodProblem()  # its status is of an earlier generation
    conditions = conditions_by_type(deployment.status.conditions)
    failure, progress = conditions.get("ReplicaFailure", Condition()), conditions.get("Progressing", Condition())
    if failure.status == "True":  # copied by its controller from the ReplicaSet
        return _refusal(failure.message or failure.reason or "without a reason")
    if not deployment.status.replicas and (said := _refused_pods(cluster, deployment)):
        return _refusal(said)
    if progress.status == "False":
        of_pods = look_at_pods(cluster, service, storage_uri)
        said = f"{progress.reason}: {of_pods.reason or progress.message}"
        return PodProblem(said, "hopeless", of_pods.error, of_pods.log)
    return PodProblem()


def look_at_pods(cluster: KubernetesClient, service: str, storage_uri: str) -> PodProblem:
    """Return what keeps the pods of an InferenceService from becoming ready; pods of another model are ignored.

    Args:
        cluster: Client of the cluster.
        service: Name of the InferenceService.
        storage_uri: storageUri of the pods.
    """
    worst = PodProblem()
    for pod in map(Pod.of, cluster.find(POD, labels=f"serving.kserve.io/inferenceservice={service}")):
        source = pod.metadata.annotations.get(SOURCE_ANNOTATION, storage_uri)
        if source != storage_uri or pod.metadata.deletion_timestamp:
            continue
        trouble = _problem_of(cluster, pod)
        if trouble.kind == "hopeless":
            return trouble
        worst = trouble if trouble.kind or (trouble.reason and not worst.kind) else worst
    return worst


def _refusal(said: str) -> PodProblem:
    if not said:
        return PodProblem()
    error, advice = refusal_of_pods(said)
    return PodProblem(f"the cluster refuses its pods: {_one_line(said)}. {advice}", "refused", error)


def _refused_pods(cluster: KubernetesClient, deployment: Deployment) -> str:
    """Return the last event about refused pods of a Deployment's ReplicaSets, or ""."""
    # Events of an earlier Deployment of this name may still exist.
    name, since = deployment.metadata.name, deployment.metadata.creation_timestamp
    events = map(Event.of, cluster.find(EVENT, fields="involvedObject.kind=ReplicaSet,reason=FailedCreate"))
    ours = [event for event in events if event.involved_object.name.rpartition("-")[0] == name and event.time >= since]
    last = _last(ours)
    return last.message if last else ""


def _refused_deployment(cluster: KubernetesClient, service: str) -> str:
    """Return the last event about a refused Deployment of KServe's, or ""."""
    fields = f"involvedObject.kind=InferenceService,involvedObject.name={service},type=Warning"
    last = _last(map(Event.of, cluster.find(EVENT, fields=fields)))
    said = last.message if last else ""
    # KServe writes such events for everything that it retries, also for write conflicts.
    return said if any(word in said for word in ("denied", "forbidden", "exceeded quota")) else ""


def _problem_of(cluster: KubernetesClient, pod: Pod) -> PodProblem:
    name, status = pod.metadata.name, pod.status
    for container in (*status.init_container_statuses, *status.container_statuses):
        if trouble := _problem_of_container(cluster, name, container):
            return trouble
    for condition in status.conditions:
        if condition.type == "PodScheduled" and condition.status == "False":
            return PodProblem(f"pod {name} has no node: {condition.message or condition.reason}", "no node")
    if status.phase == "Failed":  # evicted, preempted, or its node is gone: another pod replaces it
        return PodProblem(f"pod {name} failed: {status.reason} {status.message}".strip())
    if status.phase == "Pending" and (event := _last_warning(cluster, name)):
        return PodProblem(f"pod {name} waits: {event}", "missing" if _MISSING_VOLUME.search(event) else "")
    return PodProblem()


def _problem_of_container(cluster: KubernetesClient, pod: str, container: ContainerStatus) -> PodProblem | None:
    waiting, ended = container.state.waiting, container.ended
    reason = waiting.reason
    out_of_memory = ended is not None and ended.reason == "OOMKilled"
    if not out_of_memory and reason not in _WAITING:
        return None
    what = f"container {container.name} of pod {pod}"
    kind, error, why = _OUT_OF_MEMORY if out_of_memory else _WAITING[reason]
    if out_of_memory:
        said = f"{what} {why}"
    else:
        detail = f" ({waiting.message})" if waiting.message else ""
        code = f", last exit code {ended.exit_code}" if ended and ended.exit_code is not None else ""
        said = f"{what} is in {reason}: {why}{detail}{code}"
    previous = bool(container.restart_count) and container.state.running is None
    log = cluster.log_tail(pod, container.name, _LOG_LINES, previous) if ended else ""
    return PodProblem(said, kind, error, log)


def _last_warning(cluster: KubernetesClient, pod: str) -> str:
    last = _last(map(Event.of, cluster.find(EVENT, fields=f"involvedObject.name={pod},type=Warning")))
    return f"{last.reason}: {_one_line(last.message)}" if last else ""


def _last(events: Iterable[Event]) -> Event | None:
    return max(events, key=lambda event: event.time, default=None)


def _one_line(text: str) -> str:
    return " ".join(text.split())
