"""Preflight: check all that a rollout needs on a cluster before anything is changed, as one table with advice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sat_xception.deploy.gateway_address import find_endpoint
from sat_xception.deploy.inference_service import STOP_ANNOTATION, model_name_problem
from sat_xception.deploy.k8s_client import KubernetesClient
from sat_xception.deploy.k8s_kinds import CONFIG_MAP, CRD, HTTP_ROUTE, INFERENCE_SERVICE, LEASE, RUNTIME
from sat_xception.deploy.k8s_objects import ConfigMap, CustomResourceDefinition, HTTPRoute, SchemaVersion
from sat_xception.deploy.kserve_objects import InferenceService, ServingRuntime
from sat_xception.deploy.lock import holder_of
from sat_xception.deploy.model_access import check_model_access
from sat_xception.deploy.preflight_report import Preflight
from sat_xception.deploy.settings import DeployConfig, RolloutConfig
from sat_xception.deploy.traffic import plan_split, read_weights
from sat_xception.errors import ConfigError, SatXceptionError, ServiceError

__all__ = ["PERMISSIONS", "PREFLIGHT_PERMISSIONS", "inspect_cluster"]

Object = dict[str, Any]

# Permissions of a rollout in its namespace, as in the Role sat-xception-deployer of the manifests: (API group,
# resource) and verbs. A test compares them with the requests that rollouts make.
PERMISSIONS: dict[tuple[str, str], tuple[str, ...]] = {
    ("serving.kserve.io", "inferenceservices"): ("get", "list", "watch", "create", "patch", "delete"),
    ("serving.kserve.io", "servingruntimes"): ("get",),
    ("apps", "deployments"): ("get",),
    ("", "pods"): ("list",),
    ("", "pods/log"): ("get",),
    ("", "services"): ("get",),
    ("", "events"): ("list",),
    ("", "configmaps"): ("get", "create", "patch"),
    ("", "serviceaccounts"): ("get",),
    ("", "persistentvolumeclaims"): ("get",),
    ("gateway.networking.k8s.io", "httproutes"): ("get", "patch"),
    ("coordination.k8s.io", "leases"): ("get", "create", "update"),
}
# CustomResourceDefinitions that the preflight reads, by name: the ClusterRole sat-xception-preflight.
_ISVC_CRD = "inferenceservices.serving.kserve.io"
_ROUTE_CRD = "httproutes.gateway.networking.k8s.io"
PREFLIGHT_PERMISSIONS = (_ISVC_CRD, _ROUTE_CRD)
_DEPLOYMENT_MODE = "serving.kserve.io/deploymentMode"
_STANDARD = ("Standard", "RawDeployment")  # the second until KServe 0.15
_KSERVE_NAMESPACE = "kserve"
_VISIBILITY = "networking.kserve.io/visibility"
_CLUSTER_LOCAL = "cluster-local"
_CLUSTER_DOMAIN = "svc.cluster.local"


def inspect_cluster(cluster: KubernetesClient, config: RolloutConfig, storage: Callable[[], str]) -> Preflight:
    """Check everything that a rollout needs; change nothing.

    Args:
        cluster: Client of the cluster.
        config: Settings of the rollout.
        storage: Check of the release's storage: returns the finding, or raises.
    """
    report = Preflight()
    if not report.look("API server", lambda: f"{cluster.server_version()} at {cluster.address}"):
        return report
    definitions: dict[str, SchemaVersion] = {}
    report.look("KServe", lambda: _definition(cluster, _ISVC_CRD, "v1beta1", definitions))
    report.look("Gateway API", lambda: _definition(cluster, _ROUTE_CRD, "v1", definitions))
    report.look("permissions", lambda: _permissions(cluster))
    if report.look("template", lambda: _template(cluster, config, report)):
        report.look("runtime", lambda: _runtime(cluster, config, report.template))
    report.look("strategy", lambda: _strategy(cluster, config, report, definitions.get(_ISVC_CRD, SchemaVersion())))
    has_route = report.look("route", lambda: _route(cluster, config, report))
    if has_route and not config.endpoint:
        report.look("endpoint", lambda: _endpoint(cluster, config, report))
    report.look("storage", storage)
    if isinstance(config, DeployConfig) and report.template:
        report.look("access", lambda: check_model_access(cluster, config, report.template))
    report.look("lock", lambda: _lock(cluster, config))
    return report


def _definition(cluster: KubernetesClient, name: str, version: str, found: dict[str, SchemaVersion]) -> str:
    try:
        definition = cluster.get(CRD, name)
    except ServiceError as error:
        raise ServiceError(f"{error}. The ClusterRole is sat-xception-preflight") from None
    kind = name.partition(".")[0]
    if definition is None:
        what = "KServe" if name == _ISVC_CRD else "the Gateway API"
        raise ConfigError(f"the cluster has no CustomResourceDefinition {name}: install {what}, see docs/rollout.md")
    versions = CustomResourceDefinition.of(definition).spec.versions
    served = {item.name: item for item in versions if item.served}
    if version not in served:
        raise ConfigError(
            f"{name} has versions {', '.join(sorted(served))}, expected {version}: another release is needed"
        )
    found[name] = served[version]
    return f"{kind} {version}"


def _permissions(cluster: KubernetesClient) -> str:
    missing = [
        f"{verb} {resource}.{group}".rstrip(".")
        for (group, resource), verbs in PERMISSIONS.items()
        for verb in verbs
        if not cluster.may(verb, resource.partition("/")[0], group, resource.partition("/")[2])
    ]
    if missing:
        raise ServiceError(
            f"this account may not {', '.join(missing)} in namespace {cluster.namespace}: bind the Role "
            "sat-xception-deployer of the manifests to it"
        )
    return f"all {sum(map(len, PERMISSIONS.values()))} that a rollout needs"


def _template(cluster: KubernetesClient, config: RolloutConfig, report: Preflight) -> str:
    name = f"{config.name}-template"
    found = cluster.get(INFERENCE_SERVICE, name)
    if found is None:
        known = [InferenceService.of(item).metadata.name for item in cluster.find(INFERENCE_SERVICE)]
        raise ConfigError(
            f"there is no InferenceService {name} in namespace {cluster.namespace} (there: "
            f"{', '.join(known) or 'none'}): apply the manifests, or check --name and --namespace"
        )
    service = InferenceService.of(found)
    mode = service.metadata.annotations.get(_DEPLOYMENT_MODE, "the cluster's default")
    if mode not in _STANDARD:
        raise ConfigError(f"{name} has the deployment mode {mode}: annotate it {_DEPLOYMENT_MODE}: Standard")
    if "model" not in service.spec.predictor.model_fields_set:
        raise ConfigError(f"{name} has no spec.predictor.model; a rollout sets its storageUri")
    if service.metadata.annotations.get(STOP_ANNOTATION) != "true":
        raise ConfigError(f"{name} isn't stopped, and has no model: annotate it {STOP_ANNOTATION}: 'true'")
    report.template = found
    return f"{name}, {mode} mode"


def _runtime(cluster: KubernetesClient, config: RolloutConfig, template: Object) -> str:
    service = InferenceService.of(template)
    name = service.spec.predictor.model.runtime
    if not name:
        raise ConfigError(
            f"{service.metadata.name} names no runtime, and KServe's own can't load these models: set "
            "spec.predictor.model.runtime"
        )
    runtime = cluster.get(RUNTIME, name)
    if runtime is None:
        raise ConfigError(f"there is no ServingRuntime {name} in namespace {cluster.namespace}: apply the manifests")
    if problem := model_name_problem(template, runtime, config.name):
        raise ConfigError(f"ServingRuntime {name}: {problem}")
    return f"{name}, {ServingRuntime.of(runtime).spec.containers[0].image}"


def _strategy(cluster: KubernetesClient, config: RolloutConfig, report: Preflight, version: SchemaVersion) -> str:
    """Choose the strategy; an endpoint that is served already keeps its strategy."""
    has_canary, splits = "canary" in version.fields, "tracing" in version.fields  # `tracing` marks 0.21
    native = cluster.get(INFERENCE_SERVICE, config.name)
    route = cluster.get(HTTP_ROUTE, f"{config.name}-route") or {}
    ours = any(read_weights(route).get(service) for service in _predictors(config))
    has = "canary" if native is not None and not ours else "two-services" if ours else ""
    if config.strategy != "auto":
        report.strategy = config.strategy
        if has and has != config.strategy:
            raise ConfigError(
                f"{config.name} is served by the strategy {has}; leave --strategy out, or remove what serves it first: "
                "see 'Changing the strategy' in docs/rollout.md"
            )
        if config.strategy == "canary" and not has_canary:
            raise ConfigError("this KServe has no spec.canary (0.20 has): use --strategy two-services")
    settings = _ingress_settings(cluster)
    unsplit = _no_route_of_kserve(native or report.template, settings)
    known = has_canary and splits and settings is not None and not unsplit
    report.strategy = has or (config.strategy if config.strategy != "auto" else "canary" if known else "two-services")
    if report.strategy == "canary" and unsplit:
        instead = "" if has else ". Or use --strategy two-services"
        raise ConfigError(f"{unsplit}: nothing splits a canary's traffic{instead}")
    if config.strategy != "auto":
        return f"{config.strategy}, as asked for"
    if has:
        return f"{has}, as {config.name} is served now"
    why = "this KServe splits traffic itself" if report.strategy == "canary" else "works with every KServe"
    return f"{report.strategy}: {why}"


def _ingress_settings(cluster: KubernetesClient) -> Object | None:
    """Return KServe's ingress settings; None if its ConfigMap can't be read."""
    try:
        found = cluster.get(CONFIG_MAP, "inferenceservice-config", namespace=_KSERVE_NAMESPACE)
        settings = json.loads(ConfigMap.of(found or {}).data.get("ingress", ""))
    except (SatXceptionError, ValueError):
        return None
    return settings if isinstance(settings, dict) else None


def _no_route_of_kserve(service: Object, settings: Object | None) -> str:
    """Return why KServe creates no HTTPRoute for an InferenceService, with advice; "" if it does.

    The rules are those of its `RawHTTPRouteReconciler` (August 2026).
    """
    metadata = InferenceService.of(service).metadata
    if metadata.labels.get(_VISIBILITY) == _CLUSTER_LOCAL:
        label = f"{_VISIBILITY}: {_CLUSTER_LOCAL}"
        return f"KServe makes no HTTPRoute for {metadata.name} until you remove its label {label}"
    if settings is None:
        return ""
    place = f"in ConfigMap inferenceservice-config of namespace {_KSERVE_NAMESPACE}"
    if settings.get("enableGatewayApi") is not True:
        return f"KServe makes no HTTPRoutes until you set enableGatewayApi to true {place}"
    if settings.get("disableIngressCreation"):
        return f"KServe makes no HTTPRoutes until you set disableIngressCreation to false {place}"
    if settings.get("ingressDomain") == _CLUSTER_DOMAIN:
        return f"KServe makes no HTTPRoutes until you set ingressDomain to another than {_CLUSTER_DOMAIN} {place}"
    return ""


def _route(cluster: KubernetesClient, config: RolloutConfig, report: Preflight) -> str:
    native = report.strategy == "canary"
    name = config.name if native else f"{config.name}-route"
    route = cluster.get(HTTP_ROUTE, name)
    if route is None and native:
        if cluster.get(INFERENCE_SERVICE, config.name) is None:
            return f"KServe makes {name} with the first version"
        see = f"kubectl describe inferenceservice {name} -n {cluster.namespace}"
        raise ConfigError(f"KServe has made no HTTPRoute {name} for the InferenceService: see `{see}`")
    if route is None:
        raise ConfigError(f"there is no HTTPRoute {name} in namespace {cluster.namespace}: apply the manifests")
    if not HTTPRoute.of(route).spec.parent_refs:
        raise ConfigError(
            f"HTTPRoute {name} has no parentRefs, so no gateway takes it: name your Gateway in the overlay"
        )
    if refused := _not_accepted(HTTPRoute.of(route)):
        see = f"kubectl describe httproute {name} -n {cluster.namespace}"
        raise ConfigError(f"no gateway takes HTTPRoute {name}: {refused}. See `{see}`")
    if not native and (split := plan_split(cluster, name, dict.fromkeys(_predictors(config), 50))):
        manifest, nobodys = split  # the dry run checks field owners and webhooks
        cluster.apply(HTTP_ROUTE, manifest, dry_run=True, force=config.force_conflicts or nobodys)
    weights = read_weights(route)
    report.has_traffic = bool(weights)
    shares = ", ".join(f"{service} {weight:.4g} %" for service, weight in weights.items())
    return f"{name}: {shares or 'no traffic yet'}"


def _endpoint(cluster: KubernetesClient, config: RolloutConfig, report: Preflight) -> str:
    name = config.name if report.strategy == "canary" else f"{config.name}-route"
    try:
        report.endpoint = find_endpoint(cluster, name, config.name)
    except ServiceError as error:
        raise ServiceError(
            f"{error}. Give the address that users use as --endpoint, or let this account read the gateway by the "
            "ClusterRole sat-xception-preflight"
        ) from None
    return str(report.endpoint)


def _predictors(config: RolloutConfig) -> tuple[str, str]:
    """Return the names of the two predictors' Services."""
    return f"{config.name}-a-predictor", f"{config.name}-b-predictor"


def _not_accepted(route: HTTPRoute) -> str:
    """Return why no gateway has accepted a route, or ""; conditions about backends are ignored (there are none yet)."""
    if not route.status.parents:
        return "no gateway controller has set its status; is there one, and are its parentRefs right?"
    for parent in route.status.parents:
        for condition in parent.conditions:
            if condition.type == "Accepted" and condition.status == "False":
                return condition.said or "not accepted"
    return ""


def _lock(cluster: KubernetesClient, config: RolloutConfig) -> str:
    holder = holder_of(cluster.get(LEASE, f"{config.name}-deploy"))
    # Whether the holder is alive can only be seen by watching for renewals, which the rollout does.
    return f"held by {holder}; a rollout takes it over only if that one is gone" if holder else "free"


def storage_row(place: Path, there: bool, files: int) -> str:
    """Return the row about a release's storage."""
    state = "is there already" if there else "will be copied there"
    return f"{place}: {files} files with the right digests, {state}"
