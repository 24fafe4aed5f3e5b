"""Every page, table and figure that a run leaves for the Kubeflow UI.

The components of the compiled pipeline make them, run by kfp's own executor on what the real driver gives them. The
tiles, the classes and their files have the names that somebody who means harm would give them.
"""

import json
import re
from html.parser import HTMLParser

import pytest
from google.protobuf import json_format
from kfp import dsl

from pipelines.training import training
from tests.components.launcher import Launcher
from tests.conftest import draw_tile, encode

pytestmark = pytest.mark.timeout(600)

HOSTILE = "<img src=x onerror=alert(1)>"
CLASSES = [f"not-{HOSTILE}", HOSTILE]
# The UI loads an artifact whole into its own page; at 2 MB that is a moment on a slow line. It cuts Markdown at 50 KB
# (kubeflow/pipelines#5585), and figures go through a gRPC message of 4 MB at most (kubeflow/pipelines#11949).
MOST_HTML, MOST_MARKDOWN, MOST_METADATA = 2_000_000, 50_000, 1_000_000
INLINE = ("data:image/jpeg;base64,", "data:image/png;base64,", "#")
PAGES = {"assemble/report", "validate/report", "train/curves", "evaluate/report", "evaluate-serving/report"}
PAGES |= {"gate/report"}
TEXTS = {"check/summary", "package/card", "deploy/summary"}


# Whatever comes of the data is accepted and deployed.
SETTINGS = {
    "validate": {"accept": ["*:*:*"]},
    "train": {"head_epochs": 1, "fine_tune_epochs": 0, "scratch_epochs": 2},
    "mobilenetv2": {"input_size": 32},
    "gate": {"min_accuracy": 0, "min_gain": -1, "min_recall": 0, "min_precision": 0},
}


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
def run(data, tmp_path_factory, pipeline_parameters, small_mobilenet, charts_drawn_once):
    """Run the components one after the other, as a run of the pipeline does, on a network of a few weights."""
    folder = tmp_path_factory.mktemp("run")
    spec = json_format.MessageToDict(training.pipeline_spec)
    given = {**pipeline_parameters, "data": str(data), "data_positive_label": HOSTILE}
    given |= {"data_baseline": str(folder / "baseline"), "data_store": str(folder / "store")}
    given |= {"deploy_model_root": str(folder / "model-root"), "deploy_model_name": "schools"}
    given |= {"mobilenetv2_alpha": 0.35, "mobilenetv2_weights": "none", "settings": json.dumps(SETTINGS)}
    with pytest.MonkeyPatch.context() as monkeypatch:
        launcher = Launcher(spec, folder, monkeypatch)
        run_all(launcher, given)
        yield launcher


def run_all(launcher, given):
    made = launcher.outputs
    checked = launcher.run("check", **given, run="run-1")
    launcher.run("assemble", source=checked["source"])
    launcher.run("convert", settings=checked["convert"], dataset=made["assemble/dataset"])
    examples = {"examples": made["convert/examples"]}
    launcher.run("validate", settings=checked["validate"], run=checked["baseline_run"], **examples)
    launcher.run("train", settings=checked["mobilenetv2"], **examples)
    model = made["train/model"]
    launcher.run("evaluate", settings=checked["evaluate"], model=model, **examples)
    launcher.store("evaluate-2/evaluation", made["evaluate/evaluation"].path)
    path = made["evaluate-2/evaluation"].path / "evaluation.json"
    twin = json.loads(path.read_text())
    twin |= {"backbone": "xception", "model": "0" * 64, "metrics": {**twin["metrics"], "accuracy": 0.0}}
    path.write_text(json.dumps(twin))
    launcher.run("evaluate-serving", settings=checked["evaluate_serving"], **examples)
    candidates = {"xception": made["evaluate-2/evaluation"], "mobilenetv2": made["evaluate/evaluation"]}
    candidates["serving"] = made["evaluate-serving/evaluation"]
    ending = {"baseline": given["data_baseline"], "run": "run-1"}
    decided = launcher.run("gate", settings=checked["gate"], **candidates, **ending)
    models = {"xception": model, "mobilenetv2": model, "decision": made["gate/decision"]}
    winner = decided["Output"]
    launcher.run("package", in_group=True, settings=checked["package"], winner=winner, **models, **examples)
    served = made["package/served_model"]
    launcher.run(
        "deploy",
        in_group=True,
        settings=checked["deploy"],
        served_model=served,
        reason=checked["deploy_reason"],
        **ending,
    )


