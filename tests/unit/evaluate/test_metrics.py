"""Figures against numbers worked out by hand, and at the edges: absent classes, perfect and useless models."""

import json

import numpy as np
import pytest

from sat_xception.errors import DataError
from sat_xception.evaluate import metrics
from sat_xception.evaluate.calibrate import CALIBRATION_BINS

CLASSES = ["not-school", "school"]
# Probability of school, away from the edges of the calibration bins. The fourth and the fifth are wrong.
LABELS = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0])
SCHOOL = np.array([0.95, 0.85, 0.75, 0.45, 0.65, 0.25, 0.15, 0.05, 0.35], dtype=np.float32)


def two_columns(school: np.ndarray) -> np.ndarray:
    return np.stack([1 - school, school], axis=1).astype(np.float32)


def measured(*split, **settings):
    """Return the figures of a split as `evaluation.json` holds them."""
    return metrics.compute_metrics(*split, **settings).content()


@pytest.fixture(scope="module")
def figures():
    return measured(LABELS, two_columns(SCHOOL), CLASSES, "school")


def test_counts_are_those_of_a_confusion_matrix_made_by_hand(figures):
    assert figures["confusion_matrix"] == [[4, 1], [1, 3]]  # true classes are rows
    assert figures["count"] == 9
    assert figures["accuracy"] == pytest.approx(7 / 9)


def test_precision_recall_and_f1_are_those_worked_out_by_hand(figures):
    school, other = figures["by_class"]["school"], figures["by_class"]["not-school"]
    assert (school["precision"], school["recall"], school["f1"], school["support"]) == (0.75, 0.75, 0.75, 4)
    assert (other["precision"], other["recall"], other["f1"]) == pytest.approx((0.8, 0.8, 0.8))
    assert figures["macro"]["recall"] == pytest.approx((0.75 + 0.8) / 2)


def test_precision_and_recall_are_not_mixed_up():
    figures = measured(np.array([1, 1, 1, 0]), two_columns(np.array([0.9, 0.2, 0.2, 0.2])), CLASSES, "school")
    assert figures["positive"]["precision"] == 1
    assert figures["positive"]["recall"] == pytest.approx(1 / 3)
    assert figures["positive"]["f1"] == pytest.approx(2 * (1 / 3) / (4 / 3))


def test_areas_are_those_worked_out_by_hand(figures):
    # 19 of the 20 pairs of a school and another tile are in the right order; precision is 1, 1, 1 and 4/5 where a
    # school is found.
    assert figures["by_class"]["school"]["roc_auc"] == pytest.approx(19 / 20)
    assert figures["by_class"]["school"]["pr_auc"] == pytest.approx((1 + 1 + 1 + 4 / 5) / 4)


def test_calibration_error_is_the_one_worked_out_by_hand(figures):
    # Bins 0.5-0.6 to 0.9-1: 1 tile, wrong; 2, one right; 2, 2 and 2, all right.
    expected = (1 * 0.55 + 2 * abs(0.5 - 0.65) + 2 * 0.25 + 2 * 0.15 + 2 * 0.05) / 9
    assert figures["calibration_error"] == pytest.approx(expected, abs=1e-6)
    assert [row["count"] for row in figures["calibration"]] == [0, 0, 0, 0, 0, 1, 2, 2, 2, 2]
    assert figures["calibration"][6]["accuracy"] == 0.5
    assert figures["calibration"][6]["confidence"] == pytest.approx(0.65)


def test_every_tile_is_in_one_bin_whatever_its_confidence():
    confidence = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 0.55], dtype=np.float32)
    figures = measured(np.ones(7, dtype=int), two_columns(confidence), CLASSES, "school")
    assert sum(row["count"] for row in figures["calibration"]) == 7
    assert len(figures["calibration"]) == CALIBRATION_BINS
    assert figures["calibration"][-1]["count"] >= 1  # a confidence of exactly 1
    assert figures["calibration"][4]["count"] == 1  # bins end with their upper edge, as in the paper


