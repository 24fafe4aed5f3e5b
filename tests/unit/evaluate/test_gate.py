"""The gate: every limit on both sides and exactly at it, who wins, and what is refused."""

import json
import re

import numpy as np
import pytest

from sat_xception.errors import DataError, GateRefusedError
from sat_xception.evaluate import checks
from sat_xception.evaluate import gate as gate_module
from sat_xception.evaluate.comparison import compare
from sat_xception.evaluate.decision import NO_WINNER, Decision
from sat_xception.evaluate.evaluation import Evaluation, ServingStatus
from sat_xception.evaluate.gate import gate
from sat_xception.evaluate.metrics import compute_metrics
from sat_xception.evaluate.predictions import PREDICTIONS_FILE, Outcomes, write_predictions
from sat_xception.evaluate.settings import GateConfig

LIMITS = {"min_accuracy": 0.85, "min_recall": 0.7, "min_precision": 0.6, "max_calibration_error": 0.2}


def config(tmp_path, **settings):
    return GateConfig(**{"evaluations": (tmp_path,), "out": tmp_path / "gate", **LIMITS, **settings})


def check(evaluation, *how):
    return checks.check(Evaluation.model_validate(evaluation), *how)


def decide(evaluations, config):
    return gate_module.decide([Evaluation.model_validate(each) for each in evaluations], config)


def write(folder, evaluation, right=None):
    """Write an evaluation, with predictions that are right on the tiles that `right` says."""
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    right = np.ones(12, dtype=bool) if right is None else np.array(right, dtype=bool)
    names = [f"tile-{index}" for index in range(len(right))]
    labels = np.arange(len(right)) % 2
    probabilities = np.eye(2, dtype=np.float32)[np.where(right, labels, 1 - labels)]
    write_predictions(folder / PREDICTIONS_FILE, names, names, {}, labels, probabilities, ["not-school", "school"])
    return folder


def what_serves(make_evaluation, **changes):
    serving = {"state": "scored", "reason": "", "place": "models/serving", "name": "schools", "version": 7}
    return make_evaluation("mobilenetv2", **changes) | {"serving": serving, "training": None}


def unscored(make_evaluation, state, reason):
    serving = {"state": state, "reason": reason, "place": "models/serving", "name": "schools", "version": None}
    return what_serves(make_evaluation) | {"serving": serving, "metrics": None, "calibration": None, "threshold": None}


def write_all(folder, *evaluations):
    return tuple(write(folder / str(index), evaluation) for index, evaluation in enumerate(evaluations))


@pytest.mark.parametrize(
    ("figure", "value", "passes"),
    [
        ("accuracy", 0.85, True),
        ("accuracy", 0.8499, False),
        ("accuracy", 1.0, True),
        ("recall", 0.7, True),
        ("recall", 0.6999, False),
        ("recall", 1.0, True),
        ("precision", 0.6, True),
        ("precision", 0.5999, False),
        ("precision", 1.0, True),
        ("calibration_error", 0.2, True),
        ("calibration_error", 0.2001, False),
        ("calibration_error", 0.0, True),
    ],
)
def test_each_limit_holds_exactly_at_it_and_not_beyond(make_evaluation, tmp_path, figure, value, passes):
    evaluation = make_evaluation(**{figure: value})
    rows = check(evaluation, config(tmp_path))
    assert [row.value for row in rows if not row.passed] == ([] if passes else [value])
    assert decide([evaluation], config(tmp_path)).winner == ("xception" if passes else NO_WINNER)


def test_a_share_of_tiles_that_is_exactly_the_limit_passes(make_evaluation, tmp_path):
    for right, total in ((17, 20), (34, 40), (51, 60), (85, 100)):
        assert decide([make_evaluation(accuracy=right / total)], config(tmp_path)).winner == "xception"


