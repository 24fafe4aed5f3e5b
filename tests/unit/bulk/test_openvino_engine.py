"""The model in OpenVINO: the package's answers, in less exact numbers only when asked, with what they cost."""

import json
import logging
import multiprocessing
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest

from sat_xception.bulk import engines, openvino_engine, scorer
from sat_xception.bulk.engines import open_engine, prepare_engine
from sat_xception.bulk.frozen import network_of
from sat_xception.bulk.openvino_engine import OpenVinoEngine, write_network
from sat_xception.bulk.scorer import ScoringModel, choose_engine
from sat_xception.errors import ConfigError, ModelError
from sat_xception.serve.models import SavedModelSession
from tests.bulk_tiles import export_version, package_version
from tests.serving_fixtures import NAME, pixels_of, write_slow_version

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network with random weights, as package exports it."""
    return ScoringModel.read(export_version(tmp_path_factory.mktemp("models")) / NAME / "1")


@pytest.fixture(scope="module")
def network(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    graph, size = network_of(model.folder)
    assert size == 32
    write_network(graph, folder)
    return folder


@pytest.fixture(scope="module")
def served(model):
    with SavedModelSession(model.folder) as session:
        yield session


@pytest.mark.parametrize("side", [32, 48, 256, 20])
def test_it_answers_as_the_served_model_for_tiles_of_any_size(served, network, side):
    pixels = pixels_of(9, side=side)
    engine = OpenVinoEngine(network, "fp32")
    found = engine.run(np.stack([engine.fit(tile) for tile in pixels]))
    wanted = served.predict("images", {"images": pixels})["probabilities"]
    assert np.abs(found - wanted).max() < 1e-5


def test_the_answer_to_a_tile_does_not_depend_on_its_batch(network):
    engine = OpenVinoEngine(network, "fp32")
    pixels = pixels_of(33)
    whole = engine.run(pixels)
    assert np.array_equal(np.concatenate([engine.run(pixels[at : at + 8]) for at in range(0, 33, 8)]), whole)


def test_it_is_converted_once_and_proven_on_golden_tiles(model, tmp_path, monkeypatch):
    prepared = prepare_engine(model, "openvino", "fp32", None, tmp_path)
    assert (prepared.name, prepared.precision, prepared.accuracy_loss) == ("openvino", "fp32", 0.0)
    monkeypatch.setattr(engines, "_other_process", lambda: pytest.fail("it was converted again"))
    assert prepare_engine(model, "openvino", "fp32", None, tmp_path) == prepared
    open_engine(model, prepared, tmp_path).close()
    right = openvino_engine.OpenVinoEngine.fit
    monkeypatch.setattr(openvino_engine.OpenVinoEngine, "fit", lambda self, pixels: 255 - right(self, pixels))
    with pytest.raises(ModelError, match="the engine openvino answers golden tile"):
        open_engine(model, prepared, tmp_path)


@pytest.mark.slow
def test_eight_bit_numbers_come_with_what_they_cost(model, examples, tmp_path, caplog):
    pytest.importorskip("nncf")
    caplog.set_level(logging.INFO)
    prepared = prepare_engine(model, "openvino", "int8", examples, tmp_path)
    assert prepared.validation_tiles > 0
    assert -1 <= prepared.accuracy_loss < 0.5
    assert json.loads((tmp_path / "engine.json").read_text())["accuracy_loss"] == prepared.accuracy_loss
    network = openvino_engine._core().read_model(tmp_path / "network.xml")
    assert any(operation.get_type_name() == "FakeQuantize" for operation in network.get_ops())


def test_numbers_that_this_processor_lacks_are_refused_and_not_replaced(model, tmp_path, monkeypatch):
    class Core:
        def get_property(self, device, name):
            return ["FP32"]

    monkeypatch.setattr(openvino_engine, "_core", Core)
    with pytest.raises(ConfigError, match="--precision bf16: this processor can't, it has FP32"):
        prepare_engine(model, "openvino", "bf16", None, tmp_path)


_SIGNALLED = """
import faulthandler, pathlib, signal, sys
from sat_xception.bulk.openvino_engine import OpenVinoEngine

faulthandler.enable()  # with this, Python too has a stack for signals
signal.signal(signal.SIGTERM, lambda *_: print("heeded"))
first, second = (OpenVinoEngine(pathlib.Path(sys.argv[1]), "fp32") for _ in range(2))
first.close()
del first
second.close()
del second
signal.raise_signal(signal.SIGTERM)
"""


def test_a_signal_after_networks_that_came_and_went_is_heeded(network):
    command = [sys.executable, "-c", _SIGNALLED, str(network)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "heeded\n"), done.stderr


def test_whoever_is_told_to_end_doesnt_wait_for_the_process_that_converts():
    before = multiprocessing.active_children()
    with pytest.raises(KeyboardInterrupt), engines._other_process() as other:
        work = other.submit(time.sleep, 30)
        while not work.running():
            time.sleep(0.01)
        raise KeyboardInterrupt
    with pytest.raises(BrokenProcessPool):
        work.result()
    assert multiprocessing.active_children() == before


def test_a_model_without_one_input_size_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no signature 'images'"):
        network_of(write_slow_version(tmp_path / "slow"))
    with pytest.raises(ModelError, match="no input of one size was found"):
        network_of(package_version(tmp_path / "models") / NAME / "1")


@pytest.mark.parametrize(
    ("wanted", "installed", "gpus", "chosen"),
    [
        ("auto", {"openvino", "tensorflow"}, [], "openvino"),
        ("auto", {"openvino", "tensorflow"}, ["/dev/nvidia0"], "tensorflow"),
        ("auto", {"tensorflow"}, [], "tensorflow"),
        ("tensorflow", {"openvino", "tensorflow"}, [], "tensorflow"),
    ],
)
def test_auto_is_openvino_on_processors(monkeypatch, wanted, installed, gpus, chosen):
    monkeypatch.setattr(scorer.importlib.util, "find_spec", lambda name: name if name in installed else None)
    monkeypatch.setattr(scorer.Path, "glob", lambda self, pattern: iter(gpus))
    assert choose_engine(wanted) == chosen


def test_an_engine_that_is_named_and_not_installed_is_never_another(monkeypatch):
    monkeypatch.setattr(scorer.importlib.util, "find_spec", lambda name: None if name == "openvino" else name)
    with pytest.raises(ConfigError, match="--engine openvino isn't installed"):
        choose_engine("openvino")
