"""`model.json` in full, as package writes it for a model that it has exported and checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, SerializerFunctionWrapHandler, model_serializer

from sat_xception.evaluate.figures import Metrics, Threshold
from sat_xception.model.parts import Weights
from sat_xception.served_model.packaged_model import PackagedModel
from sat_xception.storage.document import Part
from sat_xception.train.record import Hardware, TrainingRecord

__all__ = ["AppliedCalibration", "ModelRecord", "PackagedTraining"]


class PackagedTraining(Part):
    """Facts of the training of a packaged model, as `train.json` has them.

    Attributes:
        weights: Weights that it started from.
        kept_phase: Phase whose weights were kept.
        input_size: Width and height of the model's input, in pixels.
        seconds: By phase, and of `all`.
        hardware: Machine.
        versions: Of the libraries that it was trained with, by name.
    """

    weights: Weights
    kept_phase: str
    input_size: int
    seconds: Mapping[str, float]
    hardware: Hardware
    versions: Mapping[str, str]

    @classmethod
    def of(cls, record: TrainingRecord) -> PackagedTraining:
        """Return the facts of a training that has a model."""
        return cls(
            weights=record.weights,
            kept_phase=record.kept_phase or "",
            input_size=record.input_size,
            seconds=record.seconds,
            hardware=record.hardware,
            versions=record.versions,
        )

    @property
    def total_seconds(self) -> float:
        """Whole time of the training."""
        return self.seconds["all"]


class AppliedCalibration(Part):
    """The temperature in the exported graph.

    Attributes:
        temperature: 1 leaves the probabilities as they were trained.
        fitted_on: Split that it was fitted on; "" where it wasn't.
        error_before: Expected calibration error on that split before it is applied; None, and left out of the file,
            where it wasn't fitted.
        error_after: The same after it is applied.
    """

    temperature: float
    fitted_on: Literal["valid", ""]
    error_before: float | None = None
    error_after: float | None = None

    @model_serializer(mode="wrap")
    def _leave_out_absent_errors(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialize(self)
        return {key: value for key, value in content.items() if value is not None}


class ModelRecord(PackagedModel):
    """Content of `model.json` as this version writes it; versions are read as `PackagedModel`.

    Attributes:
        source: Name of the data.
        synthetic: Whether the data is the synthetic sample.
        training: Facts of the training.
        calibration: The temperature in the exported graph.
        threshold_choice: How the threshold was chosen; None without a positive class or a gate's decision.
        metrics: Every figure by split.
        export_tolerance: Maximum difference of a probability that was allowed between the export and Keras.
        packaged_by: Versions of sat-xception and TensorFlow.
    """

    model_config = ConfigDict(extra="ignore")

    source: str
    synthetic: bool
    training: PackagedTraining
    calibration: AppliedCalibration
    threshold_choice: Threshold | None
    metrics: Mapping[str, Metrics]
    export_tolerance: float
    packaged_by: str

    @property
    def temperature(self) -> float:
        """Temperature in the exported graph."""
        return self.calibration.temperature

    @property
    def test(self) -> Metrics | None:
        """Figures of the test split; None where the data has none."""
        return self.metrics.get("test")
