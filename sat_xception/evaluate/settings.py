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
    """Score a split with a trained model, or with what is serving: figures with intervals, calibration, threshold."""

    model: TrainedModelOrNone = Field(None, description="Model folder written by train.")
    model_root: PlaceOrNone = Field(
        None, description="Instead of --model: model root, whose newest version of --name is scored."
    )
    endpoint: Address = Field(
        "", description="Instead of --model: address of a running server, whose answers are scored."
    )
    name: str = model_name("Name that what is serving is served as.")
    examples: Examples = Field(description="Examples written by convert.")
    out: Result = Field(description="Folder to write evaluation.json, predictions.parquet and the report to.")
    split: Literal["train", "valid", "test"] = Field("valid", description="Split to score.")
    goal: ThresholdGoal = Field(
        "f1",
        description="What the threshold of the class that is looked for is chosen for, on validation: f1, "
        "recall-at-precision:0.9 or precision-at-recall:0.9.",
    )
    batch_size: int = Field(32, gt=0, description="Tiles a step.")

    @model_validator(mode="after")
    def _has_one_model(self) -> EvaluateConfig:
        if (self.model is None) == (self.model_root is None and not self.endpoint):
            raise ValueError("give either --model, or --model-root or --endpoint of what is serving")
        return self


class GateConfig(StepConfig):
    """Choose the model that may be deployed, or none."""

    evaluations: Annotated[tuple[Path, ...], Stored("folder", "evaluation.json")] = Field(
        min_length=1, description="Folders written by evaluate, one a candidate."
    )
    serving: EvaluationOrNone = Field(
        None, description="Evaluation of what is serving now, which no winner may be worse than."
    )
    out: Result = Field(description="Folder to write the decision and the run's report to.")
    min_accuracy: Fraction = Field(0.85, description="Lowest validation accuracy.")
    min_gain: Difference = Field(
        0.0,
        description="What the accuracy gained on naming the most frequent class for every tile must surely be above; "
        "-1 doesn't compare.",
    )
    min_recall: Fraction = Field(0.5, description="Lowest recall of the positive class (macro average without one).")
    min_precision: Fraction = Field(
        0.5, description="Lowest precision of the positive class (macro average without one)."
    )
    max_calibration_error: Fraction = Field(1.0, description="Largest expected calibration error, once calibrated.")
    min_slice_accuracy: Fraction = Field(0.0, description="Lowest accuracy in each slice; 0 asks for none.")
    min_slice_recall: Fraction = Field(
        0.0, description="Lowest recall of the positive class in each slice; 0 asks for none."
    )
    min_slice_tiles: int = Field(
        20, gt=0, description="Tiles that a slice must have to be judged; for recall, of the positive class."
    )
    max_loss: Fraction = Field(
        0.01, description="How much less accurate than what is serving a model may be; 1 doesn't compare."
    )
    require_winner: bool = Field(False, description="Exit with 5 when no model passes.")
