"""`evaluation.json`: all figures of a model on a split, or why there are none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import model_validator

from sat_xception.evaluate.figures import Calibration, Metrics, Threshold
from sat_xception.model.parts import Epoch, Weights
from sat_xception.storage.document import Document, Part
from sat_xception.train.record import Hardware, TrainingRecord

__all__ = [
    "Evaluation",
    "Mistake",
    "Scores",
    "ServingStatus",
    "TrainingSummary",
    "Unscored",
]


class Unscored(Part):
    """Tiles that have no score, and their number by reason."""

    count: int
    reasons: dict[str, int]


class Mistake(Part):
    """A tile that the model got wrong, with a thumbnail as a `data:` address."""

    tile: str
    image: str
    truth: str
    predicted: str
    confidence: float


class TrainingSummary(Part):
    """The fields of `train.json` that are compared between models.

    Attributes:
        weights: Initial weights.
        kept_phase: Phase whose weights were kept; None if the training failed.
        valid_accuracy: Validation accuracy of the kept weights; None if the training failed.
        seconds: Duration of each phase, and of `all`.
        input_size: Width and height of the model's input, in pixels.
        hardware: Machine that the model was trained on.
        history: Epochs of all phases.
    """

    weights: Weights
    kept_phase: str | None
    valid_accuracy: float | None
    seconds: dict[str, float]
    input_size: int
    hardware: Hardware
    history: tuple[Epoch, ...]

    @classmethod
    def of(cls, record: TrainingRecord, history: Iterable[Epoch]) -> TrainingSummary:
        """Return the summary of a training."""
        return cls(
            weights=record.weights,
            kept_phase=record.kept_phase,
            valid_accuracy=record.valid_accuracy,
            seconds=dict(record.seconds),
            input_size=record.input_size,
            hardware=record.hardware,
            history=tuple(history),
        )

    @property
    def total_seconds(self) -> float:
        """Duration of the whole training."""
        return self.seconds["all"]


class ServingStatus(Part):
    """The serving model, and whether it could be scored.

    Attributes:
        state: "scored"; "nothing" if no version is served; "other classes" if they differ from the examples'; "no
            probabilities" if it returned valid probabilities for no tile.
        reason: Why it wasn't scored, or "".
        place: Endpoint or model root.
        name: Name of the served model.
        version: Version; None if nothing is serving or the endpoint doesn't report it.
    """

    state: Literal["scored", "nothing", "other classes", "no probabilities"]
    reason: str
    place: str
    name: str
    version: int | None


class Scores(NamedTuple):
    """Figures of an evaluation that was scored."""

    metrics: Metrics
    calibration: Calibration


class Evaluation(Document):
    """Content of `evaluation.json`.

    An evaluation of a trained model has `training`, one of the serving model has `serving`. It has no figures if the
    training failed, or if the serving model couldn't be scored; see `scores`.

    Attributes:
        backbone: Name of the backbone; "" if unknown.
        model: Digest of the Keras model; "" if unknown, None if the training failed.
        split: Split that was scored.
        classes: Names in index order.
        positive_label: The positive class; "" without one.
        source: Name of the data.
        synthetic: Whether the data is the synthetic sample.
        dataset_digest: Digest of the dataset.
        config: Settings of evaluate.
        failed: Why the training has no model; None if it has one.
        training: Summary of the training; None for the serving model.
        serving: The serving model; None for a trained model.
        metrics: Figures after calibration; None if it wasn't scored.
        unscored: Tiles without a score; None if it wasn't scored, and in files of earlier versions.
        calibration: Temperature and reliability; None if it wasn't scored.
        threshold: Decision threshold; None without a positive class, or if it wasn't scored.
        mistakes: Mistakes with the highest confidence.
    """

    file_name: ClassVar[str] = "evaluation.json"
    made_by: ClassVar[str] = "evaluate"

    backbone: str
    model: str | None
    split: str
    classes: tuple[str, ...]
    positive_label: str
    source: str
    synthetic: bool
    dataset_digest: str
    config: dict[str, Any]
    failed: str | None = None
    training: TrainingSummary | None = None
    serving: ServingStatus | None = None
    metrics: Metrics | None = None
    unscored: Unscored | None = None
    calibration: Calibration | None = None
    threshold: Threshold | None = None
    mistakes: tuple[Mistake, ...] = ()

    @property
    def scores(self) -> Scores | None:
        """Figures; None if it wasn't scored."""
        return Scores(self.metrics, self.calibration) if self.metrics and self.calibration else None

    @property
    def why_unscored(self) -> str:
        """Why there are no figures; "" if there are."""
        if self.metrics:
            return ""
        return self.serving.reason if self.serving else f"its training failed: {self.failed}"

    @model_validator(mode="after")
    def _is_of_one_model(self) -> Evaluation:
        if (self.training is None) == (self.serving is None):
            raise ValueError("expected either training, for a trained model, or serving, for the serving model")
        return self

    @model_validator(mode="after")
    def _has_all_figures_or_none(self) -> Evaluation:
        if (self.metrics is None) != (self.calibration is None):
            raise ValueError("expected both metrics and calibration, or neither")
        if self.failed and self.metrics:
            raise ValueError("a training that failed has no metrics")
        if not self.metrics and not self.failed and not (self.serving and self.serving.reason):
            raise ValueError("there are no metrics, and no reason why")
        return self
