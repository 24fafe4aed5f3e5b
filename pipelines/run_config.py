"""What a run on this machine is told, and the pipeline's parameters that follow from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipelines.local_runner import whole_path
from sat_xception.config import setting_of
from sat_xception.log import get_logger
from sat_xception.model.weights import find_weights, identify_weights
from sat_xception.steps import (
    AssembleConfig,
    EvaluateConfig,
    GateConfig,
    LabelsConfig,
    PackageConfig,
    TrainConfig,
    ValidateConfig,
)
from sat_xception.steps.kinds import Difference, Fraction, Place, ResultOrNone, ThresholdGoal
from sat_xception.storage import GcsPath, Stored, fetch_file

__all__ = ["RunConfig", "pipeline_arguments"]

_log = get_logger(__name__)
# From random weights the whole network is trained. On two cores that takes minutes only with small inputs and, for
# Xception at 12 s an epoch of the sample, few epochs.
_SCRATCH_INPUT_SIZE = {"xception": 71, "mobilenetv2": 96}
_SCRATCH_EPOCHS = {"xception": 5, "mobilenetv2": 24}


class RunConfig(LabelsConfig):
    """Run the whole training pipeline on this machine, without a cluster; without Docker too, unless it's asked for."""

    runner: Literal["subprocess", "docker"] = Field(
        "subprocess", description="Steps as processes, or each in its own image (after `make images`)."
    )
    data: Annotated[str, Stored("folder")] = Field(
        "sample",
        description="Folder of class folders, here or at gs://; 'sample' draws the synthetic sample. Or give --labels.",
    )
    weights: tuple[str, ...] = Field(
        (),
        description="Weights file to start a backbone from; which backbone is told by the file. Or BACKBONE=imagenet.",
    )
    out: Path = Field(Path("runs"), description="Folder that gets a folder for this run.")
    model_root: Place = Field(Path("models/serving"), description="Model root of the endpoint.")
    name: str = setting_of(PackageConfig, "name")
    alpha: float = Field(0.35, gt=0, description="Width multiplier of MobileNetV2, where no weights file tells it.")
    input_size: int = Field(
        0, ge=0, description="Input of both models in pixels. Default: 71 and 96 from random weights, else their own."
    )
    block_zoom: int = setting_of(AssembleConfig, "block_zoom")
    near_duplicate_bits: int = setting_of(AssembleConfig, "near_duplicate_bits")
    keep_near_duplicates: bool = setting_of(AssembleConfig, "keep_near_duplicates")
    max_unplaced: Fraction = setting_of(AssembleConfig, "max_unplaced")
    seed: int = setting_of(TrainConfig, "seed")
    head_epochs: int = setting_of(TrainConfig, "head_epochs")
    fine_tune_epochs: int = setting_of(TrainConfig, "fine_tune_epochs")
    search_trials: int = setting_of(TrainConfig, "search_trials")
    scratch_epochs: int = Field(
        0, ge=0, description="Epochs from random weights. Default: 5 for xception, 24 for mobilenetv2."
    )
    positive_label: str = Field("", description="The class that is looked for. Default: see `assemble --help`.")
    accept: tuple[str, ...] = setting_of(ValidateConfig, "accept")
    min_accuracy: Fraction = Field(0.80, description="Gate: lowest validation accuracy.")
    min_gain: Difference = setting_of(GateConfig, "min_gain")
    min_recall: Fraction = setting_of(GateConfig, "min_recall")
    min_precision: Fraction = setting_of(GateConfig, "min_precision")
    min_slice_accuracy: Fraction = setting_of(GateConfig, "min_slice_accuracy")
    min_slice_recall: Fraction = setting_of(GateConfig, "min_slice_recall")
    min_slice_tiles: int = setting_of(GateConfig, "min_slice_tiles")
    max_calibration_error: Fraction = setting_of(GateConfig, "max_calibration_error")
    max_loss: Fraction = setting_of(GateConfig, "max_loss")
    goal: ThresholdGoal = setting_of(EvaluateConfig, "goal")
    baseline: ResultOrNone = Field(
        None, description="Folder, here or at gs://, that holds what is kept of the last run for the next one."
    )
    store: ResultOrNone = Field(
        None,
        description="Folder or gs:// address that keeps datasets by their digest: steps that an earlier run in --out "
        "computed from the same data, settings and code are taken from it.",
    )

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> RunConfig:
        if self.labels and self.data not in ("", "sample"):
            raise ValueError("give either --data or --labels")
        if self.runner == "docker" and isinstance(self.model_root, GcsPath):
            raise ValueError("with --runner docker, --model-root is a folder here: the server has no key to a bucket")
        return self


