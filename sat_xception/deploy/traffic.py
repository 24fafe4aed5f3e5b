"""Split the traffic of an HTTPRoute between Services, and wait until the gateway has accepted it.

Weights are relative (Gateway API, `HTTPBackendRef.weight`): a single backend has all the traffic at any weight, and a
backend without a weight has weight 1. So only shares are compared here. Rules of a route that aren't a rollout's aren't
changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from sat_xception.deploy.k8s_client import KubernetesClient
from sat_xception.deploy.k8s_errors import ConflictError
from sat_xception.deploy.k8s_kinds import HTTP_ROUTE
from sat_xception.deploy.k8s_objects import BackendRef, Condition, HTTPRoute, RouteRule, conditions_by_type
from sat_xception.errors import ConfigError, ServiceError

__all__ = ["await_route", "plan_split", "read_weights", "remove_backend", "split_traffic"]

Object = dict[str, Any]
_PORT = 80  # of a predictor's Service in KServe's Standard mode
_POLL_S = 0.5
# Shares that differ by less count as equal: the weights 1 and 2 may stand for 33 % and 67 %.
_SAME_PERCENT = 0.01
# Number of retries if a route changes between read and write: gateways write its status after each change.
_TRIES = 10
_EVERYTHING = [{"path": {"type": "PathPrefix", "value": "/"}}]
_DEFAULT: Object = {"matches": _EVERYTHING}  # the schema's default rule for a route without rules


def read_weights(route: Mapping[str, Any]) -> dict[str, float]:
    """Return the share of each Service in a route, in %; {} for a route without backends.

    If rules split differently, the largest share counts.
    """
    weights: dict[str, float] = {}
    for shares in map(_shares, HTTPRoute.of(route).spec.rules):
        for service, share in shares.items():
            weights[service] = max(weights.get(service, 0), share)
    return weights


def split_traffic(
    cluster: KubernetesClient, route: str, weights: Mapping[str, float], timeout_s: float, force: bool = False
) -> None:
    """Set the weights of Services in a route, and wait until the gateway has accepted it.

    Every rule with one of the Services as a backend gets the weights, and is otherwise unchanged. If there is none, a
    rule that matches everything is added.

    Args:
        cluster: Client of the cluster.
        route: Name of the route.
        weights: Weight of each Service of the endpoint. Services with weight 0 are removed from the route.
        timeout_s: Timeout for the gateway, in seconds.
        force: Take over fields that other managers own.

    Raises:
        ConfigError: The route doesn't exist any more.
        ConflictError: Another manager owns the route's rules.
        ServiceError: The gateway doesn't accept the route.
    """
    _change_rules(cluster, route, lambda live: _split(live, weights), force)
    await_route(cluster, route, weights, timeout_s)


def plan_split(cluster: KubernetesClient, route: str, weights: Mapping[str, float]) -> tuple[Object, bool] | None:
    """Return the manifest that `split_traffic` would apply, and whether the present rules are a mere default.

    None if the route splits the traffic this way already.

    Raises:
        ConfigError: The route doesn't exist any more.
    """
    live = _route(cluster, route)
    rules = _split(live, weights)
    if rules == live.spec.rules:
        return None
    metadata = {"name": route, "namespace": cluster.namespace}
    return {"metadata": metadata, "spec": {"rules": [rule.manifest() for rule in rules]}}, _is_nobodys(live)


def remove_backend(cluster: KubernetesClient, route: str, service: str) -> None:
    """Remove a Service from a route, with the rules that the rollout added for it; other rules stay.

    Raises:
        ConfigError: The route doesn't exist any more.
    """

    def without(live: HTTPRoute) -> list[RouteRule]:
        rules = [(rule, _with_weights(rule, {service: 0})) for rule in live.spec.rules]
        return [rule for before, rule in rules if rule == before or not _is_default(rule)]

    _change_rules(cluster, route, without, force=True)


def await_route(
    cluster: KubernetesClient, route: str, weights: Mapping[str, float], timeout_s: float, may_come: bool = False
) -> None:
    """Wait until a route splits requests by these weights, and the gateway has accepted it.

    Args:
        cluster: Client of the cluster.
        route: Name of the HTTPRoute.
        weights: Weight of each backend.
        timeout_s: Timeout in seconds.
        may_come: Whether the route may not exist yet: KServe makes its own after the predictor's pods are ready.

    Raises:
        ConfigError: The route doesn't exist (any more).
        ServiceError: Timeout.
    """
    wanted = _in_percent(weights)
    deadline = time.monotonic() + timeout_s
    while True:
        if may_come and time.monotonic() <= deadline and cluster.get(HTTP_ROUTE, route) is None:
            time.sleep(_POLL_S)
            continue
        found = _route(cluster, route)
        # Only rules with our Services count, among them KServe's rule for gRPC.
        splits = [_shares(rule, weights) for rule in found.spec.rules if _names(rule, weights)]
        other = next((split for split in splits if not _same(split, wanted)), None if splits else {})
        problem = _not_taken(found) if other is None else f"it splits {other or 'nothing'}, not {wanted}"
        if not problem:
            return
        if time.monotonic() > deadline:
            raise ServiceError(
                f"the gateway hasn't taken the HTTPRoute {route} after {timeout_s:g} s: {problem}. "
                f"See `kubectl describe httproute {route} -n {cluster.namespace}`"
            )
        time.sleep(_POLL_S)


def _change_rules(
    cluster: KubernetesClient, route: str, change: Callable[[HTTPRoute], list[RouteRule]], force: bool
) -> None:
    """Apply changed rules to a route, and retry if it was changed in between."""
    for left in reversed(range(_TRIES)):
        live = _route(cluster, route)
        rules, nobodys = change(live), _is_nobodys(live)
        if rules == live.spec.rules or (nobodys and not rules):
            return  # nothing to change; an apply would only make us the owner of others' fields
        metadata = {"name": route, "namespace": cluster.namespace}
        version = live.metadata.resource_version
        wanted = [rule.manifest() for rule in rules] or [_DEFAULT]
        applied = {"metadata": {**metadata, "resourceVersion": version}, "spec": {"rules": wanted}}
        try:
            cluster.apply(HTTP_ROUTE, applied, force=force or nobodys)
            if not rules:  # without the field in our manifest, the route has the rules of the manifests again
                cluster.apply(HTTP_ROUTE, {"metadata": metadata}, force=True)
            return
        except ConflictError:
            if not left or _route(cluster, route).metadata.resource_version == version:
                raise  # another manager owns the rules, or keeps changing the route


def _route(cluster: KubernetesClient, name: str) -> HTTPRoute:
    found = cluster.get(HTTP_ROUTE, name)
    if found is None:
        raise ConfigError(f"the HTTPRoute {name} is gone from namespace {cluster.namespace}; apply the manifests")
    return HTTPRoute.of(found)


def _split(route: HTTPRoute, weights: Mapping[str, float]) -> list[RouteRule]:
    """Return the rules of a route with the given weights."""
    rules = [_with_weights(rule, weights) for rule in route.spec.rules]
    if any(_names(rule, weights) for rule in rules):
        return rules
    like = BackendRef.model_validate({"name": "", "port": _PORT})
    ours = RouteRule.model_validate({"matches": _EVERYTHING, "backendRefs": _references(weights, like)})
    return [*(rule for rule in rules if not _is_default(rule)), ours]


def _is_nobodys(route: HTTPRoute) -> bool:
    """Return whether the rules of a route are the schema's default.

    A route created without rules gets the default rule, owned by its creator unless it used server-side apply.
    """
    return all(map(_is_default, route.spec.rules))


def _names(rule: RouteRule, services: Mapping[str, float]) -> bool:
    return any(backend.name in services for backend in rule.backend_refs)


def _is_default(rule: RouteRule) -> bool:
    """Return whether a rule is equivalent to the schema's default rule."""
    return {key: value for key, value in rule.manifest().items() if value} in ({}, _DEFAULT)


