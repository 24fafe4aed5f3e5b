"""Figures of a model on a split: metrics, their intervals, calibration, slices and comparisons."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from sat_xception.served_model.packaged_model import SplitAccuracy
from sat_xception.storage.document import Part

__all__ = [
    "Calibration",
    "ClassMetrics",
    "Comparison",
    "CurvePoint",
    "Interval",
    "Intervals",
    "MeanMetrics",
    "Metrics",
    "MostFrequent",
    "Reliability",
    "ReliabilityBin",
    "ShareIntervals",
    "SliceIntervals",
    "SliceMetrics",
    "Threshold",
]

# Threshold, and the two figures at that threshold.
CurvePoint = tuple[float, float, float]


class Interval(NamedTuple):
    """A 95 % interval; `[low, high]` in JSON."""

    low: float
    high: float


class MeanMetrics(Part):
    """Means over the classes that have a tile."""

    precision: float
    recall: float
    f1: float
    roc_auc: float
    pr_auc: float


class ClassMetrics(MeanMetrics):
    """Figures of one class against the rest; `support` is its number of tiles."""

    support: int


class ShareIntervals(Part):
    """Intervals of precision, recall and F1; None if unknown."""

    precision: Interval | None
    recall: Interval | None
    f1: Interval | None


class Intervals(ShareIntervals):
    """Intervals of accuracy, of the figures in `Metrics.positive`, and of each class."""

    accuracy: Interval | None
    roc_auc: Interval | None
    pr_auc: Interval | None
    by_class: dict[str, ShareIntervals]


class Comparison(Part):
    """Comparison of two models on the same tiles.

    Attributes:
        tiles: Number of tiles.
        blocks: Number of blocks of neighbouring tiles.
        difference: Accuracy of the first model minus that of the second.
        interval: 95 % interval of the difference; None with one block.
        first_only: Number of tiles that only the first model classifies correctly.
        second_only: Number of tiles that only the second model classifies correctly.
        p: p-value of McNemar's exact test.
    """

    tiles: int
    blocks: int
    difference: float
    interval: Interval | None
    first_only: int
    second_only: int
    p: float


class MostFrequent(Comparison):
    """Comparison with always predicting the most frequent class; `share` is the class's share of the tiles."""

    class_name: str = Field(alias="class")
    share: float


class ReliabilityBin(Part):
    """Tiles with a confidence from `lower` up to the next bin's, with their mean confidence and their accuracy."""

    lower: float = Field(alias="from")
    count: int
    confidence: float
    accuracy: float


class Reliability(Part):
    """Expected calibration error, its bins, and the mean negative log-likelihood."""

    error: float
    bins: tuple[ReliabilityBin, ...]
    log_loss: float


class Calibration(Part):
    """Temperature fitted on the validation split, and reliability before and after it is applied."""

    temperature: float
    before: Reliability
    after: Reliability


class Threshold(Part):
    """Decision threshold of the positive class, the goal it was chosen for, and whether the goal was reached."""

    goal: str
    value: float
    reached: bool


class SliceIntervals(Part):
    """Intervals of a slice's figures; None if unknown, or without a positive class."""

    accuracy: Interval | None
    recall: Interval | None = None
    precision: Interval | None = None


class SliceMetrics(Part):
    """Figures of the tiles with one value of a slice.

    Attributes:
        slice: Name of the slice, such as "region".
        value: Value of the slice; "" if unknown.
        count: Number of tiles.
        accuracy: Share of tiles that are classified correctly.
        intervals: 95 % intervals.
        positives: Number of tiles of the positive class; None, and left out of the file, without a positive class.
        recall: Recall of the positive class; None without a tile of it. Left out of the file without a positive class.
        precision: Precision of the positive class; None if no tile is predicted positive. Left out like `recall`.
    """

    slice: str
    value: str
    count: int
    accuracy: float
    intervals: SliceIntervals
    positives: int | None = None
    recall: float | None = None
    precision: float | None = None

    @model_serializer(mode="wrap")
    def _leave_out_the_positive_class(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialize(self)
        if self.positives is None:
            for part in (content, content["intervals"]):
                for key in ("positives", "recall", "precision"):
                    part.pop(key, None)
        return content


class Metrics(SplitAccuracy):
    """All figures of a scored split.

    Attributes:
        count: Number of tiles.
        blocks: Number of blocks of neighbouring tiles.
        accuracy: Share of tiles whose most probable class is their own.
        confusion_matrix: Number of tiles; true classes are rows, predicted ones columns, in class order.
        by_class: Figures of the most probable class, one class against the rest.
        macro: Means of `by_class`.
        positive: Figures of the positive class at the threshold; without a positive class a copy of `macro`.
        most_frequent: Comparison with always predicting the most frequent class.
        threshold: Decision threshold of the positive class; None without one.
        calibration_error: Expected calibration error.
        calibration: Bins of the calibration error.
        roc: Points of the ROC curve: threshold, false positive rate, true positive rate.
        pr: Points of the precision-recall curve: threshold, recall, precision.
        roc_class: Class of both curves: the positive class, or the first.
        intervals: 95 % intervals.
        slices: Figures by slice, those with most tiles first.
    """

    model_config = ConfigDict(extra="ignore")

    blocks: int
    confusion_matrix: tuple[tuple[int, ...], ...]
    by_class: dict[str, ClassMetrics]
    macro: MeanMetrics
    positive: ClassMetrics | MeanMetrics
    most_frequent: MostFrequent
    threshold: float | None
    calibration_error: float
    calibration: tuple[ReliabilityBin, ...]
    roc: tuple[CurvePoint, ...]
    pr: tuple[CurvePoint, ...]
    roc_class: str
    intervals: Intervals
    slices: tuple[SliceMetrics, ...]