def test_a_row_says_what_is_asked_and_of_which_class(make_evaluation, tmp_path):
    rows = check(make_evaluation(), config(tmp_path))
    assert [(row.name, row.rule, row.limit) for row in rows] == [
        ("validation accuracy", "at least", 0.85),
        ("accuracy gained on the most frequent class", "its lower bound above", 0.0),
        ("recall of school", "at least", 0.7),
        ("precision of school", "at least", 0.6),
        ("calibration error", "at most", 0.2),
    ]
    assert check(make_evaluation(positive_label=""), config(tmp_path))[2].name == "recall of macro average"


def evaluated(make_evaluation, labels, predicted, threshold=0.5, blocks=None):
    """Return the evaluation of a model that says one class or the other of each tile, and is sure of it."""
    probabilities = np.where(np.eye(2)[np.asarray(predicted)], 0.9, 0.1).astype(np.float32)
    names = ["not-school", "school"]
    metrics = compute_metrics(np.asarray(labels), probabilities, names, "school", threshold, blocks=blocks).content()
    return make_evaluation(metrics=metrics)


def failed(evaluation, **settings):
    """Return the names of the checks that a model fails with the defaults."""
    rows = check(evaluation, GateConfig(evaluations=("e",), out="o", **settings))
    return [row.name for row in rows if not row.passed]


MOSTLY_FIELD = (np.arange(40) >= 36).astype(int)  # 36 of 40 tiles are no school
GAIN = "accuracy gained on the most frequent class"


@pytest.mark.parametrize(
    ("predicted", "threshold", "refused"),
    [
        (np.zeros(40, int), 0.5, [GAIN, "recall of school", "precision of school"]),
        # Every tile is a candidate: a recall of 1, and a precision that is the share of schools.
        (np.zeros(40, int), 0.0, [GAIN, "precision of school"]),
        (np.ones(40, int), 0.5, ["validation accuracy", GAIN, "precision of school"]),
        # One school of four found: better by one tile, which may be luck.
        (np.arange(40) == 39, 0.5, [GAIN, "recall of school"]),
        (MOSTLY_FIELD, 0.5, []),
    ],
)
def test_by_default_a_model_that_says_one_class_of_everything_is_refused(
    make_evaluation, predicted, threshold, refused
):
    assert failed(evaluated(make_evaluation, MOSTLY_FIELD, predicted.astype(int), threshold)) == refused


def test_what_is_gained_must_be_surely_above_its_limit(make_evaluation):
    labels, found = np.arange(100) < 30, np.arange(100) < 20
    evaluation = evaluated(make_evaluation, labels.astype(int), found.astype(int))
    assert evaluation["metrics"]["most_frequent"]["difference"] == pytest.approx(0.2)
    low, high = evaluation["metrics"]["most_frequent"]["interval"]
    assert 0.1 < low < 0.2 < high < 0.3
    assert failed(evaluation, min_gain=low - 0.001) == []
    assert failed(evaluation, min_gain=low) == [GAIN]
    assert failed(evaluation, min_gain=-1) == []


def test_without_an_interval_the_gain_itself_must_be_above_its_limit(make_evaluation):
    labels, block = np.array([0, 0, 0, 1, 1]), np.zeros(5, int)
    better = evaluated(make_evaluation, labels, labels, blocks=block)
    assert better["metrics"]["most_frequent"]["interval"] is None
    assert failed(better) == []
    assert GAIN in failed(evaluated(make_evaluation, labels, 0 * labels, blocks=block))


def test_the_check_against_the_most_frequent_class_is_told_with_its_interval(make_evaluation, tmp_path):
    evaluation = evaluated(make_evaluation, MOSTLY_FIELD, np.zeros(40, int))
    folders = write_all(tmp_path, evaluation)
    result = gate(GateConfig(evaluations=folders, out=tmp_path / "gate"))
    assert result.winner == NO_WINNER
    assert f"xception: {GAIN} 0.0000, its lower bound above 0 is asked" in result.decision.reason
    table = [row for row in (tmp_path / "gate/decision.md").read_text().splitlines() if row.startswith("|")]
    row = next(row for row in table if GAIN in row)
    assert "| 0.0000 | 0.0000 to 0.0000 | its lower bound above 0 | **no** |" in row
    assert "naming not-school for every tile is right on 0.9000 of them" in row


