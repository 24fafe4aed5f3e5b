"""Prevent leakage between splits: no duplicates, no near-duplicates, and no block in more than one split."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sat_xception.dataset.dedupe import FineHashes, find_duplicates, find_near_duplicates
from sat_xception.dataset.staging import TileStaging
from sat_xception.errors import DataError
from sat_xception.log import get_logger

__all__ = ["check_blocks", "check_lookalikes", "check_places", "drop_copies", "drop_near_duplicates"]

_log = get_logger(__name__)
_LISTED = 5
# Above this fraction of near-duplicates, the log advises to look at some of them.
_MANY = 0.03
_MANY_ADVICE = (
    ". That is more than a few in a hundred: look at some of them, and lower --near-duplicate-bits or give "
    "--keep-near-duplicates if they differ"
)


class _Alike(NamedTuple):
    """A usable tile and its near-duplicate, which is kept instead, or is labelled differently."""

    tile: str
    split: str
    label: str
    like: str
    split_of_like: str
    label_of_like: str
    labels_differ: bool


def _lookalikes(bench: TileStaging, bits: int) -> Iterator[_Alike]:
    hashes = bench.hashes()

    def fine(places: npt.NDArray[np.uint32]) -> FineHashes:
        return FineHashes(places, bench.fine_hashes(hashes.tiles[places]))

    for place, (other, differ) in find_near_duplicates(hashes.hashes, hashes.labels, bits, fine).items():
        yield _Alike(*bench.name(int(hashes.tiles[place])), *bench.name(int(hashes.tiles[other])), differ)


def drop_copies(bench: TileStaging) -> None:
    """Leave out tiles that have the same bytes as another."""
    left_out = 0
    for tiles in bench.copies():
        reasons = find_duplicates(tiles)
        bench.leave_out(reasons)
        left_out += len(reasons)
    if left_out:
        _log.warning("left out  %s duplicate tiles; the manifest names the tiles they repeat", f"{left_out:,}")


def drop_near_duplicates(bench: TileStaging, bits: int) -> None:
    """Leave out near-duplicates: their perceptual hashes differ in at most `bits` bits, and their detail matches."""
    reasons = {}
    across = 0
    by_label: Counter[str] = Counter()
    usable = bench.count_usable()
    plain, first = bench.without_look()
    if plain:
        _log.log(
            logging.WARNING if plain > _MANY * usable else logging.INFO,
            "splits    %s of %s tiles are of nearly one colour, such as %s: they aren't compared with others by "
            "their look",
            f"{plain:,}",
            f"{usable:,}",
            first,
        )
    for alike in _lookalikes(bench, bits):
        by_label[alike.label] += 1
        end = ", which is labelled differently; both are left out" if alike.labels_differ else ""
        reasons[alike.tile] = f"looks like {alike.like}{end}"
        across += alike.split != alike.split_of_like
    bench.leave_out(reasons)
    if reasons:
        _log.warning(
            "left out  %s tiles that look like another (%s), %s of them in another split; the manifest lists them%s",
            f"{len(reasons):,}",
            ", ".join(f"{label} {number:,}" for label, number in sorted(by_label.items())),
            f"{across:,}",
            _MANY_ADVICE if len(reasons) > _MANY * usable else "",
        )


def check_places(bench: TileStaging, limit: float) -> None:
    """Check how many tiles can't be split by block because their coordinates aren't known, although others' are.

    Args:
        bench: Staged tiles, inspected.
        limit: Maximum fraction of such tiles. If less than this fraction has coordinates, they are taken for a
            coincidence of file names, and nothing is checked.

    Raises:
        DataError: The fraction is above the limit.
    """
    placed, unplaced, first = bench.places()
    if not placed or not unplaced:
        return
    share = unplaced / (placed + unplaced)
    told = f"{unplaced:,} of {placed + unplaced:,} tiles have no coordinates in their names, such as {first}"
    if limit < share < 1 - limit:
        raise DataError(
            f"{told}; the others do, and are split by block ({share:.1%}, limit {limit:.1%}). Neighbours of validation "
            "and test tiles may be among them: name them x-y-z or z-x-y as the others, leave them out, or raise "
            "--max-unplaced"
        )
    _log.warning("splits    %s: these are split by their content, and not by block", told)


def check_blocks(bench: TileStaging, block_zoom: int) -> None:
    """Check that no block has usable tiles in more than one split.

    Raises:
        DataError: A block has usable tiles in two splits.
    """
    shared = bench.shared_blocks()
    if shared:
        listed = ", ".join(f"{block} ({splits.replace(',', ' and ')})" for block, splits in shared[:_LISTED])
        raise DataError(
            f"{len(shared):,} blocks of zoom {block_zoom} have tiles in more than one split: {listed}"
            f"{', …' if len(shared) > _LISTED else ''}. Neighbours look alike, so validation and test would be too "
            "easy. Leave the splits out and let blocks decide; or, to keep them, make blocks smaller with a higher "
            "--block-zoom (22: every tile is a block of its own)"
        )


def check_lookalikes(bench: TileStaging, bits: int) -> None:
    """Check that no two splits have near-duplicates.

    Raises:
        DataError: Usable tiles of two splits are near-duplicates.
    """
    pairs = [
        f"{alike.tile} in {alike.split} and {alike.like} in {alike.split_of_like}"
        for alike in _lookalikes(bench, bits)
        if alike.split != alike.split_of_like
    ]
    if pairs:
        raise DataError(
            f"{len(pairs):,} tiles look like one in another split: {', '.join(pairs[:_LISTED])}"
            f"{', …' if len(pairs) > _LISTED else ''}. Remove them, or run without --keep-near-duplicates: then one of "
            "each pair is left out"
        )