def test_roc_area_is_the_share_of_pairs_in_the_right_order_for_random_scores_with_ties():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 80), rng.integers(0, 10, 80) / 10
    wins = [(p > n) + 0.5 * (p == n) for p in scores[labels == 1] for n in scores[labels == 0]]
    figures = measured(labels, two_columns(scores), CLASSES, "school")
    assert figures["by_class"]["school"]["roc_auc"] == pytest.approx(float(np.mean(wins)))


def test_at_a_half_the_positive_class_is_that_of_the_most_probable_one_and_without_one_the_means_count(figures):
    assert figures["positive"] == figures["by_class"]["school"]
    assert (figures["roc_class"], figures["threshold"]) == ("school", 0.5)
    without = measured(LABELS, two_columns(SCHOOL), CLASSES, "")
    assert without["positive"] == without["macro"]
    assert (without["roc_class"], without["threshold"]) == ("not-school", None)


def test_precision_and_recall_of_the_positive_class_are_at_the_threshold_and_accuracy_isnt():
    figures = measured(LABELS, two_columns(SCHOOL), CLASSES, "school", threshold=0.4)
    # Taken are 0.95, 0.85, 0.75, 0.45, which are schools, and 0.65, which isn't.
    assert (figures["positive"]["precision"], figures["positive"]["recall"]) == (0.8, 1.0)
    assert figures["positive"]["f1"] == pytest.approx(8 / 9)
    assert figures["by_class"]["school"]["recall"] == 0.75
    assert figures["accuracy"] == pytest.approx(7 / 9)


def test_a_precision_recall_curve_ends_with_every_tile_taken_or_with_few():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 500)
    scores = (0.6 * rng.random(500) + 0.4 * labels).astype(np.float32)
    curve = np.array(measured(labels, two_columns(scores), CLASSES, "school")["pr"])
    assert len(curve) <= 101
    assert curve[0, 1:].tolist() == [1, pytest.approx(labels.mean())]
    assert curve[-1, 2] == 1
    assert (np.diff(curve[:, 1]) <= 0).all()


def test_intervals_hold_each_figure_and_are_wider_when_tiles_come_in_blocks():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 600)
    scores = np.clip(0.3 * labels + 0.35 + 0.3 * rng.standard_normal(600), 0.01, 0.99).astype(np.float32)
    # Tiles of a block are all the same: there are sixty, not six hundred.
    labels, scores, blocks = labels[:60].repeat(10), scores[:60].repeat(10), np.arange(60).repeat(10)
    alone = measured(labels, two_columns(scores), CLASSES, "school")
    together = measured(labels, two_columns(scores), CLASSES, "school", blocks=blocks)
    assert (alone["blocks"], together["blocks"]) == (600, 60)
    for name in ("accuracy", "precision", "recall", "f1", "roc_auc", "pr_auc"):
        value = alone["accuracy"] if name == "accuracy" else alone["positive"][name]
        (low, high), (lower, higher) = alone["intervals"][name], together["intervals"][name]
        assert lower < low < value < high < higher, name
        assert 2.3 < (higher - lower) / (high - low) < 4.2, name  # the root of ten, about


def test_macro_figures_have_intervals_and_areas_of_several_classes_have_none():
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, 300)
    probabilities = rng.dirichlet(np.ones(3), 300).astype(np.float32)
    probabilities[np.arange(300), labels] += 0.3
    figures = measured(labels, probabilities / probabilities.sum(axis=1, keepdims=True), ["a", "b", "c"], "")
    for name in ("precision", "recall", "f1"):
        low, high = figures["intervals"][name]
        assert low < figures["macro"][name] < high
    assert figures["intervals"]["roc_auc"] is None
    assert set(figures["intervals"]["by_class"]) == {"a", "b", "c"}


