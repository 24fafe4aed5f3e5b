"""The package step: what a version holds, that it is what was trained, and what is refused."""

import json
import re
import shutil

import numpy as np
import pytest

from sat_xception.errors import ConfigError, DataError, GateRefusedError, ModelError
from sat_xception.evaluate.calibrate import apply_temperature
from sat_xception.evaluate.decision import Decision
from sat_xception.evaluate.evaluate import evaluate, load_model
from sat_xception.evaluate.evaluation import Evaluation
from sat_xception.evaluate.gate import gate
from sat_xception.evaluate.settings import EvaluateConfig, GateConfig
from sat_xception.examples.index import ExamplesIndex
from sat_xception.model.preprocess import decode_and_resize
from sat_xception.package.package import package
from sat_xception.package.record import ModelRecord, PackagedTraining
from sat_xception.package.settings import PackageConfig
from sat_xception.serve.models import SavedModelSession
from sat_xception.served_model.golden import GoldenTiles
from sat_xception.served_model.packaged_model import PackagedModel
from sat_xception.storage import file_digest
from sat_xception.train.record import TrainingRecord
from tests.small_models import SIDE, write_small_model

pytestmark = pytest.mark.usefixtures("charts_drawn_once")

NAME = "school-classifier"


@pytest.fixture(scope="module")
def contest(examples, tmp_path_factory):
    """Two small models, evaluated, and the gate's decision between them; returns folders by what they hold."""
    folder = tmp_path_factory.mktemp("contest")
    folders = {"examples": examples}
    for seed, backbone in enumerate(("mobilenetv2", "xception")):
        write_small_model(folder / backbone, examples, seed=seed, backbone=backbone)
        evaluate(EvaluateConfig(model=folder / backbone, examples=examples, out=folder / f"{backbone}-evaluation"))
        folders[backbone] = folder / backbone
    evaluations = tuple(folder / f"{backbone}-evaluation" for backbone in ("mobilenetv2", "xception"))
    none = dict.fromkeys(("min_accuracy", "min_recall", "min_precision"), 0.0) | {"min_gain": -1.0}
    decision = gate(GateConfig(evaluations=evaluations, out=folder / "decision", **none))
    gate(GateConfig(evaluations=evaluations, out=folder / "refusal", min_accuracy=1.0))
    folders |= {"decision": folder / "decision", "refusal": folder / "refusal"}
    folders["winner"] = folders[decision.winner]
    folders["loser"] = folders[{"xception": "mobilenetv2", "mobilenetv2": "xception"}[decision.winner]]
    return folders


@pytest.fixture(scope="module")
def version(contest, tmp_path_factory):
    """The winner, packaged with the decision."""
    out = tmp_path_factory.mktemp("root")
    places = {"model": contest["winner"], "examples": contest["examples"], "decision": contest["decision"]}
    return package(PackageConfig(**places, out=out, version=7, golden_tiles=5)).folder


@pytest.fixture
def refused(contest, tmp_path):
    """Package with other settings; return the error after seeing that it left nothing."""

    def run(error, match, **changes):
        places = {"model": contest["winner"], "examples": contest["examples"], "out": tmp_path / "out"}
        with pytest.raises(error, match=match) as caught:
            package(PackageConfig(**{**places, **changes}))
        left = list((tmp_path / "out").rglob("*")) if (tmp_path / "out").exists() else []
        assert [path for path in left if path.is_file() or path.name.startswith(".")] == []
        return caught.value

    return run


def read(path):
    return json.loads(path.read_text())


def test_a_version_holds_what_serving_deploying_and_people_need(version):
    assert version.parts[-2:] == (NAME, "7")
    names = {path.name for path in version.iterdir()}
    assert names >= {"saved_model.pb", "variables", "assets.extra", "golden.json", "model.json", "MODEL_CARD.md"}
    assert names >= {"digests.json", "report.html", "model_card.json"}
    assert names >= {"batching_params.pbtxt", "batching_params_bulk.pbtxt"}
    assert not [path for path in version.parent.iterdir() if path.name.startswith(".")]


