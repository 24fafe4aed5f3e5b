"""`evaluation.json` and `decision.json`: the keys of their files, and no evaluation that contradicts itself."""

import json

import numpy as np
import pytest

from sat_xception.errors import DataError
from sat_xception.evaluate.decision import Decision
from sat_xception.evaluate.evaluation import Evaluation
from sat_xception.evaluate.gate import decide
from sat_xception.evaluate.metrics import compute_metrics
from sat_xception.evaluate.settings import GateConfig

SERVING = {"state": "nothing", "reason": "no version is served", "place": "models", "name": "schools", "version": None}


def keys(content):
    """Return every path of keys in a JSON document."""
    if isinstance(content, dict):
        return {f".{key}{below}" for key, value in content.items() for below in keys(value) or {""}}
    if isinstance(content, list):
        return {f"[]{below}" for value in content for below in keys(value)}
    return set()


def written(document, folder):
    document.write(folder)
    return json.loads((folder / document.file_name).read_text())


@pytest.mark.parametrize("positive_label", ["school", ""])
def test_an_evaluation_of_an_earlier_version_is_read_and_written_with_the_same_keys(
    make_evaluation, tmp_path, positive_label
):
    content = make_evaluation(positive_label=positive_label)
    (tmp_path / "evaluation.json").write_text(json.dumps(content))
    evaluation = Evaluation.read(tmp_path)
    again = written(evaluation, tmp_path)
    assert again.pop("schema_version") == 1
    assert {key: again[key] for key in content if key != "training"} == {
        key: content[key] for key in content if key != "training"
    }
    assert again["training"] == content["training"] | {"hardware": {"machine": "", "cores": 2, "gpus": []}}
    assert again.keys() - content.keys() == {"unscored"}


def test_without_a_positive_class_the_keys_of_one_are_left_out(make_evaluation):
    metrics = Evaluation.model_validate(make_evaluation(positive_label="")).content()["metrics"]
    assert metrics["positive"].keys() == {"precision", "recall", "f1", "roc_auc", "pr_auc"}
    for row in metrics["slices"]:
        assert row.keys() == {"slice", "value", "count", "accuracy", "intervals"}
        assert row["intervals"].keys() == {"accuracy"}


def test_figures_of_a_slice_that_are_unknown_stay_null_in_the_file():
    labels, probabilities = np.zeros(4, int), np.full((4, 2), 0.5, np.float32)
    slices = {"setting": ["rural"] * 4}
    metrics = compute_metrics(labels, probabilities, ["other", "school"], "school", 0.9, slices=slices)
    (row,) = metrics.content()["slices"]
    assert (row["positives"], row["recall"], row["precision"]) == (0, None, None)
    assert row["intervals"].keys() == {"accuracy", "recall", "precision"}


def test_a_failed_training_has_no_figures_and_says_why(make_failed, tmp_path):
    (tmp_path / "evaluation.json").write_text(json.dumps(make_failed()))
    evaluation = Evaluation.read(tmp_path)
    assert evaluation.scores is None
    assert evaluation.why_unscored == "its training failed: no epoch had a finite loss (head, learning rate 0.001)"
    content = written(evaluation, tmp_path)
    absent = ("model", "metrics", "unscored", "calibration", "threshold", "serving")
    assert {content[key] for key in absent} == {None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"failed": "no epoch had a finite loss"}, "a training that failed has no metrics"),
        ({"metrics": None}, "both metrics and calibration, or neither"),
        ({"calibration": None}, "both metrics and calibration, or neither"),
        ({"metrics": None, "calibration": None}, "no metrics, and no reason why"),
        ({"serving": SERVING}, "either training, for a trained model, or serving"),
        ({"training": None}, "either training, for a trained model, or serving"),
    ],
)
def test_an_evaluation_that_contradicts_itself_is_refused(make_evaluation, tmp_path, changes, message):
    (tmp_path / "evaluation.json").write_text(json.dumps(make_evaluation(**changes)))
    with pytest.raises(DataError, match=rf"damaged: .*{message}.*run `sat_xception evaluate` again"):
        Evaluation.read(tmp_path)


def test_a_decision_is_read_as_it_was_written_and_has_one_version(make_evaluation, make_failed, tmp_path):
    pair = [make_evaluation("xception"), make_failed("mobilenetv2")]
    serving = make_evaluation(serving=SERVING, training=None, metrics=None, calibration=None, threshold=None)
    config = GateConfig(evaluations=(tmp_path,), out=tmp_path, min_slice_accuracy=0.1, min_slice_tiles=1)
    evaluations = [Evaluation.model_validate(each) for each in pair]
    decision = decide(evaluations, config, serving=Evaluation.model_validate(serving))
    content = written(decision, tmp_path)
    assert Decision.read(tmp_path) == decision
    assert [key for key in keys(content) if "schema_version" in key] == [".schema_version"]
    checks = content["candidates"][1]["checks"]
    assert [check["slice"] for check in checks if "slice" in check] == [["setting", "rural"], ["setting", "urban"]]
    assert {tuple(check) for check in checks if "slice" not in check} == {
        ("interval", "limit", "name", "note", "passed", "rule", "value")
    }
