"""What is serving, scored where it serves: at a model root and at an endpoint, with nothing there, and with others."""

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pyarrow.parquet as pq
import pytest

from sat_xception.errors import ConfigError, DataError, ModelError, ServiceError
from sat_xception.evaluate.evaluate import evaluate
from sat_xception.evaluate.gate import gate
from sat_xception.evaluate.settings import EvaluateConfig, GateConfig
from sat_xception.package.package import package
from sat_xception.package.settings import PackageConfig
from sat_xception.serve import client
from sat_xception.serve.server import RunningServer
from sat_xception.serve.settings import ServeConfig
from sat_xception.served_model.packaged_model import PackagedModel
from sat_xception.train.record import TrainingRecord
from tests.odd_answers import OddAnswers
from tests.small_models import write_small_model

NAME = "schools"


@pytest.fixture(scope="module")
def served(examples, tmp_path_factory):
    """A model root with an older and a newer version, and the newer one's model."""
    folder = tmp_path_factory.mktemp("served")
    for version in (3, 7):
        write_small_model(folder / f"model-{version}", examples, seed=version)
        places = {"model": folder / f"model-{version}", "examples": examples, "out": folder / "root"}
        package(PackageConfig(**places, name=NAME, version=version, golden_tiles=1))
    return folder / "root", folder / "model-7"


@pytest.fixture
def score(examples, tmp_path):
    def run(**where):
        return evaluate(EvaluateConfig(**{"examples": examples, "out": tmp_path / "out", "name": NAME, **where}))

    return run


def probabilities(folder):
    table = pq.read_table(folder / "predictions.parquet")
    return np.stack([table[f"probability_{name}"].to_numpy() for name in ("not-school", "school")], axis=1)


def test_the_newest_version_of_a_model_root_is_scored_as_it_answers(score, served, examples, tmp_path):
    root, model = served
    result = score(model_root=root, batch_size=5)
    own = evaluate(EvaluateConfig(model=model, examples=examples, out=tmp_path / "own")).evaluation
    found = result.evaluation
    assert found.serving.content() == {
        "state": "scored",
        "reason": "",
        "place": str(root),
        "name": NAME,
        "version": 7,
    }
    assert found.model == TrainingRecord.read(model).model
    assert found.metrics.confusion_matrix == own.metrics.confusion_matrix
    # It was packaged without a decision, so as it was trained; its own evaluation is calibrated.
    assert found.calibration.temperature == 1
    assert found.calibration.before.error == pytest.approx(own.calibration.before.error, abs=1e-5)
    assert found.training is None
    assert "what serves at" in result.summary()
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"{NAME} version 7 at {root}, as it answers" in page


def test_an_endpoint_answers_the_same_over_rest(score, served, tmp_path, monkeypatch):
    root, _ = served
    expected = probabilities(score(model_root=root).folder)
    with RunningServer(ServeConfig(model_root=root, name=NAME, rest_port=0, grpc_port=0)) as server:
        result = score(endpoint=server.rest_url, model_root=tmp_path / "nowhere", out=tmp_path / "asked")
        kserve = tmp_path / "kserve" / f"{NAME}-releases" / "7" / "7"
        shutil.copytree(root / NAME / "7", kserve)
        known = {
            place: score(endpoint=server.rest_url, model_root=place, out=tmp_path / "known").evaluation.model
            for place in (root, tmp_path / "kserve")
        }
    # Which model answers is known where the model root has its version, as both targets of deploy lay it out.
    assert set(known.values()) == {PackagedModel.read(root / NAME / "7").model}
    assert result.evaluation.model == ""
    assert result.evaluation.serving.version == 7
    assert result.evaluation.serving.place == server.rest_url
    np.testing.assert_allclose(probabilities(result.folder), expected, atol=1e-6)
    # It listens no more.
    monkeypatch.setattr(client, "_RETRY_DELAYS_S", ())
    with pytest.raises(ServiceError):
        score(endpoint=server.rest_url, out=tmp_path / "gone")


def test_the_token_that_the_environment_names_goes_along(score, tmp_path, monkeypatch):
    monkeypatch.setenv("SAT_XCEPTION_TOKEN_FILE", str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match="can't read --token-file"):
        score(endpoint="http://127.0.0.1:1")


def test_a_gateway_that_is_addressed_by_its_ip_is_told_the_host_name(score):
    asked = []

    class Gateway(BaseHTTPRequestHandler):
        """Knows no model, as a gateway whose route has no backend yet."""

        def log_message(self, *told):
            pass

        def do_GET(self):
            asked.append(self.headers["Host"])
            self.send_error(404)

    with HTTPServer(("127.0.0.1", 0), Gateway) as gateway:
        threading.Thread(target=gateway.serve_forever, args=(0.01,), daemon=True).start()
        try:
            where = {"endpoint": f"http://127.0.0.1:{gateway.server_port}", "endpoint_host": "tiles.example.org"}
            assert score(**where).evaluation.serving.state == "nothing"
        finally:
            gateway.shutdown()
    assert set(asked) == {"tiles.example.org"}


