"""Keep the exam honest: no tile twice, and nothing of what validation and test show in training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sat_xception.data.dedupe import find_duplicates, find_near_duplicates
from sat_xception.data.workbench import Workbench
from sat_xception.errors import DataError
from sat_xception.log import get_logger

__all__ = ["check_blocks", "check_lookalikes", "leave_out_copies", "leave_out_lookalikes"]

_log = get_logger(__name__)
_LISTED = 5


class _Alike(NamedTuple):
    """A usable tile and one that looks the same and comes before it, or is labelled differently."""

    tile: str
    split: str
    like: str
    split_of_like: str
    labels_differ: bool


def _lookalikes(bench: Workbench, bits: int) -> Iterator[_Alike]:
    looks = bench.looks()
    for place, (other, differ) in find_near_duplicates(looks.hashes, looks.labels, bits).items():
        yield _Alike(*bench.name(int(looks.tiles[place])), *bench.name(int(looks.tiles[other])), differ)


def leave_out_copies(bench: Workbench) -> None:
    """Leave out tiles that have the same bytes as another."""
    left_out = 0
    for tiles in bench.copies():
        reasons = find_duplicates(tiles)
        bench.leave_out(reasons)
        left_out += len(reasons)
    if left_out:
        _log.warning("left out  %s duplicate tiles; the manifest says of which", f"{left_out:,}")


def leave_out_lookalikes(bench: Workbench, bits: int) -> None:
    """Leave out tiles that look like another: their perceptual hashes differ in at most `bits` bits."""
    reasons = {}
    across = 0
    for alike in _lookalikes(bench, bits):
        end = ", which is labelled differently; both are left out" if alike.labels_differ else ""
        reasons[alike.tile] = f"looks like {alike.like}{end}"
        across += alike.split != alike.split_of_like
    bench.leave_out(reasons)
    if reasons:
        _log.warning(
            "left out  %s tiles that look like another, %s of them in another split; the manifest says which",
            f"{len(reasons):,}",
            f"{across:,}",
        )


def check_blocks(bench: Workbench, block_zoom: int) -> None:
    """Look for blocks that leak.

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


def check_lookalikes(bench: Workbench, bits: int) -> None:
    """Look for tiles that leak.

    Raises:
        DataError: Usable tiles of two splits look the same.
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
