"""Assign tiles to train, validation and test by a hash of their content.

A tile's split depends on a hash of its content and the seed. It doesn't change when other tiles are added, so a test
tile of one run is never a training tile of the next. Only in a class so small that a split would be empty, a tile is
moved to fill it.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping

from sat_xception.errors import DataError

__all__ = ["SPLITS", "SPLIT_NAMES", "split_by_hash", "split_of", "stable_fraction"]

SPLITS = ("train", "valid", "test")
# Other names of the splits.
SPLIT_NAMES = {"train": "train", "valid": "valid", "validation": "valid", "val": "valid", "test": "test"}


def stable_fraction(key: str, seed: int) -> float:
    """Return a number in [0, 1) that depends on nothing but the key and the seed (53 bits of SHA-256)."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def split_by_hash(labels: Mapping[str, str], fractions: tuple[float, float, float], seed: int) -> dict[str, str]:
    """Return the split of each tile.

    Args:
        labels: Label of each tile, by the SHA-256 of its bytes.
        fractions: Fractions of train, valid and test. They are met on average; in a small class only roughly, but each
            split with a fraction above 0 gets at least one tile of each class.
        seed: The same seed gives the same split on any machine.

    Returns:
        "train", "valid" or "test" by the same key.

    Raises:
        DataError: A class has fewer tiles than there are splits.
    """
    wanted = [split for split, fraction in zip(SPLITS, fractions, strict=True) if fraction > 0]
    by_label: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for key, label in labels.items():
        by_label[label].append((stable_fraction(key, seed), key))
    result: dict[str, str] = {}
    for label, members in sorted(by_label.items()):
        if len(members) < len(wanted):
            raise DataError(
                f"class {label!r} has {len(members)} usable tiles, too few for {len(wanted)} splits "
                f"({', '.join(wanted)}); add tiles, or give the splits as folders"
            )
        members.sort()
        dealt = [split_of(position, fractions) for position, _ in members]
        _fill_empty(dealt, wanted)
        result.update({key: split for (_, key), split in zip(members, dealt, strict=True)})
    return result


def split_of(position: float, fractions: tuple[float, float, float]) -> str:
    """Return the split for a number in [0, 1)."""
    if position < fractions[0]:
        return "train"
    return "valid" if position < fractions[0] + fractions[1] or fractions[2] == 0 else "test"


def _fill_empty(dealt: list[str], wanted: list[str]) -> None:
    """Give each empty split the last tile, in hash order, of the largest split."""
    for split in wanted:
        if split not in dealt:
            largest = max(wanted, key=dealt.count)
            dealt[len(dealt) - 1 - dealt[::-1].index(largest)] = split
