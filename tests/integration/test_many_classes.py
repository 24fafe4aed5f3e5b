"""More than two classes, of real tiles, from folders to an endpoint's answer."""

import csv
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from sat_xception.dataset.assemble import assemble
from sat_xception.dataset.settings import AssembleConfig
from sat_xception.evaluate.evaluate import evaluate
from sat_xception.evaluate.gate import gate
from sat_xception.evaluate.settings import EvaluateConfig, GateConfig
from sat_xception.examples.convert import convert
from sat_xception.examples.settings import ConvertConfig
from sat_xception.model.settings import TrainConfig
from sat_xception.package.package import package
from sat_xception.package.record import ModelRecord
from sat_xception.package.settings import PackageConfig
from sat_xception.serve.client import EndpointClient
from sat_xception.serve.server import RunningServer
from sat_xception.serve.settings import ServeConfig
from sat_xception.train.train import train
from tests.conftest import SHARED
from tests.small_models import write_small_model

CLASSES = ["agricultural", "beach", "forest", "parkinglot"]
A_CLASS = 16


@pytest.fixture(scope="module")
def tiles(ucmerced, tmp_path_factory):
    """A few tiles of some source classes, in folders."""
    folder = tmp_path_factory.mktemp("classes") / "data"
    with (SHARED / "data" / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    for label in CLASSES:
        (folder / label).mkdir(parents=True)
        for row in [row for row in rows if row["source_class"] == label][:A_CLASS]:
            shutil.copy(SHARED / "data" / row["file"], folder / label)
    return folder


def train_on(weights, examples, out):
    network = {"backbone": "mobilenetv2", "weights": str(weights), "alpha": 0.35, "input_size": 96}
    schedule = {"head_epochs": 12, "head_learning_rate": 0.01, "fine_tune_epochs": 0, "views": 1}
    train(TrainConfig(examples=examples, out=out, **network, **schedule))


# Random weights show what is made of several classes; those of ImageNet, that they can be told apart.
@pytest.mark.parametrize("is_trained", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_several_classes_go_from_folders_to_an_endpoints_answer(request, tiles, tmp_path, is_trained):
    shares = (0.5, 0.25, 0.25)
    assemble(AssembleConfig(data=str(tiles), out=tmp_path / "dataset", fractions=shares, keep_near_duplicates=True))
    convert(ConvertConfig(dataset=tmp_path / "dataset", out=tmp_path / "examples"))
    if is_trained:
        train_on(request.getfixturevalue("mobilenet_weights"), tmp_path / "examples", tmp_path / "model")
    else:
        write_small_model(tmp_path / "model", tmp_path / "examples")
    scored = {"model": tmp_path / "model", "examples": tmp_path / "examples", "out": tmp_path / "evaluation"}
    evaluation = evaluate(EvaluateConfig(**scored)).evaluation
    metrics = evaluation.metrics
    assert list(evaluation.classes) == CLASSES
    assert (evaluation.positive_label, evaluation.threshold, metrics.threshold) == ("", None, None)
    assert not is_trained or metrics.accuracy > 0.7, "chance is a quarter"
    assert metrics.positive == metrics.macro
    assert np.array(metrics.confusion_matrix).shape == (4, 4)
    assert metrics.intervals.recall[0] <= metrics.macro.recall <= metrics.intervals.recall[1]
    table = pq.read_table(tmp_path / "evaluation" / "predictions.parquet")
    assert [f"probability_{name}" for name in CLASSES] == table.column_names[-4:]

    limits = {"min_accuracy": 0.7, "min_recall": 0.5, "max_calibration_error": 0.9}
    if not is_trained:
        limits |= {"min_accuracy": 0, "min_recall": 0, "min_precision": 0, "min_gain": -1}
    decision = gate(GateConfig(evaluations=(tmp_path / "evaluation",), out=tmp_path / "decision", **limits)).decision
    assert decision.winner == "mobilenetv2"
    assert [row.name for row in decision.candidates[0].checks][2] == "recall of macro average"

    places = {"model": tmp_path / "model", "examples": tmp_path / "examples", "decision": tmp_path / "decision"}
    version = package(PackageConfig(**places, out=tmp_path / "root", name="land-use", version=1)).folder
    served = ModelRecord.read(version)
    assert (served.threshold, served.threshold_choice) == (None, None)
    assert not is_trained or served.test.accuracy > 0.5
    page = (version / "report.html").read_text()
    card = (version / "MODEL_CARD.md").read_text()
    for name in CLASSES:
        assert name in page
        assert name in card

    with RunningServer(ServeConfig(model_root=tmp_path / "root", name="land-use", rest_port=0, grpc_port=0)) as server:
        where = {"endpoint": server.rest_url, "name": "land-use", "out": tmp_path / "now"}
        now = evaluate(EvaluateConfig(examples=tmp_path / "examples", **where)).evaluation
        with EndpointClient(server.rest_url, "land-use") as client:
            answer = client.classify([next((tiles / "forest").iterdir()).read_bytes()])
    assert answer.probabilities.shape == (1, 4)
    assert answer.labels[0] in CLASSES
    assert now.metrics.confusion_matrix == metrics.confusion_matrix
    assert now.metrics.calibration_error == pytest.approx(metrics.calibration_error, abs=1e-4)