def test_batching_parameters_are_whole_settings_of_tensorflow_serving(version):
    for name in ("batching_params.pbtxt", "batching_params_bulk.pbtxt"):
        settings = [line for line in (version / name).read_text().splitlines() if not line.startswith("#")]
        values = dict(re.fullmatch(r"(\w+) \{ value: (\d+) \}", line).groups() for line in settings)
        # BatchingParameters of session_bundle_config.proto.
        assert values.keys() == {"max_batch_size", "batch_timeout_micros", "max_enqueued_batches"}
        assert int(values["max_batch_size"]) >= 32  # what predict sends


def test_digests_cover_every_file(version):
    digests = read(version / "digests.json")
    files = {path.relative_to(version).as_posix() for path in version.rglob("*") if path.is_file()}
    assert digests.keys() == files - {"digests.json"}
    for name, digest in digests.items():
        assert file_digest(version / name) == digest


def test_golden_answers_are_those_of_keras(version, contest):
    golden = GoldenTiles.read(version)
    assert (golden.signature_name, golden.classes) == ("serving_default", ("not-school", "school"))
    assert len(golden.tiles) == 5
    images = np.array(golden.images, dtype=object)
    with SavedModelSession(version) as session:
        answered = session.predict("serving_default", {"image_bytes": images})["probabilities"]
    np.testing.assert_allclose(answered, golden.expected, atol=1e-5)
    assert len({tile.tile_id for tile in golden.tiles}) == 5
    assert all(tile.tile_id.split("/")[0] == tile.label for tile in golden.tiles)
    assert 0 < golden.tolerance <= 1e-3


def test_test_figures_of_the_exported_model_are_those_that_evaluate_finds(version, contest, tmp_path):
    places = {"model": contest["winner"], "examples": contest["examples"], "out": tmp_path / "evaluation"}
    evaluation = evaluate(EvaluateConfig(**places, split="test")).evaluation
    expected, found = evaluation.metrics, ModelRecord.read(version).test
    assert found.confusion_matrix == expected.confusion_matrix
    assert found.accuracy == expected.accuracy
    assert found.intervals.accuracy == expected.intervals.accuracy
    assert found.calibration_error == pytest.approx(expected.calibration_error, abs=1e-5)
    assert found.calibration_error != pytest.approx(evaluation.calibration.before.error, abs=1e-3)
    assert found.positive.content() == pytest.approx(expected.positive.content(), abs=1e-6)


def test_what_is_served_is_calibrated_and_has_the_threshold_of_validation(version, contest):
    served = ModelRecord.read(version)
    evaluation = Evaluation.read(contest["winner"].with_name(f"{served.backbone}-evaluation"))
    temperature = evaluation.calibration.temperature
    assert abs(temperature - 1) > 0.05
    assert served.calibration.content() == {
        "temperature": temperature,
        "fitted_on": "valid",
        "error_before": evaluation.calibration.before.error,
        "error_after": evaluation.calibration.after.error,
    }
    assert served.threshold_choice == evaluation.threshold
    assert served.threshold == evaluation.threshold.value
    golden = GoldenTiles.read(version)
    model, _ = load_model(contest["winner"])
    pixels = np.stack([decode_and_resize(image, SIDE) for image in golden.images])
    raw = model(pixels, training=False).numpy()
    np.testing.assert_allclose(golden.expected, apply_temperature(raw, temperature), atol=1e-6)
    assert np.abs(golden.expected - raw).max() > 1e-3


def test_the_card_as_json_tells_the_same_figures(version):
    served, card = ModelRecord.read(version), read(version / "model_card.json")
    rows = card["quantitative_analysis"]["performance_metrics"]
    accuracy = {row["slice"]: row["value"] for row in rows if row["type"] == "accuracy"}
    assert accuracy == {split: served.metrics[split].accuracy for split in ("valid", "test")}


def test_model_json_says_where_it_comes_from(version, contest):
    served = ModelRecord.read(version)
    record, decision = TrainingRecord.read(contest["winner"]), Decision.read(contest["decision"])
    for key in ("backbone", "classes", "positive_label", "dataset_digest", "source", "synthetic", "model"):
        assert getattr(served, key) == getattr(record, key)
    assert (served.name, served.version) == (NAME, 7)
    assert served.training == PackagedTraining.of(record)
    assert served.training.weights == record.weights
    assert served.metrics["valid"] == next(
        each.metrics for each in decision.candidates if each.backbone == decision.winner
    )
    index = ExamplesIndex.read(contest["examples"])
    assert served.tiles == {split: index.count(split) for split in index.splits}


