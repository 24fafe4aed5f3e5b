"""How an HTTPRoute splits requests between Services, and whether the gateway has taken it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sat_xception.deploy.cluster import Cluster
from sat_xception.deploy.kinds import HTTP_ROUTE
from sat_xception.errors import ConfigError, ServiceError
from sat_xception.log import get_logger

__all__ = ["await_route", "read_weights", "split_traffic"]

_log = get_logger(__name__)
Object = dict[str, Any]
_PORT = 80  # of a predictor's Service in KServe's Standard mode
_POLL_S = 0.5


def read_weights(route: Object) -> dict[str, int]:
    """Return the weight of each Service in a route; none for a route without backends."""
    weights: dict[str, int] = {}
    for rule in route.get("spec", {}).get("rules") or ():
        for backend in rule.get("backendRefs") or ():
            weights[backend["name"]] = max(weights.get(backend["name"], 0), backend.get("weight", 1))
    return {service: weight for service, weight in weights.items() if weight}


def split_traffic(
    cluster: Cluster, route: str, weights: Mapping[str, int], timeout_s: float, force: bool = False
) -> None:
    """Give each Service its weight in a route, and wait until the gateway has taken it.

    Args:
        cluster: Where the route is.
        route: Its name.
        weights: Weight of each Service that gets requests; one that gets none isn't named.
        timeout_s: How long the gateway may take.
        force: Take over fields that others own.

    Raises:
        ConflictError: Somebody else owns the route's rules.
        ServiceError: The gateway doesn't take the route.
    """
    backends = [
        {"group": "", "kind": "Service", "name": service, "port": _PORT, "weight": weight}
        for service, weight in weights.items()
        if weight
    ]
    everything = [{"path": {"type": "PathPrefix", "value": "/"}}]
    rules = [{"matches": everything, "backendRefs": backends}]
    metadata = {"name": route, "namespace": cluster.namespace}
    # A route without rules gets the schema's default, which then belongs to whoever created it, unless that was by
    # server-side apply. Nobody has chosen it.
    force = force or not read_weights(cluster.get(HTTP_ROUTE, route) or {})
    cluster.apply(HTTP_ROUTE, {"metadata": metadata, "spec": {"rules": rules}}, force=force)
    await_route(cluster, route, weights, timeout_s)


def await_route(cluster: Cluster, route: str, weights: Mapping[str, int], timeout_s: float) -> None:
    """Wait until a route has these weights, and the gateway has taken them.

    Raises:
        ConfigError: The route is gone.
        ServiceError: It isn't so in time.
    """
    wanted = {service: weight for service, weight in weights.items() if weight}
    deadline = time.monotonic() + timeout_s
    while True:
        found = cluster.get(HTTP_ROUTE, route)
        if found is None:
            raise ConfigError(f"the HTTPRoute {route} is gone from namespace {cluster.namespace}; apply the manifests")
        weights_now = read_weights(found)
        problem = _not_taken(found) if weights_now == wanted else f"it splits {weights_now or 'nothing'}, not {wanted}"
        if not problem:
            return
        if time.monotonic() > deadline:
            raise ServiceError(
                f"the gateway hasn't taken the HTTPRoute {route} after {timeout_s:g} s: {problem}. "
                f"See `kubectl describe httproute {route} -n {cluster.namespace}`"
            )
        time.sleep(_POLL_S)


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
