"""Charts for the HTML reports, as inline SVG."""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Sequence
from typing import Protocol

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sat_xception.reports.page import render_page

__all__ = [
    "confusion_chart",
    "confusion_png",
    "curves_chart",
    "curves_page",
    "most_mixed_up",
    "precision_recall_chart",
    "reliability_chart",
    "roc_chart",
]

_MAX_CLASSES = 24
_LONGEST_NAME = 24

# The same figure gives the same SVG: a fixed salt for element ids, and text kept as text.
mpl.rcParams.update(
    {"svg.hashsalt": "sat-xception", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}
)


class EpochFigures(Protocol):
    """Figures of an epoch in learning curves; None if a figure isn't finite."""

    @property
    def phase(self) -> str: ...
    @property
    def loss(self) -> float | None: ...
    @property
    def accuracy(self) -> float | None: ...
    @property
    def val_loss(self) -> float | None: ...
    @property
    def val_accuracy(self) -> float | None: ...


def curves_page(title: str, history: Sequence[EpochFigures], synthetic: bool) -> str:
    """Return a page with the learning curves of one training."""
    return render_page("curves", synthetic=synthetic, title=title, chart=curves_chart(history), epochs=len(history))


def curves_chart(history: Sequence[EpochFigures]) -> Markup:
    """Draw accuracy and loss by epoch, the phases one after the other with a line between them.

    Args:
        history: Epochs of all phases. A figure of None (NaN or infinite in training) leaves a gap.
    """
    figure = Figure(figsize=(8.0, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = np.arange(1, len(history) + 1)
    for axes, name in ((left, "accuracy"), (right, "loss")):
        axes.plot(epochs, [getattr(row, name) for row in history], label="training", color="#8aa", linewidth=1.2)
        axes.plot(
            epochs, [getattr(row, f"val_{name}") for row in history], label="validation", color="#06c", linewidth=1.4
        )
        _mark_phases(axes, history)
        axes.set(xlabel="epoch", title=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    left.legend(loc="lower right")
    return _svg(figure, "learning curves")


def _mark_phases(axes: Axes, history: Sequence[EpochFigures]) -> None:
    for index, (before, after) in enumerate(itertools.pairwise(history), start=1):
        if after.phase != before.phase:
            axes.axvline(index + 0.5, color="#999", linestyle=":", linewidth=1)


def confusion_chart(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Markup:
    """Draw a confusion matrix: true classes are rows, predicted ones columns, both in class order.

    With many classes, only those that are confused most often are drawn: each cell takes 400 bytes of the page, and a
    matrix of 100 x 100 cells can't be read.
    """
    return _svg(_confusion_figure(matrix, classes), "confusion matrix")


def confusion_png(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> bytes:
    """Return `confusion_chart` as PNG, for viewers without SVG; long class names are cut."""
    buffer = io.BytesIO()
    names = [name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…" for name in classes]
    with warnings.catch_warnings():
        # Characters that the font lacks become boxes, and names with many lines leave no room for the axes. Neither is
        # a reason to fail a training.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        warnings.filterwarnings("ignore", "constrained_layout not applied")
        _confusion_figure(matrix, names).savefig(buffer, format="png")
    return buffer.getvalue()


def _confusion_figure(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shown = most_mixed_up(matrix)
    counts, shares, names = counts[np.ix_(shown, shown)], shares[np.ix_(shown, shown)], [classes[i] for i in shown]
    side = max(2.6, 0.45 * len(names) + 1.6)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    if len(names) < len(classes):
        axes.set_title(f"the {len(names)} of {len(classes):,} classes that are mixed up most")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(names)):
        for column in range(len(names)):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=color)
    # A class may be named with dollar signs, which mean mathematics to matplotlib.
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", parse_math=False)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set(xlabel="predicted", ylabel="true")
    return figure


def most_mixed_up(matrix: Sequence[Sequence[int]]) -> list[int]:
    """Return the indexes of the classes to show, in class order: all of up to 24, else those with most mistakes."""
    counts = np.asarray(matrix)
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    places: list[int] = sorted(np.argsort(-mistakes, kind="stable")[:_MAX_CLASSES].tolist())
    return places


def roc_chart(points: Sequence[Sequence[float]], area: float) -> Markup:
    """Draw a ROC curve from rows of (threshold, false positive rate, true positive rate)."""
    figure = Figure(figsize=(2.8, 2.8), layout="constrained")
    axes = figure.subplots()
    axes.plot([point[1] for point in points], [point[2] for point in points], color="#06c")
    axes.plot([0, 1], [0, 1], color="#999", linestyle=":")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title=f"ROC, area {area:.3f}")
    return _svg(figure, "ROC curve")


def precision_recall_chart(
    points: Sequence[Sequence[float]], area: float, chosen: tuple[float, float] | None
) -> Markup:
    """Draw a precision-recall curve from rows of (threshold, recall, precision), and a dot at the chosen threshold.

    Args:
        points: Rows of the curve.
        area: Area under the curve.
        chosen: Recall and precision at the chosen threshold; None if no threshold was chosen.
    """
    figure = Figure(figsize=(2.8, 2.8), layout="constrained")
    axes = figure.subplots()
    axes.plot([point[1] for point in points], [point[2] for point in points], color="#06c")
    if chosen:
        axes.plot([chosen[0]], [chosen[1]], marker="o", color="#b3261e", linestyle="")
    axes.set(xlabel="recall", ylabel="precision", ylim=(0, 1.03), title=f"precision-recall, area {area:.3f}")
    return _svg(figure, "precision-recall curve")


def reliability_chart(series: Sequence[tuple[str, float, Sequence[tuple[float, float]]]]) -> Markup:
    """Draw accuracy against mean confidence per confidence bin, before and after calibration.

    Args:
        series: Name, calibration error and points (mean confidence, accuracy) of each line, two at most.
    """
    figure = Figure(figsize=(2.8, 2.8), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#999", linestyle=":")
    for (name, error, points), color in zip(series, ("#8aa", "#06c"), strict=False):
        confidence, accuracy = ([point[index] for point in points] for index in (0, 1))
        label = f"{name}: {error:.3f}"
        axes.plot(confidence, accuracy, marker="o", markersize=4, color=color, label=label)
    axes.legend(loc="lower right", fontsize=8)
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), title="calibration error")
    return _svg(figure, "reliability diagram")


def _svg(figure: Figure, label: str) -> Markup:
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # Text stays text in the SVG, so the browser's fonts draw characters that matplotlib's font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = buffer.getvalue()
    start = svg.index("<svg")
    # Not escaped again: matplotlib made this SVG, and escaped the texts in it.
    return Markup(svg[start : start + 4] + f' role="img" aria-label="{label}"' + svg[start + 4 :])