def test_an_evaluation_of_an_earlier_version_isnt_passed_without_the_comparison(make_evaluation, tmp_path):
    evaluation = make_evaluation()
    del evaluation["metrics"]["most_frequent"]
    with pytest.raises(DataError, match=r"earlier version.*sat_xception evaluate"):
        gate(config(tmp_path, evaluations=write_all(tmp_path, evaluation)))


def test_of_two_that_pass_the_more_accurate_wins_in_whatever_order_they_come(make_evaluation, tmp_path):
    first, second = make_evaluation("xception", 0.91), make_evaluation("mobilenetv2", 0.92)
    for pair in ([first, second], [second, first]):
        decision = decide(pair, config(tmp_path))
        assert (decision.winner, decision.model) == ("mobilenetv2", "digest of mobilenetv2")
        assert [row.backbone for row in decision.candidates] == ["mobilenetv2", "xception"]
    assert "mobilenetv2 passes every check with validation accuracy 0.9200" in decision.reason
    assert "xception 0.9100" in decision.reason


def test_the_more_accurate_loses_when_it_fails_a_check(make_evaluation, tmp_path):
    pair = [make_evaluation("xception", 0.99, recall=0.1), make_evaluation("mobilenetv2", 0.86)]
    decision = decide(pair, config(tmp_path))
    assert decision.winner == "mobilenetv2"
    assert "xception 0.9900 (refused)" in decision.reason


def write_failed(folder, evaluation):
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    return folder


def test_a_candidate_whose_training_failed_is_refused_and_the_other_wins(make_evaluation, make_failed, tmp_path):
    failed = make_failed("xception")
    folders = (write_failed(tmp_path / "a", failed), write(tmp_path / "b", make_evaluation("mobilenetv2", 0.86)))
    now = write(tmp_path / "now", what_serves(make_evaluation, model="another"))
    result = gate(config(tmp_path, evaluations=folders, serving=now))
    assert (result.winner, result.to_deploy) == ("mobilenetv2", "mobilenetv2")
    assert result.decision.reason == (
        "mobilenetv2 passes every check with validation accuracy 0.8600; the other: xception, whose training failed: "
        f"{failed['failed']}"
    )
    other, candidate = result.decision.candidates
    assert (other.backbone, other.passed) == ("mobilenetv2", True)
    assert not candidate.passed
    (row,) = candidate.checks
    assert (row.name, row.value, row.limit, row.passed) == ("training", None, None, False)
    assert row.note == f"its training failed: {failed['failed']}"
    assert result.decision.comparisons == ()
    assert {name.split()[0] for name in result.main_figures()} == {"mobilenetv2", "serving"}
    for page in ("decision.md", "report.html"):
        assert "learning rate 0.001" in (tmp_path / "gate" / page).read_text()


def test_no_model_passes_where_every_training_failed(make_failed, tmp_path):
    names = ("xception", "mobilenetv2")
    folders = tuple(write_failed(tmp_path / name, make_failed(name)) for name in names)
    result = gate(config(tmp_path, evaluations=folders))
    assert (result.winner, result.to_deploy, result.decision.model) == (NO_WINNER, NO_WINNER, "")
    why = "its training failed: no epoch had a finite loss (head, learning rate 0.001)"
    assert result.decision.reason == f"no model passes: mobilenetv2: {why}; xception: {why}"
    assert result.main_figures() == {}
    assert "Nothing was packaged or deployed" in (tmp_path / "gate/report.html").read_text()
    with pytest.raises(GateRefusedError, match="its training failed"):
        gate(config(tmp_path, evaluations=folders, require_winner=True))