def pipeline_arguments(config: RunConfig) -> dict[str, Any]:
    """Return the pipeline's parameters for a run; each weights file goes to the backbone that it fits."""
    weights, alpha = {"xception": "none", "mobilenetv2": "none"}, config.alpha
    for given in config.weights:
        backbone, _, source = given.partition("=") if given.partition("=")[0] in weights else ("", "", given)
        if not backbone or source not in ("imagenet", "none"):
            path = fetch_file(source).resolve()
            backbone, found_alpha = identify_weights(path)
            alpha = found_alpha if backbone == "mobilenetv2" else alpha
            find_weights(str(path), backbone, alpha)
            source = str(path)
        weights[backbone] = source
    for backbone, source in weights.items():
        _log.info("weights   %s starts from %s", backbone, "random weights" if source == "none" else source)
    own = {"xception": 256, "mobilenetv2": 224}
    sizes = {
        name: config.input_size or (_SCRATCH_INPUT_SIZE[name] if weights[name] == "none" else own[name])
        for name in weights
    }
    return {
        "data": config.data if config.data in ("", "sample") else str(Path(config.data).resolve()),
        "data_accept_anomalies": list(config.accept),
        "data_baseline": _parameter(config.baseline),
        "data_block_zoom": config.block_zoom,
        "data_keep_near_duplicates": config.keep_near_duplicates,
        "data_max_unplaced": config.max_unplaced,
        "data_near_duplicate_bits": config.near_duplicate_bits,
        "data_positive_label": config.positive_label,
        "data_seed": config.seed,
        "data_store": _parameter(config.store),
        **{f"data_{name}": _parameter(getattr(config, name)) for name in LabelsConfig.model_fields},
        "data_imagery": whole_path(config.imagery),
        "deploy_model_name": config.name,
        "deploy_model_root": str(config.model_root),
        "evaluate_goal": config.goal,
        "gate_max_calibration_error": config.max_calibration_error,
        "gate_max_loss": config.max_loss,
        "gate_min_accuracy": config.min_accuracy,
        "gate_min_gain": config.min_gain,
        "gate_min_precision": config.min_precision,
        "gate_min_recall": config.min_recall,
        "gate_min_slice_accuracy": config.min_slice_accuracy,
        "gate_min_slice_recall": config.min_slice_recall,
        "gate_min_slice_tiles": config.min_slice_tiles,
        "mobilenetv2_alpha": alpha,
        "mobilenetv2_input_size": sizes["mobilenetv2"],
        "mobilenetv2_scratch_epochs": config.scratch_epochs or _SCRATCH_EPOCHS["mobilenetv2"],
        "mobilenetv2_weights": weights["mobilenetv2"],
        "train_fine_tune_epochs": config.fine_tune_epochs,
        "train_head_epochs": config.head_epochs,
        "train_search_trials": config.search_trials,
        "xception_input_size": sizes["xception"],
        "xception_scratch_epochs": config.scratch_epochs or _SCRATCH_EPOCHS["xception"],
        "xception_weights": weights["xception"],
    }


def _parameter(value: Any) -> Any:  # noqa: ANN401 - a setting of any type
    """Return a setting as Kubeflow's parameters have it: paths as texts, "" where there is none."""
    if isinstance(value, GcsPath):
        return str(value)
    if isinstance(value, Path):
        return str(value.resolve())
    return "" if value is None else list(value) if isinstance(value, tuple) else value
