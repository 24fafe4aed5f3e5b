"""Settings of validate."""

from __future__ import annotations

from pydantic import Field, model_validator

from sat_xception.settings.config import StepConfig
from sat_xception.settings.types import Examples, FileOrNone, Result, ResultOrNone

__all__ = ["ValidateConfig"]


class ValidateConfig(StepConfig):
    """Check the examples with TensorFlow Data Validation: statistics, schema, anomalies, skew and drift."""

    examples: Examples = Field(description="Examples written by convert.")
    out: Result = Field(description="Folder to write statistics, schema, anomalies and the report to.")
    schema_file: FileOrNone = Field(
        None,
        description="Reviewed schema.pbtxt. Default: the baseline's; without one, inferred from the training split.",
    )
    baseline: ResultOrNone = Field(
        None, description="Folder of the last accepted run, to compare with; replaced when this run is accepted."
    )
    accept: tuple[str, ...] = Field(
        (),
        description="Anomaly that doesn't stop the run, as <split>:<feature>:<kind>; '*' matches anything; repeat for "
        "more.",
    )
    max_skew: float = Field(
        0.3,
        gt=0,
        description="Maximum distance between a feature's distributions in training and another split, in an inferred "
        "schema.",
    )
    max_drift: float = Field(
        0.1,
        gt=0,
        description="Maximum distance between a feature's distributions in training and in the baseline, in an "
        "inferred schema.",
    )

    @model_validator(mode="after")
    def _baseline_is_a_place_of_its_own(self) -> ValidateConfig:
        if self.baseline is not None and self.out in (self.baseline, *self.baseline.parents):
            raise ValueError(f"--baseline {self.baseline} is in --out, which is replaced whole; name another folder")
        return self
