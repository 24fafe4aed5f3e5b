"""Settings of training, which search shares."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from sat_xception.model.backbones import BACKBONES, DEFAULT_BACKBONE, BackboneName, backbone_names
from sat_xception.settings.config import StepConfig
from sat_xception.settings.types import (
    Examples,
    PlaceOrNone,
    Result,
    ResultOrNone,
    Weights,
)

__all__ = ["ActivationName", "OptimizerName", "TrainConfig"]

OptimizerName = Literal["adam", "adamw", "nadam", "rmsprop", "sgd"]
ActivationName = Literal["relu", "elu", "gelu", "selu", "silu", "tanh"]
_WITH_ALPHA = " and ".join(backbone.title for backbone in BACKBONES.values() if backbone.has_alpha)


class TrainConfig(StepConfig):
    """Transfer learning with one backbone: train a head on frozen features, then fine-tune; keep the better one."""

    examples: Examples = Field(description="Examples written by convert.")
    out: Result = Field(description="Folder to write the model, its history and its curves to.")
    backbone: BackboneName = Field(DEFAULT_BACKBONE, description=f"Backbone network: {backbone_names()}.")
    weights: Weights = Field(
        "imagenet", description="'imagenet' (downloaded), a .h5 file, its address in a bucket, or 'none'."
    )
    input_size: int = Field(
        0, ge=0, description="Height and width of the input, in pixels. Default: the backbone's own."
    )
    alpha: float = Field(1.0, gt=0, description=f"Width multiplier of {_WITH_ALPHA}.")
    batch_size: int = Field(32, gt=0, description="Batch size, in tiles.")
    head_epochs: int = Field(100, gt=0, description="Maximum number of epochs of the head on frozen features.")
    fine_tune_epochs: int = Field(24, ge=0, description="Maximum number of epochs of fine-tuning; 0 skips fine-tuning.")
    fine_tune_crop: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Minimum fraction of a tile that random crops keep in fine-tuning, before resizing; 1 disables "
        "cropping.",
    )
    fine_tune_label_smoothing: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Label smoothing in fine-tuning: the fraction of each label that is spread evenly over the "
        "classes.",
    )
    fine_tune_from: str = Field(
        "", description="First layer that is unfrozen in fine-tuning. Default: the backbone's own."
    )
    optimizer: OptimizerName = Field("adam", description="Optimizer of all phases; sgd uses a momentum of 0.9.")
    head_learning_rate: float = Field(1e-3, gt=0, description="Learning rate of the head.")
    fine_tune_learning_rate: float = Field(
        0.0, ge=0, description="Peak learning rate of fine-tuning, which then decays to 0. Default: the backbone's own."
    )
    scratch_epochs: int = Field(
        25, gt=0, description="Number of epochs when the whole network is trained from random weights ('none')."
    )
    scratch_learning_rate: float = Field(
        0.0,
        ge=0,
        description="Initial learning rate with weights 'none', which decays to 0. Default: the backbone's own, for "
        "adam.",
    )
    patience: int = Field(10, gt=0, description="Epochs without a better validation accuracy before a phase stops.")
    head_units: int = Field(0, ge=0, description="Width of a hidden layer before the output layer; 0 for none.")
    head_activation: ActivationName = Field("relu", description="Activation of the hidden layer.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Dropout rate before the output layer.")
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Label smoothing outside fine-tuning: the fraction of each label that is spread evenly over the "
        "classes.",
    )
    class_weights: bool = Field(True, description="Weight classes by the inverse of their counts.")
    views: int = Field(
        4, ge=1, le=8, description="Number of flips and quarter turns of each tile that the head is trained on."
    )
    seed: int = Field(0, description="Seed of the initial weights, shuffling and augmentation.")
    search_trials: int = Field(
        0,
        ge=0,
        description="Number of trials of a search over head settings before training, which uses the best ones. 0: no "
        "search.",
    )
    precision: Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"] = Field(
        "auto", description="Number format of the layers. auto: bfloat16 or float16 on GPUs that are fast at it."
    )
    xla: Literal["auto", "on", "off"] = Field(
        "auto", description="Compile the training steps with XLA. auto: on a single GPU."
    )
    gpus: int = Field(0, ge=0, description="Number of GPUs that share each step. Default: all.")
    deterministic: bool = Field(False, description="Make results repeatable on GPUs too, at some cost in speed.")
    tensorboard: PlaceOrNone = Field(
        None,
        description="Folder for TensorBoard logs; to a bucket address they are copied while the training runs. "
        "Default: tensorboard/ in --out.",
    )
    profile_steps: int = Field(
        0, ge=0, description="Number of steps of each phase to profile for TensorBoard; 0 for none."
    )
    checkpoints: ResultOrNone = Field(
        None,
        description="Folder or bucket address for checkpoints, which are kept until training ends. Default: "
        "OUT.checkpoints.",
    )
    checkpoint_minutes: float = Field(
        10.0,
        ge=0,
        description="Maximum minutes between two checkpoints, in addition to those at the end of each epoch; 0 saves "
        "after each step.",
    )

    record_divergence: bool = Field(
        False,
        description="If no epoch has a finite loss, write a folder that records this, and succeed; evaluate and gate "
        "reject such a candidate with the reason.",
    )

    @field_validator("xla", mode="before")
    @classmethod
    def _is_text(cls, xla: object) -> object:
        # YAML reads on and off as booleans.
        return {True: "on", False: "off"}[xla] if isinstance(xla, bool) else xla

    @field_validator("input_size")
    @classmethod
    def _is_large_enough(cls, input_size: int, info: ValidationInfo) -> int:
        backbone = info.data.get("backbone", "")  # absent where it is wrong itself
        smallest = BACKBONES[backbone].smallest_input if backbone else 0
        if 0 < input_size < smallest:
            raise ValueError(f"{backbone} takes {smallest} pixels or more, or 0 for its own size")
        return input_size

    @model_validator(mode="after")
    def _searches_on_learnt_weights(self) -> TrainConfig:
        if self.search_trials and self.weights == "none":
            raise ValueError(
                "--search-trials tries heads on learnt features, and --weights none has none; leave one out"
            )
        return self
