"""Figures of each slice of the data: an overall figure may hide a region or a setting where a model fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sat_xception.evaluate.bootstrap import Ratio, share_intervals
from sat_xception.log import get_logger

__all__ = ["slice_table"]

_log = get_logger(__name__)
# Values of a slice, from the most frequent on. More are no slices but names, and nobody reads them.
_MAX_VALUES = 200

Booleans = npt.NDArray[np.bool_]


def slice_table(
    slices: Mapping[str, Sequence[str]],
    right: Booleans,
    blocks: npt.NDArray[np.int64],
    positive: tuple[Booleans, Booleans] | None,
) -> list[dict[str, Any]]:
    """Return a row for each value of each slice, those with most tiles first, and one for those beyond the first 200.

    Args:
        slices: Value of each tile by slice; "" where it isn't known.
        right: Whether a tile's most probable class is its own, `bool [n]`.
        blocks: Number of each tile's block, `int64 [n]`, from 0 on.
        positive: Whether a tile is of the positive class, and whether it is taken for it, each `bool [n]`; None
            without a positive class.

    Returns:
        `slice`, `value`, `count`, `accuracy`; with a positive class `positives`, `recall` and `precision`; `intervals`
        of these. A recall without a tile of the class, and a precision without a tile that is taken for it, is None.
    """
    rows: list[dict[str, Any]] = []
    ratios: list[Ratio] = []
    for name, values in slices.items():
        found = Counter(values)
        if len(found) > _MAX_VALUES:
            _log.warning(
                "slices    %s has %s values; the %d with most tiles are told, the others as one",
                name,
                len(found),
                _MAX_VALUES,
            )
        column = np.asarray(values, dtype=str)
        ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
        told, others = ordered[:_MAX_VALUES], ordered[_MAX_VALUES:]
        parts = [(value, count, column == value) for value, count in told]
        if others:
            inside = np.isin(column, [value for value, _ in others])
            parts.append((f"one of {len(others):,} other values", int(inside.sum()), inside))
        for value, count, inside in parts:
            row: dict[str, Any] = {"slice": name, "value": value, "count": count}
            own: dict[str, Ratio] = {"accuracy": (inside & right, inside)}
            if positive:
                truth, taken = inside & positive[0], inside & positive[1]
                row["positives"] = int(truth.sum())
                own |= {"recall": (truth & taken, truth), "precision": (truth & taken, taken)}
            for figure, (above, below) in own.items():
                row[figure] = int(above.sum()) / int(below.sum()) if below.any() else None
            rows.append({**row, "intervals": dict.fromkeys(own)})
            ratios += own.values()
    bounds = iter(share_intervals(blocks, ratios) if rows else [])
    for row in rows:
        row["intervals"] = {figure: next(bounds) for figure in row["intervals"]}
    return rows
