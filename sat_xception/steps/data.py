"""Settings of the steps that make datasets ready for training, and of what people do with datasets beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from sat_xception.config import POSITIONAL, StepConfig, second_name
from sat_xception.steps.kinds import Dataset, Examples, FileOrNone, Result
from sat_xception.storage import Stored

__all__ = ["ConvertConfig", "DiffConfig", "ValidateConfig"]


class ConvertConfig(StepConfig):
    """Turn a dataset into TFRecord files of `tf.train.Example`, without re-encoding an image."""

    dataset: Dataset = Field(description="Dataset written by assemble.")
    out: Result = Field(description="Folder to write the examples to.")
    shard_mb: int = Field(128, gt=0, description="Size of a TFRecord file, about, in MB.")


class ValidateConfig(StepConfig):
    """Check the examples with TensorFlow Data Validation: statistics, schema, anomalies, skew and drift."""

    examples: Examples = Field(description="Examples written by convert.")
    out: Result = Field(description="Folder to write statistics, schema, anomalies and the report to.")
    schema_file: FileOrNone = Field(
        None, description="Reviewed schema.pbtxt. Default: the baseline's, else inferred from the training split."
    )
    baseline: Annotated[Path | None, Stored("result")] = Field(
        None, description="Folder of the last accepted run, to compare with; replaced when this run is accepted."
    )
    accept: tuple[str, ...] = Field(
        (), description="Anomalies that don't stop the run, as <split>:<feature>:<kind>; '*' matches anything."
    )
    max_skew: float = Field(
        0.3,
        gt=0,
        description="Largest distance of a feature's distribution between training and another split, "
        "in an inferred schema.",
    )
    max_drift: float = Field(
        0.1,
        gt=0,
        description="Largest distance of a feature's distribution in training from the baseline's, in an "
        "inferred schema.",
    )

    @model_validator(mode="after")
    def _baseline_is_a_place_of_its_own(self) -> ValidateConfig:
        if self.baseline is not None and self.out in (self.baseline, *self.baseline.parents):
            raise ValueError(f"--baseline {self.baseline} is in --out, which is replaced whole; name another folder")
        return self


class DiffConfig(StepConfig):
    """Say what changed between two versions of a dataset, by class and split."""

    old: Path = Field(description="Dataset written by assemble.", json_schema_extra=POSITIONAL)
    new: Path = Field(description="Dataset to compare it with.", json_schema_extra=POSITIONAL)
    as_json: bool = Field(False, description="Print JSON instead of a table.", json_schema_extra=second_name("--json"))
