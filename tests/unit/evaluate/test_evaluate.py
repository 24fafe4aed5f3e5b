"""The evaluate step: figures and predictions of the right tiles, a report that stands alone, refusals that advise."""

import json
import re
import shutil
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from PIL import Image

from sat_xception.dataset.assemble import assemble
from sat_xception.dataset.settings import AssembleConfig
from sat_xception.errors import ConfigError, DataError, ModelError
from sat_xception.evaluate import evaluate as evaluate_module
from sat_xception.evaluate.bootstrap import number_blocks
from sat_xception.evaluate.calibrate import apply_temperature
from sat_xception.evaluate.checks import check
from sat_xception.evaluate.evaluate import evaluate, load_model
from sat_xception.evaluate.evaluation import Evaluation
from sat_xception.evaluate.metrics import compute_metrics
from sat_xception.evaluate.predictions import read_outcomes
from sat_xception.evaluate.settings import EvaluateConfig, GateConfig
from sat_xception.examples.convert import convert
from sat_xception.examples.index import ExamplesIndex, shard_files
from sat_xception.examples.settings import ConvertConfig
from sat_xception.model.preprocess import decode_and_resize
from sat_xception.storage import folder_digests
from sat_xception.train.record import TrainingRecord
from tests.conftest import draw_tile, encode
from tests.small_models import SIDE, write_small_model

NO_PROBABILITY = ("not a number", "below 0")


