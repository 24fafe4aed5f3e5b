"""Figures that say how good a classifier is, for two classes or more. Counting is scikit-learn's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import metrics

from sat_xception.errors import DataError

__all__ = ["CALIBRATION_BINS", "compute_metrics"]

CALIBRATION_BINS = 10
_ROC_POINTS = 101


def compute_metrics(
    labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32], classes: Sequence[str], positive_label: str
) -> dict[str, Any]:
    """Return every figure of a scored split, as JSON types.

    Args:
        labels: `int64 [n]`, index of the true class.
        probabilities: `float32 [n, classes]`, rows that sum to 1.
        classes: Names in index order.
        positive_label: The class that is looked for, or "" for none.

    Returns:
        `accuracy`, `confusion_matrix` (true classes are rows), `by_class` (precision, recall, F1, support, areas under
        the ROC and precision-recall curves, one class against the rest), `macro` (their means), `positive` (a copy of
        the positive class's, or of `macro` without one), `calibration_error`, `calibration` (bins), `roc` (threshold,
        false positive rate, true positive rate; of the positive class, or of the first). The prediction is the most
        probable class.

    Raises:
        DataError: There is nothing to score, or a probability isn't a number.
    """
    if len(labels) == 0:
        raise DataError("there is no tile to score in this split")
    if not np.isfinite(probabilities).all():
        raise DataError("the model returns probabilities that are not numbers; train again with a lower learning rate")
    indices = list(range(len(classes)))
    predicted = probabilities.argmax(axis=1)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predicted, labels=indices, zero_division=0.0
    )
    by_class = {
        name: {
            "precision": float(precision[index]),
            "recall": float(recall[index]),
            "f1": float(f1[index]),
            "support": int(support[index]),
            **_areas(labels == index, probabilities[:, index]),
        }
        for index, name in enumerate(classes)
    }
    macro = {
        name: float(np.mean([row[name] for row in by_class.values()]))
        for name in ("precision", "recall", "f1", "roc_auc", "pr_auc")
    }
    shown = positive_label or classes[0]
    bins, error = _calibration(probabilities.max(axis=1), predicted == labels)
    return {
        "count": len(labels),
        "accuracy": float((predicted == labels).mean()),
        "confusion_matrix": metrics.confusion_matrix(labels, predicted, labels=indices).tolist(),
        "by_class": by_class,
        "macro": macro,
        "positive": by_class[positive_label] if positive_label else macro,
        "calibration_error": error,
        "calibration": bins,
        "roc": _roc(labels == classes.index(shown), probabilities[:, classes.index(shown)]),
        "roc_class": shown,
    }


def _areas(truth: npt.NDArray[np.bool_], score: npt.NDArray[np.float32]) -> dict[str, float]:
    """Return both areas; of a split without the class, or with nothing else, 0.5 and the class's share."""
    if truth.all() or not truth.any():
        return {"roc_auc": 0.5, "pr_auc": float(truth.mean())}
    return {
        "roc_auc": float(metrics.roc_auc_score(truth, score)),
        "pr_auc": float(metrics.average_precision_score(truth, score)),
    }


def _roc(truth: npt.NDArray[np.bool_], score: npt.NDArray[np.float32]) -> list[list[float]]:
    """Return at most about 100 points of the curve, thresholds falling from 1 to 0."""
    if truth.all() or not truth.any():
        return []
    false_rate, true_rate, thresholds = metrics.roc_curve(truth, score)
    keep = np.unique(np.linspace(0, len(thresholds) - 1, _ROC_POINTS).round().astype(int))
    # scikit-learn starts with an infinite threshold, which JSON and the Kubeflow UI can't hold.
    return [[float(min(thresholds[i], 1.0)), float(false_rate[i]), float(true_rate[i])] for i in keep]


def _calibration(
    confidence: npt.NDArray[np.float32], correct: npt.NDArray[np.bool_]
) -> tuple[list[dict[str, float]], float]:
    """Return bins of equal width, and the expected calibration error.

    Guo et al. 2017, "On calibration of modern neural networks".
    """
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    place = np.clip(np.digitize(confidence, edges[1:-1], right=True), 0, CALIBRATION_BINS - 1)
    bins, error = [], 0.0
    for index in range(CALIBRATION_BINS):
        inside = place == index
        count = int(inside.sum())
        mean_confidence = float(confidence[inside].mean()) if count else 0.0
        accuracy = float(correct[inside].mean()) if count else 0.0
        error += count / len(confidence) * abs(accuracy - mean_confidence)
        bins.append({"from": float(edges[index]), "count": count, "confidence": mean_confidence, "accuracy": accuracy})
    return bins, error
