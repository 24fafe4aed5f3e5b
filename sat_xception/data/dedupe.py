"""Find tiles that show the same, by their bytes or to the eye, so that none is counted twice or is in two splits.

The rules, for tiles that show the same:

- one label, one split or none: the first by id stays;
- one label, several splits: the tile in test stays, else the one in valid, so an exam never shrinks and never leaks;
- several labels: all of them are left out, since nothing says which label is right.

To the eye, tiles are compared in pairs, not as chains: a tile is left out when it looks like one that stays.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["KEEP_FIRST", "MOST_BITS", "find_duplicates", "find_near_duplicates", "near_pairs"]

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.uint32]

# The order in which tiles that show the same stay.
KEEP_FIRST = {"test": 0, "valid": 1, "train": 2, "": 3}
# Further apart, hashes may have no band in common but for one bit; see `near_pairs`.
MOST_BITS = 7
_BANDS = range(0, 64, 16)
# Pairs compared at a time.
_CHUNK = 1 << 14


class _Tile(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def sha256(self) -> str: ...


def find_duplicates(tiles: Iterable[_Tile]) -> dict[str, str]:
    """Return the tiles to leave out because another has the same bytes, by id, each with the reason.

    Args:
        tiles: Readable tiles, in any order.

    Returns:
        Reason by tile id. Tiles that stay are not in it.
    """
    by_content: dict[str, list[_Tile]] = defaultdict(list)
    for tile in tiles:
        by_content[tile.sha256].append(tile)
    reasons: dict[str, str] = {}
    for copies in by_content.values():
        if len(copies) == 1:
            continue
        copies.sort(key=lambda tile: tile.id)
        if len({tile.label for tile in copies}) > 1:
            for tile in copies:
                other = next(copy.id for copy in copies if copy.label != tile.label)
                reasons[tile.id] = f"same bytes as {other}, which is labelled differently; all copies are left out"
            continue
        kept, *rest = sorted(copies, key=lambda tile: (KEEP_FIRST[tile.split], tile.id))
        reasons.update({tile.id: f"same bytes as {kept.id}" for tile in rest})
    return reasons


def find_near_duplicates(hashes: Hashes, labels: Places, bits: int) -> dict[int, tuple[int, bool]]:
    """Return the tiles to leave out because another looks the same.

    Args:
        hashes: Perceptual hash of each tile, `uint64 [n]`; of tiles that look the same, the one in front stays.
        labels: A number for each tile's label, `uint32 [n]`.
        bits: Most bits in which the hashes of tiles that look the same differ, at most `MOST_BITS`.

    Returns:
        By the place of a tile that is left out: the place of one that it looks like, and whether the two are labelled
        differently.
    """
    by_hash = np.argsort(hashes, kind="stable").astype(np.uint32)
    in_order = hashes[by_hash]
    ends = np.append(np.flatnonzero(in_order[1:] != in_order[:-1]) + 1, len(hashes))
    unique = in_order[ends - 1] if len(hashes) else in_order
    del in_order
    near: dict[int, list[int]] = {node: [node] for node in np.flatnonzero(np.diff(ends, prepend=0) > 1).tolist()}
    for one, other in near_pairs(unique, bits).tolist():
        near.setdefault(one, [one]).append(other)
        near.setdefault(other, [other]).append(one)
    members = {node: by_hash[ends[node - 1] if node else 0 : ends[node]] for node in near}
    alike = {node: np.sort(np.concatenate([members[each] for each in nodes])) for node, nodes in near.items()}
    places = sorted((place, node) for node, found in members.items() for place in found.tolist())
    left_out: dict[int, tuple[int, bool]] = {}
    stays = np.ones(len(hashes), dtype=bool)
    for place, node in places:
        differing = alike[node][labels[alike[node]] != labels[place]]
        if len(differing):
            left_out[place] = (int(differing[0]), True)
            stays[place] = False
    for place, node in places:
        earlier = alike[node][(alike[node] < place) & stays[alike[node]]]
        if stays[place] and len(earlier):
            left_out[place] = (int(earlier[0]), False)
            stays[place] = False
    return left_out


def near_pairs(hashes: Hashes, bits: int) -> Places:
    """Return the places of all pairs of hashes that differ in at most `bits` bits, `uint32 [n, 2]`, sorted.

    Args:
        hashes: Different hashes, `uint64 [m]`.
        bits: At most `MOST_BITS`; memory doesn't grow with the number of pairs that are compared.
    """
    found = [np.empty((0, 2), dtype=np.uint32)]
    # Two hashes that differ in at most 3 bits have one of four bands in common; in at most 7, but for one bit.
    differences = [0] if bits < len(_BANDS) else [0, *(1 << bit for bit in range(16))]
    for shift in _BANDS:
        band = (hashes >> np.uint64(shift)).astype(np.uint16)
        order = np.argsort(band, kind="stable").astype(np.uint32)
        in_order = band[order]
        for first in range(0, len(hashes), _CHUNK):
            for difference in differences:
                wanted = band[first : first + _CHUNK] ^ np.uint16(difference)
                start = np.searchsorted(in_order, wanted, "left")
                counts = np.searchsorted(in_order, wanted, "right") - start
                for one, other in _in_chunks(order, start, counts):
                    one += first
                    close = np.bitwise_count(hashes[one] ^ hashes[other]) <= bits
                    close &= one < other
                    found.append(np.stack([one[close], other[close]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _in_chunks(
    order: Places, start: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
) -> Iterator[tuple[Places, Places]]:
    """Yield each hash with each of its candidates, which are `order[start : start + counts]`."""
    ends = np.cumsum(counts)
    first = 0
    while first < len(counts):
        done = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + _CHUNK, "right")))
        some = counts[first:last]
        one = np.repeat(np.arange(first, last, dtype=np.uint32), some)
        within = np.arange(len(one)) - np.repeat(ends[first:last] - some - done, some)
        yield one, order[np.repeat(start[first:last], some) + within]
        first = last
