"""Dealing tiles to train, validation and test."""

import hashlib
import itertools
from collections import Counter

import pytest

from sat_xception.dataset.split import SPLITS, split_by_hash, stable_fraction
from sat_xception.errors import DataError

FRACTIONS = (0.7, 0.15, 0.15)


def tiles(count: int, label: str = "school", start: int = 0) -> dict[str, str]:
    return {hashlib.sha256(f"{label}{index}".encode()).hexdigest(): label for index in range(start, start + count)}


def test_a_position_depends_on_key_and_seed_alone():
    # Computed by hand: the first 53 bits of SHA-256("0:tile"), SHA-256("1:tile") and SHA-256("0:").
    for seed, key in ((0, "tile"), (1, "tile"), (0, "")):
        bits = bin(int(hashlib.sha256(f"{seed}:{key}".encode()).hexdigest(), 16) | 1 << 256)[3:56]
        assert stable_fraction(key, seed) == sum(2.0**-place for place, bit in enumerate(bits, start=1) if bit == "1")


def test_positions_are_spread_evenly_over_0_to_1():
    positions = sorted(stable_fraction(key, 0) for key in tiles(10_000))
    assert 0 <= positions[0]
    assert positions[-1] < 1
    assert max(abs(position - rank / 10_000) for rank, position in enumerate(positions)) < 0.02


def test_the_same_tiles_get_the_same_splits_in_any_order():
    there = {**tiles(500), **tiles(300, "not-school")}
    splits = split_by_hash(there, FRACTIONS, seed=3)
    assert splits.keys() == there.keys()
    assert split_by_hash(dict(reversed(there.items())), FRACTIONS, seed=3) == splits


def test_no_tile_moves_when_tiles_are_added_or_taken_away():
    splits = split_by_hash(tiles(1_000), FRACTIONS, seed=0)
    more = split_by_hash({**tiles(3_000), **tiles(50, "another-class")}, FRACTIONS, seed=0)
    fewer = split_by_hash(tiles(400, start=300), FRACTIONS, seed=0)
    assert {key: more[key] for key in splits} == splits
    assert {key: splits[key] for key in fewer} == fewer


def test_another_seed_deals_anew():
    there = tiles(1_000)
    first, second = (split_by_hash(there, FRACTIONS, seed) for seed in (0, 1))
    assert 0.35 < sum(first[key] != second[key] for key in there) / 1_000 < 0.6


@pytest.mark.parametrize("fractions", [FRACTIONS, (0.8, 0.1, 0.1), (1 / 3, 1 / 3, 1 / 3), (0.9, 0.1, 0), (0.5, 0, 0.5)])
def test_fractions_hold_over_10_000_tiles_of_each_class(fractions):
    there = {**tiles(10_000), **tiles(10_000, "not-school")}
    splits = split_by_hash(there, fractions, seed=0)
    for label in ("school", "not-school"):
        counts = Counter(split for key, split in splits.items() if there[key] == label)
        for split, fraction in zip(SPLITS, fractions, strict=True):
            assert counts[split] / 10_000 == pytest.approx(fraction, abs=0.015 if fraction else 0)


@pytest.mark.parametrize("count", range(3, 30))
def test_every_class_is_in_every_split_however_small(count):
    for seed in range(5):
        there = {**tiles(count), **tiles(200, "not-school")}
        splits = split_by_hash(there, FRACTIONS, seed)
        found = set(zip(there.values(), (splits[key] for key in there), strict=True))
        assert found == set(itertools.product(("school", "not-school"), SPLITS))


@pytest.mark.parametrize(
    ("fractions", "absent"), [((0.8, 0.2, 0), "test"), ((0.8, 0, 0.2), "valid"), ((0, 0.5, 0.5), "train")]
)
def test_a_split_without_a_share_gets_nothing(fractions, absent):
    for count in (2, 3, 1_000):
        splits = split_by_hash(tiles(count), fractions, seed=0)
        assert set(splits.values()) == set(SPLITS) - {absent}


def test_shares_that_sum_to_less_than_one_leave_no_tile_out_and_make_no_split():
    counts = Counter(split_by_hash(tiles(1_000), (0.7, 0.2, 0), seed=0).values())
    assert counts.keys() == {"train", "valid"}
    assert counts["valid"] == pytest.approx(300, abs=30)


def test_in_a_class_too_small_the_last_tiles_of_the_largest_split_fill_the_others_whatever_their_order():
    for seed in range(30):
        by_position = sorted(tiles(4), key=lambda key: stable_fraction(key, seed))
        if stable_fraction(by_position[-1], seed) < FRACTIONS[0]:
            break
    expected = dict(zip(by_position, ["train", "train", "test", "valid"], strict=True))
    for order in itertools.permutations(tiles(4).items()):
        assert split_by_hash(dict(order), FRACTIONS, seed) == expected


@pytest.mark.parametrize(("count", "fractions", "needed"), [(2, FRACTIONS, 3), (1, (0.8, 0.2, 0), 2)])
def test_a_class_with_fewer_tiles_than_splits_is_refused(count, fractions, needed):
    with pytest.raises(DataError) as caught:
        split_by_hash({**tiles(100), **tiles(count, "rare")}, fractions, seed=0)
    assert f"class 'rare' has {count} usable tiles, too few for {needed} splits (" in str(caught.value)
    assert str(caught.value).endswith("add tiles, or give the splits as folders")


def test_no_tiles_need_no_split():
    assert split_by_hash({}, FRACTIONS, seed=0) == {}
