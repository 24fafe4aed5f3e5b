"""The HTML reports of an evaluation and of a run, and the decision as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from markupsafe import Markup

from sat_xception.evaluate.decision import Candidate, Decision
from sat_xception.evaluate.evaluation import Evaluation
from sat_xception.evaluate.figures import Interval, Metrics, Reliability, SliceMetrics, Threshold
from sat_xception.reports.charts import (
    confusion_chart,
    curves_chart,
    precision_recall_chart,
    reliability_chart,
    roc_chart,
)
from sat_xception.reports.markdown import plain
from sat_xception.reports.page import render_page
from sat_xception.train.record import Hardware

__all__ = [
    "SYNTHETIC_NOTE",
    "PackagedWinner",
    "decision_markdown",
    "device_minutes",
    "evaluation_report",
    "run_report",
]

# Maximum number of checks in the Markdown, which the Kubeflow UI cuts after 50 KB.
_MAX_ROWS = 120
SYNTHETIC_NOTE = (
    "> **Synthetic sample.** Trained on drawn tiles: this model shows that the system works and must not be used on "
    "imagery.\n"
)


class PackagedWinner(Protocol):
    """Parts of `model.json` that the page of a run shows; `ModelRecord` has them."""

    @property
    def name(self) -> str:
        """Name that it is served as."""

    @property
    def version(self) -> int:
        """Its version."""

    @property
    def test(self) -> Metrics | None:
        """Figures of the test split."""

    @property
    def temperature(self) -> float:
        """Temperature in the exported graph."""

    @property
    def threshold_choice(self) -> Threshold | None:
        """Threshold with its goal."""

    @property
    def export_tolerance(self) -> float:
        """Maximum difference that was allowed between the export and Keras."""


@dataclass(frozen=True)
class _SliceOfModel:
    """Figures of one candidate on a slice, and the names of those that are below their floors."""

    metrics: SliceMetrics
    failed: list[str]


def evaluation_report(evaluation: Evaluation) -> str:
    """Return the page of an evaluation."""
    return render_page("evaluation", synthetic=evaluation.synthetic, evaluation=evaluation, charts=_charts(evaluation))


def run_report(decision: Decision, served: PackagedWinner | None = None) -> str:
    """Return the page of a run.

    Args:
        decision: The gate's decision.
        served: The winner, if it has been packaged.
    """
    now = decision.serving
    trainings = {each.backbone: each.training for each in decision.candidates}
    return render_page(
        "run",
        synthetic=decision.synthetic,
        decision=decision,
        scored=decision.scored,
        columns=[*decision.scored, *([now] if now and now.metrics else [])],
        slices=_slice_rows(decision.scored),
        costs={name: device_minutes(each.total_seconds, each.hardware) for name, each in trainings.items()},
        served=served,
        charts={
            each.backbone: {"curves": curves_chart(each.training.history), **_charts(each)}
            for each in decision.candidates
        },
    )


def _charts(evaluation: Evaluation) -> dict[str, Markup | str]:
    """Return the charts of an evaluation; none if it has no figures."""
    if not evaluation.scores:
        return {}
    metrics, calibration = evaluation.scores
    areas = metrics.by_class[metrics.roc_class]
    chosen = (metrics.positive.recall, metrics.positive.precision) if evaluation.positive_label else None
    series = [("before", calibration.before), ("after", calibration.after)]
    return {
        "confusion": confusion_chart(metrics.confusion_matrix, evaluation.classes),
        "roc": roc_chart(metrics.roc, areas.roc_auc) if metrics.roc else "",
        "pr": precision_recall_chart(metrics.pr, areas.pr_auc, chosen) if metrics.pr else "",
        "reliability": reliability_chart([(name, found.error, _points(found)) for name, found in series]),
    }


def _points(found: Reliability) -> list[tuple[float, float]]:
    return [(each.confidence, each.accuracy) for each in found.bins if each.count]


def _slice_rows(scored: Sequence[Candidate]) -> list[tuple[_SliceOfModel, ...]]:
    """Return one row per slice, with the figures of every scored candidate."""
    models = []
    for candidate in scored:
        below = {(each.slice, each.figure) for each in candidate.checks if each.slice and not each.passed}
        slices = candidate.metrics.slices if candidate.metrics else ()
        models.append(
            [
                _SliceOfModel(
                    each, [name for name in ("accuracy", "recall") if ((each.slice, each.value), name) in below]
                )
                for each in slices
            ]
        )
    return list(zip(*models, strict=True))


def device_minutes(seconds: float, hardware: Hardware) -> str:
    """Return the cost of a training: minutes times number of GPUs, or minutes of the machine without one."""
    gpus, cores = hardware.gpus, hardware.cores
    what = ", ".join(sorted(set(gpus))) if gpus else f"a CPU of {'unknown' if cores is None else cores} cores"
    return f"{seconds / 60 * max(1, len(gpus)):.1f} on {what}"


def decision_markdown(decision: Decision) -> str:
    """Return the decision as Markdown: the winner, the reason, and every check with its figure and limit."""
    lines = [f"# Winner: {decision.winner}", "", f"Why: {plain(decision.reason)}.", ""]
    if decision.synthetic:
        lines += [SYNTHETIC_NOTE]
    lines += ["| model | check | figure | 95 % interval | limit | passed | note |", "|---|---|---:|---|---|---|---|"]
    rows = [(candidate, each) for candidate in decision.candidates for each in candidate.checks]
    # Failed checks come first, since the table may be cut.
    shown = sorted(rows, key=lambda row: row[1].passed and row[1].slice is not None)[:_MAX_ROWS]
    lines += [
        f"| {plain(candidate.backbone)} | {plain(each.name)} | {_number(each.value)} | {_interval(each.interval)} | "
        f"{each.asked} | {'yes' if each.passed else '**no**'} | {plain(each.note)} |"
        for candidate, each in (rows if len(rows) <= _MAX_ROWS else shown)
    ]
    if len(rows) > _MAX_ROWS:
        lines += ["", f"{len(rows) - _MAX_ROWS:,} more checks of slices are in the report."]
    lines += [
        f"\n{plain(each.first)} against {plain(each.second)} on {each.tiles:,} tiles: accuracy "
        f"{each.difference:+.4f} (95 % interval {_interval(each.interval)}), right alone on "
        f"{each.first_only:,} and {each.second_only:,} tiles, McNemar's p {each.p:.2g}."
        for each in decision.comparisons
    ]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _interval(bounds: Interval | None) -> str:
    return "-" if bounds is None else f"{bounds.low:.4f} to {bounds.high:.4f}"
