"""Settings of training, which search shares."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from sat_xception.settings.config import StepConfig
from sat_xception.settings.types import (
    Examples,
    Result,
    ResultOrNone,
    Weights,
)

__all__ = ["SMALLEST_INPUT", "ActivationName", "BackboneName", "OptimizerName", "TrainConfig"]

BackboneName = Literal["xception", "mobilenetv2"]
OptimizerName = Literal["adam", "adamw", "nadam", "rmsprop", "sgd"]
ActivationName = Literal["relu", "elu", "gelu", "selu", "silu", "tanh"]
# Height and width in pixels that Keras's constructors ask for at least; here, so that it is known without TensorFlow.
SMALLEST_INPUT: Mapping[str, int] = {"xception": 71, "mobilenetv2": 32}


class TrainConfig(StepConfig):
    """Transfer-learn one backbone: a head on frozen features, then fine-tuning; the better of the two is kept."""

    examples: Examples = Field(description="Examples written by convert.")
    out: Result = Field(description="Folder to write the model, its history and its curves to.")
    backbone: BackboneName = Field("xception", description="Network to start from.")
    weights: Weights = Field("imagenet", description="'imagenet' (downloaded), a .h5 file, gs://…/file.h5, or 'none'.")
    input_size: int = Field(
        0, ge=0, description="Height and width of the input in pixels. Default: the backbone's own."
    )
    alpha: float = Field(1.0, gt=0, description="Width multiplier of MobileNetV2.")
    batch_size: int = Field(32, gt=0, description="Tiles a step.")
    head_epochs: int = Field(100, gt=0, description="Most epochs of the head on frozen features.")
    fine_tune_epochs: int = Field(24, ge=0, description="Most epochs of fine-tuning; 0 leaves it out.")
    fine_tune_crop: float = Field(
        0.5, gt=0, le=1, description="Smallest share of a tile that fine-tuning cuts out and enlarges; 1: whole."
    )
    fine_tune_label_smoothing: float = Field(
        0.1, ge=0, lt=1, description="Share of each label that fine-tuning spreads evenly over the classes."
    )
    fine_tune_from: str = Field("", description="First layer that fine-tuning changes. Default: the backbone's own.")
    optimizer: OptimizerName = Field("adam", description="Optimizer of every phase; sgd has a momentum of 0.9.")
    head_learning_rate: float = Field(1e-3, gt=0, description="Learning rate of the head.")
    fine_tune_learning_rate: float = Field(
        0.0, ge=0, description="Highest rate of fine-tuning; it falls to 0. Default: the backbone's own."
    )
    scratch_epochs: int = Field(25, gt=0, description="Epochs of the whole network where weights is 'none'.")
    scratch_learning_rate: float = Field(
        0.0,
        ge=0,
        description="First rate where weights is 'none'; it falls to 0. Default: the backbone's, for adam.",
    )
    patience: int = Field(10, gt=0, description="Epochs without a better validation accuracy before a phase stops.")
    head_units: int = Field(0, ge=0, description="Width of a hidden layer below the last one; 0 has none.")
    head_activation: ActivationName = Field("relu", description="Activation of the hidden layer.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Share of the last layer's inputs dropped in training.")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of each label spread evenly over the classes, other than in fine-tuning."
    )
    class_weights: bool = Field(True, description="Weigh classes by the inverse of their counts.")
    views: int = Field(4, ge=1, le=8, description="Flips and quarter turns of each tile that the head trains on.")
    seed: int = Field(0, description="Seed of weights, order and augmentation.")
    search_trials: int = Field(
        0, ge=0, description="Heads that a search tries first; the best one's settings are then trained with. 0: none."
    )
    precision: Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"] = Field(
        "auto", description="Number format of the layers. auto: bfloat16 or float16 where the GPU is fast at it."
    )
    xla: Literal["auto", "on", "off"] = Field("auto", description="Compile the steps. auto: on one GPU.")
    gpus: int = Field(0, ge=0, description="GPUs that share each step. Default: all there are.")
    deterministic: bool = Field(False, description="Repeatable on GPUs, too, at some cost in speed.")
    tensorboard: Path | None = Field(None, description="Folder for TensorBoard's logs. Default: tensorboard/ in --out.")
    profile_steps: int = Field(0, ge=0, description="Steps of each phase to profile for TensorBoard; 0 for none.")
    checkpoints: ResultOrNone = Field(
        None, description="Folder or gs:// address to keep what was learnt in until the end. Default: OUT.checkpoints."
    )
    checkpoint_minutes: float = Field(
        10.0, ge=0, description="Most minutes between two checkpoints, beside those at epochs' ends; 0 is each step."
    )

    record_divergence: bool = Field(
        False,
        description="Where no epoch has a finite loss, write a folder that records it, and end well; evaluate and gate "
        "refuse such a candidate and name the reason.",
    )

    @field_validator("input_size")
    @classmethod
    def _is_large_enough(cls, input_size: int, info: ValidationInfo) -> int:
        smallest = SMALLEST_INPUT.get(info.data.get("backbone", ""), 0)
        if 0 < input_size < smallest:
            raise ValueError(f"{info.data['backbone']} takes {smallest} pixels or more, or 0 for its own size")
        return input_size

    @model_validator(mode="after")
    def _searches_on_learnt_weights(self) -> TrainConfig:
        if self.search_trials and self.weights == "none":
            raise ValueError(
                "--search-trials tries heads on learnt features, and --weights none has none; leave one out"
            )
        return self
