"""The parameters of the training pipeline that follow from the settings of a run on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sat_xception.dataset.settings import LabelsConfig
from sat_xception.kubeflow.local_runner import whole_path
from sat_xception.kubeflow.run_settings import RunConfig
from sat_xception.log import get_logger
from sat_xception.model.weights import find_weights, identify_weights
from sat_xception.storage import GcsPath, fetch_file

__all__ = ["pipeline_arguments"]

_log = get_logger(__name__)
# From random weights the whole network is trained. On two cores that takes minutes only with small inputs and, for
# Xception at 12 s an epoch of the sample, few epochs.
_SCRATCH_INPUT_SIZE = {"xception": 71, "mobilenetv2": 96}
_SCRATCH_EPOCHS = {"xception": 5, "mobilenetv2": 24}


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
