"""Components called as plain functions, with artifacts that are folders here."""

import json
import shutil

import pytest
from kfp import dsl

from components.assemble.component import assemble
from components.convert.component import convert
from components.evaluate.component import evaluate
from components.gate.component import gate
from components.notify.component import notify
from components.package.component import package
from sat_xception.evaluate.evaluate import EvaluateResult
from sat_xception.last_run import finish_run, outcome_of
from tests.conftest import draw_tile, encode
from tests.tile_server import TileServer


def artifact(kind, path):
    return kind(name=path.name, uri=str(path), metadata={})


@pytest.fixture
def run_assemble(pipeline_parameters, tmp_path):
    """Return a function that runs assemble and returns the dataset."""

    def run(**changes):
        dataset = artifact(dsl.Dataset, tmp_path / "dataset")
        outputs = {"dataset": dataset, "report": artifact(dsl.HTML, tmp_path / "report")}
        given = {**pipeline_parameters, "code": "c0de", "run": "run-1", **changes}
        answer = assemble.python_func(**given, **outputs)
        assert dataset.metadata["run"] == answer
        return dataset

    return run


def test_assemble_and_convert_hand_over_a_dataset(run_assemble, class_folders, tmp_path):
    examples = artifact(dsl.Dataset, tmp_path / "examples")
    dataset = run_assemble(data=str(class_folders))
    convert.python_func(dataset=dataset, examples=examples, summary=artifact(dsl.Markdown, tmp_path / "summary"))
    assert dataset.metadata["ok"] == 80
    assert sum(examples.metadata.values()) == 80
    assert dataset.metadata["run"].startswith(f"dataset={dataset.metadata['digest']} parameters=")
    described = json.loads((tmp_path / "examples" / "examples.json").read_text())
    assert described["dataset_digest"] == dataset.metadata["digest"]


def test_only_a_run_with_the_data_parameters_and_code_of_the_last_is_one_without_news(
    run_assemble, class_folders, tmp_path, caplog
):
    tiles = shutil.copytree(class_folders, tmp_path / "tiles")
    given = {"data": str(tiles), "data_baseline": str(tmp_path / "baseline"), "data_skip_unchanged": True}

    def answer(**changes):
        return run_assemble(**{**given, **changes}).metadata["run"]

    content = answer()
    assert answer() == content  # it didn't finish
    finish_run(given["data_baseline"], content, "run-1", "all was well")
    assert answer(run="run-2") == "no new data"
    assert "every later step is skipped" in caplog.text
    assert answer(data_skip_unchanged=False) == content
    assert answer(data_workers=16, gpu_count="0", data_max_failed=0.5) == "no new data"
    assert answer(code="0the2c0de") not in (content, "no new data")
    assert answer(train_head_epochs=3) not in (content, "no new data")
    assert "parameters changed since the last finished run" in caplog.text
    moved = next((tiles / "school").iterdir())
    moved.rename(tiles / "not-school" / f"was-{moved.name}")
    relabelled = answer()
    assert relabelled not in (content, "no new data")
    assert relabelled.partition(" ")[2] == content.partition(" ")[2]
    assert "dataset changed since the last finished run" in caplog.text


class _Imagery(TileServer):
    """Serves another drawn image for each tile."""

    def tile(self, x, y):
        return encode(draw_tile("school", x * 4096 + y % 4096))


def test_assemble_takes_places_and_imagery_by_parameters(run_assemble, tmp_path):
    places = [(10 + index * 0.31, 40 + index % 7, index % 2) for index in range(80)]
    rows = [
        f"{lon},{lat},{'school' if odd else 'not-school'},{'rural' if lat > 43 else 'urban'}"
        for lon, lat, odd in places
    ]
    (tmp_path / "places.csv").write_text("\n".join(["lon,lat,kind,setting", *rows]))
    with _Imagery([]) as server:
        given = {"data_labels": str(tmp_path / "places.csv"), "data_imagery": server.template, "data_zoom": 15}
        more = {"data_label_column": "kind", "data_slice_columns": ["setting"], "data_negatives_ratio": 0.5}
        dataset = run_assemble(**given, **more, data_workers=4)
    described = json.loads((tmp_path / "dataset" / "dataset.json").read_text())
    assert dataset.metadata["ok"] == described["counts"]["considered"] == 80 + 20 == sum(server.asked.values())
    assert described["counts"]["by_slice"]["setting"].keys() >= {"rural", "urban"}
    assert described["config"]["zoom"] == 15


