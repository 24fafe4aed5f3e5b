"""95 % confidence intervals by a block bootstrap.

Neighbouring tiles look alike, so they aren't independent, and resampling single tiles gives intervals that are too
narrow. Whole blocks are drawn with replacement instead, as many as there are (Efron and Tibshirani 1993, "An
introduction to the bootstrap", ch. 8; percentile interval). The same blocks and seed give the same samples for every
figure and model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sat_xception.evaluate.figures import Interval

__all__ = [
    "RESAMPLES",
    "Ratio",
    "area_intervals",
    "interval",
    "number_blocks",
    "ratio_samples",
    "share_interval",
    "share_intervals",
]

RESAMPLES = 1000
_SEED = 0
# Number of table cells in memory at once: 32 MB.
_MAX_CELLS = 4_000_000

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Ratio = tuple[npt.NDArray[Any], npt.NDArray[Any]]


def number_blocks(blocks: Sequence[str]) -> Integers:
    """Return blocks as numbers from 0 on, `int64 [n]`, in the order of their names."""
    numbers: Integers = np.unique(np.asarray(blocks, dtype=str), return_inverse=True)[1].astype(np.int64)
    return numbers


def interval(samples: Floats, blocks: int, figure: float) -> Interval | None:
    """Return the 95 % interval of a figure.

    The interval is extended to contain the figure itself if necessary: with few tiles, the percentiles of a mean over
    classes or of an area may slightly miss it, because samples lack classes and scores that the split has.

    Args:
        samples: The figure in each sample, `float64 [RESAMPLES]`; NaN if it is undefined in a sample.
        blocks: Number of blocks with tiles that the figure counts.
        figure: The same figure of the whole split.

    Returns:
        Lower and upper bound; None with one block, or if the figure is undefined in most samples.
    """
    known = samples[np.isfinite(samples)]
    if blocks < 2 or len(known) < RESAMPLES / 2:
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return Interval(min(float(low), figure), max(float(high), figure))


def share_interval(samples: Floats, blocks: int, figure: float) -> Interval | None:
    """Return the 95 % interval of a share, or of a mean of shares; see `interval`.

    If all tiles are right, or none, all samples are equal and the bootstrap gives an interval of width 0. The interval
    is then that of Clopper and Pearson 1934 with the blocks as trials.
    """
    bounds = interval(samples, blocks, figure)
    if bounds and bounds.low == bounds.high and bounds.low in (0, 1):
        reach = 1 - 0.025 ** (1 / blocks)
        return Interval(1 - reach, 1.0) if bounds.low else Interval(0.0, reach)
    return bounds


def share_intervals(blocks: Integers, shares: Sequence[Ratio]) -> list[Interval | None]:
    """Return the 95 % interval of each of several shares, such as accuracy, recall and F1; see `share_interval`.

    Args:
        blocks: Number of each tile's block, `int64 [n]`, from 0 on.
        shares: Per-tile numerators and denominators of each share, each `[n]`.
    """
    samples = ratio_samples(blocks, shares)
    found = []
    for (above, below), column in zip(shares, samples.T, strict=True):
        count = len(np.unique(blocks[np.asarray(below) != 0]))
        figure = float(np.sum(above, dtype=np.float64) / np.sum(below, dtype=np.float64)) if count else 0.0
        found.append(share_interval(column, count, figure))
    return found


def ratio_samples(blocks: Integers, ratios: Sequence[Ratio]) -> Floats:
    """Return samples of figures that are a sum divided by a sum, such as accuracy, recall and F1.

    Args:
        blocks: Number of each tile's block, `int64 [n]`, from 0 on.
        ratios: Per-tile numerators and denominators of each figure, each `[n]`.

    Returns:
        `float64 [RESAMPLES, figures]`; NaN if a denominator is 0.
    """
    count = int(blocks.max()) + 1
    above, below = (
        np.stack([np.bincount(blocks, ratio[part].astype(np.float64), count) for ratio in ratios], axis=1)
        for part in (0, 1)
    )
    samples = []
    for drawn in _draw(count, width=count):
        weights = drawn.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            samples.append((weights @ above) / (weights @ below))
    return np.concatenate(samples)


def area_intervals(
    blocks: Integers, truth: npt.NDArray[np.bool_], score: npt.NDArray[np.float32], areas: Mapping[str, float]
) -> dict[str, Interval | None]:
    """Return the intervals of the areas under the ROC and the precision-recall curve.

    Args:
        blocks: Number of each tile's block, `int64 [n]`, from 0 on.
        truth: Whether a tile is of the class, `bool [n]`.
        score: Probability of the class, `float32 [n]`.
        areas: `roc_auc` and `pr_auc` of the whole split.
    """
    count = int(blocks.max()) + 1
    order = np.argsort(-score, kind="stable")
    # Equal scores are one point of a curve.
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    right, place = truth[order], blocks[order]
    samples = []
    for drawn in _draw(count, width=max(count, len(score))):
        weights = drawn[:, place].astype(np.float64)
        found = np.cumsum(weights * right, axis=1)[:, ends]
        taken = np.cumsum(weights, axis=1)[:, ends]
        with np.errstate(invalid="ignore", divide="ignore"):
            true_rate = found / found[:, -1:]
            false_rate = (taken - found) / (taken - found)[:, -1:]
            precision = np.where(taken > 0, found / taken, 0.0)
        start = np.zeros((len(found), 1))
        steps = np.diff(true_rate, axis=1, prepend=start)
        widths = np.diff(false_rate, axis=1, prepend=start)
        roc = (widths * (true_rate - steps / 2)).sum(axis=1)
        samples.append(np.stack([roc, (steps * precision).sum(axis=1)], axis=1))
    columns = zip(("roc_auc", "pr_auc"), np.concatenate(samples).T, strict=True)
    return {name: interval(column, count, areas[name]) for name, column in columns}


def _draw(count: int, width: int) -> Iterator[Integers]:
    """Yield how often each block is drawn, `int64 [samples, count]`, in chunks of samples.

    Args:
        count: Number of blocks.
        width: Number of cells per sample that the caller keeps in memory.
    """
    random = np.random.default_rng(_SEED)
    rows = max(1, min(RESAMPLES, _MAX_CELLS // width))
    for begin in range(0, RESAMPLES, rows):
        size = min(rows, RESAMPLES - begin)
        drawn = random.integers(0, count, (size, count)) + count * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
