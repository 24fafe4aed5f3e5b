"""Compare two models on the same tiles: difference in accuracy with an interval, and McNemar's exact test."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sat_xception.errors import DataError
from sat_xception.evaluate.bootstrap import interval, number_blocks, ratio_samples
from sat_xception.evaluate.figures import Comparison
from sat_xception.evaluate.predictions import Outcomes

__all__ = ["compare", "compare_right", "mcnemar_p"]


def compare(first: Outcomes, second: Outcomes) -> Comparison:
    """Return how much more accurate the first model is than the second.

    Both are resampled together (paired), so tiles that both classify alike don't widen the interval.

    Raises:
        DataError: The outcomes are of different tiles.
    """
    if first.ids != second.ids:
        raise DataError(
            f"two evaluations are of different tiles ({len(first.ids):,} and {len(second.ids):,}); evaluate both "
            "models on the same examples"
        )
    return compare_right(first.right, second.right, number_blocks(first.blocks))


def compare_right(
    first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_], blocks: npt.NDArray[np.int64]
) -> Comparison:
    """Compare two models by their per-tile results; see `compare`.

    Args:
        first: Whether the first model is right on each tile, `bool [n]`.
        second: Whether the second model is right on each tile, `bool [n]`.
        blocks: Number of each tile's block, `int64 [n]`, from 0 on.
    """
    difference = first.astype(np.float64) - second
    count = int(blocks.max()) + 1
    samples = ratio_samples(blocks, [(difference, np.ones(len(difference)))])
    first_only, second_only = int((difference > 0).sum()), int((difference < 0).sum())
    gained = (first_only - second_only) / len(difference)
    return Comparison(
        tiles=len(difference),
        blocks=count,
        difference=gained,
        interval=interval(samples[:, 0], count, gained),
        first_only=first_only,
        second_only=second_only,
        p=mcnemar_p(first_only, second_only),
    )


def mcnemar_p(first_only: int, second_only: int) -> float:
    """Return the p-value of McNemar's exact test that two models are equally accurate.

    McNemar 1947: twice the binomial tail with p = 1/2, at most 1. It treats tiles as independent and ignores blocks.
    """
    differ = first_only + second_only
    ways, tail = 1, 0
    for index in range(min(first_only, second_only) + 1):
        tail += ways
        ways = ways * (differ - index) // (index + 1)
    # Integers until the division: large powers of two overflow a float.
    return min(1.0, (2 * tail * 10**15 >> differ) / 10**15)
