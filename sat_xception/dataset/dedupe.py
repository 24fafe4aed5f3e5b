"""Find copies (same bytes) and near-duplicates (same picture), so that no tile is counted twice or is in two splits.

The rules for a group of such tiles:

- one label, one split or none: the first by id is kept;
- one label, several splits: the tile in test is kept, else the one in valid, so the evaluation data neither shrinks nor
  leaks into training;
- several labels: all of them are left out, since it isn't known which label is right.

Near-duplicates are compared in pairs, not as chains: a tile is left out if it is a near-duplicate of one that is kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["KEEP_FIRST", "MOST_BITS", "FineHashes", "find_duplicates", "find_near_duplicates", "near_pairs"]

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.uint32]

# Order of preference of splits when near-duplicates are dropped.
KEEP_FIRST = {"test": 0, "valid": 1, "train": 2, "": 3}
# Hashes that differ in more bits may have no band in common, even up to one bit; see `near_pairs`.
MOST_BITS = 9
_BAND_BITS = 13
_BANDS = range(0, 64, _BAND_BITS)
# Number of pairs compared at a time, by perceptual hash and by fine hash.
_CHUNK, _FINE_CHUNK = 1 << 17, 1 << 8
# Minimum agreement of the detail of near-duplicates, from -1 to 1. Different pictures of a single edge agree up to
# 0.12, real tiles with a copy cropped by 4 pixels 0.26 and more (2026-11).
_AGREEMENT = 0.15
# With little detail, more of it must agree: this, minus the slope times the fraction of pixels with detail.
_FEW_AGREEMENT, _FEW_SLOPE = 0.8, 1.5
# Minimum number of pixels with detail for a comparison.
_MIN_DETAILS = 20
# Maximum difference of brightness, and of contrast relative to brightness, in logarithms.
_GAIN, _CONTRAST = 0.3, 0.12


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
    """Return the tiles to leave out because another has the same bytes, with the reason.

    Args:
        tiles: Readable tiles, in any order.

    Returns:
        Reason by tile id, without the tiles that are kept.
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


class FineHashes:
    """Fine hashes of tiles, as arrays; see `images.fine_hash`."""

    def __init__(self, places: Places, hashes: list[bytes]) -> None:
        """Take the hashes of the tiles at ascending indexes."""
        self._places = places
        size = (len(hashes[0]) - 8) // 2 if hashes else 0
        content = np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), 2 * size + 8)
        words = -(-size // 8)
        planes = np.zeros((len(hashes), 2, words * 8), np.uint8)
        planes[:, :, :size] = content[:, : 2 * size].reshape(len(hashes), 2, size)
        self._planes = planes.view(np.uint64)
        self._bits = size * 8
        light = np.ascontiguousarray(content[:, 2 * size :]).view("<f4").astype(np.float64)
        logarithms = np.log(np.maximum(light, 1.0))
        self._mean, self._contrast = logarithms[:, 0], logarithms[:, 1] - logarithms[:, 0]

    def find_same(self, place: int, others: Places) -> int | None:
        """Return the first of `others` that is a near-duplicate of the tile at index `place`, or None."""
        one = int(np.searchsorted(self._places, place))
        for first in range(0, len(others), _FINE_CHUNK):
            some = others[first : first + _FINE_CHUNK]
            alike = self._are_same(one, np.searchsorted(self._places, some))
            if alike.any():
                return int(some[np.argmax(alike)])
        return None

    def _are_same(self, one: int, others: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        lighter, darker = self._planes[one]
        planes = self._planes[others]
        equal = _count(planes[:, 0] & lighter) + _count(planes[:, 1] & darker)
        opposite = _count(planes[:, 0] & darker) + _count(planes[:, 1] & lighter)
        either = _count(planes[:, 0] | planes[:, 1] | lighter | darker)
        agreement = (equal - opposite) / np.maximum(either, 1)
        needed = np.maximum(_AGREEMENT, _FEW_AGREEMENT - _FEW_SLOPE * either / self._bits)
        light = np.abs(self._mean[others] - self._mean[one]) < _GAIN
        light &= np.abs(self._contrast[others] - self._contrast[one]) < _CONTRAST
        result: npt.NDArray[np.bool_] = light & ((agreement >= needed) | (either < _MIN_DETAILS))
        return result


def _count(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    count: npt.NDArray[np.int64] = np.bitwise_count(words).sum(axis=1, dtype=np.int64)
    return count


def find_near_duplicates(
    hashes: Hashes, labels: Places, bits: int, fine: Callable[[Places], FineHashes]
) -> dict[int, tuple[int, bool]]:
    """Return the tiles to leave out because they are near-duplicates of others.

    Args:
        hashes: Perceptual hash of each tile, `uint64 [n]`; of near-duplicates, the first is kept.
        labels: Label of each tile as a number, `uint32 [n]`.
        bits: Maximum number of differing bits of near-duplicates' hashes, at most `MOST_BITS`.
        fine: Returns the fine hashes of tiles by index, which are compared if the perceptual hashes are this close.

    Returns:
        By index of a tile that is left out: index of its near-duplicate, and whether their labels differ.
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
    places = sorted((place, node) for node, found in members.items() for place in found.tolist())
    compared = fine(np.array([place for place, _ in places], dtype=np.uint32))
    alike = {node: np.sort(np.concatenate([members[each] for each in nodes])) for node, nodes in near.items()}
    left_out: dict[int, tuple[int, bool]] = {}
    stays = np.ones(len(hashes), dtype=bool)
    for place, node in places:
        other_label = alike[node][labels[alike[node]] != labels[place]]
        if (found := compared.find_same(place, other_label)) is not None:
            left_out[place] = (found, True)
            stays[place] = False
    for place, node in places:
        earlier = alike[node][(alike[node] < place) & stays[alike[node]]]
        if stays[place] and (found := compared.find_same(place, earlier)) is not None:
            left_out[place] = (found, False)
            stays[place] = False
    return left_out


def near_pairs(hashes: Hashes, bits: int) -> Places:
    """Return the indexes of all pairs of hashes that differ in at most `bits` bits, `uint32 [n, 2]`, sorted.

    Memory doesn't grow with the number of compared pairs.

    Args:
        hashes: Distinct hashes, `uint64 [m]`.
        bits: Maximum number of differing bits, at most `MOST_BITS`.
    """
    found = [np.empty((0, 2), dtype=np.uint32)]
    # Two hashes that differ in at most 4 bits share one of five bands; in at most 9, they share one up to a single bit.
    differences = [0] if bits < len(_BANDS) else [0, *(1 << bit for bit in range(_BAND_BITS))]
    for shift in _BANDS:
        band = (hashes >> np.uint64(shift)).astype(np.uint16) & np.uint16((1 << _BAND_BITS) - 1)
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
    """Yield the pairs of each hash with its candidates, `order[start : start + counts]`, in chunks."""
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
