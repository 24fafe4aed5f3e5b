"""The head: its layers, its loss and its optimizer, in every phase; and a file that needs nothing of ours."""

import zipfile

import keras
import numpy as np
import pytest

from sat_xception.errors import ConfigError
from sat_xception.model.head import compile_model, head_layers, uncompiled
from sat_xception.model.settings import TrainConfig
from sat_xception.settings.config import load_config
from sat_xception.train.record import TrainingHistory
from sat_xception.train.train import train
from tests.small_models import steps_run

SMALL = {"backbone": "mobilenetv2", "alpha": 0.35, "input_size": 32}


def config(**settings):
    return TrainConfig(examples="e", out="o", **settings)


def classifier(settings, width=4, classes=3):
    return keras.Sequential([keras.Input((width,)), *head_layers(settings, classes)])


def history(folder, phase):
    return [(row.loss, row.val_loss) for row in TrainingHistory.read(folder).epochs if row.phase == phase]


@pytest.fixture(scope="module")
def transfer(examples, small_weights, tmp_path_factory, small_mobilenet):
    """Train from weights that mean nothing, with a head that doesn't move: both phases start at the same place."""
    folder = tmp_path_factory.mktemp("heads")
    settings = {**SMALL, "weights": str(small_weights), "head_epochs": 1, "head_learning_rate": 1e-9}
    tuning = {"fine_tune_epochs": 1, "fine_tune_from": "last", "fine_tune_learning_rate": 1e-3}

    def run(name, **changes):
        with steps_run(eagerly=True):
            train(TrainConfig(examples=examples, out=folder / name, **{**settings, **tuning, **changes}))
        return folder / name

    return run


def test_by_default_the_softmax_is_right_on_the_features():
    assert [layer.name for layer in head_layers(config(), 2)] == ["dropout", "head"]


def test_a_hidden_layer_has_the_width_and_activation_that_are_asked_for():
    layers = head_layers(config(head_units=7, head_activation="tanh", dropout=0.5), 3)
    assert [layer.name for layer in layers] == ["hidden", "dropout", "head"]
    assert (layers[0].units, layers[0].activation, layers[1].rate) == (7, keras.activations.tanh, 0.5)
    probabilities = keras.Sequential([keras.Input((4,)), *layers])(np.ones((5, 4), np.float32)).numpy()
    assert probabilities.shape == (5, 3) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamw", "nadam", "rmsprop", "sgd"])
def test_every_optimizer_learns_at_the_rate_that_is_given(name):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    rows = np.eye(3, 4, dtype=np.float32)[labels] + rng.normal(0, 0.1, (300, 4)).astype(np.float32)
    keras.utils.set_random_seed(0)
    settings = config(optimizer=name, dropout=0)
    model = classifier(settings)
    compile_model(model, settings, 0.1, settings.label_smoothing)
    assert type(model.optimizer).__name__.lower() == name
    assert float(model.optimizer.learning_rate) == pytest.approx(0.1)
    model.fit(rows, labels, epochs=5, verbose=0)
    assert model.evaluate(rows, labels, verbose=0, return_dict=True)["accuracy"] == 1.0


def test_smoothed_labels_give_the_loss_of_the_formula():
    settings = config(label_smoothing=0.3)
    model = classifier(settings)
    compile_model(model, settings, 0.1, settings.label_smoothing)
    rows, labels = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32), np.array([0, 1, 2, 0, 1, 2])
    logs = -np.log(model.predict(rows, verbose=0))
    expected = 0.7 * logs[np.arange(6), labels] + 0.3 * logs.mean(axis=1)
    assert model.evaluate(rows, labels, verbose=0, return_dict=True)["loss"] == pytest.approx(expected.mean(), rel=1e-5)


def test_a_model_with_every_option_loads_without_our_code(tmp_path):
    settings = config(head_units=8, label_smoothing=0.1, optimizer="sgd")
    model = classifier(settings)
    compile_model(model, settings, 0.1, settings.label_smoothing)
    rows, labels = np.ones((4, 4), np.float32), np.array([0, 1, 2, 0])
    model.fit(rows, labels, verbose=0)
    uncompiled(model).save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as file:
        described = file.read("config.json").decode()
    assert "sat_xception" not in described and "smoothed" not in described
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded.predict(rows, verbose=0), model.predict(rows, verbose=0))


def test_both_phases_of_a_transfer_take_the_options(transfer):
    plain, other = transfer("plain"), transfer("other", optimizer="sgd", head_units=8)
    assert history(plain, "fine-tune") != history(other, "fine-tune")
    assert keras.models.load_model(other / "model.keras").get_layer("hidden").units == 8


def test_training_from_scratch_takes_the_options(trained, examples, tmp_path, small_mobilenet):
    settings = {**SMALL, "weights": "none", "scratch_epochs": 2}
    with steps_run(eagerly=True):
        train(TrainConfig(examples=examples, out=tmp_path / "model", optimizer="sgd", head_units=8, **settings))
    # Eager steps round in another way than the graphs of the other training do.
    others = [pytest.approx(row, rel=1e-3) for row in history(trained, "scratch")]
    assert history(tmp_path / "model", "scratch") != others
    assert keras.models.load_model(tmp_path / "model" / "model.keras").get_layer("hidden").units == 8


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"optimizer": "adagrad"}, "--optimizer: Input should be 'adam', 'adamw', 'nadam', 'rmsprop' or 'sgd'"),
        ({"head_units": -1}, "--head-units: Input should be greater than or equal to 0"),
        ({"head_activation": "softmax"}, "--head-activation: Input should be 'relu'"),
        ({"label_smoothing": 1}, "--label-smoothing: Input should be less than 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(wrong, told):
    with pytest.raises(ConfigError) as caught:
        load_config(TrainConfig, None, {"examples": "e", "out": "o", **wrong})
    assert told in str(caught.value)
