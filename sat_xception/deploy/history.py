"""The history of an endpoint's rollouts: a ConfigMap with one record per rollout, updated at each stage.

A rollout that is killed leaves a record with the state "in progress", and with the release that served before. The next
rollout first restores that release.
"""

from __future__ import annotations

from typing import Any

from sat_xception.clock import timestamp, utc_now
from sat_xception.deploy.k8s_client import KubernetesClient
from sat_xception.deploy.k8s_kinds import CONFIG_MAP
from sat_xception.deploy.k8s_objects import ConfigMap
from sat_xception.deploy.rollout_record import IN_PROGRESS, REPLACED, SERVING, RolloutRecord

__all__ = ["History"]

# A record is 1 to 3 kB, and a ConfigMap holds 1 MiB.
_KEPT = 20


class History:
    """Records of rollouts, the newest first."""

    def __init__(self, cluster: KubernetesClient, name: str) -> None:
        """Read the history of an endpoint.

        Raises:
            DataError: A record is damaged, or a newer version of sat-xception wrote it.
        """
        self._cluster, self._map = cluster, f"{name}-deploys"
        self.records = self._read()

    def _read(self) -> list[RolloutRecord]:
        found = ConfigMap.of(self._cluster.get(CONFIG_MAP, self._map) or {})
        namespace = self._cluster.namespace
        advice = f"remove it with `kubectl edit configmap {self._map} -n {namespace}`"
        records = []
        for key, text in sorted(found.data.items(), reverse=True):
            origin = f"record {key} in ConfigMap {self._map} of namespace {namespace}"
            record = RolloutRecord.from_json(text, origin, advice)
            records.append(record.model_copy(update={"id": key.removesuffix(".json")}))
        return records

    @property
    def unfinished(self) -> RolloutRecord | None:
        """The rollout that was killed, if the last one was."""
        return next((record for record in self.records if record.state == IN_PROGRESS), None)

    @property
    def serving(self) -> RolloutRecord | None:
        """The rollout whose version serves, if there is one."""
        return next((record for record in self.records if record.state == SERVING), None)

    def proved(self, version: int = 0) -> RolloutRecord | None:
        """Return the newest record of a rollout that was verified and isn't serving now.

        Args:
            version: Version of the rollout; 0 for any.
        """
        serving = self.serving and self.serving.version
        for record in self.records:
            passed = record.state in (SERVING, REPLACED)
            if passed and (record.version == version if version else record.version != serving):
                return record
        return None

    def begin(self, record: RolloutRecord) -> RolloutRecord:
        """Write the record of a rollout that begins; return it with its id and its time."""
        now = utc_now()
        # With milliseconds, so that records sort by time.
        number = f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}"
        begun = record.model_copy(update={"id": f"{number}-{record.version}", "started_at": timestamp(now)})
        self.records.insert(0, begun)
        self.write()
        return begun

    def change(self, record: RolloutRecord, **changes: Any) -> RolloutRecord:  # noqa: ANN401 - of any field
        """Return a record with changed values; the next `write` stores it."""
        changed = record.model_copy(update=changes)
        self.records = [changed if each.id == record.id else each for each in self.records]
        return changed

    def end(self, record: RolloutRecord, state: str, reason: str = "") -> RolloutRecord:
        """Write the final state of a rollout; if it serves, no older record does.

        If it can't be written, the rollout hasn't ended: the previous one is still the serving one.
        """
        before = self.records
        if state == SERVING:
            for earlier in before:
                if earlier.state == SERVING:
                    self.change(earlier, state=REPLACED)
        ended = self.change(record, state=state, reason=reason, finished_at=timestamp())
        try:
            self.write()
        except BaseException:
            self.records = before
            raise
        return ended

    def write(self) -> None:
        """Write the newest records; older ones are dropped, except those that serve or are in progress."""
        self.records = [
            record
            for index, record in enumerate(self.records)
            if index < _KEPT or record.state in (SERVING, IN_PROGRESS)
        ]
        data = {f"{record.id}.json": record.to_json(compact=True) for record in self.records}
        metadata = {"name": self._map, "namespace": self._cluster.namespace}
        self._cluster.apply(CONFIG_MAP, {"metadata": metadata, "data": data}, force=True)
