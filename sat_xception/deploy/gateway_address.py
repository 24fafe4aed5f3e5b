"""Find the address of an endpoint from its HTTPRoute: that of the route's gateway, with a host name of the route."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from pydantic import Field

from sat_xception.deploy.k8s_client import KubernetesClient
from sat_xception.deploy.k8s_kinds import GATEWAY, HTTP_ROUTE
from sat_xception.deploy.k8s_objects import Condition, HTTPRoute, KubernetesObject, Part
from sat_xception.errors import ConfigError

__all__ = ["EndpointAddress", "find_endpoint"]

_DEFAULT_PORT = 80


class EndpointAddress(NamedTuple):
    """Where an endpoint is reached: the address of a gateway, and the Host header of requests ("" for none)."""

    address: str
    host: str

    def __str__(self) -> str:
        """Return both."""
        return f"{self.address} with the host name {self.host}" if self.host else self.address


class _Listener(Part):
    name: str = ""
    protocol: str = ""
    port: int = _DEFAULT_PORT


class _GatewaySpec(Part):
    listeners: list[_Listener] = Field([])


class _GatewayAddress(Part):
    value: str = ""


class _GatewayStatus(Part):
    addresses: list[_GatewayAddress] = Field([])
    conditions: list[Condition] = Field([])


class _Gateway(KubernetesObject):
    spec: _GatewaySpec = _GatewaySpec()
    status: _GatewayStatus = _GatewayStatus()


class _ParentRef(Part):
    kind: str = "Gateway"
    name: str = ""
    namespace: str = ""
    section_name: str = ""
    port: int = 0


def find_endpoint(cluster: KubernetesClient, route_name: str, model: str) -> EndpointAddress:
    """Return the address at which the gateway of a route takes its requests, over HTTP.

    Args:
        cluster: Client of the cluster.
        route_name: Name of the HTTPRoute.
        model: Name of the model, for a route that takes every host name of a domain.

    Raises:
        ConfigError: The route, the gateway, its address or a listener for HTTP is missing.
        ServiceError: The gateway can't be read.
    """
    found = cluster.get(HTTP_ROUTE, route_name)
    if found is None:
        raise ConfigError(f"there is no HTTPRoute {route_name} yet, which has the endpoint's address: give --endpoint")
    route = HTTPRoute.of(found)
    parents = [_ParentRef.model_validate(each) for each in route.spec.parent_refs]
    problem = f"HTTPRoute {route_name} names no Gateway"
    for parent in (each for each in parents if each.kind == "Gateway"):
        gateway = cluster.get(GATEWAY, parent.name, namespace=parent.namespace)
        where = f"Gateway {parent.name} in namespace {parent.namespace or cluster.namespace}"
        if gateway is None:
            problem = f"there is no {where}, which HTTPRoute {route_name} names"
            continue
        address = _address_of(_Gateway.of(gateway), parent)
        if address.startswith("http"):
            return EndpointAddress(address, _host_of(route, model))
        problem = f"{where} {address}"
    raise ConfigError(f"{problem}; give the address that users use as --endpoint")


def _address_of(gateway: _Gateway, parent: _ParentRef) -> str:
    """Return the address of a gateway, or why it has none."""
    values = [each.value for each in gateway.status.addresses if each.value]
    if not values:
        said = next((each.said for each in gateway.status.conditions if each.type == "Programmed" and each.said), "")
        return (
            f"has no address{f' ({said})' if said else ''}: where the cluster has no load balancers, give the gateway "
            "a Service of type ClusterIP, see docs/kubeflow.md"
        )
    port = _http_port(gateway.spec.listeners, parent)
    if port is None:
        return "has no listener for HTTP that the route uses"
    value = f"[{values[0]}]" if ":" in values[0] else values[0]
    return f"http://{value}" + ("" if port == _DEFAULT_PORT else f":{port}")


def _http_port(listeners: Iterable[_Listener], parent: _ParentRef) -> int | None:
    for each in listeners:
        is_named = parent.section_name in ("", each.name) and parent.port in (0, each.port)
        if is_named and each.protocol == "HTTP":
            return each.port
    return None


def _host_of(route: HTTPRoute, model: str) -> str:
    """Return a host name that a route takes; "" if it takes all."""
    names: list[Any] = [name for name in route.spec.hostnames if name]
    plain = [name for name in names if not name.startswith("*.")]
    return str(plain[0]) if plain else f"{model}{names[0].removeprefix('*')}" if names else ""
