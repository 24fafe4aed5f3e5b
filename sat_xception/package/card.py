"""The model card, as Markdown and as JSON.

Its sections are those of Mitchell et al. 2019, "Model cards for model reporting"; the JSON has the field names of
schema v0.0.2 of Google's Model Card Toolkit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from sat_xception.evaluate.report import SYNTHETIC_NOTE, device_minutes
from sat_xception.reports.markdown import plain, table
from sat_xception.train.record import Hardware

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
_RISKS = (
    ("Places that the training data lacks may be missed more often", "Compare the slices, and label where it is weak"),
    ("Locations of people or institutions may be sensitive", "Publish candidates only once reviewed and agreed"),
)


def model_card(served: Mapping[str, Any]) -> str:
    """Return the model card as Markdown.

    Args:
        served: Content of `model.json`.
    """
    training, calibration = served["training"], served["calibration"]
    cost = device_minutes(training["seconds"]["all"], Hardware.model_validate(training["hardware"]))
    lines = [f"# {served['name']} {served['version']}", ""]
    if served["synthetic"]:
        lines += [SYNTHETIC_NOTE]
    lines += [
        "## Model details",
        "",
        f"- Network: {served['backbone']}, input {training['input_size']} x {training['input_size']} pixels",
        f"- Started from: {plain(training['weights']['description'])}",
        f"- Weights kept from the phase: {training['kept_phase']}",
        f"- Classes, in the order of the output: {plain(', '.join(served['classes']))}",
        f"- Looked for: {plain(served['positive_label']) or 'no class in particular'}{_from_threshold(served)}",
        f"- Probabilities: {_calibrated(calibration)}",
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
        f"{plain(served['positive_label']) or 'the mean over classes'}{_from_threshold(served)}. Brackets are 95 % "
        "intervals: whole blocks of neighbouring tiles are drawn anew. The calibration error is the expected one, "
        "in 10 bins.",
        "",
        "## Training and evaluation data",
        "",
        f"- {plain(served['source'])}, dataset `{served['dataset_digest']}`",
        *(f"- {split}: {number:,} tiles" for split, number in served["tiles"].items()),
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


def model_card_json(served: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model card in the field names of the Model Card Toolkit.

    Args:
        served: Content of `model.json`.
    """
    training = served["training"]
    size = training["input_size"]
    synthetic = " Trained on drawn tiles of a synthetic sample; not for imagery." if served["synthetic"] else ""
    return {
        "schema_version": _SCHEMA_VERSION,
        "model_details": {
            "name": served["name"],
            "overview": f"{served['backbone']} that tells {', '.join(served['classes'])} apart.{synthetic}",
            "documentation": f"Started from {training['weights']['description']}. "
            f"Probabilities: {_calibrated(served['calibration'])}.",
            "version": {"name": str(served["version"]), **_date(served["version"])},
            "references": [{"reference": "https://arxiv.org/abs/1810.03993"}],
        },
        "model_parameters": {
            "model_architecture": f"{served['backbone']}, input {size} x {size} pixels",
            "data": [
                {
                    "name": f"{served['source']}, {split} split",
                    "description": f"{number:,} tiles, dataset {served['dataset_digest']}",
                }
                for split, number in served["tiles"].items()
            ],
            "input_format": "image_bytes: string [n], encoded images of any size",
            "output_format": f"probabilities: float32 [n, {len(served['classes'])}], {', '.join(served['classes'])}",
        },
        "quantitative_analysis": {
            "performance_metrics": [
                row for split, metrics in served["metrics"].items() for row in _performance(split, metrics)
            ]
        },
        "considerations": {
            "users": [{"description": _USERS}],
            "use_cases": [{"description": _USE}, {"description": f"Not for {_OUT_OF_SCOPE}"}],
            "limitations": [{"description": limit} for limit in _LIMITS],
            "ethical_considerations": [{"name": risk, "mitigation_strategy": what} for risk, what in _RISKS],
        },
    }