def test_bad_data_ends_the_process_with_its_exit_code_and_a_termination_message(run_assemble, tmp_path, monkeypatch):
    monkeypatch.setenv("SAT_XCEPTION_TERMINATION_LOG", str(tmp_path / "reason.json"))
    with pytest.raises(SystemExit) as ended:
        run_assemble(data=str(tmp_path / "nowhere"))
    assert ended.value.code == 3
    reason = json.loads((tmp_path / "reason.json").read_text())
    assert reason["step"] == "assemble"
    assert "nowhere" in reason["error"]


def test_the_first_step_refuses_a_parameter_of_a_later_one_before_it_reads_the_data(
    run_assemble, tmp_path, monkeypatch
):
    monkeypatch.setenv("SAT_XCEPTION_TERMINATION_LOG", str(tmp_path / "reason.json"))
    with pytest.raises(SystemExit) as ended:
        run_assemble(data=str(tmp_path / "nowhere"), gate_min_accuracy=1.5)
    assert ended.value.code == 2
    reason = json.loads((tmp_path / "reason.json").read_text())["error"]
    assert reason.startswith("wrong pipeline parameters: gate_min_accuracy")
    assert "nowhere" not in reason


def test_evaluate_logs_what_the_kubeflow_ui_shows(trained, examples, tmp_path):
    outputs = {
        "evaluation": artifact(dsl.Artifact, tmp_path / "evaluation"),
        "metrics": artifact(dsl.Metrics, tmp_path / "metrics"),
        "classification": artifact(dsl.ClassificationMetrics, tmp_path / "classification"),
        "report": artifact(dsl.HTML, tmp_path / "report"),
    }
    given = {"examples": artifact(dsl.Dataset, examples), "goal": "f1", "batch_size": 32}
    evaluate.python_func(model=artifact(dsl.Model, trained), **given, **outputs)
    found = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())["metrics"]
    assert outputs["metrics"].metadata["accuracy"] == found["accuracy"]
    shown = outputs["classification"].metadata
    assert [spec["displayName"] for spec in shown["confusionMatrix"]["annotationSpecs"]] == ["not-school", "school"]
    assert [row["row"] for row in shown["confusionMatrix"]["rows"]] == found["confusion_matrix"]
    assert len(shown["confidenceMetrics"]) == len(found["roc"])
    assert (tmp_path / "report").read_text().startswith("<!doctype html>")


@pytest.fixture
def score_serving(examples, tmp_path):
    """Return a function that evaluates what serves, and returns the evaluation and the figures."""

    def run(**where):
        outputs = {
            "evaluation": artifact(dsl.Artifact, tmp_path / "serving-evaluation"),
            "metrics": artifact(dsl.Metrics, tmp_path / "serving-metrics"),
            "classification": artifact(dsl.ClassificationMetrics, tmp_path / "serving-classification"),
            "report": artifact(dsl.HTML, tmp_path / "serving-report"),
        }
        given = {"examples": artifact(dsl.Dataset, examples), "goal": "f1", "batch_size": 32}
        evaluate.python_func(**given, **outputs, **where)
        return outputs

    return run


def test_evaluate_scores_what_serves_where_there_is_no_model(score_serving, packaged, tmp_path):
    outputs = score_serving(model_root=str(packaged))
    assert 0 <= outputs["metrics"].metadata["accuracy"] <= 1
    outputs = score_serving(model_root=str(tmp_path / "nowhere"))
    assert outputs["metrics"].metadata == outputs["classification"].metadata == {}
    assert "no version of school-classifier is served" in (tmp_path / "serving-report").read_text()


def test_a_confusion_matrix_of_very_many_classes_is_cut_to_those_that_are_mixed_up(evaluated):
    classes = [f"class-{index}" for index in range(600)]
    matrix = [[0] * 600 for _ in classes]
    matrix[3][599] = 5
    names, shown = EvaluateResult(evaluated, {"classes": classes, "metrics": {"confusion_matrix": matrix}}).confusion()
    assert len(names) == len(shown) == len(shown[0]) == 24
    assert shown[names.index("class-3")][names.index("class-599")] == 5


