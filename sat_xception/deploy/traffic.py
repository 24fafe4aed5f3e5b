"""How an HTTPRoute splits requests between Services, and whether the gateway has taken it.

Weights are relative (Gateway API, `HTTPBackendRef.weight`): a sole backend has all the traffic whatever its weight, and
a backend without one has weight 1. So only shares are compared here. A route may have rules that aren't a rollout's:
they stay as they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from sat_xception.deploy.k8s_client import KubernetesClient
from sat_xception.deploy.k8s_errors import ConflictError
from sat_xception.deploy.k8s_kinds import HTTP_ROUTE
from sat_xception.errors import ConfigError, ServiceError

__all__ = ["await_route", "plan_split", "read_weights", "remove_backend", "split_traffic"]

Object = dict[str, Any]
_PORT = 80  # of a predictor's Service in KServe's Standard mode
_POLL_S = 0.5
# Shares that differ by less are the same: a KServe or a person may write 1 and 2 for a third and two thirds.
_SAME_PERCENT = 0.01
# How often a route may change between being read and being written: gateways write its status when it changes.
_TRIES = 10
_EVERYTHING = [{"path": {"type": "PathPrefix", "value": "/"}}]
_DEFAULT: Object = {"matches": _EVERYTHING}  # the rule that the schema gives a route without rules


def read_weights(route: Object) -> dict[str, float]:
    """Return the weight of each Service in a route, as its share in %; none for a route without backends.

    Where rules split differently, it is the largest.
    """
    weights: dict[str, float] = {}
    for shares in map(_shares, _rules(route)):
        for service, share in shares.items():
            weights[service] = max(weights.get(service, 0), share)
    return weights


def split_traffic(
    cluster: KubernetesClient, route: str, weights: Mapping[str, float], timeout_s: float, force: bool = False
) -> None:
    """Give each Service its weight in a route, and wait until the gateway has taken it.

    Every rule that sends to one of the Services gets the weights and stays as it is otherwise. Where there is none, a
    rule for everything is added.

    Args:
        cluster: Where the route is.
        route: Its name.
        weights: Weight of each Service of the endpoint. One with weight 0 gets no requests, and isn't named any more.
        timeout_s: How long the gateway may take.
        force: Take over fields that others own.

    Raises:
        ConfigError: The route is gone.
        ConflictError: Somebody else owns the route's rules.
        ServiceError: The gateway doesn't take the route.
    """
    _change_rules(cluster, route, lambda live: _split(live, weights), force)
    await_route(cluster, route, weights, timeout_s)


def plan_split(cluster: KubernetesClient, route: str, weights: Mapping[str, float]) -> tuple[Object, bool] | None:
    """Return what `split_traffic` would apply, and whether nobody has chosen what is there; None where it splits so.

    Raises:
        ConfigError: The route is gone.
    """
    live = _route(cluster, route)
    rules = _split(live, weights)
    if rules == _rules(live):
        return None
    return {"metadata": {"name": route, "namespace": cluster.namespace}, "spec": {"rules": rules}}, _is_nobodys(live)


def remove_backend(cluster: KubernetesClient, route: str, service: str) -> None:
    """Take a Service out of a route; what the rollout added for it goes, and rules of others stay.

    Raises:
        ConfigError: The route is gone.
    """

    def without(live: Object) -> list[Object]:
        rules = [(rule, _with_weights(rule, {service: 0})) for rule in _rules(live)]
        return [rule for before, rule in rules if rule == before or not _is_default(rule)]

    _change_rules(cluster, route, without, force=True)


def await_route(cluster: KubernetesClient, route: str, weights: Mapping[str, float], timeout_s: float) -> None:
    """Wait until a route splits requests by these weights, and the gateway has taken that.

    Raises:
        ConfigError: The route is gone.
        ServiceError: It isn't so in time.
    """
    wanted = _in_percent(weights)
    deadline = time.monotonic() + timeout_s
    while True:
        found = _route(cluster, route)
        # Rules of others send to other Services; a rule for gRPC, which KServe makes, sends to the same.
        splits = [_shares(rule, weights) for rule in _rules(found) if _names(rule, weights)]
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


def _change_rules(cluster: KubernetesClient, route: str, change: Callable[[Object], list[Object]], force: bool) -> None:
    """Apply the rules that a function makes of those that a route has, unless it has changed in between."""
    for left in reversed(range(_TRIES)):
        live = _route(cluster, route)
        rules, nobodys = change(live), _is_nobodys(live)
        if rules == _rules(live) or (nobodys and not rules):
            return  # an apply would only make us the owner of what somebody else has written
        metadata = {"name": route, "namespace": cluster.namespace}
        version = live["metadata"].get("resourceVersion")
        applied = {"metadata": {**metadata, "resourceVersion": version}, "spec": {"rules": rules or [_DEFAULT]}}
        try:
            cluster.apply(HTTP_ROUTE, applied, force=force or nobodys)
            if not rules:  # a field that we no longer name is no longer ours: the route is as the manifests made it
                cluster.apply(HTTP_ROUTE, {"metadata": metadata}, force=True)
            return
        except ConflictError:
            if not left or _route(cluster, route)["metadata"].get("resourceVersion") == version:
                raise  # somebody else owns the rules, or doesn't stop changing the route


def _route(cluster: KubernetesClient, name: str) -> Object:
    found = cluster.get(HTTP_ROUTE, name)
    if found is None:
        raise ConfigError(f"the HTTPRoute {name} is gone from namespace {cluster.namespace}; apply the manifests")
    return found


def _rules(route: Object) -> list[Object]:
    return list(route.get("spec", {}).get("rules") or ())


def _split(route: Object, weights: Mapping[str, float]) -> list[Object]:
    """Return the rules of a route in which each Service has its weight."""
    rules = [_with_weights(rule, weights) for rule in _rules(route)]
    if any(_names(rule, weights) for rule in rules):
        return rules
    ours = {"matches": _EVERYTHING, "backendRefs": _references(weights, {"port": _PORT})}
    return [*(rule for rule in rules if not _is_default(rule)), ours]


def _is_nobodys(route: Object) -> bool:
    """Return whether nobody has chosen the rules of a route.

    One without rules gets the schema's default, which then belongs to whoever created it, unless that was by
    server-side apply.
    """
    return all(map(_is_default, _rules(route)))


def _names(rule: Object, services: Mapping[str, float]) -> bool:
    return any(backend["name"] in services for backend in rule.get("backendRefs") or ())


def _is_default(rule: Object) -> bool:
    """Return whether a rule is the schema's own, or says no more."""
    return {key: value for key, value in rule.items() if value} in ({}, _DEFAULT)


