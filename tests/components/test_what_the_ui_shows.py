"""Every page, table and figure that a run leaves for the Kubeflow UI, made by the components themselves.

The tiles, the classes and their files have the names that somebody who means harm would give them.
"""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from kfp import dsl

from components.assemble.component import assemble
from components.convert.component import convert
from components.deploy.component import deploy
from components.evaluate.component import evaluate
from components.gate.component import gate
from components.package.component import package
from components.train.component import train
from components.validate.component import validate
from tests.components.artifacts import Artifacts
from tests.conftest import draw_tile, encode

pytestmark = pytest.mark.timeout(600)

HOSTILE = "<img src=x onerror=alert(1)>"
CLASSES = [f"not-{HOSTILE}", HOSTILE]
# The UI loads an artifact whole into its own page; at 2 MB that is a moment on a slow line. It cuts Markdown at 50 KB
# (kubeflow/pipelines#5585), and figures go through a gRPC message of 4 MB at most (kubeflow/pipelines#11949).
MOST_HTML, MOST_MARKDOWN, MOST_METADATA = 2_000_000, 50_000, 1_000_000
INLINE = ("data:image/jpeg;base64,", "data:image/png;base64,", "#")
PAGES = {"assemble/report", "validate/report", "train/curves", "evaluate/report", "evaluate-3/report"}
PAGES |= {"gate/report", "package/report"}
TEXTS = {"convert/summary", "gate/checks", "package/card", "deploy/summary"}


