"""Settings of convert."""

from __future__ import annotations

from pydantic import Field, model_validator

from sat_xception.settings.config import StepConfig
from sat_xception.settings.types import Dataset, Result

__all__ = ["ConvertConfig"]


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
