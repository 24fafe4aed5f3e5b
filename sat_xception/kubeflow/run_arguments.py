"""The parameters of the training pipeline that follow from the settings of a run on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sat_xception.dataset.settings import LabelsConfig
from sat_xception.errors import ConfigError
from sat_xception.kubeflow.local_runner import whole_path
from sat_xception.kubeflow.run_settings import TRAINED_BACKBONES, RunConfig
from sat_xception.log import get_logger
from sat_xception.model.backbones import get_backbone
from sat_xception.model.weights import identify_weights
from sat_xception.storage import fetch_file, is_remote

__all__ = ["pipeline_arguments"]

_log = get_logger(__name__)


def pipeline_arguments(config: RunConfig) -> dict[str, Any]:
    """Return the pipeline's parameters for a run; each weights file goes to the backbone that it fits.

    Raises:
        ConfigError: A weights file doesn't exist, or the pipeline doesn't train its backbone.
        ModelError: A weights file fits no backbone.
    """
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
        "train_fine_tune_epochs": config.fine_tune_epochs,
        "train_head_epochs": config.head_epochs,
        "train_search_trials": config.search_trials,
        **_of_backbones(config),
    }


def _of_backbones(config: RunConfig) -> dict[str, Any]:
    """Return the parameters that exist once per backbone."""
    weights, alphas = _sort_weights(config.weights)
    found: dict[str, Any] = {}
    for name in TRAINED_BACKBONES:
        backbone, from_random = get_backbone(name), weights[name] == "none"
        _log.info("weights   %s starts from %s", name, "random weights" if from_random else weights[name])
        size = backbone.local_scratch_input_size if from_random else backbone.input_size
        found[f"{name}_weights"] = weights[name]
        found[f"{name}_input_size"] = config.input_size or size
        found[f"{name}_scratch_epochs"] = config.scratch_epochs or backbone.local_scratch_epochs
        if backbone.has_alpha:
            found[f"{name}_alpha"] = alphas.get(name, config.alpha)
    return found


def _sort_weights(given: Sequence[str]) -> tuple[dict[str, str], dict[str, float]]:
    """Return the initial weights of each backbone, and the width multipliers that follow from weights files."""
    weights, alphas = dict.fromkeys(TRAINED_BACKBONES, "none"), {}
    for each in given:
        name, _, source = each.partition("=")
        if name not in weights:
            name, source = "", each
        if not name or source not in ("imagenet", "none"):
            path = fetch_file(source).resolve()
            name, alpha = identify_weights(path)
            if name not in weights:
                raise ConfigError(
                    f"{path} holds weights of {name}, but the pipeline trains {' and '.join(weights)}; "
                    "train it with `sat_xception train --backbone`"
                )
            source, alphas[name] = str(path), alpha
        weights[name] = source
    return weights, alphas


def _parameter(value: Any) -> Any:  # noqa: ANN401 - a setting of any type
    """Return a setting as a pipeline parameter: paths as text, None as ""."""
    if is_remote(value):
        return str(value)
    if isinstance(value, Path):
        return str(value.resolve())
    return "" if value is None else list(value) if isinstance(value, tuple) else value
