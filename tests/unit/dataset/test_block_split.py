"""Blocks of neighbours in one split each, and each split with its share of classes and slices."""

import random
from collections import Counter

import numpy as np
import pytest

from sat_xception.dataset.block_split import BlockCount, split_blocks
from sat_xception.dataset.split import SPLITS, split_of, stable_fraction

FRACTIONS = (0.7, 0.15, 0.15)


def blocks(count: int, seed: int = 0, **slices) -> list[BlockCount]:
    rng = np.random.default_rng(seed)
    return [
        BlockCount((12, index, 7), "", label, {name: values[index % len(values)] for name, values in slices.items()}, n)
        for index in range(count)
        for label in ("not-school", "school")
        if (n := int(rng.integers(0, 8)))
    ]


def shares(counts, splits, key=lambda count: count.label) -> dict[tuple[str, str], float]:
    tiles, totals = Counter(), Counter()
    for count in counts:
        tiles[key(count), splits[count.block]] += count.tiles
        totals[key(count)] += count.tiles
    return {(kind, split): tiles[kind, split] / totals[kind] for kind in totals for split in SPLITS}


def by_hash(counts, seed: int) -> dict[tuple[int, int, int], str]:
    return {
        count.block: split_of(stable_fraction("block:{}/{}/{}".format(*count.block), seed), FRACTIONS)
        for count in counts
    }


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("count", [50, 100, 400])
def test_each_class_has_about_its_share_in_every_split(count, seed):
    counts = blocks(count, seed)
    for (_, split), share in shares(counts, split_blocks(counts, FRACTIONS, seed)).items():
        assert share == pytest.approx(FRACTIONS[SPLITS.index(split)], rel=0.3)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("count", [3, 4, 6])
def test_however_few_blocks_no_split_lacks_a_class_that_has_enough_of_them(count, seed):
    counts = [BlockCount((12, index, 7), "", label, {}, 5) for index in range(count) for label in ("a", "b")]
    assert all(shares(counts, split_blocks(counts, FRACTIONS, seed)).values())


@pytest.mark.parametrize("seed", range(5))
def test_slices_have_their_shares_too(seed):
    counts = blocks(120, seed, setting=["rural", "rural", "rural", "urban"])
    found = shares(counts, split_blocks(counts, FRACTIONS, seed), key=lambda count: count.slices["setting"])
    dealt = shares(counts, by_hash(counts, seed), key=lambda count: count.slices["setting"])
    assert all(share == pytest.approx(FRACTIONS[SPLITS.index(split)], rel=0.3) for (_, split), share in found.items())
    spread = [max(abs(each[key] - FRACTIONS[SPLITS.index(key[1])]) for key in each) for each in (found, dealt)]
    assert spread[0] <= spread[1]


def test_of_many_blocks_the_hash_decides_so_others_that_come_move_none():
    counts = blocks(20_000)
    splits = split_blocks(counts, FRACTIONS, 0)
    assert splits == by_hash(counts, 0)
    more = split_blocks(blocks(24_000), FRACTIONS, 0)
    assert {block: more[block] for block in splits} == splits


def test_the_order_of_the_counts_and_the_run_say_nothing():
    counts = blocks(50, setting=["rural", "urban"])
    splits = split_blocks(counts, FRACTIONS, 3)
    random.Random(0).shuffle(counts)
    assert split_blocks(counts, FRACTIONS, 3) == splits
    assert split_blocks(counts, FRACTIONS, 4) != splits


def test_a_given_split_is_kept_and_others_make_up_for_it():
    counts = blocks(60)
    given = {count.block for count in counts[:80]}
    counts = [
        BlockCount(count.block, "test" if count.block in given else "", count.label, {}, count.tiles)
        for count in counts
    ]
    splits = split_blocks(counts, FRACTIONS, 0)
    assert {splits[block] for block in given} == {"test"}
    assert {split for block, split in splits.items() if block not in given} == {"train", "valid"}


def test_a_split_without_a_share_gets_no_block():
    assert set(split_blocks(blocks(40), (0.8, 0.2, 0), 0).values()) == {"train", "valid"}


def test_what_cannot_be_shared_out_is_told(caplog):
    rare = BlockCount((12, 999, 7), "", "rare", {}, 40)
    split_blocks([*blocks(30), rare], FRACTIONS, 0)
    assert "too few blocks to give each split its share: rare has 0 of" in caplog.text


def test_no_blocks_need_no_split():
    assert split_blocks([], FRACTIONS, 0) == {}


@pytest.mark.parametrize(("values", "told"), [(49, False), (50, True)])
def test_slices_that_are_too_many_to_even_out_are_told(values, told, caplog):
    # Two classes, and each in each slice.
    found = [
        BlockCount((12, index, 7), "", label, {"region": f"r{index % values}"}, 4)
        for index in range(200)
        for label in ("not-school", "school")
    ]
    split_blocks(found, FRACTIONS, 0)
    assert ("100 of 102 classes and slices are evened out" in caplog.text) == told