def _with_weights(rule: RouteRule, weights: Mapping[str, float]) -> RouteRule:
    """Return a rule with the weights of these Services, if it has one of them and its shares differ."""
    ours = [backend for backend in rule.backend_refs if backend.name in weights]
    named = {backend.name for backend in ours}
    wanted = _in_percent(weights)
    if not named or (named == wanted.keys() and _same(_shares(rule, weights), wanted)):
        return rule
    others = [backend for backend in rule.backend_refs if backend.name not in weights]
    return rule.model_copy(update={"backend_refs": [*others, *_references(weights, ours[0])]})


def _references(weights: Mapping[str, float], like: BackendRef) -> list[BackendRef]:
    return [
        BackendRef.model_validate(
            {**like.manifest(), "group": "", "kind": "Service", "name": service, "weight": weight}
        )
        for service, weight in weights.items()
        if weight
    ]


def _shares(rule: RouteRule, among: Mapping[str, float] | None = None) -> dict[str, float]:
    """Return the share of each Service in a rule, in %; with `among`, only of these Services."""
    weights: dict[str, float] = {}
    for backend in rule.backend_refs:
        if among is None or backend.name in among:
            weights[backend.name] = weights.get(backend.name, 0) + backend.weight
    return _in_percent(weights)


def _in_percent(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    shares = {service: 100 * weight / total for service, weight in weights.items() if weight}
    return {service: int(share) if share == int(share) else share for service, share in shares.items()}


def _same(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return one.keys() == other.keys() and all(abs(one[name] - other[name]) < _SAME_PERCENT for name in one)


def _not_taken(route: HTTPRoute) -> str:
    """Return why no gateway has accepted the present state of a route, or ""."""
    if not route.status.parents:
        return "no gateway controller has set its status; is there one, and are its parentRefs right?"
    generation = route.metadata.generation
    for parent in route.status.parents:
        conditions = conditions_by_type(parent.conditions)
        for kind in ("Accepted", "ResolvedRefs"):
            condition = conditions.get(kind, Condition())
            if condition.status != "True":
                return f"{kind} is {condition.status} ({condition.said or 'no reason given'})"
            observed = condition.observed_generation
            if observed is not None and observed < generation:
                return "it has seen an earlier state of it only"
    return ""
