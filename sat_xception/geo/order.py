"""The order in which tiles are planned: that of their quadkeys, so that neighbours are near each other in it.

A tile's key is its place in this order among all tiles of its zoom: the bits of x and y in turn, x lowest (Z-order;
G. M. Morton, "A computer oriented geodetic data base", IBM 1966). The four children of a tile have the keys 4k to
4k + 3, so a tile at any zoom is a run of keys at each deeper one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["Keys", "keys_of", "merged", "runs_of", "tile_ids", "tiles_of"]

Keys = npt.NDArray[np.int64]
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
