"""The strategy with KServe's own `spec.canary`: one InferenceService, whose HTTPRoutes KServe writes.

It needs KServe 0.21 with the Gateway API: 0.20 has the field, but doesn't split traffic by it. Behaviour of its
controller (August 2026) that this module works around:

- A predictor that is removed from the spec loses its Deployment and Service at once, and only then its share of the
  route. So its share is set to 0 first, and it is removed when the gateway has accepted that.
- A canary's replicas are subtracted from the stable predictor's minReplicas as soon as it is ready, whatever its share.
  So they are added there first.
- The InferenceService's annotations are copied into all pods, a predictor's own only into its pods. So the annotations
  of a version are on its predictor, and a promotion doesn't restart pods.
- A canary's fields are merged over the stable predictor's, so a canary can't remove or empty a field.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import Any

from sat_xception.deploy.inference_service import annotations_of, changed_fields, copy_of, predictor_of
from sat_xception.deploy.k8s_client import KubernetesClient
from sat_xception.deploy.k8s_kinds import DEPLOYMENT, HTTP_ROUTE, INFERENCE_SERVICE, Planned
from sat_xception.deploy.k8s_objects import Deployment
from sat_xception.deploy.kserve_objects import Canary, InferenceService, PredictorSpec
from sat_xception.deploy.readiness import Predictor
from sat_xception.deploy.release import Release
from sat_xception.deploy.settings import RolloutConfig
from sat_xception.deploy.traffic import await_route, read_weights
from sat_xception.errors import ConfigError, ServiceError
from sat_xception.log import get_logger

__all__ = ["NativeCanary"]

_log = get_logger(__name__)
Object = dict[str, Any]

# The admission webhook refuses these in a canary: its replicas are fixed.
_NOT_IN_A_CANARY = ("maxReplicas", "scaleMetric", "scaleMetricType", "scaleTarget", "autoScaling", "workerSpec")
# Fields that canary and stable predictor don't share.
_OWN = ("name", "minReplicas", *_NOT_IN_A_CANARY)
# `canary[].predictor.model.name` is required by the schema of the CRD.
_CONTAINER = "kserve-container"


class NativeCanary:
    """Moves an InferenceService from one predictor to another."""

    name = "canary"

    def __init__(self, cluster: KubernetesClient, config: RolloutConfig, template: Object) -> None:
        """Take the cluster, the settings, and the template InferenceService."""
        self._cluster, self._config, self._template = cluster, config, template
        self.route = config.name

    def current(self) -> Predictor | None:
        """Return the predictor with the traffic: the stable one, or a canary due for promotion; None without one."""
        found = self._cluster.get(INFERENCE_SERVICE, self._config.name)
        if found is None:
            return None
        predictor = self._settled(InferenceService.of(found)).spec.predictor
        return Predictor(
            self._config.name,
            self._backend(predictor.name),
            _version_of(predictor),
            predictor.model.storage_uri,
            min_replicas=predictor.min_replicas,
            max_replicas=predictor.max_replicas,
        )

    def plan(self, release: Release, current: Predictor | None) -> list[Planned]:
        """Return the object that `start` applies; KServe writes the routes."""
        manifest = self._whole(release) if current is None else self._with_canary(release, current)
        return [Planned(INFERENCE_SERVICE, manifest, self._config.force_conflicts)]

    def is_as_planned(self, release: Release, current: Predictor) -> bool:
        """Return whether the current predictor serves this release with the template's present settings.

        Raises:
            ConfigError: Only the settings differ, and a canary needs another version.
        """
        if self._settled(self._live()).spec.predictor == self._planned(release):
            return True
        raise ConfigError(
            f"version {release.version} is serving, and the template has changed since: KServe takes no canary with "
            "the same model. Package the model again, which gives it a new version, or use --strategy two-services"
        )

    def next(self, release: Release, current: Predictor | None) -> Predictor:
        """Return the predictor that `start` creates."""
        conditions = ("Ready", "PredictorReady", *(["CanaryPredictorReady"] if current is not None else []))
        backend = self._backend(_name_of(release.version))
        return Predictor(self._config.name, backend, release.version, release.storage_uri, conditions)

    def start(self, release: Release, current: Predictor | None) -> int:
        """Create the predictor of a release, without traffic; return the generation of the InferenceService."""
        [planned] = self.plan(release, current)
        if current is not None:
            self._tell_kept(InferenceService.of(planned.manifest))
        applied = self._cluster.apply(planned.kind, planned.manifest, force=planned.force)
        return InferenceService.of(applied).metadata.generation

    def give(self, percent: int, current: Predictor | None, new: Predictor) -> None:
        """Give the new predictor its share of the traffic, and check that KServe's route splits it."""
        if current is None:  # a first predictor has all the traffic from its creation
            self._await_routes({new.backend: 100}, may_come=True)
            return
        live = self._live()
        canary = self._canary_of(live, new)
        if canary is None:
            raise ServiceError(f"somebody removed the canary {new.backend} while it was rolled out")
        self._give(live, canary, percent, current, new, force=self._config.force_conflicts)

    def finish(self, new: Predictor) -> None:
        """Promote the canary; KServe removes the previous stable predictor, which has no traffic any more."""
        live = self._live()
        settled = self._settled(live)
        if settled is not live:
            time.sleep(self._config.drain_s)
            applied = settled.manifest_with(settled.spec.predictor.manifest())
            self._cluster.apply(INFERENCE_SERVICE, applied, force=True)

    def abort(self, current: Predictor | None, new: Predictor) -> None:
        """Give all traffic back to the stable predictor, and only then remove the canary."""
        if current is None:
            self._cluster.delete(INFERENCE_SERVICE, new.service)
            return
        live = self._live()
        canary = self._canary_of(live, new)
        if canary is not None:
            route = self._cluster.get(HTTP_ROUTE, self.route) or {}
            had_traffic = canary.traffic_percent or read_weights(route).get(new.backend)
            self._give(live, canary, 0, current, new, force=True)
            if had_traffic:
                time.sleep(self._config.drain_s)
            live = self._live()
            replicas = {"minReplicas": current.min_replicas, "maxReplicas": current.max_replicas}
            predictor = {**live.spec.predictor.manifest(), **replicas}
            stable = {key: value for key, value in predictor.items() if key not in replicas or value is not None}
            self._cluster.apply(INFERENCE_SERVICE, live.manifest_with(stable), force=True)
        self._await_routes({current.backend: 100, new.backend: 0})

    def _give(
        self,
        live: InferenceService,
        canary: Canary,
        percent: int,
        current: Predictor,
        new: Predictor,
        *,
        force: bool,
    ) -> None:
        changed = canary.model_copy(update={"traffic_percent": percent})
        canaries = [(changed if one is canary else one).manifest() for one in live.spec.canary]
        applied = live.manifest_with(live.spec.predictor.manifest(), canaries)
        self._cluster.apply(INFERENCE_SERVICE, applied, force=force)
        self._await_routes({current.backend: 100 - percent, new.backend: percent})

    def _await_routes(self, weights: dict[str, int], may_come: bool = False) -> None:
        # KServe writes two routes, for two hosts: one of the InferenceService, one of its predictor.
        of_predictor = f"{self.route}-predictor"
        routes = [self.route] if self._cluster.get(HTTP_ROUTE, of_predictor) is None else [of_predictor, self.route]
        for route in routes:
            await_route(self._cluster, route, weights, self._config.timeout_s, may_come)

    def _whole(self, release: Release) -> Object:
        return copy_of(self._template, self._config.name, self._predictor_of(release))

    def _predictor_of(self, release: Release) -> Object:
        predictor = predictor_of(self._template, release)
        annotations = {**predictor.get("annotations", {}), **annotations_of(release)}
        return {**predictor, "name": _name_of(release.version), "annotations": annotations}

    def _planned(self, release: Release) -> PredictorSpec:
        """Return a release's stable predictor from a dry run, with the fields that schemas and webhooks add."""
        planned = self._cluster.apply(INFERENCE_SERVICE, self._whole(release), dry_run=True, force=True)
        return InferenceService.of(planned).spec.predictor

    def _with_canary(self, release: Release, current: Predictor) -> Object:
        live = self._settled(self._live())
        self._check_startable(live, release, current)
        predictor = {key: value for key, value in self._predictor_of(release).items() if key not in _NOT_IN_A_CANARY}
        replicas, stable = self._make_room(live.spec.predictor, current)
        predictor |= {"minReplicas": replicas, "model": {**predictor["model"], "name": _CONTAINER}}
        return live.manifest_with(stable, [{"trafficPercent": 0, "predictor": predictor}])

    def _check_startable(self, live: InferenceService, release: Release, current: Predictor) -> None:
        stable = live.spec.predictor
        if _name_of(release.version) == stable.name:
            raise ConfigError(f"version {current.version} is serving; a canary needs another version")
        for canary in live.spec.canary:
            if canary.traffic_percent:
                edit = f"kubectl edit inferenceservice {self._config.name} -n {self._cluster.namespace}"
                raise ConfigError(
                    f"{self._config.name} has a canary {canary.predictor.name} with {canary.traffic_percent} % "
                    f"of the traffic, and no rollout on record made it: set its trafficPercent to 0 by `{edit}`, wait "
                    "until the gateway has taken that, and remove it"
                )
        # Both have the fields that schemas and webhooks add, so they can be compared.
        planned = {key: value for key, value in self._planned(release).manifest().items() if key not in _OWN}
        merged = {key: value for key, value in _laid_over(stable.manifest(), planned).items() if key not in _OWN}
        if kept := changed_fields(planned, merged):
            raise ConfigError(
                "the template has dropped or emptied what the predictor that answers has, and what a canary keeps: "
                f"{', '.join(kept)}. Put it back into the template, or change to --strategy two-services: see "
                "'Changing the strategy' in docs/rollout.md"
            )

    def _tell_kept(self, planned: InferenceService) -> None:
        """Log the labels and annotations of the template that a canary can't take over."""
        template = InferenceService.of(copy_of(self._template, self._config.name, {})).metadata
        kept = [
            f"{part} {key}"
            for part, wanted, found in (
                ("labels", template.labels, planned.metadata.labels),
                ("annotations", template.annotations, planned.metadata.annotations),
            )
            for key, value in wanted.items()
            if found.get(key) != value
        ]
        if kept:
            _log.warning(
                "canary    %s doesn't take up %s of the template: KServe would replace the pods that answer",
                self._config.name,
                ", ".join(kept),
            )

    def _make_room(self, stable: PredictorSpec, current: Predictor) -> tuple[int, Object]:
        """Return the number of a canary's replicas, as many as are ready now, and the stable predictor with room."""
        deployment = Deployment.of(self._cluster.get(DEPLOYMENT, current.backend) or {})
        least = max(1, stable.min_replicas or 1)
        count = max(least, deployment.status.available_replicas)
        room: Object = {}
        if count > 1:  # the stable predictor always keeps one
            room = {"minReplicas": least + count}
            if stable.max_replicas:
                room |= {"maxReplicas": max(stable.max_replicas, least + count)}
        return count, {**stable.manifest(), **room}

    def _settled(self, service: InferenceService) -> InferenceService:
        """Return the InferenceService, with a canary that has all the traffic promoted.

        A rollout that is killed between its last record and the promotion leaves such a canary.
        """
        canaries = service.spec.canary
        if not canaries or canaries[0].traffic_percent != 100:
            return service
        before = service.spec.predictor
        merged = _laid_over(before.manifest(), canaries[0].predictor.manifest())
        model = {**PredictorSpec.model_validate(merged).model.manifest(), "name": before.model.name}
        shape = InferenceService.of(self._template).spec.predictor.manifest()
        fixed = ("minReplicas", *_NOT_IN_A_CANARY)
        predictor = {key: value for key, value in merged.items() if key not in fixed}
        predictor |= {"model": model, **{key: shape[key] for key in fixed if key in shape}}
        return InferenceService.of(service.manifest_with(predictor))

    def _canary_of(self, service: InferenceService, new: Predictor) -> Canary | None:
        backends = {self._backend(canary.predictor.name): canary for canary in service.spec.canary}
        return backends.get(new.backend)

    def _live(self) -> InferenceService:
        found = self._cluster.get(INFERENCE_SERVICE, self._config.name)
        if found is None:
            raise ConfigError(f"the InferenceService {self._config.name} is gone; deploy again")
        return InferenceService.of(found)

    def _backend(self, name: str) -> str:
        return f"{self._config.name}-{name}-predictor" if name else f"{self._config.name}-predictor"


def _laid_over(stable: Mapping[str, Any], canary: Mapping[str, Any]) -> Object:
    """Merge a canary over the stable predictor as KServe does: lists are replaced, and empty values change nothing."""
    merged = copy.deepcopy(dict(stable))
    for key, value in canary.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _laid_over(merged[key], value)
        elif value or key not in merged:
            merged[key] = copy.deepcopy(value)
    return merged


def _name_of(version: int) -> str:
    return f"v{version}"


def _version_of(predictor: PredictorSpec) -> int:
    """Return the version in a predictor's name; 0 if there is none."""
    said = predictor.name.removeprefix("v")
    return int(said) if said.isdecimal() else 0