def test_people_find_the_same_figures_in_the_card_and_in_the_report(version):
    served, card = ModelRecord.read(version), (version / "MODEL_CARD.md").read_text()
    report = (version / "report.html").read_text()
    accuracy = f"{served.test.accuracy:.4f}"
    assert f"# {NAME} 7" in card
    assert f"| test | {served.test.count} | {accuracy} (" in card
    assert accuracy in report
    assert "Served model" in report


def test_a_version_never_changes(version, refused, contest):
    before = read(version / "digests.json")
    error = refused(ConfigError, "exists, and a version never changes", out=version.parent.parent, version=7)
    assert str(version) in str(error)
    assert read(version / "digests.json") == before


def test_by_default_a_version_is_a_time(contest, tmp_path):
    places = {"model": contest["winner"], "examples": contest["examples"], "out": tmp_path}
    result = package(PackageConfig(**places, golden_tiles=1))
    assert 20200101000000 < result.served.version < 30000101000000
    assert "report.html" not in {path.name for path in result.folder.iterdir()}  # there is no decision to report
    assert "valid" not in result.served.metrics
    assert result.served.calibration.content() == {"temperature": 1.0, "fitted_on": ""}
    assert (result.served.threshold, result.served.threshold_choice) == (0.5, None)
    assert "| valid |" not in (result.folder / "MODEL_CARD.md").read_text()


def test_a_version_that_tensorflow_serving_cant_number_is_refused(contest, tmp_path):
    with pytest.raises(ValueError, match="version"):
        PackageConfig(model=tmp_path, examples=tmp_path, out=tmp_path, version=2**63)


def test_a_model_that_lost_is_refused(refused, contest):
    error = refused(GateRefusedError, "the gate chose", model=contest["loser"], decision=contest["decision"])
    assert error.exit_code == 5


def test_no_model_is_packaged_when_the_gate_chose_none(refused, contest):
    refused(GateRefusedError, "the gate chose none, not this .*validation accuracy", decision=contest["refusal"])


def test_a_model_swapped_after_the_gate_is_refused(refused, contest, tmp_path):
    swapped = shutil.copytree(contest["winner"], tmp_path / "swapped")
    shutil.copy(contest["loser"] / "model.keras", swapped / "model.keras")
    refused(ModelError, "isn't the model", model=swapped, decision=contest["decision"])


def test_the_examples_of_another_dataset_are_refused(refused, contest, tmp_path):
    other = shutil.copytree(contest["examples"], tmp_path / "other")
    described = read(other / "examples.json")
    (other / "examples.json").write_text(json.dumps({**described, "dataset_digest": "another"}))
    refused(DataError, "trained on another dataset", examples=other)


def test_a_folder_that_is_no_decision_is_refused(refused, tmp_path):
    refused(DataError, r"decision\.json is missing.*sat_xception gate", decision=tmp_path)


def test_without_a_test_split_there_is_no_test_figure(contest, tmp_path):
    without = shutil.copytree(contest["examples"], tmp_path / "examples")
    described = read(without / "examples.json")
    del described["splits"]["test"]
    (without / "examples.json").write_text(json.dumps(described))
    places = {"model": contest["winner"], "examples": without, "decision": contest["decision"]}
    result = package(PackageConfig(**places, out=tmp_path / "out", golden_tiles=1))
    assert result.served.metrics.keys() == {"valid"}
    assert "no test split" in result.summary()
    assert "test accuracy" not in (result.folder / "report.html").read_text()
    assert "| test |" not in (result.folder / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize("network", ["trained", pytest.param("trained_mobilenet", marks=pytest.mark.slow)])
def test_a_trained_network_packages_as_a_small_one_does(network, request, examples, tmp_path):
    trained = request.getfixturevalue(network)
    version = package(PackageConfig(model=trained, examples=examples, out=tmp_path, version=1)).folder
    golden = GoldenTiles.read(version)
    assert PackagedModel.read(version).model == file_digest(trained / "model.keras")
    model, record = load_model(trained)
    assert record.input_size == model.input_shape[1] == 32
    images = np.array(golden.images, dtype=object)
    with SavedModelSession(version) as session:
        answer = session.predict("classify", {"image_bytes": images})
    np.testing.assert_allclose(answer["probabilities"], golden.expected, atol=1e-5)
