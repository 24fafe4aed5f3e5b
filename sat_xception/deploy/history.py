"""The history of an endpoint's rollouts: a ConfigMap with a record each, written as a rollout goes on.

A rollout that is killed leaves a record that says "in progress", and what answered before it: the next one begins by
putting that right.
"""

from __future__ import annotations

import json
import time
from typing import Any

from sat_xception.deploy.k8s_client import KubernetesClient
from sat_xception.deploy.k8s_kinds import CONFIG_MAP
from sat_xception.deploy.release import Release
from sat_xception.errors import DataError
from sat_xception.storage.files import dump_json

__all__ = ["FAILED", "INTERRUPTED", "IN_PROGRESS", "REPLACED", "SERVING", "History"]

Record = dict[str, Any]

IN_PROGRESS = "in progress"
SERVING = "serving"
REPLACED = "replaced"
FAILED = "rolled back"
INTERRUPTED = "interrupted"
# A record is 1 to 3 kB, and a ConfigMap holds 1 MiB.
_KEPT = 20


class History:
    """Records of rollouts, the newest first."""

    def __init__(self, cluster: KubernetesClient, name: str) -> None:
        """Read the history of an endpoint.

        Raises:
            DataError: Somebody has damaged it.
        """
        self._cluster, self._map = cluster, f"{name}-deploys"
        self.records = self._read()

    def _read(self) -> list[Record]:
        found = self._cluster.get(CONFIG_MAP, self._map)
        records = []
        for key, text in sorted(((found or {}).get("data") or {}).items(), reverse=True):
            try:
                records.append({**json.loads(text), "id": key.removesuffix(".json")})
            except (ValueError, TypeError):
                raise DataError(
                    f"record {key} in ConfigMap {self._map} of namespace {self._cluster.namespace} is damaged; remove "
                    f"it with `kubectl edit configmap {self._map} -n {self._cluster.namespace}`"
                ) from None
        return records

    @property
    def unfinished(self) -> Record | None:
        """The rollout that was killed, if the last one was."""
        return next((record for record in self.records if record["state"] == IN_PROGRESS), None)

    @property
    def serving(self) -> Record | None:
        """The rollout whose version serves, if there is one."""
        return next((record for record in self.records if record["state"] == SERVING), None)

    def proved(self, version: int = 0) -> Record | None:
        """Return the newest record of a rollout that passed its proof and isn't serving now.

        Args:
            version: The version it must have; 0 for any.
        """
        serving = self.serving and self.serving["version"]
        for record in self.records:
            passed = record["state"] in (SERVING, REPLACED)
            if passed and (record["version"] == version if version else record["version"] != serving):
                return record
        return None

    def begin(self, release: Release, facts: Record) -> Record:
        """Add the record of a rollout that begins, and write it."""
        now = time.time()
        # Ordered by time, also within a second.
        number = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now))}.{int(now * 1000) % 1000:03d}"
        record = {
            **release.facts(),
            **facts,
            "id": f"{number}-{release.version}",
            "state": IN_PROGRESS,
            "reason": "",
            "started_at": _utc(now),
            "finished_at": "",
        }
        self.records.insert(0, record)
        self.write()
        return record

    def end(self, record: Record, state: str, reason: str = "") -> None:
        """Say how a rollout ended, and write it; of those that serve, the newest is the one."""
        if state == SERVING:
            for earlier in self.records:
                if earlier["state"] == SERVING:
                    earlier["state"] = REPLACED
        record |= {"state": state, "reason": reason, "finished_at": _utc(time.time())}
        self.write()

    def write(self) -> None:
        """Write the newest records; the oldest fall out, but never one that serves or is in progress."""
        kept = [
            record
            for place, record in enumerate(self.records)
            if place < _KEPT or record["state"] in (SERVING, IN_PROGRESS)
        ]
        self.records = kept
        data = {
            f"{record['id']}.json": dump_json({k: v for k, v in record.items() if k != "id"}, ensure_ascii=False)
            for record in kept
        }
        metadata = {"name": self._map, "namespace": self._cluster.namespace}
        self._cluster.apply(CONFIG_MAP, {"metadata": metadata, "data": data}, force=True)


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