@pytest.fixture(scope="module")
def small(examples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "model"
    write_small_model(folder, examples)
    return folder


@pytest.fixture
def run(small, examples, tmp_path):
    def run(**changes):
        return evaluate(EvaluateConfig(**{"model": small, "examples": examples, "out": tmp_path / "out", **changes}))

    return run


@pytest.fixture(scope="module")
def result_of(small, examples, tmp_path_factory):
    """Return a function that evaluates the small model once for equal settings; tests only read the result."""
    results = {}

    def run(split="valid", batch_size=32, **changes):
        key = (split, batch_size, *changes.items())
        if key not in results:
            given = {"model": small, "examples": examples, "split": split, "batch_size": batch_size, **changes}
            results[key] = evaluate(EvaluateConfig(**given, out=tmp_path_factory.mktemp("result") / "out"))
        return results[key]

    return run


def stored(examples, split):
    """Read a split without the code under test: id, class and image of each tile, in stored order."""
    found = []
    for record in tf.data.TFRecordDataset(list(map(str, shard_files(examples, split)))).as_numpy_iterator():
        features = tf.train.Example.FromString(record).features.feature
        values = [features[key].bytes_list.value[0] for key in ("tile/id", "image/class/text", "image/encoded")]
        found.append((values[0].decode(), values[1].decode(), values[2]))
    return found


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_there_is_a_prediction_for_each_tile_in_order(result_of, small, examples, split):
    result = result_of(split, batch_size=7)
    folder, temperature = result.folder, result.evaluation.calibration.temperature
    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    tiles = stored(examples, split)
    assert [(row["tile_id"], row["label"]) for row in rows] == [(tile_id, label) for tile_id, label, _ in tiles]
    model, _ = load_model(small)
    for row, (_, _, image) in list(zip(rows, tiles, strict=True))[:: len(rows) // 5]:
        raw = model(decode_and_resize(tf.constant(image), SIDE)[None], training=False).numpy()
        expected = apply_temperature(raw, temperature)[0]
        found = [row["probability_not-school"], row["probability_school"]]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_figures_are_those_of_the_predictions(result_of):
    result = result_of("train", batch_size=7)
    table = pq.read_table(result.folder / "predictions.parquet")
    classes = ["not-school", "school"]
    labels = np.array([classes.index(label) for label in table["label"].to_pylist()])
    probabilities = np.stack([table[f"probability_{name}"].to_numpy() for name in classes], axis=1)
    written = Evaluation.read(result.folder)
    assert written == result.evaluation
    threshold = written.threshold.value
    assert written.metrics == compute_metrics(
        labels, probabilities, classes, "school", threshold, number_blocks(table["block"].to_pylist())
    )
    assert table["block"].to_pylist() == table["tile_id"].to_pylist()  # nobody knows where they are
    assert table["predicted"].to_pylist() == [classes[place] for place in probabilities.argmax(axis=1)]
    assert 0 < written.metrics.accuracy < 1


@pytest.fixture
def spoil(monkeypatch):
    """Return a function that makes some rows of what any model answers something else."""

    def spoil(rows):
        sound = evaluate_module._score

        def score(*given):
            answers = sound(*given)
            for place, values in rows.items():
                answers[place] = values
            return answers

        monkeypatch.setattr(evaluate_module, "_score", score)

    return spoil


def test_a_tile_without_a_probability_is_counted_and_in_no_figure(run, result_of, spoil):
    sound = pq.read_table(result_of().folder / "predictions.parquet").to_pylist()
    spoil({0: [np.nan, np.nan], 3: [1.5, -0.5], 5: [np.nan, 0.5]})
    result = run()
    evaluation = result.evaluation
    nan, negative = (f"the model answers with a probability that is {why}, expected 0 to 1" for why in NO_PROBABILITY)
    assert evaluation.unscored.content() == {"count": 3, "reasons": {nan: 2, negative: 1}}
    assert evaluation.metrics.count == len(sound) - 3
    assert f"failed    2 x {nan}" in result.summary()
    assert "2 tiles have no score" in (result.folder / "report.html").read_text()
    json.dumps(evaluation.content(), allow_nan=False)
    rows = pq.read_table(result.folder / "predictions.parquet").to_pylist()
    assert [row["tile_id"] for row in rows] == [row["tile_id"] for row in sound]
    failed = {place: row for place, row in enumerate(rows) if row["reason"]}
    assert {place: row["reason"] for place, row in failed.items()} == {0: nan, 3: negative, 5: nan}
    assert {row[name] for row in failed.values() for name in ("predicted", "probability_school")} == {None}
    right = read_outcomes(result.folder).right
    assert not right[[0, 3, 5]].any()
    assert right.sum() == round(evaluation.metrics.accuracy * (len(sound) - 3))
    by_id = {row["tile_id"]: row for row in sound}
    for mistake in evaluation.mistakes:
        assert mistake.truth == by_id[mistake.tile]["label"] != mistake.predicted
    row = next(row for row in check(evaluation, GateConfig(evaluations=("e",), out="o")) if "without" in row.name)
    assert not row.passed
    assert row.note == f"3 of {len(sound)} tiles have no score, most often: {nan}"


def test_a_model_without_a_probability_of_any_tile_is_refused(run, spoil, tmp_path):
    spoil({...: np.nan})
    with pytest.raises(DataError, match=r"none of \d+ tiles could be scored.*not a number.*lower learning rate"):
        run()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("batch_size", [1, 12, 32])
def test_the_size_of_a_batch_changes_no_figure(result_of, batch_size):
    metrics = result_of(batch_size=batch_size).evaluation.metrics
    assert metrics.count < 32, "one batch holds all"
    assert metrics.confusion_matrix == result_of(batch_size=7).evaluation.metrics.confusion_matrix


def test_an_evaluation_says_what_was_scored(small, examples, tmp_path):
    evaluation = evaluate(EvaluateConfig(model=small, examples=examples, out=tmp_path / "out")).evaluation
    index = ExamplesIndex.read(examples)
    assert evaluation.split == "valid"
    assert evaluation.model == TrainingRecord.read(small).model
    assert evaluation.dataset_digest == index.dataset_digest
    assert evaluation.metrics.count == index.count("valid")
    assert len(evaluation.training.history) == 2
    assert evaluation.training.total_seconds == 2
    assert evaluation.config["batch_size"] == 32


def test_the_summary_has_accuracy_with_its_interval_and_the_threshold(result_of):
    result = result_of()
    metrics = result.evaluation.metrics
    low, high = metrics.intervals.accuracy
    assert f"accuracy {metrics.accuracy:.4f} ({low:.4f} to {high:.4f})" in result.summary()
    assert "school from 0." in result.summary()


def test_temperature_and_threshold_are_those_of_validation_whatever_is_scored(result_of):
    valid, train = result_of(batch_size=7).evaluation, result_of("train", batch_size=7).evaluation
    assert train.calibration.temperature == valid.calibration.temperature != 1
    assert train.threshold == valid.threshold
    assert valid.calibration.after.log_loss < valid.calibration.before.log_loss
    assert valid.metrics.calibration_error == valid.calibration.after.error


def test_the_threshold_is_chosen_for_the_goal(result_of):
    recall = result_of(goal="precision-at-recall:1").evaluation
    assert recall.metrics.positive.recall == 1
    assert recall.threshold.goal == "precision-at-recall:1"
    assert recall.metrics.threshold == recall.threshold.value


def test_blocks_and_slices_of_tiles_are_those_of_the_map(tmp_path):
    rows = []
    for index in range(60):
        x, y = 148_000 + 64 * (index // 4) + index % 4, 93_000
        label, setting = ("school", "rural") if index % 3 else ("not-school", "urban" if index % 2 else "")
        rows.append(f"{x},{y},18,{label},{setting}")
        path = tmp_path / "imagery" / "18" / str(x) / f"{y}.jpg"
        path.parent.mkdir(parents=True)
        path.write_bytes(encode(draw_tile(label, index)))
    (tmp_path / "places.csv").write_text("\n".join(["x,y,z,label,setting", *rows]))
    settings = {"slice_columns": ("setting",), "positive_label": "school", "label_column": "label"}
    assemble(
        AssembleConfig(
            labels=tmp_path / "places.csv", imagery=str(tmp_path / "imagery"), out=tmp_path / "dataset", **settings
        )
    )
    convert(ConvertConfig(dataset=tmp_path / "dataset", out=tmp_path / "examples"))
    write_small_model(tmp_path / "model", tmp_path / "examples")
    places = {"model": tmp_path / "model", "examples": tmp_path / "examples", "out": tmp_path / "out"}
    metrics = evaluate(EvaluateConfig(**places, split="train")).evaluation.metrics
    table = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    blocks = {row["block"] for row in table}
    assert metrics.blocks == len(blocks) < len(table)
    assert blocks == {f"12/{x // 64}/{y // 64}" for x, y in (map(int, row["tile_id"].split("/")[1:3]) for row in table)}
    counted = {row.value: row.count for row in metrics.slices}
    assert counted == Counter(row["slice/setting"] for row in table)
    assert set(counted) == {"rural", "urban", ""}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<td>setting</td><td>unknown</td>" in page


def test_the_report_shows_figures_and_the_surest_mistakes(result_of):
    result = result_of("train", batch_size=7)
    page = (result.folder / "report.html").read_text()
    assert f"{result.evaluation.metrics.accuracy:.4f}" in page
    assert page.count("<svg") == 4
    matrix = np.array(result.evaluation.metrics.confusion_matrix)
    wrong = matrix.sum() - matrix.trace()
    assert page.count('<img src="data:image/jpeg;base64,') == min(wrong, 12)
    table = pq.read_table(result.folder / "predictions.parquet").to_pylist()
    sure = [
        max(row["probability_school"], row["probability_not-school"])
        for row in table
        if row[f"probability_{row['label']}"] < 0.5
    ]
    shown = [int(share) for share in re.findall(r"\((\d+) % sure\)", page)]
    assert shown == pytest.approx([100 * share for share in sorted(sure, reverse=True)[:12]], abs=0.51)
    assert "<script" not in page
    assert 'src="http' not in page


def tell_light_from_dark(model):
    """Set the weights by hand: the mean of the pixels decides."""
    convolution, head = model.layers[2], model.get_layer("head")
    convolution.set_weights([np.full_like(weights, 1 / 75) for weights in convolution.get_weights()])
    rows = head.get_weights()[0].shape[0]
    head.set_weights([np.tile([-1.0, 1.0], (rows, 1)), np.array([5.0, -5.0])])


def test_a_model_that_is_always_right_has_no_mistakes_to_show(tmp_path):
    rng = np.random.default_rng(0)
    for label, level in (("dark", 30), ("light", 220)):
        (tmp_path / "data" / label).mkdir(parents=True)
        for index in range(8):
            pixels = rng.integers(level - 20, level + 20, (40, 40, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / label / f"{index}.png")
    assemble(AssembleConfig(data=str(tmp_path / "data"), out=tmp_path / "dataset"))
    convert(ConvertConfig(dataset=tmp_path / "dataset", out=tmp_path / "examples"))
    write_small_model(tmp_path / "model", tmp_path / "examples", teach=tell_light_from_dark)
    places = {"model": tmp_path / "model", "examples": tmp_path / "examples", "out": tmp_path / "out"}
    assert evaluate(EvaluateConfig(**places, split="train")).evaluation.metrics.accuracy == 1
    page = (tmp_path / "out" / "report.html").read_text()
    assert "every tile was classified rightly" in page
    assert "<img" not in page


def test_markup_in_the_name_of_a_class_is_shown_and_not_obeyed(make_folders, tmp_path):
    name = "<script>alert(1)<"
    make_folders(tmp_path / "data", count=8, classes=(name, "$\\frac$"))
    assemble(AssembleConfig(data=str(tmp_path / "data"), out=tmp_path / "dataset", positive_label=name))
    convert(ConvertConfig(dataset=tmp_path / "dataset", out=tmp_path / "examples"))
    write_small_model(tmp_path / "model", tmp_path / "examples")
    config = EvaluateConfig(
        model=tmp_path / "model", examples=tmp_path / "examples", out=tmp_path / "out", split="train"
    )
    result = evaluate(config)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;" in page
    assert result.evaluation.metrics.roc_class == name
    assert f"probability_{name}" in pq.read_table(tmp_path / "out" / "predictions.parquet").column_names


def test_a_model_of_other_classes_is_refused(examples, tmp_path):
    write_small_model(tmp_path / "model", examples, classes=["field", "school"])
    config = EvaluateConfig(model=tmp_path / "model", examples=examples, out=tmp_path / "out")
    with pytest.raises(DataError, match=r"knows \['field', 'school'\], the examples hold \['not-school', 'school'\]"):
        evaluate(config)
    assert not (tmp_path / "out").exists()


def test_a_split_that_isnt_there_is_refused(run, examples, tmp_path):
    without = shutil.copytree(examples, tmp_path / "examples")
    described = json.loads((without / "examples.json").read_text())
    del described["splits"]["test"]
    (without / "examples.json").write_text(json.dumps(described))
    with pytest.raises(DataError, match="no test split; it has train, valid"):
        run(split="test", examples=without)


@pytest.mark.parametrize("missing", ["train.json", "model.keras", "history.json"])
def test_a_folder_that_lacks_a_file_of_the_model_is_refused(run, small, tmp_path, missing):
    part = shutil.copytree(small, tmp_path / "part")
    (part / missing).unlink()
    with pytest.raises(DataError, match=rf"{missing}.*sat_xception train"):
        run(model=part)
    assert not (tmp_path / "out").exists()


def test_a_model_that_isnt_the_one_that_was_trained_is_refused(run, small, examples, tmp_path):
    swapped = shutil.copytree(small, tmp_path / "swapped")
    write_small_model(tmp_path / "other", examples, seed=1)
    shutil.copy(tmp_path / "other" / "model.keras", swapped / "model.keras")
    with pytest.raises(ModelError, match=r"isn't the model that .*train\.json describes"):
        run(model=swapped)
    (swapped / "model.keras").write_bytes((small / "model.keras").read_bytes()[:-100])
    with pytest.raises(ModelError, match="isn't the model"):
        run(model=swapped)


def test_a_model_that_answers_no_numbers_is_refused_with_advice(examples, tmp_path):
    def spoil(model):
        model.set_weights([weights * np.nan for weights in model.get_weights()])

    write_small_model(tmp_path / "model", examples, teach=spoil)
    with pytest.raises(DataError, match="lower learning rate"):
        evaluate(EvaluateConfig(model=tmp_path / "model", examples=examples, out=tmp_path / "out"))


@pytest.mark.parametrize("network", ["trained", pytest.param("trained_mobilenet", marks=pytest.mark.slow)])
def test_a_trained_network_is_evaluated_as_a_small_one_is(network, request, examples, tmp_path):
    trained = request.getfixturevalue(network)
    evaluated = evaluate(EvaluateConfig(model=trained, examples=examples, out=tmp_path / "evaluation"))
    accuracy = TrainingRecord.read(trained).valid_accuracy  # float32
    assert evaluated.evaluation.metrics.accuracy == pytest.approx(accuracy, abs=1e-6)
    assert sorted(path.name for path in evaluated.folder.iterdir()) == [
        "evaluation.json",
        "predictions.parquet",
        "report.html",
    ]


def test_a_model_folder_is_never_replaced_by_its_evaluation(trained, examples):
    before = folder_digests(trained)
    with pytest.raises(ConfigError, match="isn't an earlier result of this step"):
        evaluate(EvaluateConfig(model=trained, examples=examples, out=trained))
    assert folder_digests(trained) == before
