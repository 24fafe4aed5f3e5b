"""The page of a search: how it went, what mattered, and every trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from sat_xception.reports.charts import _svg
from sat_xception.reports.page import render_page
from sat_xception.search.record import SearchedRange, SearchedSpace, SearchRecord, TrialRecord

__all__ = ["search_page"]

_MAX_ROWS = 200


def search_page(found: SearchRecord) -> str:
    """Return the HTML page of a search."""
    complete = [trial for trial in found.trials if trial.state == "complete"]
    ranked = sorted(complete, key=lambda trial: -(trial.valid_accuracy or 0.0))
    others = [trial for trial in found.trials if trial.state != "complete"]
    return render_page(
        "search",
        synthetic=found.synthetic,
        found=found,
        history=_history_chart(found.trials),
        importance=_importance_chart(found.importance) if found.importance else None,
        settings=_settings_chart(complete, found.space),
        trials=(ranked + others)[:_MAX_ROWS],
        names=list(found.space.settings),
    )


def _history_chart(trials: Sequence[TrialRecord]) -> Markup:
    """Draw the accuracy of each trial in its order, with the best so far; pruned and failed ones are at the foot."""
    figure = Figure(figsize=(8.0, 2.8), layout="constrained")
    axes = figure.subplots()
    places = np.arange(1, len(trials) + 1)
    values = np.array([trial.valid_accuracy for trial in trials], dtype=float)  # None becomes NaN
    axes.plot(places, values, "o", color="#8aa", markersize=4, label="trial")
    axes.step(places, np.fmax.accumulate(values), where="post", color="#06c", label="best so far")
    foot = float(np.nanmin(values))
    for state, mark in (("pruned", "|"), ("fail", "x")):
        own = [place for place, trial in zip(places, trials, strict=True) if trial.state == state]
        if own:
            axes.plot(own, np.full(len(own), foot), mark, color="#b3261e", markersize=5, label=state)
    axes.set(xlabel="trial", ylabel="validation accuracy")
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    return _svg(figure, "accuracy by trial")


def _importance_chart(importance: Mapping[str, float]) -> Markup:
    """Draw each setting's share as a bar."""
    names = sorted(importance, key=lambda name: importance[name])
    figure = Figure(figsize=(4.5, 0.35 * len(names) + 0.9), layout="constrained")
    axes = figure.subplots()
    axes.barh(names, [importance[name] for name in names], color="#06c")
    axes.set(xlabel="share", xlim=(0, 1))
    return _svg(figure, "importance of the settings")


def _settings_chart(trials: Sequence[TrialRecord], space: SearchedSpace) -> Markup:
    """Draw the accuracy over each setting, one small chart per setting."""
    columns = min(3, len(space.settings))
    rows = -(-len(space.settings) // columns)
    figure = Figure(figsize=(2.7 * columns, 2.2 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for (name, tried), axes in zip(space.settings.items(), grid.flat, strict=False):
        values = [trial.params[name] for trial in trials]
        if not isinstance(tried, SearchedRange):
            labels = [str(value) for value in tried]
            values = [labels.index(str(value)) for value in values]
            axes.set_xticks(range(len(labels)), labels, rotation=30, parse_math=False)
            axes.set_xlim(-0.5, len(labels) - 0.5)
        else:
            if tried.log:
                axes.set_xscale("log")
                axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xlim(tried.low, tried.high)
        axes.plot(values, [trial.valid_accuracy for trial in trials], "o", color="#06c", markersize=3, alpha=0.6)
        axes.set_title(name)
        axes.grid(alpha=0.3)
    for axes in list(grid.flat)[len(space.settings) :]:
        axes.set_visible(False)
    return _svg(figure, "accuracy by setting")
