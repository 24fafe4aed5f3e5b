"""The strategy with two InferenceServices behind one weighted HTTPRoute: for every KServe with Standard mode.

The InferenceServices are `<name>-a` and `<name>-b`. While one serves, the other is created for the next version, and
gets a growing share of the route up to 100 %; then the first one is removed.
"""

from __future__ import annotations

import time
from typing import Any

from sat_xception.deploy.inference_service import difference, service_of, version_of
from sat_xception.deploy.k8s_client import KubernetesClient
from sat_xception.deploy.k8s_kinds import HTTP_ROUTE, INFERENCE_SERVICE, Planned
from sat_xception.deploy.kserve_objects import InferenceService
from sat_xception.deploy.readiness import Predictor
from sat_xception.deploy.release import Release
from sat_xception.deploy.settings import RolloutConfig
from sat_xception.deploy.traffic import plan_split, read_weights, remove_backend, split_traffic
from sat_xception.errors import ServiceError
from sat_xception.log import get_logger

__all__ = ["TwoServices"]

_log = get_logger(__name__)
Object = dict[str, Any]
_POLL_S = 0.5


class TwoServices:
    """Moves an endpoint from one of its two InferenceServices to the other."""

    name = "two-services"

    def __init__(self, cluster: KubernetesClient, config: RolloutConfig, template: Object) -> None:
        """Take the cluster, the settings, and the template InferenceService."""
        self._cluster, self._config, self._template = cluster, config, template
        self._services = (f"{config.name}-a", f"{config.name}-b")
        self.route = f"{config.name}-route"

    def current(self) -> Predictor | None:
        """Return the predictor with the traffic, or with most of it; None if there is none."""
        route = self._cluster.get(HTTP_ROUTE, self.route) or {}
        weights = read_weights(route)
        for service in sorted(self._services, key=lambda service: -weights.get(_backend(service), 0)):
            found = self._cluster.get(INFERENCE_SERVICE, service)
            if found is not None and weights.get(_backend(service)):
                model = InferenceService.of(found).spec.predictor.model
                return self._predictor(service, version_of(found), model.storage_uri)
        return None

    def plan(self, release: Release, current: Predictor | None) -> list[Planned]:
        """Return the objects that `start` and the first traffic step apply."""
        force, service = self._config.force_conflicts, self._other(current)
        plan = [Planned(INFERENCE_SERVICE, service_of(self._template, service, release), force)]
        weights = self._weights(self._config.traffic_steps[0], current, _backend(service))
        if split := plan_split(self._cluster, self.route, weights):
            manifest, nobodys = split
            plan.append(Planned(HTTP_ROUTE, manifest, force or nobodys))
        return plan

    def is_as_planned(self, release: Release, current: Predictor) -> bool:
        """Return whether the current predictor serves this release with the template's present settings."""
        found = self._cluster.get(INFERENCE_SERVICE, current.service)
        manifest = service_of(self._template, current.service, release)
        planned = self._cluster.apply(INFERENCE_SERVICE, manifest, dry_run=True, force=True)
        return found is not None and not difference(found, planned)

    def next(self, release: Release, current: Predictor | None) -> Predictor:
        """Return the predictor that `start` creates."""
        return self._predictor(self._other(current), release.version, release.storage_uri)

    def start(self, release: Release, current: Predictor | None) -> int:
        """Create the predictor of a release, without traffic; return the generation of its InferenceService."""
        service = self._other(current)
        manifest = service_of(self._template, service, release)
        found = self._cluster.get(INFERENCE_SERVICE, service)
        if found is not None:
            planned = self._cluster.apply(INFERENCE_SERVICE, manifest, dry_run=True, force=self._config.force_conflicts)
            if difference(found, planned):
                _log.info("remove    %s, which served version %s and has no traffic", service, version_of(found))
                self._remove(service)
        applied = self._cluster.apply(INFERENCE_SERVICE, manifest, force=self._config.force_conflicts)
        return InferenceService.of(applied).metadata.generation

    def give(self, percent: int, current: Predictor | None, new: Predictor) -> None:
        """Give the new predictor its share of the traffic, or all of it in a first deployment."""
        weights = self._weights(percent, current, new.backend)
        split_traffic(self._cluster, self.route, weights, self._config.timeout_s, force=self._config.force_conflicts)

    def finish(self, new: Predictor) -> None:
        """Remove the previous InferenceService, after its requests in progress are finished."""
        for service in self._services:
            if service != new.service and self._cluster.get(INFERENCE_SERVICE, service) is not None:
                time.sleep(self._config.drain_s)
                self._cluster.delete(INFERENCE_SERVICE, service)

    def abort(self, current: Predictor | None, new: Predictor) -> None:
        """Give all traffic back to the previous predictor, and remove the new one.

        The route shows whether the new predictor had traffic, also if another process gave it. A route without the new
        predictor is unchanged, or was edited by hand, and isn't touched.
        """
        route = self._cluster.get(HTTP_ROUTE, self.route) or {}
        if read_weights(route).get(new.backend):
            if current is not None:
                weights = self._weights(0, current, new.backend)
                split_traffic(self._cluster, self.route, weights, self._config.timeout_s, force=True)
            else:
                remove_backend(self._cluster, self.route, new.backend)
            time.sleep(self._config.drain_s)
        self._cluster.delete(INFERENCE_SERVICE, new.service)

    def _weights(self, percent: int, current: Predictor | None, new: str) -> dict[str, int]:
        # Both Services are listed, so that rules with the other one are changed too.
        both = dict.fromkeys(map(_backend, self._services), 0)
        return both | ({new: 100} if current is None else {current.backend: 100 - percent, new: percent})

    def _other(self, current: Predictor | None) -> str:
        return self._services[1] if current and current.service == self._services[0] else self._services[0]

    def _remove(self, service: str) -> None:
        self._cluster.delete(INFERENCE_SERVICE, service)
        deadline = time.monotonic() + self._config.timeout_s
        while self._cluster.get(INFERENCE_SERVICE, service) is not None:
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"the InferenceService {service} isn't gone {self._config.timeout_s:g} s after it was deleted; is "
                    "the KServe controller running, which has to finish that?"
                )
            time.sleep(_POLL_S)

    @staticmethod
    def _predictor(service: str, version: int, storage_uri: str) -> Predictor:
        return Predictor(service, _backend(service), version, storage_uri)


def _backend(service: str) -> str:
    return f"{service}-predictor"
