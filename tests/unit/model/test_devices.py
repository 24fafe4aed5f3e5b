"""Number format, compilation and several devices: chosen by what is there, and what is asked for really happens."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from sat_xception.errors import ConfigError
from sat_xception.evaluate.evaluate import load_model
from sat_xception.model import devices
from sat_xception.model.devices import DevicePlan, choose, device_scope
from sat_xception.model.settings import TrainConfig
from sat_xception.train.record import TrainingRecord
from sat_xception.train.train import train

SETTINGS = {"backbone": "mobilenetv2", "weights": "none", "alpha": 0.35, "input_size": 32, "scratch_epochs": 1}

# Two logical devices stand for two GPUs; all else is TensorFlow's own. The last of seven steps has two rows.
MIRRORED = """
import json, sys, pathlib, keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from sat_xception.model import devices
from sat_xception.model.checkpoint import Checkpoints
from sat_xception.model.features import FeatureBatches
from sat_xception.model.phase import Phase
from sat_xception.process import StopRequest
devices._gpus = lambda: tf.config.list_logical_devices("CPU")
rows = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")
labels = (rows[:, 0] > 0).astype("int64")
data = FeatureBatches(tf.constant(rows), tf.constant(labels), tf.ones(50), batch_size=8, seed=4)
valid = tf.data.Dataset.from_tensor_slices((rows, labels)).batch(10)
ends = []
for replicas in (1, 2):
    with devices.device_scope(devices.DevicePlan("float32", False, replicas, False)):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6,))
        model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(inputs))
        model.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy", metrics=["accuracy"])
        assert model.distribute_strategy.num_replicas_in_sync == replicas
        place = pathlib.Path(sys.argv[1])
        phase = Phase("head", model, 3, 3, Checkpoints(place, str(replicas), 0), StopRequest())
        phase.run(data, valid, lambda row: None)
    ends.append([[row.content() for row in phase.progress.rows], [weight.tolist() for weight in model.get_weights()]])
print(json.dumps(ends))
"""


def config(tmp_path, **changes):
    return TrainConfig(examples=tmp_path, out=tmp_path / "model", **changes)


def test_on_cpus_nothing_is_changed_unless_it_is_asked_for(tmp_path, caplog):
    caplog.set_level("INFO", "sat_xception")
    assert choose(config(tmp_path)) == DevicePlan("float32", xla=False, replicas=1, deterministic=False)
    assert "CPU | float32 | XLA off | deterministic off" in caplog.text
    asked = choose(config(tmp_path, precision="mixed_bfloat16", xla="on", deterministic=True))
    assert asked == DevicePlan("mixed_bfloat16", xla=True, replicas=1, deterministic=True)


@pytest.mark.parametrize(
    ("capability", "precision"), [((6, 1), "float32"), ((7, 5), "mixed_float16"), ((9, 0), "mixed_bfloat16")]
)
def test_a_gpu_gets_the_format_that_it_is_fast_at(tmp_path, monkeypatch, capability, precision):
    monkeypatch.setattr(devices.tf.config, "list_logical_devices", lambda kind: ["gpu"])
    monkeypatch.setattr(devices.tf.config, "list_physical_devices", lambda kind: ["gpu"])
    details = {"compute_capability": capability}
    monkeypatch.setattr(devices.tf.config.experimental, "get_device_details", lambda device: details)
    assert choose(config(tmp_path)) == DevicePlan(precision, xla=True, replicas=1, deterministic=False)


def test_more_gpus_than_there_are_is_told(tmp_path):
    with pytest.raises(ConfigError, match="--gpus 2 but TensorFlow sees 0"):
        choose(config(tmp_path, gpus=2))


def test_the_policy_is_put_back():
    with (
        pytest.raises(KeyError),
        device_scope(DevicePlan("mixed_bfloat16", xla=False, replicas=1, deterministic=False)),
    ):
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        raise KeyError
    assert keras.config.dtype_policy().name == "float32"


def test_what_learnt_in_mixed_precision_is_kept_and_answers_in_float32(examples, tmp_path, small_mobilenet):
    result = train(TrainConfig(examples=examples, out=tmp_path / "model", precision="mixed_float16", **SETTINGS))
    assert TrainingRecord.read(result.folder).devices.precision == "mixed_float16"
    model = load_model(result.folder)[0]
    layers = [*model.layers, *model.get_layer("mobilenetv2").layers]
    assert {layer.compute_dtype for layer in layers if layer.weights} == {"float32"}
    answers = model(np.zeros((2, 32, 32, 3), np.uint8)).numpy()
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-6)


@pytest.mark.slow  # a process of its own, which compiles the network twice
def test_two_devices_learn_what_one_does(tmp_path):
    command = [sys.executable, "-c", MIRRORED, str(tmp_path)]
    run = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=250)
    assert run.returncode == 0, run.stderr[-2000:]
    (rows, weights), (shared_rows, shared_weights) = json.loads(run.stdout)
    for one, other in zip(weights, shared_weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert [row["val_accuracy"] for row in rows] == pytest.approx([row["val_accuracy"] for row in shared_rows])