def test_a_first_run_finds_nothing_serving_and_says_so(score, served, tmp_path):
    (tmp_path / "empty" / NAME).mkdir(parents=True)
    for root in (tmp_path / "absent", tmp_path / "empty"):
        result = score(model_root=root)
        assert result.evaluation.serving.state == "nothing"
        assert result.evaluation.metrics is None
        assert f"no version of {NAME} is served at {root}" in result.summary()
        assert f"no version of {NAME}" in (tmp_path / "out" / "report.html").read_text()
        assert not (tmp_path / "out" / "predictions.parquet").exists()
    settings = ServeConfig(model_root=tmp_path / "empty", name=NAME, rest_port=0, grpc_port=0, wait=True)
    with RunningServer(settings) as server:
        assert score(endpoint=server.rest_url).evaluation.serving.state == "nothing"


def test_what_knows_other_classes_isnt_compared(score, served, examples, tmp_path):
    root, _ = served
    described = json.loads((examples / "examples.json").read_text())
    renamed = shutil.copytree(examples, tmp_path / "renamed")
    (renamed / "examples.json").write_text(json.dumps({**described, "classes": ["field", "school"]}))
    more = shutil.copytree(examples, tmp_path / "more")
    (more / "examples.json").write_text(json.dumps({**described, "classes": ["a", "not-school", "school"]}))
    with RunningServer(ServeConfig(model_root=root, name=NAME, rest_port=0, grpc_port=0)) as server:
        for where in ({"model_root": root}, {"endpoint": server.rest_url}):
            for others in (renamed, more):
                found = score(**where, examples=others).evaluation
                assert found.serving.state == "other classes"
                assert "the examples hold" in found.serving.reason
                assert found.metrics is None


def test_a_model_that_cant_be_loaded_is_no_missing_one(score, served, tmp_path):
    root = shutil.copytree(served[0], tmp_path / "root")
    (root / NAME / "7" / "saved_model.pb").write_bytes(b"no model")
    with pytest.raises(ModelError, match="doesn't load"):
        score(model_root=root)


def test_the_gate_holds_a_candidate_against_what_serves(score, served, examples, tmp_path):
    root, model = served
    now = score(model_root=root).folder
    own = evaluate(EvaluateConfig(model=model, examples=examples, out=tmp_path / "own")).folder
    none = dict.fromkeys(("min_accuracy", "min_recall", "min_precision"), 0.0) | {"min_gain": -1.0}
    decision = gate(GateConfig(evaluations=(own,), serving=now, out=tmp_path / "gate", **none)).decision
    assert decision.winner == "mobilenetv2", "a model passes against itself"
    assert decision.candidates[0].against_serving.difference == 0
    assert "version 7" in (tmp_path / "gate" / "report.html").read_text()


def test_a_tile_that_what_serves_answers_with_nan_has_no_score_and_the_others_do(score, served):
    def change(predictions):
        predictions[1] |= {"probabilities": [float("nan")] * 2, "score": float("nan"), "label": "school"}

    root, _ = served
    with (
        RunningServer(ServeConfig(model_root=root, name=NAME, rest_port=0, grpc_port=0)) as server,
        OddAnswers(server.rest_url, change, first=0) as answers,
    ):
        result = score(endpoint=answers.url, batch_size=1000)
    assert result.evaluation.serving.state == "scored"
    assert result.evaluation.unscored.count == 1
    found = probabilities(result.folder)
    assert np.flatnonzero(np.isnan(found).any(axis=1)).tolist() == [1]
    assert result.evaluation.metrics.count == len(found) - 1


def test_what_serves_and_answers_no_tile_with_probabilities_is_not_compared(score, served):
    def change(predictions):
        for prediction in predictions:
            prediction |= {"probabilities": [float("nan")] * 2, "score": float("nan"), "label": "school"}

    root, _ = served
    with (
        RunningServer(ServeConfig(model_root=root, name=NAME, rest_port=0, grpc_port=0)) as server,
        OddAnswers(server.rest_url, change, first=0) as answers,
    ):
        result = score(endpoint=answers.url, batch_size=1000)
    assert result.evaluation.serving.state == "no probabilities"
    assert "with probabilities" in result.evaluation.serving.reason
    assert "a probability that is not a number" in result.summary()
    assert result.evaluation.metrics is None


@pytest.mark.parametrize("given", [{}, {"model": "m", "model_root": "r"}, {"model": "m", "endpoint": "http://x:1"}])
def test_one_model_is_asked_for(score, given):
    with pytest.raises(ValueError, match="give either --model, or"):
        score(**given)


def test_examples_without_the_split_are_refused(score, served, examples, tmp_path):
    without = shutil.copytree(examples, tmp_path / "examples")
    described = json.loads((without / "examples.json").read_text())
    del described["splits"]["valid"]
    (without / "examples.json").write_text(json.dumps(described))
    with pytest.raises(DataError, match="no valid split"):
        score(model_root=served[0], examples=without)