def figures_and_intervals(found):
    """Return every figure that has an interval, by what it is of."""
    bounds = found["intervals"]
    pairs = {"accuracy": (found["accuracy"], bounds["accuracy"])}
    pairs["gain"] = (found["most_frequent"]["difference"], found["most_frequent"]["interval"])
    for name in ("precision", "recall", "f1", "roc_auc", "pr_auc"):
        pairs[name] = (found["positive"][name], bounds[name])
    for label, of_class in bounds["by_class"].items():
        pairs |= {f"{name} of {label}": (found["by_class"][label][name], held) for name, held in of_class.items()}
    for row in found["slices"]:
        pairs |= {f"{name} in {row['value']}": (row[name], held) for name, held in row["intervals"].items()}
    return {name: pair for name, pair in pairs.items() if pair[1] is not None}


@pytest.mark.parametrize("seed", range(60))
def test_every_figure_lies_in_its_interval_whatever_is_predicted(seed):
    """Many classes or two, few tiles, classes without a tile, few blocks, good and bad models."""
    rng = np.random.default_rng(seed)
    count, classes = int(rng.choice([1, 2, 3, 7, 19, 60])), int(rng.choice([2, 3, 10, 13, 30]))
    labels = rng.integers(0, rng.integers(1, classes + 1), count)
    probabilities = rng.dirichlet(np.ones(classes), count)
    probabilities[np.arange(count), labels] += rng.choice([0, 0.3, 5])
    probabilities = (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)
    names = [f"class-{index:02d}" for index in range(classes)]
    blocks = np.unique(rng.integers(0, count, count), return_inverse=True)[1] if rng.random() < 0.5 else None
    slices = {"setting": rng.choice(["rural", "urban"], count).tolist()}
    for positive in ("", names[int(rng.integers(0, classes))]):
        found = measured(labels, probabilities, names, positive, 0.3, blocks=blocks, slices=slices)
        pairs = figures_and_intervals(found)
        outside = {name: pair for name, pair in pairs.items() if not pair[1][0] <= pair[0] <= pair[1][1]}
        assert not outside
        assert "accuracy" in pairs or found["blocks"] == 1


@pytest.mark.parametrize(("classes", "each"), [(10, 1), (13, 1), (30, 3)])
def test_means_over_many_classes_of_few_tiles_are_one_where_all_tiles_are_right(classes, each):
    labels = np.repeat(np.arange(classes), each)
    found = measured(labels, np.eye(classes, dtype=np.float32)[labels], [f"c{n:02d}" for n in range(classes)], "")
    assert found["macro"]["recall"] == 1
    # As in any share without a mistake: a block in `count` may still be wrong.
    assert found["intervals"]["recall"] == pytest.approx([0.025 ** (1 / (classes * each)), 1])


def test_an_interval_of_a_mean_over_classes_isnt_shifted_by_those_that_a_sample_lacks():
    """Three tiles of each of 30 classes, of which one is wrong in every other class: a mean recall of 5 in 6."""
    labels = np.repeat(np.arange(30), 3)
    predicted = np.where((np.arange(90) % 3 == 0) & (labels % 2 == 0), (labels + 1) % 30, labels)
    found = measured(labels, np.eye(30, dtype=np.float32)[predicted], [f"c{n:02d}" for n in range(30)], "")
    low, high = found["intervals"]["recall"]
    assert found["macro"]["recall"] == pytest.approx(5 / 6)
    assert (low + high) / 2 == pytest.approx(5 / 6, abs=0.02)