class Tags(HTMLParser):
    """The tags of a page with their attributes, and its text outside of styles."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "data"
    for label in CLASSES:
        (folder / label).mkdir(parents=True)
        for index in range(40):
            tile = draw_tile("not" if label.startswith("not") else "school", index)
            (folder / label / f"{HOSTILE}{index:02d}.jpg").write_bytes(encode(tile, quality=90))
    (folder / CLASSES[1] / f"{HOSTILE}cut.jpg").write_bytes(encode(draw_tile("school", 90))[:300])
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory, pipeline_parameters):
    """Run the components one after the other; return their outputs by `<step>/<output>`."""
    made = Artifacts(tmp_path_factory.mktemp("run"))
    parameters = {**pipeline_parameters, "data": str(data), "data_positive_label": HOSTILE}
    run = {"baseline": str(made.path("baseline")), "run": "run-1"}
    parameters |= {"data_baseline": run["baseline"], "code": "c0de", "run": run["run"]}
    run["content"] = assemble.python_func(**parameters, **made.of("assemble", dataset=dsl.Dataset, report=dsl.HTML))
    outputs = made.of("convert", examples=dsl.Dataset, summary=dsl.Markdown)
    convert.python_func(dataset=made["assemble/dataset"], **outputs)
    examples = made["convert/examples"]
    outputs = made.of("validate", statistics=dsl.Artifact, report=dsl.HTML)
    validate.python_func(examples=examples, accept=["*:*:*"], max_skew=0.3, max_drift=0.1, baseline="", **outputs)
    schedule = {
        "head_epochs": 1,
        "fine_tune_epochs": 0,
        "scratch_epochs": 2,
        "batch_size": 32,
        "seed": 0,
        "search_trials": 0,
        "checkpoints": "",
    }
    network = {"backbone": "mobilenetv2", "weights": "none", "input_size": 32, "alpha": 0.35}
    kinds = {"model": dsl.Model, "tensorboard": dsl.Artifact, "metrics": dsl.Metrics, "curves": dsl.HTML}
    train.python_func(examples=examples, **network, **schedule, **made.of("train", **kinds))
    kinds = {"evaluation": dsl.Artifact, "metrics": dsl.Metrics, "classification": dsl.ClassificationMetrics}
    outputs = made.of("evaluate", report=dsl.HTML, **kinds)
    scoring = {"examples": examples, "goal": "f1", "batch_size": 32}
    evaluate.python_func(model=made["train/model"], **scoring, **outputs)
    other = made.path("other-evaluation")
    shutil.copytree(made.path("evaluate/evaluation"), other)
    twin = json.loads((made.path("evaluate/evaluation") / "evaluation.json").read_text())
    twin |= {"backbone": "xception", "model": "0" * 64, "metrics": {**twin["metrics"], "accuracy": 0.0}}
    (other / "evaluation.json").write_text(json.dumps(twin))
    limits = {"min_accuracy": 0.0, "min_recall": 0.0, "min_precision": 0.0, "max_calibration_error": 1.0}
    both = {"xception": made.artifact(dsl.Artifact, "other-evaluation"), "mobilenetv2": made["evaluate/evaluation"]}
    outputs = made.of("evaluate-3", report=dsl.HTML, **kinds)
    evaluate.python_func(model_root=str(made.path("model-root")), **scoring, **outputs)
    both["serving"] = made["evaluate-3/evaluation"]
    limits |= {"min_slice_accuracy": 0.0, "min_slice_recall": 0.0, "min_slice_tiles": 20, "max_loss": 0.01}
    outputs = made.of("gate", decision=dsl.Artifact, checks=dsl.Markdown, report=dsl.HTML)
    winner = gate.python_func(**both, **limits, **run, **outputs)
    kinds = {"served_model": dsl.Model, "metrics": dsl.Metrics, "report": dsl.HTML, "card": dsl.Markdown}
    models = {"xception": made.artifact(dsl.Model, "absent"), "mobilenetv2": made["train/model"]}
    places = {"examples": examples, "decision": made["gate/decision"], "name": "schools"}
    package.python_func(winner=winner, **models, **places, **made.of("package", **kinds))
    outputs = made.of("deploy", deployment=dsl.Artifact, summary=dsl.Markdown)
    root = {"model_root": str(made.path("model-root")), "endpoint": ""}
    # As the pipeline's own defaults have it: of all this, a model root on this machine uses nothing.
    traffic = {"strategy": "auto", "traffic_steps": [10, 50, 100], "step_minutes": 2.0, "start_minutes": 15.0}
    cluster = {"target": "local", "endpoint_host": "", "namespace": "sat-xception", "storage_uri": ""}
    limits = {"min_agreement": 0.7, "max_slowdown": 2.0, **traffic, **cluster}
    deploy.python_func(served_model=made["package/served_model"], name="schools", **root, **limits, **run, **outputs)
    return made


def text_of(run, name):
    return run.path(name).read_text(encoding="utf-8")


def test_the_baseline_knows_how_the_run_ended(run):
    record = json.loads((run.path("baseline") / "last-run.json").read_text())
    assert record["run"] == "run-1"
    version = run["deploy/deployment"].metadata["version"]
    assert record["outcome"] == f"mobilenetv2 is deployed as schools version {version}"
    assert record["dataset"] == run["assemble/dataset"].metadata["digest"]


def test_these_are_all_the_pages_and_texts(run):
    assert run.names(dsl.HTML) == PAGES
    assert run.names(dsl.Markdown) == TEXTS


def test_no_output_is_empty(run):
    for name, artifact in run.items():
        if isinstance(artifact, dsl.Metrics | dsl.ClassificationMetrics):
            assert bool(artifact.metadata) == (not name.startswith("evaluate-3/")), "nothing is serving before a run"
        elif run.path(name).is_dir():
            assert any(path.stat().st_size for path in run.path(name).rglob("*") if path.is_file()), name
        else:
            assert run.path(name).stat().st_size > 0, name


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_stands_alone_and_is_small(run, name):
    page = text_of(run, name)
    assert page.startswith("<!doctype html>")
    assert len(page.encode()) < MOST_HTML
    parsed = Tags(page)
    assert not [tag for tag, _ in parsed.tags if tag in {"script", "link", "iframe", "object", "embed", "base", "form"}]
    for tag, attributes in parsed.tags:
        for attribute, value in attributes.items():
            assert not attribute.startswith("on"), (tag, attribute)
            if attribute in {"src", "href", "xlink:href", "srcset", "action", "data", "poster"}:
                assert value.startswith(INLINE), (tag, attribute, value)
    styles = "".join([*re.findall(r"<style.*?</style>", page, re.S), *re.findall(r'style="[^"]*"', page)])
    assert "@import" not in styles
    assert not re.search(r"url\((?!['\"]?#)", styles)


@pytest.mark.parametrize("name", ["assemble/report", "validate/report", "evaluate/report", "gate/report"])
def test_a_page_shows_hostile_names_as_text(run, name):
    parsed = Tags(text_of(run, name))
    assert HOSTILE in parsed.text
    assert not [attributes for tag, attributes in parsed.tags if tag == "img" and attributes.get("src") == "x"]


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_a_text_is_small_and_holds_no_markup_of_the_data(run, name):
    text = text_of(run, name)
    assert len(text.encode()) < MOST_MARKDOWN
    assert "<" not in text


def test_figures_are_small_and_are_numbers_that_json_holds(run):
    for name in run.names(dsl.Metrics) | run.names(dsl.ClassificationMetrics):
        metadata = json.dumps(run[name].metadata, allow_nan=False)
        assert len(metadata) < MOST_METADATA, name


def test_assemble_shows_why_a_tile_was_left_out_and_some_that_were_not(run):
    page = text_of(run, "assemble/report")
    parsed = Tags(page)
    assert "81 tiles considered" in parsed.text
    assert f"{HOSTILE}cut.jpg" in parsed.text
    by_split = json.loads((Path(run["assemble/dataset"].path) / "dataset.json").read_text())["counts"]["by_split"]
    shown = sum(min(6, number) for by_class in by_split.values() for number in by_class.values())
    assert page.count("data:image/jpeg;base64,") == shown > 24


def test_convert_counts_tiles_files_and_size(run):
    head, _, *rows = text_of(run, "convert/summary").splitlines()
    assert head == "| split | tiles | classes | files | MB |"
    assert [row.split("|")[1].strip() for row in rows] == ["train", "valid", "test"]
    assert sum(int(row.split("|")[2]) for row in rows) == 80


def test_train_logs_the_figures_that_trainings_are_compared_by(run):
    figures = run["train/metrics"].metadata
    assert set(figures) == {"validation accuracy", "epochs", "kept phase", "seconds"}
    assert (figures["epochs"], figures["kept phase"]) == (2, "scratch")


def test_evaluate_and_gate_show_the_most_confident_mistakes(run):
    evaluation = json.loads((run.path("evaluate/evaluation") / "evaluation.json").read_text())
    wrong = round((1 - evaluation["metrics"]["accuracy"]) * evaluation["metrics"]["count"])
    assert text_of(run, "evaluate/report").count("data:image/jpeg;base64,") == min(wrong, 12)
    assert text_of(run, "gate/report").count("data:image/jpeg;base64,") == 2 * min(wrong, 12)


def test_package_shows_the_card_and_the_figures_of_both_splits(run):
    assert text_of(run, "package/card").startswith("# schools ")
    figures = set(run["package/metrics"].metadata)
    assert figures == {
        f"{part} {name}" for part in ("valid", "test") for name in ("accuracy", "precision", "recall", "f1")
    }


def test_deploy_names_the_version_that_answers(run):
    version = run["package/served_model"].metadata["version"]
    assert text_of(run, "deploy/summary").startswith(f"# schools version {version} answers")
    assert run["deploy/deployment"].metadata == {"name": "schools", "version": version}
