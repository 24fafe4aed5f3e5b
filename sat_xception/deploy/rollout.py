"""Roll out a release on a cluster: create its predictor, verify it, move the traffic in steps, roll back on failure.

No state is only in this process: the serving predictor is in the route, the attempt is in the record, and the holder of
the lock is in the Lease. A run that finds a record "in progress" restores the traffic before it starts.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn, Protocol

from sat_xception.deploy.availability import wait_until_available
from sat_xception.deploy.history import History
from sat_xception.deploy.k8s_client import KubernetesClient
from sat_xception.deploy.k8s_kinds import Planned
from sat_xception.deploy.lock import Lock
from sat_xception.deploy.native_canary import NativeCanary
from sat_xception.deploy.readiness import Predictor, await_predictor
from sat_xception.deploy.release import Release
from sat_xception.deploy.rollout_record import FAILED, INTERRUPTED, SERVING, Agreement, RolloutRecord
from sat_xception.deploy.settings import RolloutConfig
from sat_xception.deploy.traffic_checks import Probe, agreement, read_tiles
from sat_xception.deploy.two_services import TwoServices
from sat_xception.deploy.visitor import Visitor
from sat_xception.errors import ConfigError, ModelError, PreemptedError, SatXceptionError, ServiceError
from sat_xception.log import get_logger
from sat_xception.process import Terminated, undisturbed
from sat_xception.serve.access import Access
from sat_xception.serve.client import EndpointClient
from sat_xception.served_model.golden import GoldenTiles, check_golden

__all__ = ["Rollout", "Strategy", "strategy_of"]

_log = get_logger(__name__)
Object = dict[str, Any]
# Number of consecutive correct answers to the golden tiles before a predictor gets traffic.
_PROOFS = 3


class Strategy(Protocol):
    """A way to split an endpoint's traffic between the current and the next release."""

    name: str
    route: str

    def current(self) -> Predictor | None:
        """Return the serving predictor; None if there is none."""

    def plan(self, release: Release, current: Predictor | None) -> list[Planned]:
        """Return the objects that `start` and the first traffic step apply."""

    def is_as_planned(self, release: Release, current: Predictor) -> bool:
        """Return whether the current predictor serves this release with the template's present settings."""

    def next(self, release: Release, current: Predictor | None) -> Predictor:
        """Return the predictor that `start` creates."""

    def start(self, release: Release, current: Predictor | None) -> int:
        """Create a predictor without traffic; return the generation of its InferenceService."""

    def give(self, percent: int, current: Predictor | None, new: Predictor) -> None:
        """Give the new predictor its share of the traffic."""

    def finish(self, new: Predictor) -> None:
        """Remove the previous predictor."""

    def abort(self, current: Predictor | None, new: Predictor) -> None:
        """Give all traffic back to the previous predictor, and remove the new one."""


def strategy_of(name: str, cluster: KubernetesClient, config: RolloutConfig, template: Object) -> Strategy:
    """Return a strategy by its name."""
    return (NativeCanary if name == NativeCanary.name else TwoServices)(cluster, config, template)