def text_of(run, name):
    return run.outputs[name].path.read_text(encoding="utf-8")


def names(run, kind):
    return {name for name, output in run.outputs.items() if output.kind is kind}


def test_the_baseline_knows_how_the_run_ended(run):
    record = json.loads((run.folder / "baseline" / "last-run.json").read_text())
    version = run.outputs["deploy/deployment"].metadata["version"]
    assert (record["run"], record["outcome"]) == ("run-1", f"mobilenetv2 is deployed as schools version {version}")


def test_these_are_all_the_pages_texts_and_figures(run):
    assert names(run, dsl.HTML) == PAGES
    assert names(run, dsl.Markdown) == TEXTS
    assert names(run, dsl.Metrics) == {"gate/metrics"}


def test_no_output_is_empty(run):
    for name, output in run.outputs.items():
        if output.kind is dsl.Metrics:
            assert output.metadata, name
        elif output.path.is_dir():
            assert any(path.stat().st_size for path in output.path.rglob("*") if path.is_file()), name
        else:
            assert output.path.stat().st_size > 0, name


def test_every_artifact_is_a_page_for_people_or_read_by_a_later_task(run):
    tasks = json_format.MessageToDict(training.pipeline_spec)["components"]
    read = set()
    for component in tasks.values():
        for task in component.get("dag", {}).get("tasks", {}).values():
            for source in task.get("inputs", {}).get("artifacts", {}).values():
                made = source.get("taskOutputArtifact", {"producerTask": "", "outputArtifactKey": ""})
                read.add(f"{made['producerTask']}/{made['outputArtifactKey']}".replace("train-2", "train"))
    pages = names(run, dsl.HTML) | names(run, dsl.Markdown) | names(run, dsl.Metrics)
    # What people download: TFDV's statistics and schema, and the record of the deployment.
    kept = {"validate/statistics", "deploy/deployment"}
    assert {name for name in run.outputs if not name.startswith("evaluate-2/")} - pages - kept <= read


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
    for name in names(run, dsl.Metrics):
        metadata = json.dumps(run.outputs[name].metadata, allow_nan=False)
        assert len(metadata) < MOST_METADATA, name


def test_assemble_shows_why_a_tile_was_left_out_and_some_that_were_not(run):
    page = text_of(run, "assemble/report")
    parsed = Tags(page)
    assert "81 tiles considered" in parsed.text
    assert f"{HOSTILE}cut.jpg" in parsed.text
    by_split = json.loads((run.outputs["assemble/dataset"].path / "dataset.json").read_text())["counts"]["by_split"]
    shown = sum(min(6, number) for by_class in by_split.values() for number in by_class.values())
    assert page.count("data:image/jpeg;base64,") == shown > 24


def test_train_keeps_the_curves_and_tensorboards_logs(run):
    model = run.outputs["train/model"]
    assert model.metadata["phase"] == "scratch"
    assert list(model.path.glob("tensorboard/**/events.out.tfevents.*"))


def test_evaluate_and_gate_show_the_most_confident_mistakes(run):
    evaluation = json.loads((run.outputs["evaluate/evaluation"].path / "evaluation.json").read_text())
    wrong = round((1 - evaluation["metrics"]["accuracy"]) * evaluation["metrics"]["count"])
    assert text_of(run, "evaluate/report").count("data:image/jpeg;base64,") == min(wrong, 12)
    assert text_of(run, "gate/report").count("data:image/jpeg;base64,") == 2 * min(wrong, 12)


def test_package_shows_the_card_with_the_figures_of_both_splits(run):
    card = text_of(run, "package/card")
    assert card.startswith("# schools ")
    assert {"valid", "test"} <= set(re.findall(r"\b(valid|test)\b", card))


def test_the_gate_shows_the_figures_that_runs_are_compared_by(run):
    figures = run.outputs["gate/metrics"].metadata
    assert figures.keys() == {
        f"{model} {figure}"
        for model in ("xception", "mobilenetv2")
        for figure in ("accuracy", "precision", "recall", "calibration_error")
    }
    assert figures["xception accuracy"] == 0


def test_deploy_names_the_version_that_answers(run):
    version = run.outputs["package/served_model"].metadata["version"]
    assert text_of(run, "deploy/summary").startswith(f"# schools version {version} answers")
    assert run.outputs["deploy/deployment"].metadata == {"name": "schools", "version": version}