def _performance(split: str, metrics: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    intervals = metrics["intervals"]
    for name, value in (
        ("accuracy", metrics["accuracy"]),
        *((name, metrics["positive"][name]) for name in ("precision", "recall", "f1", "roc_auc", "pr_auc")),
        ("calibration_error", metrics["calibration_error"]),
    ):
        yield _metric(name, value, split, intervals.get(name))
    for row in metrics["slices"]:
        where = f"{split}, {row['slice']}={row['value'] or 'unknown'}"
        for name, bounds in row["intervals"].items():
            if row[name] is not None:
                yield _metric(name, row[name], where, bounds)


def _metric(name: str, value: float, where: str, bounds: list[float] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"type": name, "value": value, "slice": where}
    if bounds:
        row["confidence_interval"] = {"lower_bound": bounds[0], "upper_bound": bounds[1]}
    return row


def _date(version: int) -> dict[str, str]:
    """Return the date of a version that is a timestamp."""
    try:
        return {"date": datetime.strptime(str(version), "%Y%m%d%H%M%S").replace(tzinfo=UTC).date().isoformat()}
    except ValueError:
        return {}


def _from_threshold(served: Mapping[str, Any]) -> str:
    if served["threshold"] is None:
        return ""
    choice = served["threshold_choice"]
    goal = f" ({choice['goal']}{'' if choice['reached'] else ', which could not be reached'})" if choice else ""
    return f", from probability {served['threshold']:.3f} on{goal}"


def _calibrated(calibration: Mapping[str, Any]) -> str:
    if not calibration["fitted_on"]:
        return "as trained, not calibrated"
    return f"calibrated with temperature {calibration['temperature']:.3f}, fitted on the validation split"


def _factors(served: Mapping[str, Any]) -> str:
    names = sorted({row["slice"] for metrics in served["metrics"].values() for row in metrics["slices"]})
    if not names:
        return "The data names no slices, such as setting or region: how figures differ between them isn't known."
    return f"Figures are told by {plain(', '.join(names))}."


def _figures(served: Mapping[str, Any]) -> list[str]:
    if not served["metrics"]:
        return ["None: it was packaged without a gate's decision, and the data has no test split."]
    tested = "The test split was scored once, through the exported model." if "test" in served["metrics"] else ""
    head = ("split", "tiles", "accuracy", "precision", "recall", "F1", "calibration error")
    lines = table(head, (_figures_row(split, metrics) for split, metrics in served["metrics"].items()), numbers_from=1)
    lines += ["", tested]
    rows = [_slice_row(split, row) for split, metrics in served["metrics"].items() for row in metrics["slices"]]
    if rows:
        lines += ["", *table(("split", "slice", "tiles", "accuracy", "recall", "precision"), rows[:_MAX_SLICES], 2)]
    if len(rows) > _MAX_SLICES:
        lines += ["", f"{len(rows) - _MAX_SLICES:,} more slices are in model_card.json."]
    return lines


def _figures_row(split: str, metrics: Mapping[str, Any]) -> list[object]:
    bounds = metrics["intervals"]
    return [
        split,
        metrics["count"],
        _share(metrics["accuracy"], bounds["accuracy"]),
        *(_share(metrics["positive"][name], bounds[name]) for name in ("precision", "recall", "f1")),
        f"{metrics['calibration_error']:.4f}",
    ]


def _slice_row(split: str, row: Mapping[str, Any]) -> list[object]:
    where = f"{row['slice']}={row['value'] or 'unknown'}"
    figures = (_share(row.get(name), row["intervals"].get(name)) for name in ("accuracy", "recall", "precision"))
    return [split, where, row["count"], *figures]


def _share(value: float | None, bounds: list[float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" + (f" ({bounds[0]:.3f} to {bounds[1]:.3f})" if bounds else "")