class Rollout:
    """One rollout of an endpoint, by the process that holds its lock."""

    # Record of the rollout that `run` started.
    _record: RolloutRecord

    def __init__(
        self, cluster: KubernetesClient, config: RolloutConfig, strategy: Strategy, template: Object, lock: Lock
    ) -> None:
        """Read the history; nothing is changed yet."""
        self._cluster, self._config, self._strategy = cluster, config, strategy
        self._template, self._lock = template, lock
        self.history = History(cluster, config.name)

    def recover(self) -> bool:
        """Clean up after a rollout that was killed; return whether there was one."""
        record = self.history.unfinished
        if record is None:
            return False
        _log.warning("recover   the rollout of version %s was interrupted (%s)", record.version, record.stage)
        before = record.before
        strategy = strategy_of(record.strategy, self._cluster, self._config, self._template)
        if record.new:
            strategy.abort(before, record.new)
        answers = f"version {before.version} answers" if before else "nothing answered before"
        self.history.end(record, INTERRUPTED, f"its process ended while it was at: {record.stage}; {answers}")
        _log.info("recover   %s", answers)
        return True

    def run(self, source: Path, release: Release, may_be_older: bool = False) -> RolloutRecord:
        """Roll out a release; return its record.

        Args:
            source: Local folder of the version, for the golden tiles.
            release: Release to roll out.
            may_be_older: Whether it may be older than the serving version.

        Raises:
            ConfigError: The cluster refuses the plan. Nothing was changed.
            ModelError: The version doesn't load or gives wrong results. The previous version serves again.
            ServiceError: The cluster or the endpoint failed. The previous version serves again.
        """
        current = self._strategy.current()
        if not may_be_older:
            self._check_newer(release, current)
        if current and current.version == release.version and self._strategy.is_as_planned(release, current):
            return self._prove_again(source, release, current)
        for planned in self._strategy.plan(release, current):
            self._cluster.apply(planned.kind, planned.manifest, dry_run=True, force=planned.force)
        self._record = self.history.begin(self._new_record(release, before=current, stage="start"))
        try:
            new = self._start(release, current)
            self._prove(source, new, current)
            self._move(source, new, current)
            self._lock.check()
            self._record = self.history.end(self._record, SERVING)
        except BaseException as error:
            self._go_back(error)
        self._strategy.finish(new)
        removed = "; the one before is removed" if current else ""
        _log.info("serving   version %s has all the traffic%s", release.version, removed)
        return self._record

    def _check_newer(self, release: Release, current: Predictor | None) -> None:
        if current is not None and current.version > release.version:
            known = self.history.proved(release.version)
            raise ConfigError(
                f"version {current.version} is serving, which is newer than {release.version}; "
                + (
                    f"go back with `sat_xception rollback --to {release.version}`"
                    if known
                    else "package the model again"
                )
            )

    def _start(self, release: Release, current: Predictor | None) -> Predictor:
        # Written before the predictor is created, so that the next run after a kill knows what to remove.
        new = self._strategy.next(release, current)
        self._note(new=new)
        self._stage(f"making {new.service}")
        generation = self._strategy.start(release, current)
        self._stage(f"waiting for {new.service}")
        await_predictor(self._cluster, new, generation, self._config.start_minutes * 60, self._lock.check)
        return new

    def _prove(self, source: Path, new: Predictor, current: Predictor | None) -> None:
        """Verify the new predictor directly, before it gets traffic."""
        self._stage("golden tiles of the new predictor")
        with self._client_of(new) as client:
            wait_until_available(client, new.version, self._config.timeout_s)
            _check_signature(client)
            difference = max(check_golden(source, client) for _ in range(_PROOFS))
            golden = GoldenTiles.read(source)
            self._note(golden_difference=difference, golden_tiles=len(golden.tiles))
            _log.info(
                "proved    version %s answers its %d golden tiles at %s",
                new.version,
                len(golden.images),
                client.address,
            )
            if current is not None and self._config.min_agreement:
                tiles = [*golden.images, *read_tiles(self._config.tiles)]
                with self._client_of(current) as old:
                    share = agreement(client, old, tiles, self._config.min_agreement)
                self._note(agreement=Agreement(tiles=len(tiles), share=round(share, 4)))
                _log.info("compared  old and new give %.0f %% of %s tiles the same class", share * 100, len(tiles))

    def _move(self, source: Path, new: Predictor, current: Predictor | None) -> None:
        golden = GoldenTiles.read(source)
        with contextlib.ExitStack() as stack:
            route = stack.enter_context(
                EndpointClient(
                    self._config.endpoint,
                    self._config.name,
                    timeout_s=self._config.timeout_s,
                    access=Access.find(host=self._config.endpoint_host),
                    tries_again=False,
                    as_new_client=True,
                )
            )
            client = stack.enter_context(self._client_of(new))
            old = stack.enter_context(self._client_of(current)) if current else None
            visitor = stack.enter_context(Visitor(route, client, old, golden))
            if not visitor.tells_versions:
                _log.info(
                    "traffic   old and new serve version %s: no answer tells them apart, so that the gateway splits as "
                    "the HTTPRoute says isn't checked",
                    new.version,
                )
            if current and self._config.max_slowdown and min(self._config.traffic_steps) >= 100:
                _log.warning(
                    "traffic   --max-slowdown %g isn't checked: the old version is timed only while it has a share of "
                    "the traffic, and --traffic-steps gives all of it at once",
                    self._config.max_slowdown,
                )
            probe = Probe(self._config, visitor, client, old, golden, self._lock.check)
            for percent in self._config.traffic_steps if current else (100,):
                self._stage(f"{percent} % of the traffic")
                self._strategy.give(percent, current, new)
                figures = probe.watch(percent, self._config.step_minutes)
                self._note(steps=(*self._record.steps, figures.record()))
                _log.info("traffic   %d %% at version %s | %s", percent, new.version, figures)

    def _prove_again(self, source: Path, release: Release, current: Predictor) -> RolloutRecord:
        """Verify the version that serves already; only remains of an earlier rollout are cleaned up."""
        _log.info("deployed  version %s answers already; it is proved again", release.version)
        with self._client_of(current) as client:
            difference = check_golden(source, client)
        self._strategy.finish(current)
        found = self.history.serving
        if found is not None and found.digest == release.digest:
            return found
        proved = {"golden_difference": difference, "golden_tiles": len(GoldenTiles.read(source).tiles)}
        record = self._new_record(release, before=None, stage="").model_copy(update={"new": current, **proved})
        return self.history.end(self.history.begin(record), SERVING, "found serving, without a record")

    def _new_record(self, release: Release, before: Predictor | None, stage: str) -> RolloutRecord:
        return RolloutRecord(
            **asdict(release),
            strategy=self._strategy.name,
            by=self._lock.holder,
            endpoint=self._config.endpoint,
            before=before,
            new=None,
            stage=stage,
        )

    def _note(self, **changes: Any) -> None:  # noqa: ANN401 - of any field
        """Change the record; it is written with the next stage."""
        self._record = self.history.change(self._record, **changes)

    def _stage(self, stage: str) -> None:
        self._lock.check()
        self._note(stage=stage)
        self.history.write()

    def _go_back(self, error: BaseException) -> NoReturn:
        """Give the traffic back, write the reason into the record, and raise the error with the serving version."""
        self._lock.check()  # if another process has the lock, that one cleans up
        if isinstance(error, Terminated):
            error = PreemptedError(str(error))
        record, before = self._record, self._record.before
        _log.error("going back from version %s: %s", record.version, error or type(error).__name__)
        try:
            with undisturbed():
                if record.new:
                    self._strategy.abort(before, record.new)
                self.history.end(record, FAILED, f"{type(error).__name__}: {error} (at: {record.stage})")
        except SatXceptionError as problem:
            _log.error(
                "the way back failed as well: %s. Run `sat_xception rollback --name %s` when the cluster is well",
                problem,
                self._config.name,
            )
            raise error from None
        answers = f"version {before.version} has all the traffic again" if before else "nothing answers, as before"
        if isinstance(error, SatXceptionError):
            kind = ServiceError if isinstance(error, ServiceError) else type(error)  # RequestError takes a code as well
            raise kind(f"rolled back, {answers}: {error}") from None
        _log.error("rolled back, %s", answers)
        raise error

    def _client_of(self, predictor: Predictor) -> EndpointClient:
        address = self._config.predictor_url.format(service=predictor.backend, namespace=self._config.namespace)
        # The token is for the endpoint; predictors behind it must not get it.
        access = Access(ca_file=Access.find().ca_file)
        return EndpointClient(address, self._config.name, predictor.version, self._config.timeout_s, access)


def _check_signature(client: EndpointClient) -> None:
    """Check that the model takes images and returns probabilities, if the server reports its signatures."""
    signatures: Any = client.metadata().get("metadata", {}).get("signature_def", {}).get("signature_def", {})
    found = signatures.get("serving_default", {})
    if set(found.get("inputs", ())) != {"image_bytes"} or "probabilities" not in found.get("outputs", ()):
        raise ModelError(
            f"{client.address} serves a model whose serving_default takes {sorted(found.get('inputs', ()))} and gives "
            f"{sorted(found.get('outputs', ()))}, not image_bytes and probabilities: it isn't one of ours"
        )
