"""Calibration: the expected calibration error, and temperature scaling.

Guo et al. 2017, "On calibration of modern neural networks": the logits are divided by one number, the temperature,
which is fitted on the validation split. It changes the confidence, and never which class is the most probable.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from sat_xception.evaluate.figures import Reliability, ReliabilityBin

__all__ = ["CALIBRATION_BINS", "SMALLEST_PROBABILITY", "apply_temperature", "fit_temperature", "reliability"]

CALIBRATION_BINS = 10
# Replaces a probability of 0, which has no logarithm; about the smallest float32 with full precision.
SMALLEST_PROBABILITY = 1e-37
# A lower temperature would amplify rounding errors in the served graph beyond the tolerance.
_TEMPERATURES = (0.25, 10.0)


def apply_temperature(probabilities: npt.NDArray[np.float32], temperature: float) -> npt.NDArray[np.float32]:
    """Return probabilities `float32 [n, classes]` at a temperature: the softmax of their logarithms divided by it."""
    logits = np.log(np.maximum(probabilities.astype(np.float64), SMALLEST_PROBABILITY)) / temperature
    scaled = np.exp(logits - logits.max(axis=1, keepdims=True))
    calibrated: npt.NDArray[np.float32] = (scaled / scaled.sum(axis=1, keepdims=True)).astype(np.float32)
    return calibrated


def fit_temperature(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32]) -> float:
    """Return the temperature from 0.25 to 10 with the smallest mean negative log-likelihood.

    It is 1 if every tile is classified correctly: then the likelihood only grows as the temperature falls.

    Args:
        labels: Index of the true class, `int64 [n]`.
        probabilities: `float32 [n, classes]`.
    """
    if (probabilities.argmax(axis=1) == labels).all():
        return 1.0

    def loss(log_temperature: float) -> float:
        return _log_loss(labels, apply_temperature(probabilities, float(np.exp(log_temperature))))

    found = minimize_scalar(loss, bounds=tuple(np.log(_TEMPERATURES)), method="bounded", options={"xatol": 1e-5})
    return float(np.exp(found.x))


def reliability(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32]) -> Reliability:
    """Return the expected calibration error, its bins of equal width, and the mean negative log-likelihood.

    A bin ends with its upper edge, as in the paper.
    """
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    place = np.clip(np.digitize(confidence, edges[1:-1], right=True), 0, CALIBRATION_BINS - 1)
    bins, error = [], 0.0
    for index in range(CALIBRATION_BINS):
        inside = place == index
        count = int(inside.sum())
        mean_confidence = float(confidence[inside].mean()) if count else 0.0
        accuracy = float(correct[inside].mean()) if count else 0.0
        error += count / len(confidence) * abs(accuracy - mean_confidence)
        lower = float(edges[index])
        bins.append(ReliabilityBin(lower=lower, count=count, confidence=mean_confidence, accuracy=accuracy))
    return Reliability(error=error, bins=tuple(bins), log_loss=_log_loss(labels, probabilities))


def _log_loss(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32]) -> float:
    of_truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(of_truth, SMALLEST_PROBABILITY)).mean())
