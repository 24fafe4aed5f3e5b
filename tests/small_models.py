"""Networks of a few weights: one to train in place of MobileNetV2, and model folders as `train` writes them.

Tracing and compiling MobileNetV2 takes half a minute of CPU time for each training, whatever its size and epochs. Where
the network isn't the point, `small_mobilenet` of `tests/conftest.py` replaces it by one that is compiled in a second.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import pytest

from sat_xception.examples.index import ExamplesIndex
from sat_xception.model.backbones import BACKBONES, Backbone, get_backbone
from sat_xception.model.parts import Epoch
from sat_xception.storage import file_digest
from sat_xception.train.record import TrainingHistory, TrainingRecord

SIDE = 32
ALPHAS = (0.35, 0.5, 1.0)


def small_backbone(
    include_top: bool, weights: None, input_shape: tuple[int, int, int], alpha: float = 1.0
) -> keras.Model:
    """Build a network as the constructors of `keras.applications` do, of 11 to 32 features."""
    assert not include_top and weights is None
    pixels = keras.Input(input_shape)
    rows = keras.layers.Conv2D(8, 5, strides=2, name="stem")(pixels)
    rows = keras.layers.BatchNormalization(name="stem_bn")(rows)
    rows = keras.layers.Activation("relu", name="stem_relu")(rows)
    rows = keras.layers.Conv2D(round(32 * alpha), 3, name="last")(rows)
    rows = keras.layers.BatchNormalization(name="last_bn")(rows)
    rows = keras.layers.Activation("relu", name="last_relu")(rows)
    return keras.Model(pixels, rows)


def _weight_count(alpha: float) -> int:
    return 8 * (75 + 1) + 4 * 8 + round(32 * alpha) * (72 + 1 + 4)


MOBILENET: Backbone = BACKBONES["mobilenetv2"]
SMALL_MOBILENET: Backbone = dataclasses.replace(
    MOBILENET,
    build=small_backbone,
    fine_tune_from="last",
    weight_counts={alpha: _weight_count(alpha) for alpha in ALPHAS},
)


@contextlib.contextmanager
def steps_run(eagerly: bool) -> Iterator[None]:
    """Run the steps of Keras's loops eagerly or as graphs, whatever an enclosing block asked for.

    To trace and optimise the graphs of a training takes a second for a head and three for the small backbone; an epoch
    of two eager steps takes a tenth and a half.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "run_eagerly", property(lambda model: eagerly, lambda model, value: None))
        yield


def write_small_weights(path: Path, alpha: float = 0.35) -> Path:
    """Write a weights file of the small backbone: random, but scaled so that features of different tiles differ."""
    keras.utils.set_random_seed(5)
    network = small_backbone(include_top=False, weights=None, input_shape=(SIDE, SIDE, 3), alpha=alpha)
    stem = network.get_layer("stem")
    stem.kernel.assign(stem.kernel - keras.ops.mean(stem.kernel, axis=(0, 1), keepdims=True))  # edges, not brightness
    for name in ("stem_bn", "last_bn"):
        network.get_layer(name).gamma.assign(3 * network.get_layer(name).gamma)
    network.save_weights(path)
    return path


def small_network(classes: int, seed: int, name: str = "mobilenetv2") -> keras.Model:
    """Return a network with random weights that follow from the seed; its answers differ from tile to tile."""
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((SIDE, SIDE, 3), dtype="uint8", name="images")
    scaled = get_backbone(name).preprocessing(name="normalisation")(pixels)
    rows = keras.layers.Conv2D(8, 5, strides=3, activation="relu")(scaled)
    rows = keras.layers.Flatten()(rows)
    return keras.Model(pixels, keras.layers.Dense(classes, activation="softmax", name="head")(rows), name=name)


def write_small_model(
    folder: Path,
    examples: Path,
    seed: int = 0,
    backbone: str = "mobilenetv2",
    teach: Callable[[keras.Model], None] = lambda model: None,
    **changes: Any,
) -> keras.Model:
    """Write `model.keras`, `history.json` and `train.json` to a new folder, as if trained on the examples.

    Args:
        folder: The model folder.
        examples: What `convert` wrote; classes and digest are its own unless `changes` says otherwise.
        seed: Another seed gives other weights.
        backbone: What the model claims to be.
        teach: Sets the weights to others than random ones.
        **changes: Fields of `TrainingRecord` to change.

    Returns:
        The model.
    """
    index = ExamplesIndex.read(examples)
    model = small_network(len(changes.get("classes", index.classes)), seed, backbone)
    teach(model)
    folder.mkdir(parents=True)
    model.save(folder / "model.keras")
    row = Epoch(phase="scratch", epoch=1, loss=0.5, accuracy=0.7, val_loss=0.6, val_accuracy=0.6)
    TrainingHistory(epochs=(row, row)).write(folder)
    facts = {
        "classes": index.classes,
        "positive_label": index.positive_label,
        "source": index.source,
        "synthetic": index.synthetic,
        "dataset_digest": index.dataset_digest,
        "backbone": backbone,
        "input_size": SIDE,
        "weights": {"kind": "none", "description": "random weights"},
        "class_weight": None,
        "failed": None,
        "weights_digest": "0" * 64,
        "kept_phase": "scratch",
        "valid_accuracy": 0.6,
        "seconds": {"scratch": 1.0, "all": 2.0},
        "hardware": {},
        "devices": {"precision": "float32", "xla": False, "replicas": 1, "deterministic": False},
        "versions": {"sat_xception": "0", "tensorflow": "0", "keras": "0"},
        "config": {},
        "model": file_digest(folder / "model.keras"),
        **changes,
    }
    TrainingRecord(**facts).write(folder)
    return model