def test_only_of_two_classes_there_is_a_curve_to_show(evaluated):
    evaluation = json.loads((evaluated / "evaluation.json").read_text())
    false_rates, true_rates, thresholds = EvaluateResult(evaluated, evaluation).roc_curve()
    assert len(false_rates) == len(true_rates) == len(thresholds) == len(evaluation["metrics"]["roc"])
    assert (false_rates[0], true_rates[0], true_rates[-1]) == (0, 0, 1)
    assert EvaluateResult(evaluated, {**evaluation, "classes": ["a", "b", "c"]}).roc_curve() is None
    without = {**evaluation, "metrics": {**evaluation["metrics"], "roc": []}}
    assert EvaluateResult(evaluated, without).roc_curve() is None


def test_gate_returns_the_winner_and_package_takes_it(trained, evaluated, examples, score_serving, tmp_path):
    other = shutil.copytree(evaluated, tmp_path / "other")
    weaker = json.loads((evaluated / "evaluation.json").read_text())
    weaker["backbone"], weaker["model"] = "xception", "0" * 64
    weaker["metrics"]["accuracy"] = 0.0
    (other / "evaluation.json").write_text(json.dumps(weaker))
    decision = artifact(dsl.Artifact, tmp_path / "decision")
    limits = {"min_accuracy": 0.0, "min_recall": 0.0, "min_precision": 0.0, "max_calibration_error": 1.0}
    limits |= {"min_slice_accuracy": 0.0, "min_slice_recall": 0.0, "min_slice_tiles": 20, "max_loss": 0.01}
    baseline = tmp_path / "baseline"
    given = {
        "xception": artifact(dsl.Artifact, other),
        "mobilenetv2": artifact(dsl.Artifact, evaluated),
        "serving": score_serving(model_root=str(tmp_path / "nowhere"))["evaluation"],
        "baseline": str(baseline),
        "content": "dataset=a parameters=b code=c",
        "decision": decision,
        "checks": artifact(dsl.Markdown, tmp_path / "checks"),
        "report": artifact(dsl.HTML, tmp_path / "gate-report"),
    }
    assert gate.python_func(**given, **limits | {"max_calibration_error": 0.0}, run="run-1") == "none"
    assert outcome_of(baseline, "run-1").startswith("no model passes: ")
    winner = gate.python_func(**given, **limits, run="run-2")
    assert winner == "mobilenetv2"
    assert outcome_of(baseline, "run-2") == "", "a run with a winner hasn't finished before deploy"
    assert "| mobilenetv2 | validation accuracy |" in (tmp_path / "checks").read_text()
    assert "not compared: no version of school-classifier is served" in (tmp_path / "checks").read_text()

    served, metrics = artifact(dsl.Model, tmp_path / "served"), artifact(dsl.Metrics, tmp_path / "metrics")
    package.python_func(
        winner=winner,
        xception=artifact(dsl.Model, tmp_path / "absent"),
        mobilenetv2=artifact(dsl.Model, trained),
        examples=artifact(dsl.Dataset, examples),
        decision=decision,
        name="schools",
        served_model=served,
        metrics=metrics,
        report=artifact(dsl.HTML, tmp_path / "report"),
        card=artifact(dsl.Markdown, tmp_path / "card"),
    )
    assert (tmp_path / "served" / "schools" / served.metadata["version"] / "saved_model.pb").is_file()
    assert 0 <= metrics.metadata["test accuracy"] <= 1


def test_notify_tells_how_the_run_ended(capsys, monkeypatch):
    monkeypatch.delenv("SAT_XCEPTION_WEBHOOK", raising=False)
    status = dsl.PipelineTaskFinalStatus(
        state="FAILED",
        pipeline_job_resource_name="run-1",
        pipeline_task_name="run",
        error_code=1,
        error_message="train failed",
    )
    notify.python_func(pipeline="school-classifier-training", baseline="", run="run-1", status=status)
    assert "school-classifier-training: FAILED: train failed" in capsys.readouterr().out
