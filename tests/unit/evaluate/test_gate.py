"""The gate: every limit on both sides and exactly at it, who wins, and what is refused."""

import json

import pytest

from sat_xception.errors import DataError, GateRefusedError
from sat_xception.evaluate.gate import NO_WINNER, check, decide, gate
from sat_xception.steps import GateConfig

LIMITS = {"min_accuracy": 0.85, "min_recall": 0.7, "min_precision": 0.6, "max_calibration_error": 0.2}


def config(tmp_path, **settings):
    return GateConfig(**{"evaluations": (tmp_path,), "out": tmp_path / "gate", **LIMITS, **settings})


def write(folder, evaluation):
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    return folder


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
    assert [row["value"] for row in rows if not row["passed"]] == ([] if passes else [value])
    assert decide([evaluation], config(tmp_path))["winner"] == ("xception" if passes else NO_WINNER)


def test_a_share_of_tiles_that_is_exactly_the_limit_passes(make_evaluation, tmp_path):
    for right, total in ((17, 20), (34, 40), (51, 60), (85, 100)):
        assert decide([make_evaluation(accuracy=right / total)], config(tmp_path))["winner"] == "xception"


def test_a_row_says_what_is_asked_and_of_which_class(make_evaluation, tmp_path):
    rows = check(make_evaluation(), config(tmp_path))
    assert [(row["name"], row["rule"], row["limit"]) for row in rows] == [
        ("validation accuracy", "at least", 0.85),
        ("recall of school", "at least", 0.7),
        ("precision of school", "at least", 0.6),
        ("calibration error", "at most", 0.2),
    ]
    assert check(make_evaluation(positive_label=""), config(tmp_path))[1]["name"] == "recall of macro average"


def test_of_two_that_pass_the_more_accurate_wins_in_whatever_order_they_come(make_evaluation, tmp_path):
    first, second = make_evaluation("xception", 0.91), make_evaluation("mobilenetv2", 0.92)
    for pair in ([first, second], [second, first]):
        decision = decide(pair, config(tmp_path))
        assert (decision["winner"], decision["model"]) == ("mobilenetv2", "digest of mobilenetv2")
        assert [row["backbone"] for row in decision["candidates"]] == ["mobilenetv2", "xception"]
    assert "mobilenetv2 passes every check with validation accuracy 0.9200" in decision["reason"]
    assert "xception 0.9100" in decision["reason"]


def test_the_more_accurate_loses_when_it_fails_a_check(make_evaluation, tmp_path):
    pair = [make_evaluation("xception", 0.99, recall=0.1), make_evaluation("mobilenetv2", 0.86)]
    decision = decide(pair, config(tmp_path))
    assert decision["winner"] == "mobilenetv2"
    assert "xception 0.9900 (refused)" in decision["reason"]


def test_ties_go_to_calibration_then_to_time_then_to_the_name(make_evaluation, tmp_path):
    def winner(xception, mobilenetv2):
        pair = [make_evaluation("xception", **xception), make_evaluation("mobilenetv2", **mobilenetv2)]
        return decide(pair, config(tmp_path))["winner"]

    assert winner({"calibration_error": 0.05}, {"calibration_error": 0.06, "seconds": 1}) == "xception"
    assert winner({"calibration_error": 0.06}, {"calibration_error": 0.05, "seconds": 900}) == "mobilenetv2"
    assert winner({"seconds": 10}, {"seconds": 11}) == "xception"
    assert winner({"seconds": 11}, {"seconds": 10}) == "mobilenetv2"
    assert winner({}, {}) == "mobilenetv2"


def test_when_none_passes_there_is_no_winner_and_every_failed_check_is_named(make_evaluation, tmp_path):
    pair = [make_evaluation("xception", 0.5, recall=0.1), make_evaluation("mobilenetv2", calibration_error=0.9)]
    decision = decide(pair, config(tmp_path))
    assert (decision["winner"], decision["model"]) == (NO_WINNER, "")
    assert decision["reason"] == (
        "no model passes: mobilenetv2: calibration error 0.9000, at most 0.2 is asked; "
        "xception: validation accuracy 0.5000, at least 0.85 is asked; "
        "xception: recall of school 0.1000, at least 0.7 is asked"
    )


def test_the_step_writes_the_decision_for_machines_and_for_people(make_evaluation, tmp_path):
    folders = write_all(tmp_path, make_evaluation("xception", 0.91), make_evaluation("mobilenetv2", 0.5))
    result = gate(config(tmp_path, evaluations=folders))
    assert result.winner == "xception"
    assert "winner: xception" in result.summary()
    decision = json.loads((tmp_path / "gate/decision.json").read_text())
    assert decision == result.decision
    assert decision["config"]["min_accuracy"] == 0.85
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
