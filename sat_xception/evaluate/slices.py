"""Figures per slice: an overall figure may hide a region or a setting where a model fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sat_xception.evaluate.bootstrap import Ratio, share_intervals
from sat_xception.evaluate.figures import Interval, SliceIntervals, SliceMetrics
from sat_xception.log import get_logger

__all__ = ["slice_table"]

_log = get_logger(__name__)
# Maximum number of values per slice, the most frequent ones first. A column with more is an identifier, not a slice.
_MAX_VALUES = 200

Booleans = npt.NDArray[np.bool_]


def slice_table(
    slices: Mapping[str, Sequence[str]],
    right: Booleans,
    blocks: npt.NDArray[np.int64],
    positive: tuple[Booleans, Booleans] | None,
) -> tuple[SliceMetrics, ...]:
    """Return the figures of each value of each slice, by number of tiles; values beyond the first 200 are merged.

    Args:
        slices: Value of each tile by slice; "" if unknown.
        right: Whether each tile is classified correctly, `bool [n]`.
        blocks: Number of each tile's block, `int64 [n]`, from 0 on.
        positive: Whether a tile is of the positive class, and whether it is predicted positive, each `bool [n]`; None
            without a positive class.
    """
    parts: list[tuple[str, str, Booleans]] = []
    for name, values in slices.items():
        found = Counter(values)
        if len(found) > _MAX_VALUES:
            _log.warning(
                "slices    %s has %s values; the %d with most tiles are listed, the others as one",
                name,
                len(found),
                _MAX_VALUES,
            )
        column = np.asarray(values, dtype=str)
        ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
        listed, others = ordered[:_MAX_VALUES], ordered[_MAX_VALUES:]
        parts += [(name, value, column == value) for value, _ in listed]
        if others:
            inside = np.isin(column, [value for value, _ in others])
            parts.append((name, f"one of {len(others):,} other values", inside))
    ratios = [_ratios(inside, right, positive) for _, _, inside in parts]
    bounds = iter(share_intervals(blocks, [each for own in ratios for each in own]) if parts else [])
    return tuple(
        _measure(name, value, own, [next(bounds) for _ in own])
        for (name, value, _), own in zip(parts, ratios, strict=True)
    )


def _ratios(inside: Booleans, right: Booleans, positive: tuple[Booleans, Booleans] | None) -> list[Ratio]:
    """Return accuracy and, with a positive class, recall and precision of the tiles `inside`."""
    accuracy = (inside & right, inside)
    if not positive:
        return [accuracy]
    truth, taken = inside & positive[0], inside & positive[1]
    return [accuracy, (truth & taken, truth), (truth & taken, taken)]


def _measure(name: str, value: str, ratios: list[Ratio], bounds: list[Interval | None]) -> SliceMetrics:
    (right, inside), *of_positive = ratios
    count = int(inside.sum())
    accuracy = int(right.sum()) / count
    if not of_positive:
        intervals = SliceIntervals(accuracy=bounds[0])
        return SliceMetrics(slice=name, value=value, count=count, accuracy=accuracy, intervals=intervals)
    recall, precision = (int(above.sum()) / int(below.sum()) if below.any() else None for above, below in of_positive)
    return SliceMetrics(
        slice=name,
        value=value,
        count=count,
        accuracy=accuracy,
        intervals=SliceIntervals(accuracy=bounds[0], recall=bounds[1], precision=bounds[2]),
        positives=int(of_positive[0][1].sum()),
        recall=recall,
        precision=precision,
    )
