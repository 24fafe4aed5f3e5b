"""Settings of search."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sat_xception.model.backbones import BackboneName
from sat_xception.model.settings import TrainConfig
from sat_xception.settings.config import StepConfig, setting_of
from sat_xception.settings.types import Examples, LocalFolderOrNone, Result, Weights

__all__ = ["SearchConfig"]


class SearchConfig(StepConfig):
    """Search the settings of train, and write those with the best validation accuracy."""

    examples: Examples = setting_of(TrainConfig, "examples")
    out: Result = Field(description="Folder to write search.json, best.yaml and the page to.")
    space: str = Field(
        "head", description="Search space: 'head', 'original' (also fine-tunes each trial), or a YAML file."
    )
    trials: int = Field(
        30, ge=0, description="Total number of trials, including those of earlier runs; 0 only with --minutes."
    )
    minutes: float = Field(
        0.0, ge=0, description="Start no new trial after this many minutes of search. Default: unlimited."
    )
    workers: int = Field(1, gt=0, le=64, description="Number of processes that run trials in parallel.")
    pruner: Literal["median", "hyperband", "none"] = Field(
        "median", description="Optuna pruner, which stops unpromising trials early."
    )
    fine_tune: bool = Field(
        False, description="Fine-tune each trial too, if the search space has no fine-tuning settings."
    )
    study: LocalFolderOrNone = Field(
        None, description="Folder that keeps trials and features between runs. Default: beside --out."
    )
    backbone: BackboneName = setting_of(TrainConfig, "backbone")
    weights: Weights = setting_of(TrainConfig, "weights")
    input_size: int = setting_of(TrainConfig, "input_size")
    alpha: float = setting_of(TrainConfig, "alpha")
    batch_size: int = setting_of(TrainConfig, "batch_size")
    head_epochs: int = setting_of(TrainConfig, "head_epochs")
    fine_tune_epochs: int = Field(10, gt=0, description="Maximum number of fine-tuning epochs per trial.")
    patience: int = setting_of(TrainConfig, "patience")
    class_weights: bool = setting_of(TrainConfig, "class_weights")
    views: int = setting_of(TrainConfig, "views")
    seed: int = Field(0, description="Seed of the sampler, and of weights and shuffling in every trial.")

    @model_validator(mode="after")
    def _has_a_budget(self) -> SearchConfig:
        if not self.trials and not self.minutes:
            raise ValueError("--trials 0 needs --minutes: give one of them")
        return self

    @model_validator(mode="after")
    def _starts_from_learnt_weights(self) -> SearchConfig:
        if self.weights == "none":
            raise ValueError("--weights none has no features to try heads on; give weights, or set train by hand")
        return self
