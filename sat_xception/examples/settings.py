"""Settings of convert."""

from __future__ import annotations

from pydantic import Field, model_validator

from sat_xception.settings.config import StepConfig
from sat_xception.settings.types import Dataset, Result

__all__ = ["ConvertConfig"]


class ConvertConfig(StepConfig):
    """Convert a dataset to TFRecord files of `tf.train.Example`, without re-encoding images."""

    dataset: Dataset = Field(description="Dataset written by assemble.")
    out: Result = Field(description="Folder to write the examples to.")
    shard_mb: int = Field(128, gt=0, description="Approximate size of a TFRecord file, in MB.")
    processes: int = Field(
        0, ge=0, description="Number of writing processes on this machine. Default: chosen by the size of the dataset."
    )
    runner: str = Field(
        "", description="Beam runner for running elsewhere, such as FlinkRunner or SparkRunner. Default: this machine."
    )
    beam_options: tuple[str, ...] = Field(
        (), description="Option for the Beam runner, such as --beam-options=--flink_master=host:8081; repeat for more."
    )

    @model_validator(mode="after")
    def _runner_has_its_options(self) -> ConvertConfig:
        self.check_runner(self.runner, self.beam_options, bool(self.processes))
        return self

    @staticmethod
    def check_runner(runner: str, beam_options: tuple[str, ...], processes_given: bool) -> None:
        """Reject Beam options that are malformed or have no runner.

        Raises:
            ValueError: An item is not an option, no runner is given, or --processes is given with a runner.
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
