"""The threshold: chosen by its goal, between scores, and honest where the goal can't be reached."""

import numpy as np
import pytest

from sat_xception.evaluate.figures import Threshold
from sat_xception.evaluate.settings import EvaluateConfig
from sat_xception.evaluate.threshold import choose_threshold

TRUTH = np.array([1, 1, 0, 1, 0, 0], dtype=bool)
SCORE = np.array([0.9, 0.8, 0.7, 0.6, 0.2, 0.1], dtype=np.float32)


@pytest.mark.parametrize(
    ("goal", "value", "reached"),
    [
        ("f1", 0.4, True),  # precision 3/4, recall 1
        ("recall-at-precision:0.75", 0.4, True),
        ("recall-at-precision:0.76", 0.75, True),  # 2 of 2
        ("recall-at-precision:1", 0.75, True),
        ("precision-at-recall:1", 0.4, True),
        ("precision-at-recall:0.6", 0.75, True),
        ("precision-at-recall:0.3", 0.75, True),  # of two with precision 1 the one with more recall
    ],
)
def test_each_goal_is_served_on_both_sides_of_its_floor(goal, value, reached):
    assert choose_threshold(TRUTH, SCORE, goal).content() == {
        "goal": goal,
        "value": pytest.approx(value, abs=1e-6),
        "reached": reached,
    }


def test_f1_is_the_largest_of_all_thresholds():
    rng = np.random.default_rng(0)
    truth = rng.random(300) < 0.3
    score = np.round(0.5 * rng.random(300) + 0.4 * truth * rng.random(300), 2).astype(np.float32)

    def f1(threshold):
        taken = score >= threshold
        return 2 * (taken & truth).sum() / (taken.sum() + truth.sum())

    chosen = choose_threshold(truth, score, "f1").value
    assert f1(chosen) == max(f1(level) for level in score)
    assert chosen not in score


def test_a_floor_that_cant_be_kept_is_said_and_the_nearest_is_taken():
    chosen = choose_threshold(np.array([0, 1, 1], dtype=bool), SCORE[:3], "recall-at-precision:0.9")
    assert not chosen.reached
    assert chosen.value == pytest.approx(0.35)  # all three are taken: precision 2/3


def test_without_a_tile_of_the_class_there_is_nothing_to_choose():
    assert choose_threshold(np.zeros(6, dtype=bool), SCORE, "f1") == Threshold(goal="f1", value=0.5, reached=False)


@pytest.mark.parametrize("goal", ["", "f2", "recall-at-precision", "recall-at-precision:2", "precision-at-recall:x"])
def test_a_goal_that_isnt_one_is_refused(goal, tmp_path):
    with pytest.raises(ValueError, match="expected f1, recall-at-precision:P"):
        EvaluateConfig(model=tmp_path, examples=tmp_path, out=tmp_path, goal=goal)
