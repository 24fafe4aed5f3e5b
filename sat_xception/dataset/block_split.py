"""Assign blocks of neighbouring tiles to train, validation and test, with the right share of every class and slice.

Neighbours look alike, so all tiles of a block get the same split. It is derived from a hash of the block's coordinates
and the seed, so it doesn't change when blocks are added. With few blocks, chance alone may leave a split without a
class or a slice; then blocks are moved, each time the one that brings all shares closest to the configured fractions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sat_xception.dataset.split import SPLITS, split_of, stable_fraction
from sat_xception.log import get_logger

__all__ = ["BlockCount", "split_blocks"]

_log = get_logger(__name__)
# Tolerated relative deviation of a stratum's share of a split. With 1,000 blocks and a share of 0.15, the hash exceeds
# it with 1 of 100 seeds, so in large datasets blocks are rarely moved.
_TOLERANCE = 0.2
# Minimum size of a stratum that is evened out, and maximum number of strata, the largest first.
_MIN_EXPECTED = 2.0
_MAX_STRATA = 100
# Cost of a class that is missing from a split; it outweighs all deviations of shares.
_LACKING_COST = 1e9
# Strata that lack more than this part of their share are logged, up to a number.
_SHORTAGE = 0.5
_MAX_NAMED = 3


@dataclass(frozen=True)
class BlockCount:
    """Number of tiles in a block with the same split, class and slices.

    Attributes:
        block: Zoom, x and y of the block.
        split: Given split of the tiles; "" if none is given.
        label: Class name.
        slices: Value by slice column.
        tiles: Number of tiles.
    """

    block: tuple[int, int, int]
    split: str
    label: str
    slices: Mapping[str, str]
    tiles: int


def split_blocks(
    counts: Iterable[BlockCount], fractions: tuple[float, float, float], seed: int
) -> dict[tuple[int, int, int], str]:
    """Return the split of each block.

    Args:
        counts: Content of the blocks, in any order. A block with a given split keeps it.
        fractions: Fractions of train, valid and test. They are met for each class, and for each class in each slice, as
            well as blocks allow.
        seed: The same seed and blocks give the same splits.
    """
    given: dict[tuple[int, int, int], str] = {}
    by_stratum: dict[tuple[str, ...], dict[tuple[int, int, int], int]] = {}
    for count in counts:
        given[count.block] = given.get(count.block) or count.split
        for stratum in ((count.label,), *((count.label, name, value) for name, value in count.slices.items())):
            in_block = by_stratum.setdefault(stratum, {})
            in_block[count.block] = in_block.get(count.block, 0) + count.tiles
    positions = {block: stable_fraction("block:{}/{}/{}".format(*block), seed) for block in given}
    # In the order of the hash, which breaks ties.
    blocks = sorted(given, key=lambda block: (positions[block], block))
    splits = np.array([SPLITS.index(given[block] or split_of(positions[block], fractions)) for block in blocks])
    strata = sorted(by_stratum, key=lambda stratum: (len(stratum), -sum(by_stratum[stratum].values()), stratum))
    if len(strata) > _MAX_STRATA:
        _log.warning(
            "splits    %d of %s classes and slices are evened out, classes first and those with most tiles; the others "
            "fall as their blocks do, such as %s",
            _MAX_STRATA,
            f"{len(strata):,}",
            " ".join(strata[_MAX_STRATA]),
        )
        strata = strata[:_MAX_STRATA]
    tiles = np.array([[by_stratum[stratum].get(block, 0) for stratum in strata] for block in blocks], dtype=np.float64)
    fixed = np.array([bool(given[block]) for block in blocks], dtype=bool)
    if len(blocks):
        _even_out(tiles, splits, fixed, np.array(fractions), strata)
    return {block: SPLITS[split] for block, split in zip(blocks, splits.tolist(), strict=True)}


def _even_out(
    tiles: npt.NDArray[np.float64],
    splits: npt.NDArray[np.int64],
    fixed: npt.NDArray[np.bool_],
    fractions: npt.NDArray[np.float64],
    strata: list[tuple[str, ...]],
) -> None:
    """Move blocks, in `splits`, until every stratum has about its share of every split, or no move helps.

    Args:
        tiles: Number of tiles of each block in each stratum, `[blocks, strata]`.
        splits: Index of each block's split, `[blocks]`.
        fixed: Whether a block must keep its split, `[blocks]`.
        fractions: Fraction of each split, `[splits]`.
        strata: Names of the strata, for the log.
    """
    wanted = np.flatnonzero(fractions > 0)
    expected = np.outer(tiles.sum(axis=0), fractions)
    is_class = np.array([len(stratum) == 1 for stratum in strata])
    hopeless = np.zeros(expected.shape, dtype=bool)
    moved = 0
    while True:
        have = np.stack([tiles[splits == split].sum(axis=0) for split in range(len(fractions))], axis=1)
        uneven = _unevenness(have, expected, wanted, is_class) * ~hopeless
        stratum, split = (int(index) for index in np.unravel_index(np.argmax(uneven), uneven.shape))
        if uneven[stratum, split] <= 0:
            break
        has_some = ~fixed & (tiles[:, stratum] > 0)
        if have[stratum, split] < expected[stratum, split]:
            moves = [(np.flatnonzero(has_some & (splits != split)), split)]
        else:
            leaving = np.flatnonzero(has_some & (splits == split))
            moves = [(leaving, target) for target in wanted.tolist() if target != split]
        best = (0.0, -1, -1)
        for blocks, target in moves:
            change = _change_of_cost(tiles[blocks], have, expected, splits[blocks], target, wanted)
            change += _LACKING_COST * _change_of_lacking(
                tiles[blocks][:, is_class], have[is_class], splits[blocks], target
            )
            if len(blocks):
                best = min(best, (float(change.min()), int(blocks[np.argmin(change)]), target))
        _, block, target = best
        if block < 0:
            hopeless[stratum, split] = True
            continue
        splits[block] = target
        hopeless[:] = False
        moved += 1
    if moved:
        _log.info("splits    %s of %s blocks moved, to even out classes and slices", f"{moved:,}", f"{len(splits):,}")
    _warn_of_shortages(have, expected, hopeless, strata)


def _warn_of_shortages(
    have: npt.NDArray[np.float64],
    expected: npt.NDArray[np.float64],
    hopeless: npt.NDArray[np.bool_],
    strata: list[tuple[str, ...]],
) -> None:
    """Log the strata whose shares couldn't be evened out; each array is `[strata, splits]`."""
    short = [
        f"{' '.join(strata[stratum])} has {have[stratum, split]:,.0f} of {expected[stratum, split]:,.0f} tiles in "
        f"{SPLITS[split]}"
        for stratum, split in np.argwhere(hopeless & (have < (1 - _SHORTAGE) * expected)).tolist()
    ]
    if short:
        _log.warning(
            "splits    too few blocks to give each split its share: %s%s; a higher --block-zoom makes smaller blocks",
            ", ".join(short[:_MAX_NAMED]),
            f" and {len(short) - _MAX_NAMED} more" if len(short) > _MAX_NAMED else "",
        )


