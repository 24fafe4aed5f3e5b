"""What a run comes to, for people: the page with both models side by side, the decision as Markdown, the model card."""

from __future__ import annotations

from typing import Any

from sat_xception.evaluate.charts import confusion_chart, curves_chart, reliability_chart, roc_chart
from sat_xception.markdown import plain
from sat_xception.page import render_page

__all__ = ["decision_markdown", "model_card", "run_report"]

_SYNTHETIC = (
    "> **Synthetic sample.** Trained on drawn tiles: this model shows that the system works and must not be used on "
    "imagery.\n"
)


def run_report(decision: dict[str, Any], served: dict[str, Any] | None = None) -> str:
    """Return the page of a run.

    Args:
        decision: Content of `decision.json`.
        served: Content of `model.json`, when the winner has been packaged.
    """
    charts = {
        candidate["backbone"]: {
            "curves": curves_chart(candidate["training"]["history"]),
            "confusion": confusion_chart(candidate["metrics"]["confusion_matrix"], candidate["classes"]),
            "roc": roc_chart(
                candidate["metrics"]["roc"],
                candidate["metrics"]["by_class"][candidate["metrics"]["roc_class"]]["roc_auc"],
            ),
            "reliability": reliability_chart(
                candidate["metrics"]["calibration"], candidate["metrics"]["calibration_error"]
            ),
        }
        for candidate in decision["candidates"]
    }
    return render_page("run", synthetic=decision["synthetic"], decision=decision, served=served, charts=charts)


def decision_markdown(decision: dict[str, Any]) -> str:
    """Return the decision as Markdown: the winner, the reason, and every check with its figure and limit."""
    lines = [f"# Winner: {decision['winner']}", "", f"Why: {plain(decision['reason'])}.", ""]
    if decision["synthetic"]:
        lines += [_SYNTHETIC]
    lines += ["| model | check | figure | limit | passed |", "|---|---|---:|---:|---|"]
    lines += [
        f"| {plain(candidate['backbone'])} | {plain(row['name'])} | {row['value']:.4f} | "
        f"{row['rule']} {row['limit']:g} | {'yes' if row['passed'] else '**no**'} |"
        for candidate in decision["candidates"]
        for row in candidate["checks"]
    ]
    return "\n".join(lines) + "\n"


def model_card(served: dict[str, Any]) -> str:
    """Return the model card, in the sections of Mitchell et al. 2019, "Model cards for model reporting".

    Args:
        served: Content of `model.json`.
    """
    training = served["training"]
    lines = [f"# {served['name']} {served['version']}", ""]
    if served["synthetic"]:
        lines += [_SYNTHETIC]
    lines += [
        "## Model",
        "",
        f"- Network: {served['backbone']}, input {training['input_size']} x {training['input_size']} pixels",
        f"- Started from: {plain(training['weights']['description'])}",
        f"- Weights kept from the phase: {training['kept_phase']}",
        f"- Classes, in the order of the output: {plain(', '.join(served['classes']))}",
        f"- Looked for: {plain(served['positive_label']) or 'no class in particular'}",
        "",
        "## Intended use",
        "",
        "Finding candidates in overhead imagery like that it was trained on, for a person to confirm. "
        "Not for decisions about people or places without review.",
        "",
        "## Data",
        "",
        f"- {plain(served['source'])}, dataset `{served['dataset_digest']}`",
        *(f"- {split}: {number:,} tiles" for split, number in served["tiles"].items()),
        "",
        "## Figures",
        "",
        *_figures(served),
        "",
        "## Limits",
        "",
        "The figures hold for imagery of the same kind, resolution and region. "
        "Other sensors, seasons and places need their own test.",
    ]
    return "\n".join(lines) + "\n"


def _figures(served: dict[str, Any]) -> list[str]:
    if not served["metrics"]:
        return ["None: it was packaged without a gate's decision, and the data has no test split."]
    tested = " The test split was scored once, through the exported model." if "test" in served["metrics"] else ""
    return [
        "| split | tiles | accuracy | precision | recall | F1 | calibration error |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(_figures_row(split, metrics) for split, metrics in served["metrics"].items()),
        "",
        f"Precision, recall and F1 are of {plain(served['positive_label']) or 'the mean over classes'}.{tested}",
    ]


def _figures_row(split: str, metrics: dict[str, Any]) -> str:
    positive = metrics["positive"]
    return (
        f"| {split} | {metrics['count']:,} | {metrics['accuracy']:.4f} | {positive['precision']:.4f} | "
        f"{positive['recall']:.4f} | {positive['f1']:.4f} | {metrics['calibration_error']:.4f} |"
    )