def test_a_failed_training_on_other_data_is_refused_too(make_evaluation, make_failed, tmp_path):
    failed = make_failed("xception", dataset_digest="another")
    folders = (write_failed(tmp_path / "a", failed), write(tmp_path / "b", make_evaluation("mobilenetv2")))
    with pytest.raises(DataError, match="different datasets"):
        gate(config(tmp_path, evaluations=folders))


def test_ties_go_to_calibration_then_to_time_then_to_the_name(make_evaluation, tmp_path):
    def winner(xception, mobilenetv2):
        pair = [make_evaluation("xception", **xception), make_evaluation("mobilenetv2", **mobilenetv2)]
        return decide(pair, config(tmp_path)).winner

    assert winner({"calibration_error": 0.05}, {"calibration_error": 0.06, "seconds": 1}) == "xception"
    assert winner({"calibration_error": 0.06}, {"calibration_error": 0.05, "seconds": 900}) == "mobilenetv2"
    assert winner({"seconds": 10}, {"seconds": 11}) == "xception"
    assert winner({"seconds": 11}, {"seconds": 10}) == "mobilenetv2"
    assert winner({}, {}) == "mobilenetv2"


def test_when_none_passes_there_is_no_winner_and_every_failed_check_is_named(make_evaluation, tmp_path):
    pair = [make_evaluation("xception", 0.5, recall=0.1), make_evaluation("mobilenetv2", calibration_error=0.9)]
    decision = decide(pair, config(tmp_path))
    assert (decision.winner, decision.model) == (NO_WINNER, "")
    assert decision.reason == (
        "no model passes: mobilenetv2: calibration error 0.9000, at most 0.2 is asked; "
        "xception: validation accuracy 0.5000, at least 0.85 is asked; "
        "xception: recall of school 0.1000, at least 0.7 is asked"
    )


def test_the_step_writes_the_decision_for_machines_and_for_people(make_evaluation, tmp_path):
    folders = write_all(tmp_path, make_evaluation("xception", 0.91), make_evaluation("mobilenetv2", 0.5))
    result = gate(config(tmp_path, evaluations=folders))
    assert result.winner == "xception"
    assert "winner: xception" in result.summary()
    assert Decision.read(tmp_path / "gate") == result.decision
    assert result.decision.config["min_accuracy"] == 0.85
    for name in ("decision.md", "report.html"):
        text = (tmp_path / "gate" / name).read_text()
        assert "validation accuracy" in text
        assert "0.5000" in text


def test_no_winner_is_a_result_unless_one_is_required(make_evaluation, tmp_path):
    folders = write_all(tmp_path, make_evaluation(accuracy=0.5))
    result = gate(config(tmp_path, evaluations=folders))
    assert result.winner == NO_WINNER
    with pytest.raises(GateRefusedError, match=r"validation accuracy 0\.5000, at least 0\.85") as refused:
        gate(config(tmp_path, evaluations=folders, out=tmp_path / "strict", require_winner=True))
    assert refused.value.exit_code == 5
    assert sorted(path.name for path in (tmp_path / "strict").iterdir()) == [
        "decision.json",
        "decision.md",
        "report.html",
    ]
    assert "Nothing was packaged or deployed" in (tmp_path / "strict/report.html").read_text()
    assert "| at least 0.85 | **no** |" in (tmp_path / "strict/decision.md").read_text()


def with_slice(evaluation, count=40, positives=30, accuracy=0.9, recall=0.8, value="rural"):
    bounds = {"accuracy": [accuracy - 0.1, accuracy + 0.05], "recall": [recall - 0.1, recall + 0.1], "precision": None}
    row = {"slice": "setting", "value": value, "count": count, "accuracy": accuracy, "intervals": bounds}
    row |= {"positives": positives, "recall": recall, "precision": 1.0}
    return {**evaluation, "metrics": {**evaluation["metrics"], "slices": [row]}}


