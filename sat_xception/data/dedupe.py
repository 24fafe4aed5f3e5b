"""Find tiles whose bytes are the same, so that no tile is counted twice or is in two splits.

The rules, for the tiles of one content:

- one label, one split or none: the first by id stays;
- one label, several splits: the copy in test stays, else the one in valid, so an exam never shrinks and never leaks;
- several labels: all copies are left out, since nothing says which label is right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Protocol

__all__ = ["find_duplicates"]

_KEEP_FIRST = {"test": 0, "valid": 1, "train": 2, "": 3}


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
    """Return the tiles to leave out, by id, each with the reason.

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
        kept, *rest = sorted(copies, key=lambda tile: (_KEEP_FIRST[tile.split], tile.id))
        reasons.update({tile.id: f"same bytes as {kept.id}" for tile in rest})
    return reasons
