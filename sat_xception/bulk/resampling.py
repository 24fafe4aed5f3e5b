"""What `model/preprocess.py` does to a tile of another size than the model's, without TensorFlow, to the same bytes.

Along each axis, antialiased bilinear resizing is a sum of a few neighbours, each times a weight. The weights are worked
out in 32-bit numbers and in TensorFlow's own order (ComputeSpansCore and GatherSpans in
tensorflow/core/kernels/image/scale_and_translate_op.cc), rows before columns: many sums end exactly between two levels,
and another order of the same operations rounds them the other way.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = ["resized"]

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
_HALF, _ONE = np.float32(0.5), np.float32(1)


def resized(pixels: Pixels, side: int) -> Pixels:
    """Return a tile `uint8 [h, w, 3]` as `uint8 [side, side, 3]`, with the bytes that `preprocess.resize` gives."""
    height, width, channels = pixels.shape
    if (height, width) == (side, side):
        return pixels
    rows = _weighted(pixels.reshape(height, width * channels).astype(np.float32), side)
    turned = np.ascontiguousarray(rows.reshape(side, width, channels).transpose(1, 0, 2))
    columns = _weighted(turned.reshape(width, side * channels), side).reshape(side, side, channels)
    np.rint(columns, out=columns)
    np.clip(columns, 0, 255, out=columns)
    return np.ascontiguousarray(columns.astype(np.uint8).transpose(1, 0, 2))


def _weighted(lines: Floats, after: int) -> Floats:
    """Return `float32 [after, n]`: weighted sums of neighbouring lines of `float32 [before, n]`."""
    (index, weight), *others = _taps(len(lines), after)
    total: Floats = lines[index] * weight
    for index, weight in others:
        some = lines[index]
        some *= weight
        total += some
    return total


@lru_cache(64)
def _taps(before: int, after: int) -> tuple[tuple[npt.NDArray[np.int64], Floats], ...]:
    """Return which line each sum adds first, second, …, `int64 [after]`, and its weight, `float32 [after, 1]`."""
    step = _ONE / (np.float32(after) / np.float32(before))
    reach = max(step, _ONE)
    middle = (np.arange(after, dtype=np.float32) + _HALF) * step
    first = np.clip(np.ceil(middle - reach - _HALF), 0, before - 1).astype(np.int64)
    last = np.clip(np.floor(middle + reach - _HALF), 0, before - 1).astype(np.int64)
    taps = []
    total = np.zeros(after, np.float32)
    for number in range(int((last - first).max()) + 1):
        index = np.minimum(first + number, last)
        distance = np.abs(((index.astype(np.float32) + _HALF) - middle) * (_ONE / reach))
        weight = np.where((distance < 1) & (first + number <= last), _ONE - distance, np.float32(0)).astype(np.float32)
        total += weight
        taps.append((index, weight))
    return tuple((index, (weight * (_ONE / total))[:, None]) for index, weight in taps)
