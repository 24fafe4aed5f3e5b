"""A backbone is added by one entry: a tiny network that expects other pixels, from its weights to its answers."""

import io
import json

import keras
import numpy as np
import pytest
from PIL import Image

from sat_xception.bulk.engines import open_engine, prepare_engine
from sat_xception.bulk.scorer import ScoringModel
from sat_xception.bulk.sizing import read_backends
from sat_xception.evaluate.calibrate import apply_temperature
from sat_xception.evaluate.evaluate import evaluate, load_model
from sat_xception.evaluate.gate import gate
from sat_xception.evaluate.settings import EvaluateConfig, GateConfig
from sat_xception.model.backbones import BACKBONES, Backbone, imported
from sat_xception.model.preprocess import decode_and_resize
from sat_xception.model.settings import TrainConfig
from sat_xception.model.weights import identify_weights
from sat_xception.package.package import package
from sat_xception.package.record import ModelRecord
from sat_xception.package.settings import PackageConfig
from sat_xception.serve.client import EndpointClient
from sat_xception.serve.server import RunningServer
from sat_xception.serve.settings import ServeConfig
from sat_xception.served_model.golden import GoldenTiles
from sat_xception.train.record import TrainingHistory, TrainingRecord
from sat_xception.train.train import train
from tests.small_models import steps_run, write_small_model

pytestmark = pytest.mark.timeout(900)

NAME = "tiny"
SIDE = 32
# Mean and standard deviation of ImageNet's channels, as the network's published weights were trained with.
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def tiny(include_top, weights, input_shape):
    """Build a network as the constructors of `keras.applications` do."""
    assert not include_top
    assert weights is None
    pixels = keras.Input(input_shape)
    rows = keras.layers.Conv2D(8, 5, strides=3, name="stem")(pixels)
    rows = keras.layers.BatchNormalization(name="stem_bn")(rows)
    rows = keras.layers.Activation("relu", name="stem_out")(rows)
    rows = keras.layers.Conv2D(16, 3, activation="relu", name="last")(rows)
    return keras.Model(pixels, rows)


PER_CHANNEL = imported("keras.layers:Rescaling", scale=(1 / (255 * STD)).tolist(), offset=(-MEAN / STD).tolist())
ENTRY = Backbone(
    title="Tiny",
    build=tiny,
    preprocessing=PER_CHANNEL,
    input_size=48,
    smallest_input=SIDE,
    fine_tune_from="last",
    fine_tune_learning_rate=1e-4,
    scratch_learning_rate=1e-3,
    weight_counts={1.0: 8 * (75 + 1) + 8 * 4 + 16 * (72 + 1)},
    local_scratch_input_size=32,
    local_scratch_epochs=5,
    published_tiles_per_s={"t4": 1000},
)


@pytest.fixture(scope="module", autouse=True)
def entry():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, NAME, ENTRY)
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A weights file; random, but scaled so that the features of different tiles differ."""
    keras.utils.set_random_seed(5)
    network = ENTRY.build(include_top=False, weights=None, input_shape=(SIDE, SIDE, 3))
    network.get_layer("stem_bn").gamma.assign(3 * np.ones(8))
    path = tmp_path_factory.mktemp("weights") / "w.weights.h5"
    network.save_weights(path)
    return path


@pytest.fixture(scope="module")
def trained(weights, examples, tmp_path_factory):
    """The third backbone, trained: a head on frozen features, then one epoch of fine-tuning."""
    settings = {"input_size": SIDE, "views": 1, "head_epochs": 3, "fine_tune_epochs": 1, "batch_size": 16}
    out = tmp_path_factory.mktemp("trained") / NAME
    with steps_run(eagerly=True):
        train(TrainConfig(examples=examples, out=out, backbone=NAME, weights=str(weights), **settings))
    return out


@pytest.fixture(scope="module")
def decision(trained, examples, tmp_path_factory):
    """The gate's decision between three candidates, the other two of which are never as good as it asks."""
    folder, evaluations = tmp_path_factory.mktemp("contest"), []
    for name in ("xception", "mobilenetv2"):
        write_small_model(folder / name, examples, backbone=name)
    for name, model in ((NAME, trained), *((name, folder / name) for name in ("xception", "mobilenetv2"))):
        evaluate(EvaluateConfig(model=model, examples=examples, out=folder / f"{name}-evaluation"))
        evaluations.append(folder / f"{name}-evaluation")
    # Whatever three epochs on random features reached, this one shall be the most accurate.
    facts = json.loads((evaluations[0] / "evaluation.json").read_text())
    facts["metrics"]["accuracy"] = 1.0
    (evaluations[0] / "evaluation.json").write_text(json.dumps(facts))
    floors = dict.fromkeys(("min_accuracy", "min_recall", "min_precision"), 0.0) | {"min_gain": -1.0}
    return gate(GateConfig(evaluations=tuple(evaluations), out=folder / "decision", **floors))


