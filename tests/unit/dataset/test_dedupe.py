"""Which of several tiles that show the same stays."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from sat_xception.dataset.dedupe import MOST_BITS, FineHashes, find_duplicates, find_near_duplicates, near_pairs
from sat_xception.dataset.images import fine_hash


@dataclass(frozen=True)
class Tile:
    """What deduplication looks at."""

    id: str
    sha256: str = "one content"
    label: str = "school"
    split: str = ""


def left_out(*tiles: Tile) -> dict[str, str]:
    """Return what is left out, after checking that it's the same in any order."""
    results = [find_duplicates(order) for order in itertools.permutations(tiles)]
    assert all(result == results[0] for result in results)
    return results[0]


def test_tiles_that_differ_all_stay():
    assert left_out(Tile("a", "1"), Tile("b", "2"), Tile("c", "3", label="not-school")) == {}
    assert left_out() == {}


def test_of_one_label_and_no_split_the_first_by_id_stays():
    assert left_out(Tile("b"), Tile("a"), Tile("c")) == {"b": "same bytes as a", "c": "same bytes as a"}


def test_of_one_split_the_first_by_id_stays():
    assert left_out(Tile("b", split="train"), Tile("a", split="train")) == {"b": "same bytes as a"}


@pytest.mark.parametrize(
    ("splits", "stays"),
    [
        (("train", "valid"), "valid"),
        (("train", "test"), "test"),
        (("valid", "test"), "test"),
        (("train", "valid", "test"), "test"),
    ],
)
def test_an_exam_never_shrinks_and_never_leaks(splits, stays):
    # The ids are against the order of the splits, so that they don't decide.
    tiles = [Tile(f"{9 - place}-{split}", split=split) for place, split in enumerate(splits)]
    kept = next(tile.id for tile in tiles if tile.split == stays)
    assert left_out(*tiles) == {tile.id: f"same bytes as {kept}" for tile in tiles if tile.id != kept}


def test_copies_within_and_across_splits_leave_one():
    tiles = [Tile(f"{split}-{index}", split=split) for split in ("train", "test") for index in range(2)]
    assert left_out(*tiles).keys() == {"train-0", "train-1", "test-1"}


def test_of_several_labels_all_copies_are_left_out_and_each_names_one_of_another_label():
    assert left_out(Tile("a"), Tile("b"), Tile("c", label="not-school")) == {
        "a": "same bytes as c, which is labelled differently; all copies are left out",
        "b": "same bytes as c, which is labelled differently; all copies are left out",
        "c": "same bytes as a, which is labelled differently; all copies are left out",
    }


def test_of_several_labels_all_copies_are_left_out_of_every_split():
    tiles = [
        Tile("a", split="test"),
        Tile("b", split="train", label="not-school"),
        Tile("c", split="train", label="field"),
    ]
    assert left_out(*tiles).keys() == {"a", "b", "c"}


def test_contents_do_not_mix():
    tiles = [Tile("a", "1"), Tile("b", "1"), Tile("c", "2", label="x"), Tile("d", "2", label="y"), Tile("e", "3")]
    assert left_out(*tiles).keys() == {"b", "c", "d"}


# Tiles that look the same


def flip(value: int, *bits: int) -> int:
    for bit in bits:
        value ^= 1 << bit
    return value


def picture(seed: int) -> bytes:
    """Return the fine hash of a picture of noise."""
    return fine_hash(Image.fromarray(np.random.default_rng(seed).integers(0, 255, (72, 72), dtype=np.uint8)))


def near(*tiles: tuple[int, int], bits: int = 6, details: list[bytes] | None = None) -> dict[int, tuple[int, bool]]:
    """Return what is left out of tiles with these hashes and labels, which show one picture unless others are given."""
    hashes, labels = zip(*tiles, strict=True) if tiles else ((), ())
    details = details or [picture(0)] * len(tiles)
    return find_near_duplicates(
        np.array(hashes, dtype=np.uint64),
        np.array(labels, dtype=np.uint32),
        bits,
        lambda places: FineHashes(places, [details[place] for place in places.tolist()]),
    )


@pytest.mark.parametrize("bits", range(MOST_BITS + 1))
def test_all_pairs_within_a_distance_are_found_and_no_others(bits):
    rng = np.random.default_rng(bits)
    hashes = rng.integers(0, 2**64, 300, dtype=np.uint64)
    for flips in range(1, 12):
        some = hashes[:100].copy()
        for _ in range(flips):
            some ^= np.uint64(1) << rng.integers(0, 64, len(some), dtype=np.uint64)
        hashes = np.concatenate([hashes, some])
    hashes = rng.permutation(np.unique(hashes))
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    expected = np.argwhere(np.triu(distances <= bits, 1))
    assert len(expected) > 50 or bits == 0
    assert (near_pairs(hashes, bits) == expected).all()


def test_the_first_of_two_that_look_the_same_stays():
    assert near((5, 0), (flip(5, 1, 20, 63), 0), (2**40 - 1, 0)) == {1: (0, False)}
    assert near((5, 0), (5, 0), (5, 0)) == {1: (0, False), 2: (0, False)}
    assert near((5, 0), (flip(5, *range(7)), 0)) == {}
    assert near() == {}


def test_looking_the_same_is_no_chain():
    # The third is near the second, which is left out, and far from the first.
    first, second = 0, flip(0, *range(6))
    third = flip(second, *range(10, 16))
    assert near((first, 0), (second, 0), (third, 0)) == {1: (0, False)}
    assert near((second, 0), (first, 0), (third, 0)) == {1: (0, False), 2: (0, False)}


def test_of_two_labels_both_are_left_out():
    assert near((9, 0), (flip(9, 3), 1)) == {0: (1, True), 1: (0, True)}
    assert near((9, 0), (9, 1), (9, 0)) == {0: (1, True), 1: (0, True), 2: (1, True)}


def test_many_tiles_of_one_look_take_no_time():
    assert len(near(*[(7, 0)] * 5_000)) == 4_999


def test_tiles_with_close_hashes_and_other_details_stay():
    assert near((5, 0), (5, 0), (5, 1), details=[picture(seed) for seed in range(3)]) == {}
    assert near((5, 0), (5, 0), (5, 1), details=[picture(0), picture(1), picture(0)]) == {0: (2, True), 2: (0, True)}
    assert near((5, 0), (flip(5, 7), 0), (5, 0), details=[picture(0), picture(1), picture(1)]) == {2: (1, False)}
