"""Resize tiles as `model/preprocess.py` does, byte for byte, without TensorFlow.

Along each axis, antialiased bilinear resizing is a weighted sum of a few neighbours. The weights are computed in
float32 and in TensorFlow's own order (ComputeSpansCore and GatherSpans in
tensorflow/core/kernels/image/scale_and_translate_op.cc), rows before columns: many sums lie exactly between two levels,
and another order of the same operations rounds them the other way. So does a fused multiply-add, which Numba doesn't
use unless it is asked for `fastmath`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["resized"]

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Indexes = npt.NDArray[np.int64]
_HALF, _ONE = np.float32(0.5), np.float32(1)
_DARKEST, _BRIGHTEST = np.float32(0), np.float32(255)
_CHANNELS = 3


class _Sums(NamedTuple):
    """The sums along one axis: output i is the sum over k of `weight[k, i]` times input `first[i] + k`.

    Attributes:
        first: Index of the first input of each output, `int64 [after]`.
        weight: `float32 [taps, after]`, 0 for inputs that don't belong to an output.
    """

    first: Indexes
    weight: Floats


def resized(pixels: Pixels, side: int) -> Pixels:
    """Return a tile `uint8 [h, w, 3]` as `uint8 [side, side, 3]`, with the bytes that `preprocess.resize` gives."""
    height, width, _ = pixels.shape
    if (height, width) == (side, side):
        return pixels
    out = np.empty((side, side * _CHANNELS), np.uint8)
    rows = np.ascontiguousarray(pixels).reshape(height, width * _CHANNELS)
    _resize(rows, *_sums(height, side, 1), *_sums(width, side, _CHANNELS), out)
    return out.reshape(side, side, _CHANNELS)


_INDEXES, _WEIGHTS = numba.int64[::1], numba.float32[:, ::1]
_DECODED = numba.types.Array(numba.uint8, 2, "C", readonly=True)  # Pillow's pixels can't be written


# Compiled when this module is imported, in less than a second. It isn't kept on disk: images have read-only ones.
@numba.njit([(_DECODED, _INDEXES, _WEIGHTS, _INDEXES, _WEIGHTS, numba.uint8[:, ::1])], nogil=True)
def _resize(
    rows: Pixels, first_row: Indexes, row_weight: Floats, first_value: Indexes, weight: Floats, out: Pixels
) -> None:
    """Resize rows of values `uint8 [h, w * 3]` into `uint8 [side, side * 3]`."""
    row = np.empty(rows.shape[1], np.float32)
    sums = np.empty(out.shape[1], np.float32)
    for y in range(len(out)):
        row[:] = 0
        for tap in range(len(row_weight)):
            factor, values = row_weight[tap, y], rows[first_row[y] + tap]
            for x in range(len(row)):
                row[x] += factor * np.float32(values[x])
        sums[:] = 0
        for tap in range(len(weight)):
            factors, shift = weight[tap], tap * _CHANNELS
            for x in range(len(sums)):
                sums[x] += factors[x] * row[first_value[x] + shift]
        below = out[y]
        for x in range(len(sums)):
            below[x] = np.uint8(min(max(np.rint(sums[x]), _DARKEST), _BRIGHTEST))


@lru_cache(64)
def _sums(before: int, after: int, channels: int) -> _Sums:
    """Return the sums that resize an axis of pixels, of values that are side by side for each channel."""
    step = _ONE / (np.float32(after) / np.float32(before))
    reach = max(step, _ONE)
    middle = (np.arange(after, dtype=np.float32) + _HALF) * step
    first = np.clip(np.ceil(middle - reach - _HALF), 0, before - 1).astype(np.int64)
    last = np.clip(np.floor(middle + reach - _HALF), 0, before - 1).astype(np.int64)
    # Every output reads the same number of inputs: at the end of the axis the first ones count nothing.
    taps = int((last - first).max()) + 1
    start = np.minimum(first, before - taps)
    index = start[:, None] + np.arange(taps)
    distance = np.abs(((index.astype(np.float32) + _HALF) - middle[:, None]) * (_ONE / reach))
    inside = (distance < 1) & (index >= first[:, None]) & (index <= last[:, None])
    weight = np.where(inside, _ONE - distance, np.float32(0)).astype(np.float32)
    total = np.zeros(after, np.float32)
    for tap in weight.T:
        total += tap
    weight *= (_ONE / total)[:, None]
    values = start[:, None] * channels + np.arange(channels)
    return _Sums(values.ravel(), np.ascontiguousarray(np.repeat(weight, channels, axis=0).T))
