"""The record of one rollout: kept in the history on the cluster, and in `deployment.json`."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import SerializerFunctionWrapHandler, model_serializer

from sat_xception.deploy.readiness import Predictor
from sat_xception.deploy.release import Release
from sat_xception.storage.document import Document, Part

__all__ = ["FAILED", "INTERRUPTED", "IN_PROGRESS", "REPLACED", "SERVING", "Agreement", "RolloutRecord", "TrafficStep"]

# States of a rollout.
IN_PROGRESS = "in progress"
SERVING = "serving"
REPLACED = "replaced"
FAILED = "rolled back"
INTERRUPTED = "interrupted"
# Left out of JSON until they are known.
_LATER = ("golden_difference", "golden_tiles", "agreement")


class TrafficStep(Part):
    """Figures of one share of the traffic.

    Attributes:
        percent: The share of the new version.
        requests: Requests through the address that users call.
        failed: Requests without an answer.
        answered_by_new: Share of them that the new version answered; None where versions can't be told apart.
        tiles_answered_by_new: Requests with tiles that the new version answered; None as above.
        p95_new_ms: 95th percentile of the new predictor's latency; None without a request.
        p95_old_ms: The same of the old one.
    """

    percent: int
    requests: int
    failed: int
    answered_by_new: float | None
    tiles_answered_by_new: int | None
    p95_new_ms: float | None
    p95_old_ms: float | None


class Agreement(Part):
    """Number of tiles that both versions were asked for, and the share that got the same class."""

    tiles: int
    share: float


class RolloutRecord(Document):
    """One rollout: the release, what it replaces, how far it came, and how it ended.

    Attributes:
        id: Time at which it began, and the version; records are ordered by it.
        name: Name of the model.
        version: Its version.
        place: Folder of the version, local or in a bucket, as this program reads and writes it.
        storage_uri: Folder above it, as the cluster's pods read it.
        digest: SHA-256 of its digest file.
        backbone: Name of the network.
        model: Digest of the Keras model.
        classes: Names in the order of the probabilities.
        strategy: How the traffic is split: "two-services" or "canary".
        by: Process that holds the lock.
        endpoint: Address that users call.
        before: Predictor that had the traffic before; None where there was none.
        new: Predictor of this version; None until its name is known.
        stage: What it was at when this was written.
        steps: Shares of the traffic that it passed.
        state: "in progress", "serving", "replaced", "rolled back" or "interrupted".
        reason: Why it ended so; "" where it serves.
        started_at: UTC.
        finished_at: UTC; "" while it is in progress.
        golden_difference: Largest difference of a probability to the golden tiles; None until it is known.
        golden_tiles: Number of golden tiles; None as above.
        agreement: With the version before; None where it wasn't compared.
    """

    file_name: ClassVar[str] = "rollout.json"
    made_by: ClassVar[str] = "deploy"

    id: str = ""
    name: str
    version: int
    place: str
    storage_uri: str
    digest: str
    backbone: str
    model: str
    classes: tuple[str, ...]
    strategy: str
    by: str
    endpoint: str
    before: Predictor | None
    new: Predictor | None
    stage: str
    steps: tuple[TrafficStep, ...] = ()
    state: str = IN_PROGRESS
    reason: str = ""
    started_at: str = ""
    finished_at: str = ""
    golden_difference: float | None = None
    golden_tiles: int | None = None
    agreement: Agreement | None = None

    @property
    def release(self) -> Release:
        """The release, to be rolled out again."""
        return Release(
            name=self.name,
            version=self.version,
            place=self.place,
            storage_uri=self.storage_uri,
            digest=self.digest,
            backbone=self.backbone,
            model=self.model,
            classes=self.classes,
        )

    @model_serializer(mode="wrap")
    def _leave_out_unknown_figures(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialize(self)
        return {key: value for key, value in content.items() if value is not None or key not in _LATER}
