"""Check that a model's outputs are probabilities, which a damaged model or another server may not return."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["find_flaws"]

# A few fixed reasons, so that they can be counted over millions of tiles.
_FLAWS = ("not a number", "infinite", "below 0", "above 1")


def find_flaws(probabilities: npt.NDArray[np.float32]) -> list[str]:
    """Return for each row why it isn't a row of probabilities; "" if it is.

    Args:
        probabilities: `float32 [n, k]`; every number should be from 0 to 1.
    """
    with np.errstate(invalid="ignore"):
        signs = (np.isnan(probabilities), np.isinf(probabilities), probabilities < 0, probabilities > 1)
    wrong = np.stack([sign.any(axis=1) for sign in signs])
    reasons = [f"the model answers with a probability that is {flaw}, expected 0 to 1" for flaw in _FLAWS]
    firsts, flawed = wrong.argmax(axis=0).tolist(), wrong.sum(axis=0).tolist()
    return [reasons[first] if number else "" for first, number in zip(firsts, flawed, strict=True)]
