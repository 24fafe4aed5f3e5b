"""What a cluster's refusals mean, and what to do about each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sat_xception.errors import ConfigError, SatXceptionError, ServiceError

__all__ = ["ConflictError", "refusal_of_pods", "told"]


class ConflictError(ConfigError):
    """Somebody else owns a field, or changed the object meanwhile."""


def told(verb: str, what: str, code: int, status: Mapping[str, Any], reason: str, namespace: str) -> SatXceptionError:
    """Return the error for a refusal.

    Args:
        verb: What was tried, as Roles call it, or "apply".
        what: With what: kind and name.
        code: The HTTP code.
        status: The `Status` object of the answer; empty when it was something else.
        reason: The HTTP reason.
        namespace: Where.
    """
    said = " ".join(str(status.get("message") or reason).split())
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
    """Return the error for pods that a cluster doesn't let come into being, and what to do.

    Args:
        said: What the API server answered to whoever wanted to create them.
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
    """Return whether an admission webhook or a ValidatingAdmissionPolicy said no, rather than nothing."""
    return any(words in said for words in ("denied the request", "denied request"))


def _owners(status: Mapping[str, Any]) -> str:
    """Return who owns the fields that server-side apply was refused; "" when the conflict is another one."""
    causes = [
        cause for cause in status.get("details", {}).get("causes", ()) if cause["reason"] == "FieldManagerConflict"
    ]
    if not causes:
        return ""
    fields = "; ".join(f"{cause['field']} ({cause['message']})" for cause in causes)
    return (
        f"others own fields that a rollout sets: {fields}. Put the change into the template InferenceService instead, "
        "or take the fields over with --force-conflicts"
    )