@pytest.mark.parametrize(
    ("slice_of", "limits", "passes", "note"),
    [
        ({"accuracy": 0.8}, {"min_slice_accuracy": 0.8}, True, ""),
        ({"accuracy": 0.7999}, {"min_slice_accuracy": 0.8}, False, ""),
        ({"recall": 0.6}, {"min_slice_recall": 0.6}, True, ""),
        ({"recall": 0.5999}, {"min_slice_recall": 0.6}, False, ""),
        ({"accuracy": 0.1, "count": 20}, {"min_slice_accuracy": 0.8}, False, ""),
        (
            {"accuracy": 0.1, "count": 19},
            {"min_slice_accuracy": 0.8},
            False,  # no slice is judged
            "not judged: 19 tiles count, 20 are needed",
        ),
        ({"accuracy": 0.1, "count": 19}, {"min_slice_accuracy": 0.8, "min_slice_tiles": 19}, False, ""),
        ({"recall": 0.1, "positives": 20}, {"min_slice_recall": 0.8}, False, ""),
        ({"recall": 0.1, "positives": 19}, {"min_slice_recall": 0.8}, False, "not judged: 19 tiles count"),
        ({"recall": 0.1, "accuracy": 0.1}, {}, True, ""),
    ],
)
def test_a_slice_with_enough_tiles_must_keep_its_floor(make_evaluation, tmp_path, slice_of, limits, passes, note):
    evaluation = with_slice(make_evaluation(), **slice_of)
    rows = [row for row in check(evaluation, config(tmp_path, **limits)) if row.slice]
    assert len(rows) == len([limit for limit in limits if limit != "min_slice_tiles"])
    assert all(row.note.startswith(note) for row in rows)
    assert all(row.passed == (passes or "not judged" in note) for row in rows)
    assert decide([evaluation], config(tmp_path, **limits)).winner == ("xception" if passes else NO_WINNER)


def test_a_model_that_is_better_overall_but_fails_in_one_slice_is_refused_and_the_report_shows_the_slice(
    make_evaluation, tmp_path
):
    better = with_slice(make_evaluation("xception", 0.99), recall=0.4)
    weaker = with_slice(make_evaluation("mobilenetv2", 0.9), recall=0.7)
    folders = write_all(tmp_path, better, weaker)
    result = gate(config(tmp_path, evaluations=folders, min_slice_recall=0.6))
    assert result.winner == "mobilenetv2"
    assert "xception 0.9900 (refused)" in result.decision.reason
    page = (tmp_path / "gate/report.html").read_text()
    assert "recall where setting is rural" in page
    assert page.count("below its floor") == 1
    assert re.search(r'class="number fail">0\.4000', page)
    assert "0.300 to 0.500" in page
    row = next(row for row in (tmp_path / "gate/decision.md").read_text().splitlines() if "**no**" in row)
    assert "| recall where setting is rural | 0.4000 | 0.3000 to 0.5000 | at least 0.6 | **no** |" in row


def test_a_floor_of_slices_that_nothing_can_be_held_to_isnt_kept(make_evaluation, tmp_path):
    evaluation = make_evaluation()
    evaluation["metrics"]["slices"] = []
    decision = decide([evaluation], config(tmp_path, min_slice_accuracy=0.5))
    assert decision.winner == NO_WINNER
    assert "accuracy in each slice the data has no slices, at least 0.5 is asked" in decision.reason
    assert decide([evaluation], config(tmp_path)).winner == "xception"