def test_means_are_over_the_classes_that_have_a_tile():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]], dtype=np.float32)
    found = measured(np.array([0, 1, 1, 1]), probabilities, ["a", "b", "c"], "")
    assert found["by_class"]["c"]["support"] == 0
    assert found["macro"]["recall"] == pytest.approx((1 + 1 / 3) / 2)
    assert found["macro"]["precision"] == pytest.approx((1 / 2 + 1) / 2)
    assert found["macro"]["f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_what_is_gained_on_the_most_frequent_class_is_counted_on_the_same_tiles():
    found = measured(LABELS, two_columns(SCHOOL), CLASSES, "school")["most_frequent"]
    assert (found["class"], found["share"]) == ("not-school", pytest.approx(5 / 9))
    # Right alone on three schools, wrong alone on one other tile.
    assert (found["first_only"], found["second_only"], found["difference"]) == (3, 1, pytest.approx(2 / 9))
    always = measured(LABELS, two_columns(np.full(9, 0.2)), CLASSES, "school")["most_frequent"]
    assert (always["difference"], always["interval"]) == (0, [0, 0])


def test_a_roc_curve_runs_from_corner_to_corner_in_few_points_that_json_can_hold():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 2000)
    figures = measured(labels, two_columns(0.7 * rng.random(2000) + 0.3 * labels), CLASSES, "school")
    curve = np.array(figures["roc"])
    assert len(curve) <= 101
    assert curve[0].tolist() == [1, 0, 0]
    assert curve[-1, 1:].tolist() == [1, 1]
    assert (np.diff(curve, axis=0) * [-1, 1, 1] >= 0).all()
    under = np.trapezoid(curve[:, 2], curve[:, 1])
    assert under == pytest.approx(figures["by_class"]["school"]["roc_auc"], abs=0.01)
    assert under > 0.7
    json.dumps(figures, allow_nan=False)


def test_three_classes_are_counted_one_against_the_rest():
    probabilities = np.array(
        [[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4], [0.2, 0.2, 0.6]], dtype=np.float32
    )
    figures = measured(np.array([0, 0, 1, 2, 2]), probabilities, ["field", "roof", "water"], "water", 0.4)
    assert figures["confusion_matrix"] == [[1, 1, 0], [0, 1, 0], [0, 0, 2]]
    assert figures["by_class"]["field"]["recall"] == 0.5
    assert figures["by_class"]["roof"]["precision"] == 0.5
    assert figures["positive"]["f1"] == 1
    assert figures["macro"]["precision"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert figures["by_class"]["water"]["roc_auc"] == 1


def test_a_class_that_the_split_lacks_says_nothing_and_breaks_nothing():
    figures = measured(np.zeros(3, dtype=int), two_columns(np.array([0.1, 0.2, 0.7])), CLASSES, "school")
    school = figures["by_class"]["school"]
    assert (school["support"], school["recall"], school["roc_auc"], school["pr_auc"]) == (0, 0, 0.5, 0)
    assert figures["by_class"]["not-school"]["pr_auc"] == 1
    assert figures["confusion_matrix"] == [[2, 1], [0, 0]]
    assert figures["roc"] == []


def test_a_perfect_model():
    figures = measured(LABELS, two_columns(LABELS.astype(float)), CLASSES, "school")
    assert figures["accuracy"] == 1
    assert figures["calibration_error"] == 0
    assert figures["positive"] == dict.fromkeys(("precision", "recall", "f1", "roc_auc", "pr_auc"), 1.0) | {
        "support": 4
    }


def test_a_model_that_is_always_wrong_and_sure_of_it():
    figures = measured(LABELS, two_columns(1.0 - LABELS), CLASSES, "school")
    assert figures["accuracy"] == 0
    assert figures["calibration_error"] == 1
    assert figures["confusion_matrix"] == [[0, 5], [4, 0]]
    assert figures["positive"]["f1"] == 0
    assert figures["positive"]["roc_auc"] == 0


@pytest.mark.parametrize("nonsense", [np.nan, np.inf])
def test_probabilities_that_are_no_numbers_are_refused(nonsense):
    probabilities = two_columns(SCHOOL)
    probabilities[3, 0] = nonsense
    with pytest.raises(DataError, match=r"not numbers.*lower learning rate"):
        measured(LABELS, probabilities, CLASSES, "school")


def test_nothing_to_score_is_refused():
    with pytest.raises(DataError, match="no tile"):
        measured(np.empty(0, dtype=int), np.empty((0, 2), dtype=np.float32), CLASSES, "school")
