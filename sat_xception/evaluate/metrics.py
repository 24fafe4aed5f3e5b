"""Metrics of a classifier with two classes or more, by scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from sklearn import metrics

from sat_xception.errors import DataError
from sat_xception.evaluate.bootstrap import Ratio, area_intervals, ratio_samples, share_interval, share_intervals
from sat_xception.evaluate.calibrate import reliability
from sat_xception.evaluate.comparison import compare_right
from sat_xception.evaluate.figures import (
    ClassMetrics,
    CurvePoint,
    Intervals,
    MeanMetrics,
    Metrics,
    MostFrequent,
    ShareIntervals,
)
from sat_xception.evaluate.slices import slice_table
from sat_xception.evaluate.threshold import DEFAULT_THRESHOLD

__all__ = ["compute_metrics"]

_CURVE_POINTS = 101
_SHARES = ("precision", "recall", "f1")
_FIGURES = (*_SHARES, "roc_auc", "pr_auc")

Booleans = npt.NDArray[np.bool_]


def compute_metrics(
    labels: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float32],
    classes: Sequence[str],
    positive_label: str,
    threshold: float = DEFAULT_THRESHOLD,
    blocks: npt.NDArray[np.int64] | None = None,
    slices: Mapping[str, Sequence[str]] | None = None,
) -> Metrics:
    """Return all figures of a scored split.

    Args:
        labels: `int64 [n]`, index of the true class.
        probabilities: `float32 [n, classes]`, rows that sum to 1.
        classes: Names in index order.
        positive_label: The positive class, or "" for none.
        threshold: Decision threshold of the positive class.
        blocks: Number of each tile's block, `int64 [n]`, from 0 on. Default: every tile is a block of its own.
        slices: Value of each tile by slice.

    Raises:
        DataError: There are no tiles, or a probability is NaN.
    """
    if len(labels) == 0:
        raise DataError("there is no tile to score in this split")
    if not np.isfinite(probabilities).all():
        raise DataError("the model returns probabilities that are not numbers; train again with a lower learning rate")
    blocks = np.arange(len(labels)) if blocks is None else blocks
    indices = list(range(len(classes)))
    predicted = probabilities.argmax(axis=1)
    by_class = _measure_classes(labels, predicted, probabilities, classes)
    there = [row for row in by_class.values() if row.support]
    macro = MeanMetrics(**{name: float(np.mean([getattr(row, name) for row in there])) for name in _FIGURES})
    shown = positive_label or classes[0]
    truth, score = labels == classes.index(shown), probabilities[:, classes.index(shown)]
    taken = score >= threshold
    positive = by_class[shown].model_copy(update=_shares(truth, taken)) if positive_label else macro
    calibration = reliability(labels, probabilities)
    matrix = metrics.confusion_matrix(labels, predicted, labels=indices).tolist()
    return Metrics(
        count=len(labels),
        blocks=int(blocks.max()) + 1,
        accuracy=float((predicted == labels).mean()),
        confusion_matrix=tuple(map(tuple, matrix)),
        by_class=by_class,
        macro=macro,
        positive=positive,
        most_frequent=_most_frequent(labels, predicted, classes, blocks),
        threshold=threshold if positive_label else None,
        calibration_error=calibration.error,
        calibration=calibration.bins,
        roc=_roc(truth, score),
        pr=_precision_recall(truth, score),
        roc_class=shown,
        intervals=_intervals(
            labels, predicted, classes, blocks, positive, (truth, score, taken) if positive_label else None
        ),
        slices=slice_table(slices or {}, labels == predicted, blocks, (truth, taken) if positive_label else None),
    )


def _measure_classes(
    labels: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float32],
    classes: Sequence[str],
) -> dict[str, ClassMetrics]:
    """Return the figures of each class against the rest."""
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predicted, labels=list(range(len(classes))), zero_division=0.0
    )
    return {
        name: ClassMetrics(
            precision=float(precision[index]),
            recall=float(recall[index]),
            f1=float(f1[index]),
            support=int(support[index]),
            **_areas(labels == index, probabilities[:, index]),
        )
        for index, name in enumerate(classes)
    }


def _shares(truth: Booleans, taken: Booleans) -> dict[str, float]:
    found = int((truth & taken).sum())
    return {
        "precision": found / max(int(taken.sum()), 1),
        "recall": found / max(int(truth.sum()), 1),
        "f1": 2 * found / max(int(truth.sum() + taken.sum()), 1),
    }


def _most_frequent(
    labels: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    classes: Sequence[str],
    blocks: npt.NDArray[np.int64],
) -> MostFrequent:
    """Compare the model with always predicting the most frequent class (on a tie, the first of them)."""
    frequent = int(np.bincount(labels).argmax())
    alone = labels == frequent
    gained = compare_right(predicted == labels, alone, blocks)
    return MostFrequent(class_name=classes[frequent], share=float(alone.mean()), **dict(gained))


def _intervals(
    labels: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    classes: Sequence[str],
    blocks: npt.NDArray[np.int64],
    figures: MeanMetrics,
    positive: tuple[Booleans, npt.NDArray[np.float32], Booleans] | None,
) -> Intervals:
    """Return the interval of each figure.

    Args:
        labels: Index of the true class, `int64 [n]`.
        predicted: Index of the most probable class, `int64 [n]`.
        classes: Names in index order.
        blocks: Number of each tile's block, `int64 [n]`.
        figures: Figures of the positive class; without one, the means over the classes.
        positive: Whether a tile is of the positive class, its score, and whether it is predicted positive, each `[n]`;
            None without a positive class.
    """
    ratios: list[Ratio] = [(labels == predicted, np.ones(len(labels)))]
    for index in range(len(classes)):
        ratios += _share_ratios(labels == index, predicted == index)
    if positive:
        ratios += _share_ratios(positive[0], positive[2])
    found = share_intervals(blocks, ratios)
    by_class = {
        name: ShareIntervals(**dict(zip(_SHARES, found[1 + 3 * index : 4 + 3 * index], strict=True)))
        for index, name in enumerate(classes)
    }
    if positive:
        shares = found[-3:]
        known = {"roc_auc": figures.roc_auc, "pr_auc": figures.pr_auc}
        areas = area_intervals(blocks, positive[0], positive[1], known)
    else:
        means, count = _mean_samples(ratio_samples(blocks, ratios[1:]), len(classes)), int(blocks.max()) + 1
        values = (figures.precision, figures.recall, figures.f1)
        shares = [share_interval(means[:, index], count, value) for index, value in enumerate(values)]
        areas = {"roc_auc": None, "pr_auc": None}
    return Intervals(accuracy=found[0], by_class=by_class, **areas, **dict(zip(_SHARES, shares, strict=True)))


def _mean_samples(samples: npt.NDArray[np.float64], classes: int) -> npt.NDArray[np.float64]:
    """Return the means over the classes in each sample, `float64 [samples, 3]`, like `macro` for the split.

    Classes without a tile in the sample are left out. A class that is never predicted has a precision of 0.
    """
    by_class = samples.reshape(len(samples), classes, len(_SHARES))
    there = np.isfinite(by_class[:, :, [_SHARES.index("recall")]])
    sums = np.where(there, np.nan_to_num(by_class), 0.0).sum(axis=1)
    with np.errstate(invalid="ignore"):
        means: npt.NDArray[np.float64] = sums / there.sum(axis=1)
    return means


def _share_ratios(truth: Booleans, taken: Booleans) -> list[Ratio]:
    """Return precision, recall and F1 as ratios."""
    found = truth & taken
    return [(found, taken), (found, truth), (2.0 * found, truth.astype(np.float64) + taken)]


def _areas(truth: Booleans, score: npt.NDArray[np.float32]) -> dict[str, float]:
    """Return both areas; if all tiles are of the class or none is, 0.5 and the class's share."""
    if truth.all() or not truth.any():
        return {"roc_auc": 0.5, "pr_auc": float(truth.mean())}
    return {
        "roc_auc": float(metrics.roc_auc_score(truth, score)),
        "pr_auc": float(metrics.average_precision_score(truth, score)),
    }


def _roc(truth: Booleans, score: npt.NDArray[np.float32]) -> tuple[CurvePoint, ...]:
    """Return at most about 100 points of the curve, thresholds falling from 1 to 0."""
    if truth.all() or not truth.any():
        return ()
    false_rate, true_rate, thresholds = metrics.roc_curve(truth, score)
    # scikit-learn starts with an infinite threshold, which JSON and the Kubeflow UI can't hold.
    return tuple(
        (float(min(thresholds[i], 1.0)), float(false_rate[i]), float(true_rate[i])) for i in _some(len(thresholds))
    )


def _precision_recall(truth: Booleans, score: npt.NDArray[np.float32]) -> tuple[CurvePoint, ...]:
    """Return at most about 100 points of the curve, thresholds rising from the lowest score."""
    if truth.all() or not truth.any():
        return ()
    precision, recall, thresholds = metrics.precision_recall_curve(truth, score)
    return tuple((float(thresholds[i]), float(recall[i]), float(precision[i])) for i in _some(len(thresholds)))


def _some(count: int) -> list[int]:
    places: list[int] = np.unique(np.linspace(0, count - 1, _CURVE_POINTS).round().astype(int)).tolist()
    return places
