"""The model card, as Markdown and as JSON.

Its sections are those of Mitchell et al. 2019, "Model cards for model reporting"; the JSON has the field names of
schema v0.0.2 of Google's Model Card Toolkit.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from sat_xception.evaluate.figures import Interval, Metrics, SliceMetrics
from sat_xception.evaluate.report import SYNTHETIC_NOTE, device_minutes
from sat_xception.package.record import AppliedCalibration, ModelRecord
from sat_xception.reports.markdown import plain, table

__all__ = ["model_card", "model_card_json"]

_SCHEMA_VERSION = "0.0.2"
# Maximum number of slices: with more, the card would be too long for the Kubeflow UI.
_MAX_SLICES = 60
_USERS = "People who map places from overhead imagery and confirm what a model proposes"
_USE = "Finding candidates in overhead imagery like that it was trained on, for a person to confirm"
_OUT_OF_SCOPE = "decisions about people or places without review"
_LIMITS = (
    "The figures hold for imagery of the same kind, resolution and region; other sensors, seasons and places need "
    "their own test",
    "Figures of slices with few tiles are unsure, and a slice that the data doesn't name isn't looked at",
)
# Figures of the positive class, under their names in `Metrics.positive` and in `Metrics.intervals`.
_POSITIVE = ("precision", "recall", "f1", "roc_auc", "pr_auc")
_RISKS = (
    ("Places that the training data lacks may be missed more often", "Compare the slices, and label where it is weak"),
    ("Locations of people or institutions may be sensitive", "Publish candidates only once reviewed and agreed"),
)


def model_card(served: ModelRecord) -> str:
    """Return the model card as Markdown."""
    training = served.training
    cost = device_minutes(training.total_seconds, training.hardware)
    lines = [f"# {served.name} {served.version}", ""]
    if served.synthetic:
        lines += [SYNTHETIC_NOTE]
    lines += [
        "## Model details",
        "",
        f"- Network: {served.backbone}, input {training.input_size} x {training.input_size} pixels",
        f"- Started from: {plain(training.weights.description)}",
        f"- Weights kept from the phase: {training.kept_phase}",
        f"- Classes, in the order of the output: {plain(', '.join(served.classes))}",
        f"- Looked for: {plain(served.positive_label) or 'no class in particular'}{_from_threshold(served)}",
        f"- Probabilities: {_calibrated(served.calibration)}",
        f"- Device-minutes of training: {cost}",
        "",
        "## Intended use",
        "",
        f"{_USE}. Not for {_OUT_OF_SCOPE}.",
        "",
        "## Factors",
        "",
        _factors(served),
        "",
        "## Metrics",
        "",
        "Accuracy is of the most probable class; precision, recall and F1 are of "
        f"{plain(served.positive_label) or 'the mean over classes'}{_from_threshold(served)}. Brackets are 95 % "
        "intervals: whole blocks of neighbouring tiles are drawn anew. The calibration error is the expected one, "
        "in 10 bins.",
        "",
        "## Training and evaluation data",
        "",
        f"- {plain(served.source)}, dataset `{served.dataset_digest}`",
        *(f"- {split}: {number:,} tiles" for split, number in served.tiles.items()),
        "",
        "## Quantitative analyses",
        "",
        *_figures(served),
        "",
        "## Ethical considerations",
        "",
        *(f"- {risk}. {what}." for risk, what in _RISKS),
        "",
        "## Caveats and recommendations",
        "",
        *(f"- {limit}." for limit in _LIMITS),
    ]
    return "\n".join(lines) + "\n"


def model_card_json(served: ModelRecord) -> dict[str, Any]:
    """Return the model card in the field names of the Model Card Toolkit."""
    size = served.training.input_size
    synthetic = " Trained on drawn tiles of a synthetic sample; not for imagery." if served.synthetic else ""
    return {
        "schema_version": _SCHEMA_VERSION,
        "model_details": {
            "name": served.name,
            "overview": f"{served.backbone} that tells {', '.join(served.classes)} apart.{synthetic}",
            "documentation": f"Started from {served.training.weights.description}. "
            f"Probabilities: {_calibrated(served.calibration)}.",
            "version": {"name": str(served.version), **_date(served.version)},
            "references": [{"reference": "https://arxiv.org/abs/1810.03993"}],
        },
        "model_parameters": {
            "model_architecture": f"{served.backbone}, input {size} x {size} pixels",
            "data": [
                {
                    "name": f"{served.source}, {split} split",
                    "description": f"{number:,} tiles, dataset {served.dataset_digest}",
                }
                for split, number in served.tiles.items()
            ],
            "input_format": "image_bytes: string [n], encoded images of any size",
            "output_format": f"probabilities: float32 [n, {len(served.classes)}], {', '.join(served.classes)}",
        },
        "quantitative_analysis": {
            "performance_metrics": [
                row for split, metrics in served.metrics.items() for row in _performance(split, metrics)
            ]
        },
        "considerations": {
            "users": [{"description": _USERS}],
            "use_cases": [{"description": _USE}, {"description": f"Not for {_OUT_OF_SCOPE}"}],
            "limitations": [{"description": limit} for limit in _LIMITS],
            "ethical_considerations": [{"name": risk, "mitigation_strategy": what} for risk, what in _RISKS],
        },
    }


def _performance(split: str, metrics: Metrics) -> Iterator[dict[str, Any]]:
    intervals = metrics.intervals
    yield _metric("accuracy", metrics.accuracy, split, intervals.accuracy)
    for name in _POSITIVE:
        yield _metric(name, getattr(metrics.positive, name), split, getattr(intervals, name))
    yield _metric("calibration_error", metrics.calibration_error, split, None)
    for row in metrics.slices:
        where = f"{split}, {row.slice}={row.value or 'unknown'}"
        for name, value, bounds in _slice_figures(row):
            if value is not None:
                yield _metric(name, value, where, bounds)


def _slice_figures(row: SliceMetrics) -> tuple[tuple[str, float | None, Interval | None], ...]:
    """Return name, value and interval of each figure of a slice."""
    return (
        ("accuracy", row.accuracy, row.intervals.accuracy),
        ("recall", row.recall, row.intervals.recall),
        ("precision", row.precision, row.intervals.precision),
    )


def _metric(name: str, value: float, where: str, bounds: Interval | None) -> dict[str, Any]:
    row: dict[str, Any] = {"type": name, "value": value, "slice": where}
    if bounds:
        row["confidence_interval"] = {"lower_bound": bounds.low, "upper_bound": bounds.high}
    return row


def _date(version: int) -> dict[str, str]:
    """Return the date of a version that is a timestamp."""
    try:
        return {"date": datetime.strptime(str(version), "%Y%m%d%H%M%S").replace(tzinfo=UTC).date().isoformat()}
    except ValueError:
        return {}


def _from_threshold(served: ModelRecord) -> str:
    if served.threshold is None:
        return ""
    choice = served.threshold_choice
    goal = f" ({choice.goal}{'' if choice.reached else ', which could not be reached'})" if choice else ""
    return f", from probability {served.threshold:.3f} on{goal}"


def _calibrated(calibration: AppliedCalibration) -> str:
    if not calibration.fitted_on:
        return "as trained, not calibrated"
    return f"calibrated with temperature {calibration.temperature:.3f}, fitted on the validation split"


def _factors(served: ModelRecord) -> str:
    names = sorted({row.slice for metrics in served.metrics.values() for row in metrics.slices})
    if not names:
        return "The data names no slices, such as setting or region: how figures differ between them isn't known."
    return f"Figures are told by {plain(', '.join(names))}."


def _figures(served: ModelRecord) -> list[str]:
    if not served.metrics:
        return ["None: it was packaged without a gate's decision, and the data has no test split."]
    tested = "The test split was scored once, through the exported model." if served.test else ""
    head = ("split", "tiles", "accuracy", "precision", "recall", "F1", "calibration error")
    lines = table(head, (_figures_row(split, metrics) for split, metrics in served.metrics.items()), numbers_from=1)
    lines += ["", tested]
    rows = [_slice_row(split, row) for split, metrics in served.metrics.items() for row in metrics.slices]
    if rows:
        lines += ["", *table(("split", "slice", "tiles", "accuracy", "recall", "precision"), rows[:_MAX_SLICES], 2)]
    if len(rows) > _MAX_SLICES:
        lines += ["", f"{len(rows) - _MAX_SLICES:,} more slices are in model_card.json."]
    return lines


def _figures_row(split: str, metrics: Metrics) -> list[object]:
    positive, intervals = metrics.positive, metrics.intervals
    return [
        split,
        metrics.count,
        _share(metrics.accuracy, intervals.accuracy),
        _share(positive.precision, intervals.precision),
        _share(positive.recall, intervals.recall),
        _share(positive.f1, intervals.f1),
        f"{metrics.calibration_error:.4f}",
    ]


def _slice_row(split: str, row: SliceMetrics) -> list[object]:
    where = f"{row.slice}={row.value or 'unknown'}"
    return [split, where, row.count, *(_share(value, bounds) for _, value, bounds in _slice_figures(row))]


def _share(value: float | None, bounds: Interval | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" + (f" ({bounds.low:.3f} to {bounds.high:.3f})" if bounds else "")
