"""Settings of the steps that make datasets ready for training, and of what people do with datasets beside them."""

from __future__ import annotations

from pydantic import Field, model_validator

from sat_xception.config import POSITIONAL, StepConfig, second_name, setting_of
from sat_xception.steps.assemble import AssembleConfig
from sat_xception.steps.kinds import Dataset, DatasetRecords, Examples, FileOrNone, Place, Result, ResultOrNone

__all__ = ["BuildConfig", "ConvertConfig", "DiffConfig", "ExportFoldersConfig", "SampleAreaConfig", "ValidateConfig"]


class ConvertConfig(StepConfig):
    """Turn a dataset into TFRecord files of `tf.train.Example`, without re-encoding an image."""

    dataset: Dataset = Field(description="Dataset written by assemble.")
    out: Result = Field(description="Folder to write the examples to.")
    shard_mb: int = Field(128, gt=0, description="Size of a TFRecord file, about, in MB.")
    processes: int = Field(
        0, ge=0, description="Processes that write, on this machine. Default: as many as the dataset's size is worth."
    )
    runner: str = Field(
        "", description="Beam runner for other machines, such as FlinkRunner or SparkRunner. Default: this machine."
    )
    beam_options: tuple[str, ...] = Field(
        (), description="Option of that runner, such as --beam-options=--flink_master=host:8081; repeat for more."
    )

    @model_validator(mode="after")
    def _runner_has_its_options(self) -> ConvertConfig:
        self.check_runner(self.runner, self.beam_options, bool(self.processes))
        return self

    @staticmethod
    def check_runner(runner: str, beam_options: tuple[str, ...], processes_given: bool) -> None:
        """Refuse options that no runner gets.

        Raises:
            ValueError: They are no options, or they are for another runner than the one that is named.
        """
        for option in beam_options:
            if not option.startswith("--"):
                raise ValueError(f"--beam-options: an option begins with two dashes; got {option!r}")
            if option.partition("=")[0] == "--runner":
                raise ValueError(f"--beam-options: name the runner as --runner, not as {option!r}")
        if beam_options and not runner:
            raise ValueError(
                f"--beam-options are for the --runner that takes them; got {beam_options[0]!r} and no --runner"
            )
        if runner and processes_given:
            raise ValueError(f"--processes is for this machine; {runner} has options of its own: see docs/convert.md")


class ValidateConfig(StepConfig):
    """Check the examples with TensorFlow Data Validation: statistics, schema, anomalies, skew and drift."""

    examples: Examples = Field(description="Examples written by convert.")
    out: Result = Field(description="Folder to write statistics, schema, anomalies and the report to.")
    schema_file: FileOrNone = Field(
        None, description="Reviewed schema.pbtxt. Default: the baseline's, else inferred from the training split."
    )
    baseline: ResultOrNone = Field(
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


class BuildConfig(AssembleConfig):
    """From labelled places, or class folders, to validated TFRecord files: assemble, convert and validate in one go."""

    out: Place = Field(description="Folder that gets dataset/, examples/ and validation/; what is done is kept.")
    shard_mb: int = setting_of(ConvertConfig, "shard_mb")
    schema_file: FileOrNone = setting_of(ValidateConfig, "schema_file")
    accept: tuple[str, ...] = setting_of(ValidateConfig, "accept")
    max_skew: float = setting_of(ValidateConfig, "max_skew")
    max_drift: float = setting_of(ValidateConfig, "max_drift")
    baseline: ResultOrNone = setting_of(ValidateConfig, "baseline")


class DiffConfig(StepConfig):
    """Say what changed between two versions of a dataset, by class and split."""

    old: DatasetRecords = Field(description="Dataset written by assemble.", json_schema_extra=POSITIONAL)
    new: DatasetRecords = Field(description="Dataset to compare it with.", json_schema_extra=POSITIONAL)
    as_json: bool = Field(False, description="Print JSON instead of a table.", json_schema_extra=second_name("--json"))


class ExportFoldersConfig(StepConfig):
    """Write a dataset back as folders of images, a folder a split and in it a folder a class."""

    dataset: Dataset = Field(description="Dataset written by assemble.", json_schema_extra=POSITIONAL)
    out: Result = Field(description="Folder to write, here or at gs://.", json_schema_extra=POSITIONAL)


class SampleAreaConfig(StepConfig):
    """Draw an area of the synthetic sample's places, with its imagery and known schools, to try bulk scoring on."""

    out: Result = Field(description="Folder to write.", json_schema_extra=POSITIONAL)
    side: int = Field(24, gt=1, le=512, description="Tiles along each side of the area, at zoom 18.")
