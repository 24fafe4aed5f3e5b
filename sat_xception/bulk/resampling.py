"""Resize tiles as `model/preprocess.py` does, byte for byte, without TensorFlow.

Along each axis, antialiased bilinear resizing is a weighted sum of a few neighbours: a multiplication with a sparse
matrix, which SciPy does in the order of its columns. The weights are computed in float32 and in TensorFlow's own order
(ComputeSpansCore and GatherSpans in tensorflow/core/kernels/image/scale_and_translate_op.cc), rows before columns: many
sums lie exactly between two levels, and another order of the same operations rounds them the other way. So may a SciPy
compiled with fused multiply-add, as on ARM; the check of the golden tiles shows whether that matters.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

__all__ = ["resized"]

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
_HALF, _ONE = np.float32(0.5), np.float32(1)


def resized(pixels: Pixels, side: int) -> Pixels:
    """Return a tile `uint8 [h, w, 3]` as `uint8 [side, side, 3]`, with the bytes that `preprocess.resize` gives."""
    height, width, channels = pixels.shape
    if (height, width) == (side, side):
        return pixels
    rows = _sums(height, side, 1) @ pixels.reshape(height, width * channels).astype(np.float32)
    columns: Floats = _sums(width, side, channels) @ rows.T  # [side * channels, side]
    np.rint(columns, out=columns)
    np.clip(columns, 0, 255, out=columns)
    return np.ascontiguousarray(columns.astype(np.uint8).T).reshape(side, side, channels)


@lru_cache(64)
def _sums(before: int, after: int, channels: int) -> sp.csr_array:
    """Return the weights of each sum, `float32 [after * channels, before * channels]`, channels side by side."""
    step = _ONE / (np.float32(after) / np.float32(before))
    reach = max(step, _ONE)
    middle = (np.arange(after, dtype=np.float32) + _HALF) * step
    first = np.clip(np.ceil(middle - reach - _HALF), 0, before - 1).astype(np.int64)
    last = np.clip(np.floor(middle + reach - _HALF), 0, before - 1).astype(np.int64)
    index = first[:, None] + np.arange(int((last - first).max()) + 1)
    distance = np.abs(((index.astype(np.float32) + _HALF) - middle[:, None]) * (_ONE / reach))
    inside = (distance < 1) & (index <= last[:, None])
    weight = np.where(inside, _ONE - distance, np.float32(0)).astype(np.float32)
    total = np.zeros(after, np.float32)
    for tap in weight.T:
        total += tap
    weight *= (_ONE / total)[:, None]
    row, tap = np.nonzero(inside)
    sums = sp.csr_array((weight[row, tap], (row, index[row, tap])), shape=(after, before))
    return sp.csr_array(sp.kron(sums, sp.eye_array(channels, dtype=np.float32), format="csr"))
