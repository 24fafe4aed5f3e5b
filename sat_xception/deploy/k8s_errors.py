"""Turn errors of a Kubernetes API server into ours, with advice."""

from __future__ import annotations

from sat_xception.deploy.k8s_objects import Status
from sat_xception.errors import ConfigError, SatXceptionError, ServiceError

__all__ = ["ConflictError", "refusal_of_pods", "told"]


class ConflictError(ConfigError):
    """Another manager owns a field, or the object was changed meanwhile."""


def told(verb: str, what: str, code: int, status: Status, reason: str, namespace: str) -> SatXceptionError:
    """Return the error for an HTTP error status.

    Args:
        verb: Verb of the request, as in Roles, or "apply".
        what: Kind and name of the object.
        code: HTTP status.
        status: `Status` object of the response; empty if it was something else.
        reason: HTTP reason phrase.
        namespace: Namespace of the object.
    """
    said = " ".join(str(status.message or reason).split())
    tried = f"can't {verb} {what} in namespace {namespace}"
    if code == 409:
        return ConflictError(f"{tried}: {_owners(status) or said}")
    if code == 404:
        return ConfigError(
            f"{tried}: the cluster doesn't know this kind, or there is no such namespace ({said}). Install KServe and "
            f"the Gateway API, apply the manifests, and see `kubectl get namespace {namespace}`"
        )
    if code == 401:
        return ServiceError(f"{tried}: the cluster doesn't accept the credentials ({said}); log in again")
    if _is_denied(said):
        return ConfigError(
            f"{tried}: an admission webhook or a policy refused it: {said}. Change the template, or the policy"
        )
    if "exceeded quota" in said:
        return ServiceError(
            f"{tried}: the namespace's quota is used up: {said}. Raise it, or lower the template's requests"
        )
    if code == 403:
        return ServiceError(
            f"{tried}: not allowed ({said}). Bind the Role sat-xception-deployer of the manifests to this account; "
            "`sat_xception deploy --dry-run` lists every permission that is missing"
        )
    if code in (400, 422):
        return ConfigError(
            f"{tried}: the cluster refuses it: {said}. Change the template InferenceService or the route"
        )
    return ServiceError(f"{tried}: {code} {said}. Run the same command again when the cluster is well")


def refusal_of_pods(said: str) -> tuple[type[SatXceptionError], str]:
    """Return the class of the error for pods that the cluster refuses to create, and the advice.

    Args:
        said: The API server's message to the controller that tried to create them.
    """
    if "exceeded quota" in said:
        return (
            ServiceError,
            "A rollout needs room for both predictors: raise the quota, or lower the template's requests",
        )
    if "cannot create resource" in said:
        return ServiceError, "KServe's own rights are too few"
    if _is_denied(said) or "violates PodSecurity" in said or "is forbidden" in said:
        return ConfigError, "Change the template InferenceService or the ServingRuntime, or the policy"
    return ServiceError, "Run the same command again when the cluster is well"


def _is_denied(said: str) -> bool:
    """Return whether an admission webhook or a ValidatingAdmissionPolicy denied a request (and didn't just fail)."""
    return any(words in said for words in ("denied the request", "denied request"))


def _owners(status: Status) -> str:
    """Return the owners of the fields in a server-side apply conflict; "" for another kind of conflict."""
    causes = [cause for cause in status.details.causes if cause.reason == "FieldManagerConflict"]
    if not causes:
        return ""
    fields = "; ".join(f"{cause.field} ({cause.message})" for cause in causes)
    return (
        f"others own fields that a rollout sets: {fields}. Put the change into the template InferenceService instead, "
        "or take the fields over with --force-conflicts"
    )
