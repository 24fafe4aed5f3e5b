"""Reports and drawings: they stand alone, say what they must, and no name can break them."""

import base64
import html
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from sat_xception.errors import DataError
from sat_xception.evaluate.evaluation import Evaluation
from sat_xception.evaluate.gate import decide
from sat_xception.evaluate.report import decision_markdown, device_minutes, run_report
from sat_xception.evaluate.settings import GateConfig
from sat_xception.kubeflow.run_result import RunResult
from sat_xception.model.parts import Epoch
from sat_xception.package.card import model_card, model_card_json
from sat_xception.package.record import ModelRecord
from sat_xception.reports.charts import confusion_chart, curves_chart, curves_page
from sat_xception.reports.page import render_page, thumbnail
from sat_xception.train.record import Hardware
from tests.unit.deploy.test_deployment_report import DEPLOYMENT

NASTY = ["a|b", "<script>alert(1)</script>", "[x](http://example.org) `c` **d** \\", '"&amp;', "$\\frac$", "学校", "$$"]


class Tags(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def cells(line: str) -> list[str]:
    """Split a row of a Markdown table as GitHub does: a pipe after a backslash is text."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def epochs(evaluation):
    """Return the history of an evaluation, given as `evaluation.json` holds it."""
    return [Epoch.model_validate(row) for row in evaluation["training"]["history"]]


@pytest.fixture
def decision(make_evaluation, tmp_path):
    def make(**changes):
        pair = [make_evaluation("xception", 0.91, **changes), make_evaluation("mobilenetv2", 0.5, **changes)]
        return decided(pair, tmp_path)

    return make


def decided(evaluations, folder):
    """Return the gate's decision on evaluations, given as `evaluation.json` holds them."""
    config = GateConfig(evaluations=(folder,), out=folder, min_accuracy=0.85)
    return decide([Evaluation.model_validate(each) for each in evaluations], config)


@pytest.fixture
def served(make_evaluation):
    def make(**changes):
        evaluation = make_evaluation(**changes)
        training = {"versions": {"tensorflow": "2.21.0"}, **evaluation["training"]}
        described = {
            **evaluation,
            "name": "school-classifier",
            "version": 7,
            "training": training,
            "tiles": {"train": 1234, "valid": 20},
            "metrics": {"valid": evaluation["metrics"], "test": {**evaluation["metrics"], "accuracy": 0.8765}},
            "export_tolerance": 1e-5,
            "calibration": {"temperature": 1.5, "fitted_on": "valid", "error_before": 0.2, "error_after": 0.1},
            "threshold": evaluation["threshold"]["value"] if evaluation["threshold"] else None,
            "threshold_choice": evaluation["threshold"],
            "packaged_by": "sat_xception 0.1.0, tensorflow 2.21.0",
        }
        return ModelRecord.model_validate(described | changes)

    return make


def assert_stands_alone(page):
    """Nothing in the page is fetched: no script, and no address but data, parts of the page itself and names of XML."""
    parsed = Tags(page)
    assert not [tag for tag, _ in parsed.tags if tag in {"script", "link", "iframe", "object", "base", "form"}]
    for _, attributes in parsed.tags:
        for name, value in attributes.items():
            if name.startswith("xmlns") and value in {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}:
                continue
            assert not name.startswith("on")
            assert "//" not in re.sub(r"data:image/[^\"]*", "", value or ""), (name, value)
    assert "@import" not in page
    assert "url(http" not in page


def test_a_run_report_stands_alone_and_names_the_failed_check(decision):
    page = run_report(decision())
    assert_stands_alone(page)
    assert 'class="fail">no<' in page
    assert "0.5000" in page
    assert page.count("<svg") == 2 * 5  # curves, confusion, ROC, precision-recall and calibration of each
    assert "xception wins" in page
    assert "Served model" not in page


def test_a_run_report_has_a_candidate_whose_training_failed(make_evaluation, make_failed, tmp_path):
    page = run_report(decided([make_evaluation("mobilenetv2"), make_failed("xception")], tmp_path))
    assert_stands_alone(page)
    text = " ".join(Tags(page).text.split())
    assert "There is no model: its training failed. no epoch had a finite loss (head, learning rate 0.001)." in text
    assert "Device-minutes: 1.0 on a CPU of 2 cores." in text
    assert "accuracy of mobilenetv2" in text and "accuracy of xception" not in text
    assert page.count("<svg") == 5 + 1  # of the failed one its curves alone
    lost = decided([make_failed("mobilenetv2"), make_failed("xception")], tmp_path)
    page = run_report(lost)
    assert_stands_alone(page)
    assert "no model may be deployed" in page and "Side by side" not in page
    rows = [cells(line) for line in decision_markdown(lost).splitlines() if line.startswith("|")]
    assert rows[2][:6] == ["mobilenetv2", "training", "-", "-", "ends with a model", "**no**"]


def test_curves_are_drawn_of_no_epoch_and_of_epochs_without_a_figure(make_failed):
    (row,) = epochs(make_failed())
    for history in ([], [row], [row.model_copy(update={"accuracy": None, "val_accuracy": None})]):
        assert "<svg" in curves_chart(history)


def test_the_summary_of_a_run_names_a_candidate_whose_training_failed(make_evaluation, make_failed, tmp_path):
    decision = decided([make_evaluation("mobilenetv2"), make_failed("xception")], tmp_path)
    text = RunResult(tmp_path, decision, None, None, 1.0).summary()
    why = "no epoch had a finite loss (head, learning rate 0.001)"
    assert f"failed    xception has no model: its training failed: {why}" in text
    assert "ends with a model" in text
    assert "winner    mobilenetv2" in text


def test_the_summary_of_a_run_says_what_answers_and_how_to_serve_it(decision, served, tmp_path):
    packaged = served()
    text = RunResult(tmp_path, decision(), packaged, DEPLOYMENT, 1.0).summary()
    accuracy = f"test accuracy 0.8765 on {packaged.test.count} tiles"
    assert f"model     school-classifier version 7, {accuracy}" in text
    assert "answers   its golden tiles over REST and gRPC within 1e-07" in text
    assert f"serve it  {DEPLOYMENT.serve_command}" in text
    asked = DEPLOYMENT.model_copy(update={"endpoint": "http://models.example"})
    alone = packaged.model_copy(update={"metrics": {}})
    text = RunResult(tmp_path, decision(), alone, asked, 1.0).summary()
    assert "model     school-classifier version 7\n" in text
    assert "answers   its golden tiles over REST within" in text


def test_a_run_report_says_what_is_served(decision, served):
    page = run_report(decision(), served())
    assert "Served model" in page
    assert "0.8765" in page


def test_a_run_report_works_without_a_test_split_and_without_a_roc_curve(served, make_evaluation, tmp_path):
    described = served()
    described = described.model_copy(update={"metrics": {"valid": described.metrics["valid"]}})
    evaluation = make_evaluation()
    evaluation["metrics"] |= {"roc": [], "pr": []}
    page = run_report(decided([evaluation], tmp_path), described)
    assert page.count("<svg") == 3
    assert "Served model" in page
    assert "test accuracy" not in page


def test_only_a_synthetic_sample_is_called_one(decision, served):
    assert "synthetic sample" not in run_report(decision())
    assert "synthetic sample" in run_report(decision(synthetic=True))
    assert "Synthetic sample" not in decision_markdown(decision()) + model_card(served())
    assert "Synthetic sample" in decision_markdown(decision(synthetic=True))
    assert "Synthetic sample" in model_card(served(synthetic=True))


@pytest.mark.parametrize("name", NASTY)
def test_no_class_name_breaks_a_page(decision, name):
    page = run_report(decision(classes=("other", name), positive_label=name, source=name))
    assert_stands_alone(page)
    assert f"recall of {name}" in Tags(page).text


@pytest.mark.parametrize("name", NASTY)
def test_no_class_name_breaks_the_markdown_of_a_decision(decision, name):
    text = decision_markdown(decision(classes=("other", name), positive_label=name))
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 2 * 5
    assert {len(cells(line)) for line in table} == {7}
    assert "<" not in text
    shown = html.unescape(re.sub(r"\\([^\w\s])", r"\1", cells(table[4])[1]))
    assert shown == f"recall of {name}"


def test_a_line_break_in_a_name_doesnt_end_a_row_of_a_table(decision):
    text = decision_markdown(decision(classes=("other", "a\n\n# b"), positive_label="a\n\n# b"))
    assert "recall of a # b" in text
    assert "\n# b" not in text


def test_a_model_card_has_every_figure_and_breaks_on_no_name(served):
    card = model_card(served(classes=("other", "<b>|"), positive_label="<b>|", source="<i>"))
    assert "# school-classifier 7" in card
    assert "- train: 1,234 tiles" in card
    rows = [cells(line) for line in card.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows[:4]] == ["split", "---", "valid", "test"]
    assert re.fullmatch(r"0\.8765 \(0\.\d{3} to 1\.000\)", rows[3][2])
    assert [row[:3] for row in rows if row[1].startswith("setting=")] == [
        [split, f"setting={value}", str(count)]
        for split in ("valid", "test")
        for value, count in (("rural", 8), ("urban", 4))
    ]
    assert "<b>" not in card
    assert "<i>" not in card
    assert "scored once" in card


SECTIONS = (
    "Model details",
    "Intended use",
    "Factors",
    "Metrics",
    "Training and evaluation data",
    "Quantitative analyses",
    "Ethical considerations",
    "Caveats and recommendations",
)


def test_a_model_card_has_the_sections_of_the_paper_and_says_what_was_chosen(served):
    card = model_card(served())
    assert tuple(line[3:] for line in card.splitlines() if line.startswith("## ")) == SECTIONS
    assert "calibrated with temperature 1.500, fitted on the validation split" in card
    assert "school, from probability 0.500 on (f1)" in card
    assert "told by setting" in card
    missed = {"goal": "recall-at-precision:0.99", "value": 0.5, "reached": False}
    assert "(recall-at-precision:0.99, which could not be reached)" in model_card(served(threshold_choice=missed))
    plain = model_card(served(calibration={"temperature": 1.0, "fitted_on": ""}, threshold_choice=None))
    assert "as trained, not calibrated" in plain
    assert "(f1)" not in plain


def test_the_card_of_many_slices_stays_short(served):
    metrics = served().metrics["valid"]
    slices = tuple(metrics.slices[0].model_copy(update={"value": f"region {index}"}) for index in range(200))
    metrics = metrics.model_copy(update={"slices": slices})
    card = model_card(served(metrics={"valid": metrics}))
    assert "140 more slices are in model_card.json" in card
    assert len(card) < 50_000
    assert (
        len(model_card_json(served(metrics={"valid": metrics}))["quantitative_analysis"]["performance_metrics"]) > 400
    )


# Fields of schema v0.0.2 of the Model Card Toolkit, as far as they are used.
FIELDS = {
    "": {"schema_version", "model_details", "model_parameters", "quantitative_analysis", "considerations"},
    "model_details": {"name", "overview", "documentation", "owners", "version", "licenses", "references", "citations"},
    "model_parameters": {"model_architecture", "data", "input_format", "output_format"},
    "quantitative_analysis": {"performance_metrics", "graphics"},
    "considerations": {"users", "use_cases", "limitations", "tradeoffs", "ethical_considerations"},
}


def test_the_card_as_json_has_the_toolkits_fields_and_every_figure_with_its_interval(served):
    card = json.loads(json.dumps(model_card_json(served(version=20260101120000)), allow_nan=False))
    assert card.keys() == FIELDS[""]
    for part, fields in FIELDS.items():
        assert not part or card[part].keys() <= fields, part
    assert card["model_details"]["version"] == {"name": "20260101120000", "date": "2026-01-01"}
    assert "date" not in model_card_json(served())["model_details"]["version"]
    rows = card["quantitative_analysis"]["performance_metrics"]
    accuracy = next(row for row in rows if (row["type"], row["slice"]) == ("accuracy", "test"))
    assert accuracy["value"] == 0.8765
    bounds = served().test.intervals.accuracy
    assert accuracy["confidence_interval"] == {"lower_bound": bounds.low, "upper_bound": bounds.high}
    assert {row["slice"] for row in rows} == {
        f"{split}{where}" for split in ("valid", "test") for where in ("", ", setting=rural", ", setting=urban")
    }
    assert all(isinstance(row["value"], float) for row in rows)


def test_what_a_training_cost_is_counted_on_every_device():
    assert device_minutes(90.0, Hardware(cores=2)) == "1.5 on a CPU of 2 cores"
    assert device_minutes(90.0, Hardware(cores=2, gpus=("L4", "L4"))) == "3.0 on L4"
    assert device_minutes(90.0, Hardware()) == "1.5 on a CPU of unknown cores"


def test_a_model_card_doesnt_speak_of_a_test_split_that_isnt_there(served):
    assert "scored once" not in model_card(served(metrics={"valid": served().metrics["valid"]}))
    assert "| split |" not in model_card(served(metrics={}))
    assert "names no slices" in model_card(served(metrics={}))


@pytest.mark.parametrize("name", NASTY)
def test_a_confusion_matrix_shows_each_name_as_it_is(name):
    chart = confusion_chart([[12, 3], [4, 56]], ["other", name])
    text = Tags(str(chart)).text
    assert text.count(name) == 2  # a row and a column
    assert all(number in text for number in ("12", "3", "4", "56"))


def test_of_very_many_classes_those_are_drawn_that_are_mixed_up_most():
    matrix = np.full((100, 100), 1) + np.eye(100, dtype=int) * 50
    matrix[7, 93] = 888
    chart = str(confusion_chart(matrix.tolist(), [f"class-{index:03d}" for index in range(100)]))
    text = Tags(chart).text
    assert "the 24 of 100 classes that are mixed up most" in text
    assert text.count("class-007") == text.count("class-093") == 2
    assert "888" in text
    assert len(chart) < 400_000


def test_the_same_figures_make_the_same_drawing():
    assert confusion_chart([[1, 2], [3, 4]], ["a", "b"]) == confusion_chart([[1, 2], [3, 4]], ["a", "b"])


def test_learning_curves_are_self_contained_and_mark_where_a_phase_ends(make_evaluation):
    history = epochs(make_evaluation())
    page = curves_page("<x>", history, synthetic=False)
    assert_stands_alone(page)
    assert "<x>" not in page
    assert "3 epochs" in page
    assert "synthetic sample" not in page
    assert "synthetic sample" in curves_page("x", history, synthetic=True)
    dotted = "stroke-dasharray: 1"
    assert str(curves_chart(history)).count(dotted) == 2  # one line in each drawing
    assert dotted not in str(curves_chart(history[:2]))


def test_learning_curves_are_drawn_of_one_epoch_and_of_losses_that_are_no_numbers(make_evaluation):
    history = epochs(make_evaluation())
    assert "<svg" in curves_chart(history[:1])
    assert "<svg" in curves_chart([*history, history[-1].model_copy(update={"loss": None, "val_loss": None})])


def test_text_is_escaped_unless_it_is_a_drawing_of_ours():
    page = render_page("curves", synthetic=False, title="&<", epochs=1, chart="<svg>")
    assert "&amp;&lt;" in page
    assert "&lt;svg&gt;" in page


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK"])
def test_a_thumbnail_is_a_small_jpeg(mode):
    buffer = io.BytesIO()
    Image.new("RGB", (400, 200), "red").convert(mode).save(buffer, "TIFF")
    address = thumbnail(buffer.getvalue())
    assert address.startswith("data:image/jpeg;base64,")
    assert len(address) < 5000


def test_a_thumbnail_of_an_image_of_16_bits_is_as_bright_as_the_image():
    buffer = io.BytesIO()
    Image.fromarray(np.full((200, 200), 100 * 257, dtype=np.uint16)).save(buffer, "PNG")
    shown = base64.b64decode(thumbnail(buffer.getvalue()).partition(",")[2])
    assert np.abs(np.asarray(Image.open(io.BytesIO(shown))).astype(int) - 100).max() <= 2


def test_a_thumbnail_of_what_is_no_image_is_refused():
    with pytest.raises(DataError, match="thumbnail"):
        thumbnail(b"no image")
