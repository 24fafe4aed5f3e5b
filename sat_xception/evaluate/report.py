"""What an evaluation and a run come to, for people: a page each, and the decision as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from sat_xception.evaluate.checks import limit_of
from sat_xception.reports.charts import (
    confusion_chart,
    curves_chart,
    precision_recall_chart,
    reliability_chart,
    roc_chart,
)
from sat_xception.reports.markdown import plain
from sat_xception.reports.page import render_page

__all__ = ["SYNTHETIC_NOTE", "decision_markdown", "device_minutes", "evaluation_report", "run_report"]

# Checks in the Markdown, which the Kubeflow UI cuts after 50 KB.
_MAX_ROWS = 120
SYNTHETIC_NOTE = (
    "> **Synthetic sample.** Trained on drawn tiles: this model shows that the system works and must not be used on "
    "imagery.\n"
)


def evaluation_report(evaluation: dict[str, Any]) -> str:
    """Return the page of an evaluation.

    Args:
        evaluation: Content of `evaluation.json`.
    """
    charts = _charts(evaluation) if evaluation["metrics"] else {}
    return render_page("evaluation", synthetic=evaluation["synthetic"], evaluation=evaluation, charts=charts)


def run_report(decision: dict[str, Any], served: dict[str, Any] | None = None) -> str:
    """Return the page of a run.

    Args:
        decision: Content of `decision.json`.
        served: Content of `model.json`, when the winner has been packaged.
    """
    candidates = decision["candidates"]
    scored = [each for each in candidates if each["metrics"]]
    charts = {
        each["backbone"]: {
            "curves": curves_chart(each["training"]["history"]),
            **(_charts(each) if each["metrics"] else {}),
        }
        for each in candidates
    }
    now = decision["serving"]
    return render_page(
        "run",
        synthetic=decision["synthetic"],
        decision=decision,
        scored=scored,
        columns=[*scored, *([now] if now and now["metrics"] else [])],
        slices=_slice_rows(scored),
        limit_of=limit_of,
        costs={each["backbone"]: device_minutes(each["training"]) for each in candidates},
        served=served,
        charts=charts,
    )


def _charts(evaluation: Mapping[str, Any]) -> dict[str, Markup | str]:
    metrics = evaluation["metrics"]
    areas = metrics["by_class"][metrics["roc_class"]]
    chosen = metrics["positive"] if evaluation["positive_label"] else None
    return {
        "confusion": confusion_chart(metrics["confusion_matrix"], evaluation["classes"]),
        "roc": roc_chart(metrics["roc"], areas["roc_auc"]) if metrics["roc"] else "",
        "pr": precision_recall_chart(metrics["pr"], areas["pr_auc"], chosen) if metrics["pr"] else "",
        "reliability": reliability_chart(evaluation["calibration"]),
    }


def _slice_rows(scored: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each slice with every scored candidate's figures, and which are below their floors."""
    models: list[list[dict[str, Any]]] = []
    for candidate in scored:
        below = {(*row["slice"], row["figure"]) for row in candidate["checks"] if "slice" in row and not row["passed"]}
        models.append(
            [
                {**row, "failed": [name for name in row["intervals"] if (row["slice"], row["value"], name) in below]}
                for row in candidate["metrics"]["slices"]
            ]
        )
    return [{**rows[0], "models": rows} for rows in zip(*models, strict=True)]


def device_minutes(training: Mapping[str, Any]) -> str:
    """Return what a training cost: minutes times GPUs, or the minutes of the machine where it had none."""
    hardware = training["hardware"]
    gpus = hardware.get("gpus", [])
    what = ", ".join(sorted(set(gpus))) if gpus else f"a CPU of {hardware.get('cores', 'unknown')} cores"
    return f"{training['seconds']['all'] / 60 * max(1, len(gpus)):.1f} on {what}"


def decision_markdown(decision: dict[str, Any]) -> str:
    """Return the decision as Markdown: the winner, the reason, and every check with its figure and limit."""
    lines = [f"# Winner: {decision['winner']}", "", f"Why: {plain(decision['reason'])}.", ""]
    if decision["synthetic"]:
        lines += [SYNTHETIC_NOTE]
    lines += ["| model | check | figure | 95 % interval | limit | passed | note |", "|---|---|---:|---|---|---|---|"]
    rows = [(candidate, row) for candidate in decision["candidates"] for row in candidate["checks"]]
    # What failed comes first where not all have room.
    shown = sorted(rows, key=lambda each: each[1]["passed"] and "slice" in each[1])[:_MAX_ROWS]
    lines += [
        f"| {plain(candidate['backbone'])} | {plain(row['name'])} | {_number(row['value'])} | "
        f"{_interval(row['interval'])} | {limit_of(row)} | "
        f"{'yes' if row['passed'] else '**no**'} | {plain(row['note'])} |"
        for candidate, row in (rows if len(rows) <= _MAX_ROWS else shown)
    ]
    if len(rows) > _MAX_ROWS:
        lines += ["", f"{len(rows) - _MAX_ROWS:,} more checks of slices are in the report."]
    lines += [
        f"\n{plain(each['first'])} against {plain(each['second'])} on {each['tiles']:,} tiles: accuracy "
        f"{each['difference']:+.4f} (95 % interval {_interval(each['interval'])}), right alone on "
        f"{each['first_only']:,} and {each['second_only']:,} tiles, McNemar's p {each['p']:.2g}."
        for each in decision["comparisons"]
    ]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _interval(bounds: list[float] | None) -> str:
    return "-" if bounds is None else f"{bounds[0]:.4f} to {bounds[1]:.4f}"