@pytest.mark.parametrize(
    ("slice_of", "limits", "told"),
    [
        (
            {"count": 19},
            {"min_slice_accuracy": 0.8},
            "accuracy in each slice none of 1 slices is judged: 19 tiles count",
        ),
        ({"positives": 0}, {"min_slice_recall": 0.6}, "recall in each slice none of 1 slices is judged: 0 tiles count"),
    ],
)
def test_a_floor_of_slices_that_are_all_too_small_is_not_kept(make_evaluation, tmp_path, slice_of, limits, told):
    evaluation = with_slice(make_evaluation(), **slice_of)
    assert told in decide([evaluation], config(tmp_path, **limits)).reason
    large = with_slice(make_evaluation(), value="town")
    evaluation["metrics"]["slices"] += large["metrics"]["slices"]
    assert decide([evaluation], config(tmp_path, **limits)).winner != NO_WINNER
    notes = [row.note for row in check(evaluation, config(tmp_path, **limits)) if row.slice]
    assert ["not judged" in note for note in notes] == [True, False]


def test_of_very_many_slices_the_failed_ones_are_told_first_and_the_texts_stay_short(make_evaluation, tmp_path):
    evaluation = make_evaluation()
    rows = [
        with_slice(evaluation, accuracy=0.5 if index >= 170 else 0.9, value=f"region {index} of a long name")
        for index in range(200)
    ]
    evaluation["metrics"]["slices"] = [each["metrics"]["slices"][0] for each in rows]
    folders = write_all(tmp_path, evaluation)
    result = gate(config(tmp_path, evaluations=folders, min_slice_accuracy=0.6))
    assert "; and 18 checks more" in result.decision.reason
    text = (tmp_path / "gate/decision.md").read_text()
    assert text.count("**no**") == 30
    assert "85 more checks of slices are in the report" in text
    assert len(text) < 50_000
    assert (tmp_path / "gate/report.html").read_text().count("below its floor") == 30


N = 200


def right_but(*wrong):
    right = np.ones(N, dtype=bool)
    right[list(wrong)] = False
    return right


@pytest.mark.parametrize(
    ("own", "serving", "max_loss", "passes"),
    [
        (right_but(), right_but(), 0.0, True),  # a tie
        (right_but(1, 2), right_but(3, 4), 0.0, True),  # a tie on other tiles
        (right_but(1), right_but(1, 2), 0.0, True),
        (right_but(1), right_but(), 0.0, False),
        (right_but(1), right_but(), 0.01, False),  # 0.005 worse, and with 200 tiles it may be 0.015
        (right_but(1), right_but(), 0.02, True),
        (right_but(*range(20)), right_but(), 0.1, False),  # 0.1 worse, the lower bound is below it
        (right_but(*range(20)), right_but(), 0.2, True),
        (right_but(*range(100)), right_but(), 1.0, True),  # nobody asks
        (right_but(*range(100)), right_but(*range(100, 200)), 0.0, True),
    ],
)
def test_a_model_may_not_be_worse_than_what_serves(make_evaluation, tmp_path, own, serving, max_loss, passes):
    folders = (write(tmp_path / "own", make_evaluation(accuracy=0.9), own),)
    now = write(tmp_path / "now", what_serves(make_evaluation), serving)
    result = gate(config(tmp_path, evaluations=folders, serving=now, max_loss=max_loss))
    assert result.winner == ("xception" if passes else NO_WINNER)
    (row,) = (row for row in result.decision.candidates[0].checks if "serving" in row.name)
    assert row.value == pytest.approx((own.sum() - serving.sum()) / N)
    assert row.interval[0] <= row.value <= row.interval[1]
    assert "version 7 at models/serving" in row.note
    for page in ("decision.md", "report.html"):
        assert "accuracy gained on what is serving" in (tmp_path / "gate" / page).read_text()


def test_an_equal_model_passes_half_of_the_time_and_a_much_worse_one_seldom(tmp_path, make_evaluation):
    """On 150 tiles, of which each model has a tenth wrong, and never the same ones."""
    rng = np.random.default_rng(0)
    scored = ServingStatus(state="scored", reason="", place="p", name="n", version=1)
    names = [str(index) for index in range(150)]
    evaluation = make_evaluation()

    def passes(worse):
        passed = 0
        for _ in range(100):
            luck = rng.random(150)
            comparison = compare(Outcomes(names, names, luck > 0.1 + worse), Outcomes(names, names, luck < 0.9))
            rows = check(evaluation, config(tmp_path, max_loss=0.01), scored, comparison)
            passed += rows[-1].passed
        return passed

    assert passes(0) >= 45
    assert passes(0.08) <= 5


