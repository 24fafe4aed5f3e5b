"""Keep the exam honest: no tile twice, and nothing of what validation and test show in training."""

from __future__ import annotations

from sat_xception.data.dedupe import find_duplicates, find_near_duplicates
from sat_xception.data.workbench import Workbench
from sat_xception.errors import DataError
from sat_xception.log import get_logger

__all__ = ["check_leaks", "leave_out_copies", "leave_out_lookalikes"]

_log = get_logger(__name__)
_LISTED = 5


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
    looks = bench.looks()
    found = find_near_duplicates(looks.hashes, looks.labels, bits)
    reasons = {}
    across = 0
    for place, (other, differs) in found.items():
        (tile, split), (like, its_split) = bench.name(int(looks.tiles[place])), bench.name(int(looks.tiles[other]))
        end = ", which is labelled differently; both are left out" if differs else ""
        reasons[tile] = f"looks like {like}{end}"
        across += split != its_split
    bench.leave_out(reasons)
    if reasons:
        _log.warning(
            "left out  %s tiles that look like another, %s of them in another split; the manifest says which",
            f"{len(reasons):,}",
            f"{across:,}",
        )


def check_leaks(bench: Workbench, bits: int, block_zoom: int) -> None:
    """Hold the usable tiles of all splits against each other.

    Raises:
        DataError: A block has tiles in two splits, or tiles of two splits look the same.
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
    looks = bench.looks()
    pairs = []
    for place, (other, _) in find_near_duplicates(looks.hashes, looks.labels, bits).items():
        (tile, split), (like, its_split) = bench.name(int(looks.tiles[place])), bench.name(int(looks.tiles[other]))
        if split != its_split:
            pairs.append(f"{tile} in {split} and {like} in {its_split}")
    if pairs:
        raise DataError(
            f"{len(pairs):,} tiles look like one in another split: {', '.join(pairs[:_LISTED])}"
            f"{', …' if len(pairs) > _LISTED else ''}. Remove them, or run without --keep-near-duplicates: then one of "
            "each pair is left out"
        )