def _unevenness(
    have: npt.NDArray[np.float64],
    expected: npt.NDArray[np.float64],
    wanted: npt.NDArray[np.int64],
    is_class: npt.NDArray[np.bool_],
) -> npt.NDArray[np.float64]:
    """Return the relative deviation of each stratum in each split, `[strata, splits]`; 0 within the tolerance.

    A class that is missing from a split outweighs everything else.
    """
    uneven = np.zeros_like(expected)
    off = np.abs(1 - have[:, wanted] / np.maximum(expected[:, wanted], 1e-9))
    matters = (expected[:, wanted] >= _MIN_EXPECTED) & (off > _TOLERANCE)
    lacks = is_class[:, None] & (have[:, wanted] == 0)
    uneven[:, wanted] = np.where(lacks, _LACKING_COST, np.where(matters, off, 0.0))
    return uneven


def _change_of_cost(
    moved: npt.NDArray[np.float64],
    have: npt.NDArray[np.float64],
    expected: npt.NDArray[np.float64],
    origin: npt.NDArray[np.int64],
    target: int,
    wanted: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """Return how moving each block changes the sum over strata and splits of (have - expected)^2 / expected."""
    scale = np.maximum(expected, 1e-9)
    excess = have - expected
    from_origin = (moved**2 - 2 * moved * excess.T[origin]) / scale.T[origin]
    from_origin[~np.isin(origin, wanted)] = 0
    to_target = (moved**2 + 2 * moved * excess[:, target]) / scale[:, target]
    change: npt.NDArray[np.float64] = (from_origin + to_target).sum(axis=1)
    return change


def _change_of_lacking(
    moved: npt.NDArray[np.float64], have: npt.NDArray[np.float64], origin: npt.NDArray[np.int64], target: int
) -> npt.NDArray[np.float64]:
    """Return how moving each block changes the number of classes that are missing from splits."""
    brought = (moved > 0) & (have[:, target] == 0)
    taken = (moved > 0) & (have.T[origin] == moved)
    change: npt.NDArray[np.float64] = taken.sum(axis=1, dtype=np.float64) - brought.sum(axis=1)
    return change
