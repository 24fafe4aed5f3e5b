"""The record of one rollout, in the history on the cluster and in `deployment.json`."""

from __future__ import annotations

from dataclasses import fields
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
# Fields that are left out of JSON while they are None.
_LATER = ("golden_difference", "golden_tiles", "agreement")


class TrafficStep(Part):
    """Figures of one traffic step.

    Attributes:
        percent: Share of the traffic of the new version, in %.
        requests: Number of requests through the address that users call.
        failed: Number of requests without an answer.
        answered_by_new: Share of the new version in the answers; None if the versions can't be distinguished.
        tiles_answered_by_new: Number of requests with tiles that the new version answered; None like `answered_by_new`.
        p95_new_ms: 95th percentile of the new predictor's latency; None without a request.
        p95_old_ms: 95th percentile of the old predictor's latency; None without a request.
    """

    percent: int
    requests: int
    failed: int
    answered_by_new: float | None
    tiles_answered_by_new: int | None
    p95_new_ms: float | None
    p95_old_ms: float | None


class Agreement(Part):
    """Number of tiles that both versions scored, and the fraction that got the same class."""

    tiles: int
    share: float


class RolloutRecord(Document):
    """One rollout: the release, the predictor it replaces, its progress and its outcome.

    Attributes:
        id: Start time and version; records are ordered by it.
        name: Name of the model.
        version: Version of the model.
        place: Local folder or bucket address of the version, as this program reads and writes it.
        storage_uri: Address of the folder above it for the cluster's pods.
        digest: SHA-256 of its digest file.
        backbone: Name of the backbone.
        model: Digest of the Keras model.
        classes: Names in the order of the probabilities.
        strategy: Strategy: "two-services" or "canary".
        by: Process that holds the lock.
        endpoint: Address that users call.
        before: Predictor that had the traffic before; None if there was none.
        new: Predictor of this version; None until its name is known.
        stage: Stage at the time of writing.
        steps: Completed traffic steps.
        state: "in progress", "serving", "replaced", "rolled back" or "interrupted".
        reason: Reason for the outcome; "" if it serves.
        started_at: Start time, UTC.
        finished_at: End time, UTC; "" while it is in progress.
        golden_difference: Largest difference of a probability from the golden tiles; None before they are checked.
        golden_tiles: Number of golden tiles; None before they are checked.
        agreement: Agreement with the previous version; None if they weren't compared.
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
        """The release, for another rollout."""
        return Release(**{field.name: getattr(self, field.name) for field in fields(Release)})

    @model_serializer(mode="wrap")
    def _leave_out_unknown_figures(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialize(self)
        return {key: value for key, value in content.items() if value is not None or key not in _LATER}
