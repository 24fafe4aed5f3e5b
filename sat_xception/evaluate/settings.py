"""Settings of evaluate and gate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from sat_xception.settings.config import StepConfig
from sat_xception.settings.types import (
    Address,
    Difference,
    EvaluationOrNone,
    Examples,
    Fraction,
    PlaceOrNone,
    Result,
    ThresholdGoal,
    TrainedModelOrNone,
    model_name,
)
from sat_xception.storage import Stored

__all__ = ["EvaluateConfig", "GateConfig"]


class EvaluateConfig(StepConfig):
    """Score a split with a trained or a serving model: metrics with confidence intervals, calibration, threshold."""

    model: TrainedModelOrNone = Field(None, description="Model folder written by train.")
    model_root: PlaceOrNone = Field(
        None, description="Instead of --model: model root; the newest version of --name is scored."
    )
    endpoint: Address = Field(
        "", description="Instead of --model: address of a running server, whose predictions are scored."
    )
    endpoint_host: str = Field("", description="Host header for --endpoint, if that is a gateway's IP address.")
    name: str = model_name("Name of the served model.")
    examples: Examples = Field(description="Examples written by convert.")
    out: Result = Field(description="Folder to write evaluation.json, predictions.parquet and the report to.")
    split: Literal["train", "valid", "test"] = Field("valid", description="Split to score.")
    goal: ThresholdGoal = Field(
        "f1",
        description="Objective of the decision threshold of the positive class, on validation: f1, "
        "recall-at-precision:0.9 or precision-at-recall:0.9.",
    )
    batch_size: int = Field(32, gt=0, description="Batch size, in tiles.")

    @model_validator(mode="after")
    def _has_one_model(self) -> EvaluateConfig:
        if (self.model is None) == (self.model_root is None and not self.endpoint):
            raise ValueError("give either --model, or --model-root or --endpoint of the serving model")
        return self


class GateConfig(StepConfig):
    """Choose the model that may be deployed, or none."""

    evaluations: Annotated[tuple[Path, ...], Stored("folder", "evaluation.json")] = Field(
        min_length=1, description="Folders written by evaluate, one per candidate."
    )
    serving: EvaluationOrNone = Field(None, description="Evaluation of the serving model; a winner may not be worse.")
    out: Result = Field(description="Folder to write the decision and the run's report to.")
    min_accuracy: Fraction = Field(0.85, description="Minimum validation accuracy.")
    min_gain: Difference = Field(
        0.0,
        description="The accuracy gain over always predicting the most frequent class must exceed this even at its "
        "lower confidence bound; -1 disables the check.",
    )
    min_recall: Fraction = Field(0.5, description="Minimum recall of the positive class (macro average without one).")
    min_precision: Fraction = Field(
        0.5, description="Minimum precision of the positive class (macro average without one)."
    )
    max_calibration_error: Fraction = Field(1.0, description="Maximum expected calibration error, after calibration.")
    min_slice_accuracy: Fraction = Field(0.0, description="Minimum accuracy in each slice; 0 disables the check.")
    min_slice_recall: Fraction = Field(
        0.0, description="Minimum recall of the positive class in each slice; 0 disables the check."
    )
    min_slice_tiles: int = Field(
        20, gt=0, description="Minimum number of tiles for a slice to be checked; for recall, of the positive class."
    )
    max_loss: Fraction = Field(
        0.01, description="Maximum loss of accuracy against the serving model; 1 disables the check."
    )
    require_winner: bool = Field(False, description="Exit with code 5 if no model passes.")
