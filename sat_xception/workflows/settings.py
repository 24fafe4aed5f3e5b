"""Settings of verbs that run several steps."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from sat_xception.dataset.settings import AssembleConfig
from sat_xception.examples.settings import ConvertConfig
from sat_xception.model.backbones import DEFAULT_BACKBONE, BackboneName, backbone_names
from sat_xception.model.settings import TrainConfig
from sat_xception.settings.config import StepConfig, setting_of
from sat_xception.settings.types import (
    FileOrNone,
    Folder,
    Place,
    ResultOrNone,
    Weights,
)
from sat_xception.validation.settings import ValidateConfig

__all__ = ["BuildConfig", "TrainFoldersConfig"]


class BuildConfig(AssembleConfig):
    """Make validated TFRecord files from labelled sites or class folders: assemble, convert and validate."""

    out: Place = Field(description="Parent folder of dataset/, examples/ and validation/; finished ones are kept.")
    shard_mb: int = setting_of(ConvertConfig, "shard_mb")
    schema_file: FileOrNone = setting_of(ValidateConfig, "schema_file")
    accept: tuple[str, ...] = setting_of(ValidateConfig, "accept")
    max_skew: float = setting_of(ValidateConfig, "max_skew")
    max_drift: float = setting_of(ValidateConfig, "max_drift")
    baseline: ResultOrNone = setting_of(ValidateConfig, "baseline")


class TrainFoldersConfig(StepConfig):
    """The original's command: class folders in, a trained and packaged model out."""

    model: BackboneName = Field(DEFAULT_BACKBONE, description=f"Backbone: {backbone_names()}.")
    train: Folder = Field(description="Class folders to train on.")
    valid: Folder = Field(description="Class folders to validate on.")
    weights: Weights = setting_of(TrainConfig, "weights")
    alpha: float = setting_of(TrainConfig, "alpha")
    input_size: int = setting_of(TrainConfig, "input_size")
    seed: int = setting_of(TrainConfig, "seed")
    models: Path = Field(Path("models"), description="Parent folder of the folder of this run.")
    tensorboard: Path = Field(Path("tensorboard"), description="Parent folder of this run's TensorBoard logs.")
