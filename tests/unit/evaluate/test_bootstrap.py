"""Intervals: they cover as often as they say, follow the blocks, and say nothing where nothing is known."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics

from sat_xception.evaluate import bootstrap
from sat_xception.evaluate.bootstrap import (
    RESAMPLES,
    area_intervals,
    interval,
    number_blocks,
    ratio_samples,
    share_intervals,
)


def test_blocks_are_numbered_by_name():
    assert number_blocks(["12/5/7", "12/5/6", "12/5/7"]).tolist() == [1, 0, 1]


def test_an_interval_of_a_share_is_that_of_the_normal_approximation():
    right = np.arange(400) % 5 != 0
    low, high = interval(ratio_samples(np.arange(400), [(right, np.ones(400))])[:, 0], 400, float(right.mean()))
    half = 1.96 * np.sqrt(0.8 * 0.2 / 400)
    assert (low, high) == (pytest.approx(0.8 - half, abs=0.008), pytest.approx(0.8 + half, abs=0.008))


def test_intervals_of_correlated_tiles_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    blocks = np.arange(60).repeat(8)
    truth = np.clip(0.7 + 0.2 * rng.standard_normal(100_000), 0, 1).mean()
    by_block = by_tile = 0
    for _ in range(40):
        # Half of a tile's luck is its block's.
        chance = np.clip(0.7 + 0.2 * rng.standard_normal(60), 0, 1).repeat(8)
        right = rng.random(480) < chance
        for_blocks = interval(ratio_samples(blocks, [(right, np.ones(480))])[:, 0], 60, float(right.mean()))
        for_tiles = interval(ratio_samples(np.arange(480), [(right, np.ones(480))])[:, 0], 480, float(right.mean()))
        by_block += for_blocks[0] <= truth <= for_blocks[1]
        by_tile += for_tiles[0] <= truth <= for_tiles[1]
    assert 35 <= by_block <= 40
    assert by_tile < by_block


def test_the_same_tiles_give_the_same_samples_however_many_are_held_at_once(monkeypatch):
    right = np.random.default_rng(0).random(50) < 0.8
    expected = ratio_samples(np.arange(50), [(right, np.ones(50))])
    monkeypatch.setattr(bootstrap, "_MAX_CELLS", 50 * 7)
    np.testing.assert_array_equal(ratio_samples(np.arange(50), [(right, np.ones(50))]), expected)
    assert expected.shape == (RESAMPLES, 1)


def test_one_block_says_nothing_and_neither_does_a_figure_of_nothing():
    assert interval(ratio_samples(np.zeros(9, int), [(np.arange(9) % 2, np.ones(9))])[:, 0], 1, 4 / 9) is None
    assert interval(ratio_samples(np.arange(9), [(np.zeros(9), np.zeros(9))])[:, 0], 9, 0.0) is None


@pytest.mark.parametrize("right", [1, 0])
def test_tiles_that_are_all_right_or_all_wrong_leave_room_for_what_wasnt_seen(right):
    (bounds,) = share_intervals(np.arange(20), [(np.full(20, right), np.ones(20))])
    exact = binomtest(20 * right, 20).proportion_ci(0.95, "exact")
    assert bounds == pytest.approx([exact.low, exact.high])
    # Four blocks are four trials, whatever their tiles.
    (bounds,) = share_intervals(np.arange(20) // 5, [(np.full(20, right), np.ones(20))])
    exact = binomtest(4 * right, 4).proportion_ci(0.95, "exact")
    assert bounds == pytest.approx([exact.low, exact.high])


def test_areas_of_a_sample_are_those_of_its_tiles_with_ties(monkeypatch):
    rng = np.random.default_rng(5)
    truth, score = rng.random(80) < 0.4, (rng.integers(0, 9, 80) / 10).astype(np.float32)
    score += 0.1 * truth
    blocks = rng.integers(0, 20, 80)
    drawn = next(bootstrap._draw(20, 80))[0]
    monkeypatch.setattr(bootstrap, "_draw", lambda count, width: iter([np.tile(drawn, (RESAMPLES, 1))]))
    chosen = np.repeat(np.arange(80), drawn[blocks])
    areas = {
        "roc_auc": metrics.roc_auc_score(truth[chosen], score[chosen]),
        "pr_auc": metrics.average_precision_score(truth[chosen], score[chosen]),
    }
    found = area_intervals(blocks, truth, score, areas)
    assert found["roc_auc"] == pytest.approx([areas["roc_auc"]] * 2)
    assert found["pr_auc"] == pytest.approx([areas["pr_auc"]] * 2)
