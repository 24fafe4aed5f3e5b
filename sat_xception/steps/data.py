"""Settings of the steps that make datasets ready for training, and of what people do with datasets beside them."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from sat_xception.config import POSITIONAL, StepConfig, second_name, setting_of
from sat_xception.steps.assemble import AssembleConfig
from sat_xception.steps.kinds import Dataset, Examples, FileOrNone, Result, ResultOrNone

__all__ = ["BuildConfig", "ConvertConfig", "DiffConfig", "ValidateConfig"]


class ConvertConfig(StepConfig):
    """Turn a dataset into TFRecord files of `tf.train.Example`, without re-encoding an image."""

    dataset: Dataset = Field(description="Dataset written by assemble.")
    out: Result = Field(description="Folder to write the examples to.")
    shard_mb: int = Field(128, gt=0, description="Size of a TFRecord file, about, in MB.")


class ValidateConfig(StepConfig):
    """Check the examples with TensorFlow Data Validation: statistics, schema, anomalies, skew between splits."""

    examples: Examples = Field(description="Examples written by convert.")
    out: Result = Field(description="Folder to write statistics, schema, anomalies and the report to.")
    schema_file: FileOrNone = Field(
        None, description="Reviewed schema.pbtxt. Default: inferred from the training split."
    )
    accept: tuple[str, ...] = Field(
        (), description="Anomalies that don't stop the run, as <split>:<feature>:<kind>; '*' matches anything."
    )
    max_skew: float = Field(
        0.3, gt=0, description="Largest distance of a feature's distribution between training and another split."
    )
    baseline: ResultOrNone = Field(
        None, description="Folder that keeps schema and statistics of the last accepted run."
    )


class BuildConfig(AssembleConfig):
    """From labelled places, or class folders, to validated TFRecord files: assemble, convert and validate in one go."""

    out: Path = Field(description="Folder that gets dataset/, examples/ and validation/; what is done is kept.")
    shard_mb: int = setting_of(ConvertConfig, "shard_mb")
    schema_file: FileOrNone = setting_of(ValidateConfig, "schema_file")
    accept: tuple[str, ...] = setting_of(ValidateConfig, "accept")
    max_skew: float = setting_of(ValidateConfig, "max_skew")
    baseline: ResultOrNone = setting_of(ValidateConfig, "baseline")


class DiffConfig(StepConfig):
    """Say what changed between two versions of a dataset, by class and split."""

    old: Path = Field(description="Dataset written by assemble.", json_schema_extra=POSITIONAL)
    new: Path = Field(description="Dataset to compare it with.", json_schema_extra=POSITIONAL)
    as_json: bool = Field(False, description="Print JSON instead of a table.", json_schema_extra=second_name("--json"))
