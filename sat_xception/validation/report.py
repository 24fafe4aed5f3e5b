"""The validation page: counts, anomalies, distances between splits, and features side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sat_xception.examples.index import ExamplesIndex
from sat_xception.reports.page import render_page
from sat_xception.validation.anomalies import how_many, place_of
from sat_xception.validation.findings import Anomaly, FeatureStatistics, Findings, count_anomalies

__all__ = ["Bar", "bars", "validation_page"]

# Limits that keep the page below 1 MB with any number of classes, values and anomalies.
_MAX_CLASSES = 100
_MAX_ANOMALIES = 100
_MAX_FEATURES = 60
_MAX_SLICES = 60
_MAX_VALUES = 6
_LONGEST_TEXT = 50
_LONGEST_DESCRIPTION = 400
_LONGEST_SCHEMA = 100_000

_WIDTH, _HEIGHT = 160.0, 48.0
_THINNEST = 1.5


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram, in the units of the drawing (160 wide, 48 high, y downwards)."""

    x: float
    y: float
    width: float
    height: float


def validation_page(index: ExamplesIndex, findings: Findings, anomalies: Sequence[Anomaly]) -> str:
    """Return the page as HTML.

    Args:
        index: The document that convert wrote with the examples.
        findings: TFDV's results.
        anomalies: The anomalies of `findings`, with `accepted` set.
    """
    splits = list(findings.statistics)
    stopping = sum(not anomaly.accepted for anomaly in anomalies)
    return render_page(
        "validation",
        synthetic=index.synthetic,
        source=index.source,
        digest=index.dataset_digest,
        version=findings.version,
        splits=splits,
        verdict=_verdict(len(anomalies), stopping),
        passed=not stopping,
        totals={split: statistics.examples for split, statistics in findings.statistics.items()},
        classes=_class_rows(index, splits),
        more_classes=max(0, len(index.classes) - _MAX_CLASSES),
        anomalies=[
            _shortened(anomaly) for anomaly in sorted(anomalies, key=lambda item: item.accepted)[:_MAX_ANOMALIES]
        ],
        more_anomalies=max(0, len(anomalies) - _MAX_ANOMALIES),
        place_of=place_of,
        how_many=how_many,
        distances=findings.distances[: _MAX_FEATURES * len(splits)],
        more_distances=max(0, len(findings.distances) - _MAX_FEATURES * len(splits)),
        slice_data=[*splits, *(["baseline"] if any(row.data == "baseline" for row in findings.slices) else [])],
        slices=_slice_rows(findings),
        more_slices=max(0, len({row.slice for row in findings.slices}) - _MAX_SLICES),
        features=_feature_rows(findings, splits),
        width=_WIDTH,
        height=_HEIGHT,
        schema=findings.schema_text[:_LONGEST_SCHEMA],
        schema_is_cut=len(findings.schema_text) > _LONGEST_SCHEMA,
    )


def _verdict(total: int, stopping: int) -> str:
    if stopping:
        return f"{count_anomalies(total)}, {stopping} not accepted: the run stops here."
    return f"Passed; {count_anomalies(total)}{', all accepted' if total else ''}."


def _class_rows(index: ExamplesIndex, splits: Sequence[str]) -> list[tuple[str, list[int]]]:
    counts = {split: index.splits[split].by_class if split in index.splits else {} for split in splits}
    return [(_cut(name), [counts[split].get(name, 0) for split in splits]) for name in index.classes[:_MAX_CLASSES]]


def _shortened(anomaly: Anomaly) -> Anomaly:
    cut = {"description": _cut(anomaly.description, _LONGEST_DESCRIPTION), "slice": _cut(anomaly.slice)}
    return anomaly.model_copy(update=cut)


def _slice_rows(findings: Findings) -> list[tuple[str, dict[str, tuple[str, str, str]]]]:
    """Return examples, classes and brightness of each slice in each split that has it."""
    rows: dict[str, dict[str, tuple[str, str, str]]] = {}
    for row in findings.slices:
        shares = [f"{_cut(name)} {count / max(row.examples, 1):.0%}" for name, count in row.by_class.items()]
        luma = "" if row.mean_luma is None else f"brightness {row.mean_luma:.0f}"
        rows.setdefault(row.slice, {})[row.data] = (f"{row.examples:,}", ", ".join(shares[:_MAX_VALUES]), luma)
    return [(_cut(name), cells) for name, cells in list(rows.items())[:_MAX_SLICES]]


def _feature_rows(findings: Findings, splits: Sequence[str]) -> list[dict[str, object]]:
    """Return one row per feature; its cells, one per split, share one scale."""
    by_split = {split: {feature.name: feature for feature in findings.statistics[split].features} for split in splits}
    names = sorted(set().union(*by_split.values()))
    rows: list[dict[str, object]] = []
    for name in names[:_MAX_FEATURES]:
        features = [by_split[split].get(name) for split in splits]
        lows = [feature.minimum for feature in features if feature and feature.minimum is not None]
        highs = [feature.maximum for feature in features if feature and feature.maximum is not None]
        scale = (min(lows), max(highs)) if lows and highs else (0.0, 0.0)
        kind = next(feature.type for feature in features if feature)
        rows.append({"name": _cut(name), "type": kind, "cells": [_cell(feature, scale) for feature in features]})
    return rows


def _cell(feature: FeatureStatistics | None, scale: tuple[float, float]) -> dict[str, object] | None:
    if feature is None:
        return None
    values = [(_cut(text), count, count / max(feature.present, 1)) for text, count in feature.top_values[:_MAX_VALUES]]
    more = max(0, (feature.unique or 0) - len(values))
    span = ""
    if feature.minimum is not None and feature.mean is not None and feature.maximum is not None:
        span = f"{_number(feature.minimum)} … {_number(feature.maximum)}, mean {_number(feature.mean)}"
    return {"facts": feature, "bars": bars(feature.histogram, scale), "span": span, "values": values, "more": more}


def _number(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def bars(histogram: Sequence[tuple[float, float, float]], scale: tuple[float, float]) -> list[Bar]:
    """Return the bars of a histogram; areas are proportional to counts, and the tallest bar fills the height.

    Args:
        histogram: (low, high, count) of each bucket; a bucket of one value has low = high.
        scale: Values at the left and the right end of the axis.
    """
    left, right = scale
    span = right - left
    placed = []
    for low, high, count in histogram:
        x = (low - left) / span * _WIDTH if span > 0 else _WIDTH / 2
        width = max((high - low) / span * _WIDTH if span > 0 else 0.0, _THINNEST)
        placed.append((min(x, _WIDTH - width), width, count / width))
    tallest = max((density for _, _, density in placed), default=0.0)
    if tallest <= 0:
        return []
    rows = []
    for x, width, density in placed:
        height = density / tallest * _HEIGHT
        rows.append(Bar(round(x, 1), round(_HEIGHT - height, 1), round(width, 1), round(height, 1)))
    return rows


def _cut(text: str, longest: int = _LONGEST_TEXT) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
