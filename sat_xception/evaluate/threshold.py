"""Choose the decision threshold of the positive class on the validation split, for a given objective."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sat_xception.evaluate.figures import Threshold

__all__ = ["DEFAULT_THRESHOLD", "choose_threshold"]

# With two classes, the more probable one.
DEFAULT_THRESHOLD = 0.5


def choose_threshold(truth: npt.NDArray[np.bool_], score: npt.NDArray[np.float32], goal: str) -> Threshold:
    """Return the threshold that is best for an objective.

    On a tie the highest is taken, which proposes the fewest tiles. It lies halfway between two observed scores, so that
    rounding on other hardware moves no tile across it.

    Args:
        truth: Whether a tile is of the class, `bool [n]`.
        score: Probability of the class, `float32 [n]`.
        goal: `f1`, the largest F1; `recall-at-precision:P`, the largest recall with a precision of at least P; or
            `precision-at-recall:R`, the largest precision with a recall of at least R.

    Returns:
        The threshold. If no threshold reaches P or R, it is the one that comes closest; without a tile of the class it
        is 0.5.
    """
    if not truth.any():
        return Threshold(goal=goal, value=DEFAULT_THRESHOLD, reached=False)
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    found = np.cumsum(truth[order])[ends]
    taken = ends + 1
    precision, recall = found / taken, found / truth.sum()
    kind, _, asked = goal.partition(":")
    reached = True
    if kind == "f1":
        merit = 2 * found / (taken + truth.sum())
    else:
        kept, wanted = (precision, recall) if kind == "recall-at-precision" else (recall, precision)
        reached = bool((kept >= float(asked)).any())
        # The best of those that reach the minimum; on a tie the one that is furthest above it.
        merit = np.where(kept >= float(asked), 2 * wanted + 1e-6 * kept, -1) if reached else kept
    best = int(merit.argmax())
    levels = np.append(score[order][ends].astype(np.float64), 0.0)
    return Threshold(goal=goal, value=float((levels[best] + levels[best + 1]) / 2), reached=reached)
