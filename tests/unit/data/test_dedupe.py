"""Which of several tiles with the same bytes stays."""

import itertools
from dataclasses import dataclass

import pytest

from sat_xception.data.dedupe import find_duplicates


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