@pytest.mark.parametrize(
    ("state", "max_loss", "passes"),
    [
        ("nothing", 0.01, True),
        ("other classes", 0.01, False),
        ("other classes", 1.0, True),
        ("no probabilities", 0.01, False),
        ("no probabilities", 1.0, True),
    ],
)
def test_what_cant_be_compared_is_said_and_other_classes_are_refused(
    make_evaluation, tmp_path, state, max_loss, passes
):
    now = write(tmp_path / "now", unscored(make_evaluation, state, f"because of {state}"))
    folders = write_all(tmp_path, make_evaluation(accuracy=0.9))
    result = gate(config(tmp_path, evaluations=folders, serving=now, max_loss=max_loss))
    assert result.winner == ("xception" if passes else NO_WINNER)
    for page in ("decision.md", "report.html"):
        assert f"not compared: because of {state}" in (tmp_path / "gate" / page).read_text()


def test_without_word_of_what_serves_nothing_is_compared_with_it(make_evaluation, tmp_path):
    folders = write_all(tmp_path, make_evaluation(accuracy=0.9))
    decision = gate(config(tmp_path, evaluations=folders)).decision
    assert decision.serving is None
    assert not [row for row in decision.candidates[0].checks if "serving" in row.name]


def test_candidates_are_compared_on_the_same_tiles(make_evaluation, tmp_path):
    first = write(tmp_path / "a", make_evaluation("xception", 0.91), right_but(1, 2, 3))
    second = write(tmp_path / "b", make_evaluation("mobilenetv2", 0.9), right_but(1, 4))
    decision = gate(config(tmp_path, evaluations=(first, second))).decision
    (found,) = decision.comparisons
    assert (found.first, found.second) == ("mobilenetv2", "xception")
    assert (found.first_only, found.second_only) == (2, 1)
    assert "McNemar" in (tmp_path / "gate/report.html").read_text()
    assert "mobilenetv2 against xception on 200 tiles: accuracy +0.0050" in (tmp_path / "gate/decision.md").read_text()


def test_a_served_model_is_no_candidate_and_a_candidate_isnt_what_serves(make_evaluation, tmp_path):
    trained = write(tmp_path / "trained", make_evaluation())
    served = write(tmp_path / "served", what_serves(make_evaluation))
    with pytest.raises(DataError, match="give it as --serving"):
        gate(config(tmp_path, evaluations=(served,)))
    with pytest.raises(DataError, match="evaluate what serves with --model-root"):
        gate(config(tmp_path, evaluations=(trained,), serving=trained))
    other = write(tmp_path / "other", what_serves(make_evaluation, dataset_digest="another"))
    with pytest.raises(DataError, match="different datasets"):
        gate(config(tmp_path, evaluations=(trained,), serving=other))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset_digest": "another"}, "different datasets"),
        ({"backbone": "xception"}, "same backbone"),
        ({"split": "test"}, "test split; the gate chooses on valid only"),
        ({"split": "train"}, "train split"),
    ],
)
def test_evaluations_that_must_not_be_compared_are_refused(make_evaluation, tmp_path, changes, message):
    folders = write_all(tmp_path, make_evaluation("xception"), {**make_evaluation("mobilenetv2"), **changes})
    with pytest.raises(DataError, match=message):
        gate(config(tmp_path, evaluations=folders))
    assert not (tmp_path / "gate").exists()


def test_a_folder_that_is_no_evaluation_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"evaluation\.json is missing.*sat_xception evaluate"):
        gate(config(tmp_path, evaluations=(tmp_path / "empty",)))
