"""The classifier head on a backbone's features: layers, loss and optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from sat_xception.model.settings import TrainConfig

__all__ = ["compile_model", "head_layers", "uncompiled"]

_MOMENTUM = 0.9
_OPTIMIZERS: dict[str, Callable[..., keras.optimizers.Optimizer]] = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "nadam": keras.optimizers.Nadam,
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": lambda rate: keras.optimizers.SGD(rate, momentum=_MOMENTUM, nesterov=True),
}


def head_layers(config: TrainConfig, classes: int) -> list[keras.layers.Layer]:
    """Return new layers from features `float32 [n, d]` to probabilities `float32 [n, classes]`, in order.

    They are a hidden layer if `config.head_units` isn't 0, dropout, and a softmax layer named "head".
    """
    layers: list[keras.layers.Layer] = []
    if config.head_units:
        layers.append(keras.layers.Dense(config.head_units, activation=config.head_activation, name="hidden"))
    layers.append(keras.layers.Dropout(config.dropout, name="dropout"))
    # Softmax in float32 under any dtype policy.
    layers.append(keras.layers.Dense(classes, activation="softmax", dtype="float32", name="head"))
    return layers


def compile_model(
    model: keras.Model,
    config: TrainConfig,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    label_smoothing: float,
) -> None:
    """Compile a classifier for labels `int64 [n]`, with the optimizer of the settings."""
    loss = _SmoothedCrossentropy(label_smoothing) if label_smoothing else "sparse_categorical_crossentropy"
    model.compile(_OPTIMIZERS[config.optimizer](learning_rate), loss, metrics=["accuracy"])


def uncompiled(model: keras.Model) -> keras.Model:
    """Return a model with the same layers, but without optimizer, optimizer state and loss.

    A file saved from it loads without this library's code.
    """
    # Not `inputs` and `outputs`, which are lists: such a model warns when it is called with an array.
    return keras.Model(model.inputs[0], model.outputs[0], name=model.name)


class _SmoothedCrossentropy(keras.losses.Loss):  # type: ignore[misc]
    """Cross-entropy with label smoothing for integer labels.

    Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision", section 7. Keras's own label
    smoothing needs one-hot labels.
    """

    def __init__(self, smoothing: float) -> None:
        super().__init__(name="smoothed_crossentropy")
        self._smoothing = smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:  # noqa: ANN401 - tensors
        labels = keras.ops.one_hot(keras.ops.reshape(y_true, [-1]), y_pred.shape[-1])
        return keras.losses.categorical_crossentropy(labels, y_pred, label_smoothing=self._smoothing)
