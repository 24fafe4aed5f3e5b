"""The order in which tiles are planned: that of their quadkeys, so that neighbours are near each other in it.

A tile's key is its index in this order among all tiles of its zoom: the bits of x and y in turn, x lowest (Z-order;
G. M. Morton, "A computer oriented geodetic data base", IBM 1966). The four children of a tile have the keys 4k to
4k + 3, so a tile at any zoom is a run of keys at each deeper one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["Keys", "Runs", "are_in", "keys_of", "merged", "runs_of", "tile_ids", "tiles_of", "united", "without"]

Keys = npt.NDArray[np.int64]
# The first keys of runs and their lengths, some at a time, ascending.
Runs = Iterator[tuple[Keys, Keys]]
# Masks that spread 32 bits to every other bit of 64, by halves (H. S. Warren, "Hacker's Delight", 7-2).
_SPREAD = (
    (16, 0x0000FFFF0000FFFF),
    (8, 0x00FF00FF00FF00FF),
    (4, 0x0F0F0F0F0F0F0F0F),
    (2, 0x3333333333333333),
    (1, 0x5555555555555555),
)


def keys_of(x: npt.ArrayLike, y: npt.ArrayLike) -> Keys:
    """Return the keys `int64 [n]` of tiles of one zoom, at most 30."""
    return _spread(np.asarray(x, np.int64)) | _spread(np.asarray(y, np.int64)) << 1


def tiles_of(keys: Keys) -> tuple[Keys, Keys]:
    """Return x and y `int64 [n]` of keys."""
    return _gather(keys), _gather(keys >> 1)


def runs_of(keys: Keys) -> tuple[Keys, Keys]:
    """Return the first keys and the lengths of the runs of neighbours in sorted keys that are all different."""
    begins = np.flatnonzero(np.diff(keys, prepend=keys[:1] - 2) != 1)
    return keys[begins], np.diff(begins, append=len(keys))


def merged(first: Keys, count: Keys) -> tuple[Keys, Keys]:
    """Return sorted runs, with those that touch made one."""
    begins = np.flatnonzero(np.concatenate([[True], first[1:] != first[:-1] + count[:-1]])[: len(first)])
    return first[begins], np.add.reduceat(count, begins) if len(count) else count


def without(runs: Runs, first: Keys, count: Keys) -> Runs:
    """Yield runs without the keys of others; both ascend and none overlaps another of its own kind."""
    ends = first + count
    for begin, length in runs:
        low, high = begin[0], begin[-1] + length[-1]
        taken = slice(np.searchsorted(ends, low, side="right"), np.searchsorted(first, high))
        edges = np.concatenate([begin, begin + length, first[taken], ends[taken]])
        # A key is wanted where exactly one run of ours and none of theirs has begun and not ended.
        steps = np.repeat([1, -1, 2, -2], [len(begin), len(begin), *[len(first[taken])] * 2])
        places, which = np.unique(edges, return_inverse=True)
        state = np.cumsum(np.bincount(which, steps, len(places)).astype(np.int64))
        kept = np.flatnonzero(state[:-1] == 1)
        if len(kept):
            yield merged(places[kept], places[kept + 1] - places[kept])


def united(first: Keys, count: Keys) -> tuple[Keys, Keys]:
    """Return sorted runs that may overlap as runs that don't."""
    if not len(first):
        return first, count
    reach = np.maximum.accumulate(first + count)
    begins = np.flatnonzero(np.concatenate([[True], first[1:] > reach[:-1]]))
    return first[begins], reach[np.append(begins[1:] - 1, len(first) - 1)] - first[begins]


def are_in(keys: Keys, first: Keys, count: Keys) -> npt.NDArray[np.bool_]:
    """Return whether each key is in one of the runs, which ascend and don't overlap."""
    run = np.searchsorted(first, keys, side="right") - 1
    ends = np.append(first + count, 0)  # the last is for keys before all runs
    return keys < ends[run]


def tile_ids(keys: Keys, zoom: int) -> pa.Array:
    """Return the ids `z/x/y` of keys, as strings."""
    x, y = tiles_of(keys)
    return pc.binary_join_element_wise(str(zoom), pa.array(x).cast(pa.string()), pa.array(y).cast(pa.string()), "/")


def _spread(numbers: Keys) -> Keys:
    for shift, mask in _SPREAD:
        numbers = (numbers | numbers << shift) & mask
    return numbers


def _gather(numbers: Keys) -> Keys:
    numbers = numbers & 0x5555555555555555
    for (shift, _), mask in zip(
        _SPREAD[::-1], (*(mask for _, mask in _SPREAD[-2::-1]), 0x00000000FFFFFFFF), strict=True
    ):
        numbers = (numbers | numbers >> shift) & mask
    return numbers