def _with_weights(rule: Object, weights: Mapping[str, float]) -> Object:
    """Return a rule with the weights of these Services, if it sends to any of them and not as they say already."""
    backends = rule.get("backendRefs") or ()
    named = {backend["name"] for backend in backends if backend["name"] in weights}
    wanted = _in_percent(weights)
    if not named or (named == wanted.keys() and _same(_shares(rule, weights), wanted)):
        return rule
    like = next(backend for backend in backends if backend["name"] in weights)
    others = [backend for backend in backends if backend["name"] not in weights]
    return {**rule, "backendRefs": [*others, *_references(weights, like)]}


def _references(weights: Mapping[str, float], like: Object) -> list[Object]:
    return [
        {**like, "group": "", "kind": "Service", "name": service, "weight": weight}
        for service, weight in weights.items()
        if weight
    ]


def _shares(rule: Object, among: Mapping[str, float] | None = None) -> dict[str, float]:
    """Return the share of each Service in a rule, in %; only of those among which it is asked for."""
    weights: dict[str, float] = {}
    for backend in rule.get("backendRefs") or ():
        name = backend["name"]
        if among is None or name in among:
            weights[name] = weights.get(name, 0) + backend.get("weight", 1)
    return _in_percent(weights)


def _in_percent(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    shares = {service: 100 * weight / total for service, weight in weights.items() if weight}
    return {service: int(share) if share == int(share) else share for service, share in shares.items()}


def _same(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return one.keys() == other.keys() and all(abs(one[name] - other[name]) < _SAME_PERCENT for name in one)


def _not_taken(route: Object) -> str:
    """Return why no gateway has taken the present state of a route, or ""."""
    parents = route.get("status", {}).get("parents") or ()
    if not parents:
        return "no gateway controller has said anything of it; is there one, and are its parentRefs right?"
    generation = route["metadata"].get("generation", 0)
    for parent in parents:
        conditions = {condition["type"]: condition for condition in parent.get("conditions", ())}
        for kind in ("Accepted", "ResolvedRefs"):
            condition = conditions.get(kind, {"status": "Unknown"})
            if condition["status"] != "True":
                said = ": ".join(filter(None, (condition.get("reason"), condition.get("message"))))
                return f"{kind} is {condition['status']} ({said or 'no reason given'})"
            if condition.get("observedGeneration", generation) < generation:
                return "it has seen an earlier state of it only"
    return ""