@pytest.fixture(scope="module")
def version(trained, examples, decision, tmp_path_factory):
    out = tmp_path_factory.mktemp("root")
    return package(PackageConfig(model=trained, examples=examples, decision=decision.folder, out=out, version=3)).folder


def read(folder, name):
    return json.loads((folder / name).read_text())


def golden(version):
    tiles = GoldenTiles.read(version)
    return tiles.images, tiles.expected


def per_channel(pixels):
    return (pixels / 255 - MEAN) / STD


def as_mobilenet(pixels):
    return pixels / 127.5 - 1


def answers_of(model, images, temperature, scaled):
    """Return the probabilities of the parts of a model, with pixels that are scaled here and not in it."""
    pixels = np.stack([decode_and_resize(data, SIDE).numpy() for data in images]).astype(np.float64)
    rows = model.get_layer(NAME)(scaled(pixels).astype(np.float32), training=False).numpy().mean(axis=(1, 2))
    logits = rows @ model.get_layer("head").kernel.numpy() + model.get_layer("head").bias.numpy()
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return apply_temperature(exponentials / exponentials.sum(axis=1, keepdims=True), temperature)


def test_its_name_its_weights_and_its_rates_are_known_everywhere(weights):
    assert identify_weights(weights) == (NAME, 1.0)
    assert read_backends(None)["t4"].tiles_per_s[NAME] == 650
    assert NAME not in read_backends(None)["a100"].tiles_per_s
    with pytest.raises(ValueError, match=r"expected xception, mobilenetv2\b.* or tiny"):
        TrainConfig(examples="e", out="o", backbone="resnet50")
    with pytest.raises(ValueError, match="tiny takes 32 pixels or more"):
        TrainConfig(examples="e", out="o", backbone=NAME, input_size=SIDE - 1)


def test_it_is_trained_in_both_phases_from_its_weights(trained):
    record, history = TrainingRecord.read(trained), TrainingHistory.read(trained)
    assert (record.backbone, record.weights.kind) == (NAME, "file")
    assert [epoch.phase for epoch in history.epochs] == ["head"] * 3 + ["fine-tune"]


def test_the_trained_model_scales_pixels_as_this_backbone_expects_them(trained, class_folders):
    images = [path.read_bytes() for path in sorted(class_folders.rglob("*.jpg"))[::20]]
    model, _ = load_model(trained)
    answers = model(np.stack([decode_and_resize(data, SIDE).numpy() for data in images]), training=False).numpy()
    np.testing.assert_allclose(answers_of(model, images, 1.0, per_channel), answers, atol=1e-4)
    assert np.abs(answers_of(model, images, 1.0, as_mobilenet) - answers).max() > 0.01


@pytest.mark.slow
def test_the_gate_judges_three_and_names_the_others(decision):
    assert decision.winner == NAME
    assert [row.backbone for row in decision.decision.candidates] == sorted(BACKBONES)
    assert len(decision.decision.comparisons) == 3
    assert "; the others: " in decision.decision.reason
    report = (decision.folder / "report.html").read_text()
    assert all(name in report for name in BACKBONES)


@pytest.mark.slow
def test_the_package_scales_pixels_as_this_backbone_expects_them(trained, version):
    images, expected = golden(version)
    temperature = ModelRecord.read(version).temperature
    model, _ = load_model(trained)
    own = answers_of(model, images, temperature, per_channel)
    np.testing.assert_allclose(own, expected, atol=1e-4)
    others = answers_of(model, images, temperature, as_mobilenet)
    assert np.abs(others - expected).max() > 0.01


@pytest.mark.slow
def test_it_is_served(version):
    images, expected = golden(version)
    config = ServeConfig(model_root=version.parent.parent, rest_port=0, grpc_port=0)
    with RunningServer(config) as server, EndpointClient(server.rest_url, config.name) as client:
        np.testing.assert_allclose(client.predict(images), expected, atol=1e-4)


@pytest.mark.slow
def test_the_bulk_engine_answers_alike(version, tmp_path):
    model = ScoringModel.read(version)
    assert model.backbone == NAME
    images, expected = golden(version)
    prepared = prepare_engine(model, "tensorflow", "fp32", None, tmp_path)
    engine = open_engine(model, prepared, tmp_path)
    try:
        pixels = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in images]
        found = np.concatenate([engine.run(engine.fit(tile)[np.newaxis]) for tile in pixels])
    finally:
        engine.close()
    np.testing.assert_allclose(found, expected, atol=1e-3)
