"""Evaluations made by hand: what `evaluation.json` holds, with figures that a test chooses, and without a version."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from sat_xception.evaluate.calibrate import reliability
from sat_xception.evaluate.metrics import compute_metrics

REASON = "no epoch had a finite loss (head, learning rate 0.001)"


@pytest.fixture(scope="module", autouse=True)
def _charts(charts_drawn_once: None) -> None:
    """Draw equal charts once in all tests of this folder."""


@pytest.fixture(scope="session")
def make_failed(make_evaluation) -> Callable[..., dict[str, Any]]:
    """Evaluations of candidates whose training diverged, as evaluate writes them."""

    def make(backbone: str = "xception", **changes: object) -> dict[str, Any]:
        evaluation = make_evaluation(backbone, **changes)
        lost = {"loss": None, "accuracy": 0.5, "val_loss": None, "val_accuracy": 0.5}
        evaluation["training"] |= {"kept_phase": None, "valid_accuracy": None}
        evaluation["training"]["history"] = [{"phase": "head", "epoch": 1, **lost}]
        absent = dict.fromkeys(("model", "metrics", "unscored", "calibration", "threshold"))
        return {**evaluation, **absent, "mistakes": [], "failed": REASON}

    return make


@pytest.fixture(scope="session")
def make_evaluation() -> Callable[..., dict[str, Any]]:
    def make(
        backbone: str = "xception",
        accuracy: float = 0.9,
        recall: float = 0.9,
        precision: float = 0.9,
        calibration_error: float = 0.1,
        gain: float = 0.4,
        seconds: float = 60.0,
        classes: Sequence[str] = ("not-school", "school"),
        positive_label: str = "school",
        **changes: object,
    ) -> dict[str, Any]:
        labels = np.arange(12) % len(classes)
        probabilities = np.full((12, len(classes)), 0.4 / (len(classes) - 1), dtype=np.float32)
        probabilities[np.arange(12), np.where(np.arange(12) == 0, 1, labels)] = 0.6
        slices = {"setting": ["rural" if index % 3 else "urban" for index in range(12)]}
        metrics = compute_metrics(labels, probabilities, list(classes), positive_label, slices=slices).content()
        metrics |= {"accuracy": accuracy, "calibration_error": calibration_error}
        metrics["positive"] = {**metrics["positive"], "recall": recall, "precision": precision}
        metrics["most_frequent"] |= {"difference": gain, "interval": [gain - 0.1, gain + 0.1]}
        rows = [("head", 0.6, 0.7), ("head", 0.4, 0.8), ("fine-tune", 0.3, 0.9)]
        history = [
            {"phase": phase, "epoch": 1, "loss": loss, "accuracy": share, "val_loss": loss, "val_accuracy": share}
            for phase, loss, share in rows
        ]
        return {
            "backbone": backbone,
            "model": f"digest of {backbone}",
            "split": "valid",
            "classes": list(classes),
            "positive_label": positive_label,
            "source": "tiles",
            "synthetic": False,
            "dataset_digest": "d" * 64,
            "failed": None,
            "serving": None,
            "calibration": {
                "temperature": 1.5,
                "before": reliability(labels, probabilities).content(),
                "after": {"error": calibration_error, "bins": metrics["calibration"], "log_loss": 0.4},
            },
            "threshold": {"goal": "f1", "value": 0.5, "reached": True} if positive_label else None,
            "mistakes": [],
            "metrics": metrics,
            "training": {
                "weights": {"kind": "none", "description": "random weights"},
                "kept_phase": "fine-tune",
                "valid_accuracy": accuracy,
                "seconds": {"head": 1.0, "all": seconds},
                "input_size": 32,
                "hardware": {"cores": 2, "gpus": []},
                "history": history,
            },
            "config": {},
            **changes,
        }

    return make
