"""Rollout with KServe's own `spec.canary`: one InferenceService, whose HTTPRoute KServe writes.

It needs KServe 0.21 with the Gateway API: 0.20 has the field, and doesn't split traffic by it.
"""

from __future__ import annotations

import copy
from typing import Any

from sat_xception.deploy.cluster import Cluster
from sat_xception.deploy.inference_service import RELEASE_ANNOTATIONS, predictor_of, service_of, version_of
from sat_xception.deploy.kinds import INFERENCE_SERVICE, Kind
from sat_xception.deploy.release import Release
from sat_xception.deploy.traffic import await_route
from sat_xception.deploy.wait import Predictor
from sat_xception.errors import ConfigError
from sat_xception.steps import RolloutConfig

__all__ = ["NativeCanary"]

Object = dict[str, Any]

# The admission webhook refuses these in a canary: its replicas are fixed.
_NOT_IN_A_CANARY = ("maxReplicas", "scaleMetric", "scaleMetricType", "scaleTarget", "autoScaling", "workerSpec")
# `canary[].predictor.model.name` is required by the schema of the CRD.
_CONTAINER = "kserve-container"


class NativeCanary:
    """Moves an InferenceService from one predictor to another."""

    name = "canary"

    def __init__(self, cluster: Cluster, config: RolloutConfig, template: Object) -> None:
        """Take the cluster, the settings, and the template InferenceService."""
        self._cluster, self._config, self._template = cluster, config, template
        self.route = config.name

    def current(self) -> Predictor | None:
        """Return the stable predictor; None when there is none."""
        found = self._cluster.get(INFERENCE_SERVICE, self._config.name)
        if found is None:
            return None
        predictor = found["spec"]["predictor"]
        return self._predictor(version_of(found), predictor["model"]["storageUri"], predictor.get("name"))

    def plan(self, release: Release, current: Predictor | None) -> list[tuple[Kind, Object]]:
        """Return what `start` applies."""
        if current is None:
            return [(INFERENCE_SERVICE, self._whole(release))]
        return [(INFERENCE_SERVICE, self._with_canary(release, current, 0))]

    def is_as_planned(self, release: Release, current: Predictor) -> bool:
        """Return whether what answers is this release in the template's present shape.

        Raises:
            ConfigError: Only the shape differs, which a canary of the same version can't try.
        """
        found = self._cluster.get(INFERENCE_SERVICE, current.service)
        planned = self._cluster.apply(INFERENCE_SERVICE, self._whole(release), dry_run=True, force=True)
        if found is not None and found["spec"]["predictor"] == planned["spec"]["predictor"]:
            return True
        raise ConfigError(
            f"version {release.version} is serving, and the template has changed since: KServe takes no canary with "
            "the same model. Package the model again, which gives it a new version, or use --strategy two-services"
        )

    def next(self, release: Release, current: Predictor | None) -> Predictor:
        """Return the predictor that `start` makes."""
        return self._predictor(release.version, release.storage_uri, _name_of(release.version), current is not None)

    def start(self, release: Release, current: Predictor | None) -> int:
        """Make the predictor of a release, without traffic; return the generation of the InferenceService."""
        [(kind, manifest)] = self.plan(release, current)
        applied = self._cluster.apply(kind, manifest, force=self._config.force_conflicts)
        return int(applied["metadata"]["generation"])

    def give(self, percent: int, current: Predictor | None, new: Predictor) -> None:
        """Give the new predictor its share of the traffic, and see whether KServe's route really splits it."""
        if current is None:  # it has all of it since it was made
            await_route(self._cluster, self.route, {new.backend: 100}, self._config.timeout_s)
            return
        live = self._live()
        live["spec"]["canary"][0]["trafficPercent"] = percent
        self._cluster.apply(INFERENCE_SERVICE, live, force=self._config.force_conflicts)
        weights = {current.backend: 100 - percent, new.backend: percent}
        await_route(self._cluster, self.route, weights, self._config.timeout_s)

    def finish(self, new: Predictor) -> None:
        """Make the canary the stable predictor; KServe removes the one before."""
        live = self._live()
        for canary in live["spec"].pop("canary", ()):
            stable = copy.deepcopy(self._template["spec"]["predictor"])
            stable["name"] = canary["predictor"]["name"]
            stable["model"]["storageUri"] = canary["predictor"]["model"]["storageUri"]
            live["spec"]["predictor"] = stable
            version, digest = RELEASE_ANNOTATIONS
            live["metadata"]["annotations"] |= {version: str(new.version)}
            live["metadata"]["annotations"].pop(digest, None)  # of the version before
            self._cluster.apply(INFERENCE_SERVICE, live, force=True)

    def abort(self, current: Predictor | None, new: Predictor) -> None:
        """Remove the canary, so that all the traffic is the stable predictor's again."""
        if current is None:
            self._cluster.delete(INFERENCE_SERVICE, new.service)
            return
        live = self._live()
        if live["spec"].pop("canary", None):
            self._cluster.apply(INFERENCE_SERVICE, live, force=True)
        await_route(self._cluster, self.route, {current.backend: 100}, self._config.timeout_s)

    def _whole(self, release: Release) -> Object:
        manifest = service_of(self._template, self._config.name, release)
        manifest["spec"]["predictor"]["name"] = _name_of(release.version)
        return manifest

    def _with_canary(self, release: Release, current: Predictor, percent: int) -> Object:
        live = self._live()
        predictor = {
            key: value for key, value in predictor_of(self._template, release).items() if key not in _NOT_IN_A_CANARY
        }
        predictor["name"] = _name_of(release.version)
        predictor["model"]["name"] = _CONTAINER
        if predictor["name"] == live["spec"]["predictor"].get("name"):
            raise ConfigError(f"version {current.version} is serving; a canary needs another version")
        live["spec"]["canary"] = [{"trafficPercent": percent, "predictor": predictor}]
        return live

    def _live(self) -> Object:
        """Return the InferenceService as something that can be applied again."""
        found = self._cluster.get(INFERENCE_SERVICE, self._config.name)
        if found is None:
            raise ConfigError(f"the InferenceService {self._config.name} is gone; deploy again")
        kept = ("name", "namespace", "labels", "annotations")
        metadata = {key: value for key, value in found["metadata"].items() if key in kept}
        return {"metadata": {"annotations": {}} | metadata, "spec": found["spec"]}

    def _predictor(self, version: int, storage_uri: str, name: str | None, canary: bool = False) -> Predictor:
        service = self._config.name
        backend = f"{service}-{name}-predictor" if name else f"{service}-predictor"
        conditions = ("Ready", "PredictorReady", *(["CanaryPredictorReady"] if canary else []))
        return Predictor(service, backend, version, storage_uri, conditions)


def _name_of(version: int) -> str:
    return f"v{version}"
