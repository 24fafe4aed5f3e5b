"""The classifier on a backbone's features, and how it learns: its layers, its loss, its optimizer."""

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
    """Return new layers from features `float32 [n, d]` to probabilities `float32 [n, classes]`, in their order.

    A hidden layer when `config.head_units` asks for one, dropout, and a softmax layer named "head".
    """
    layers: list[keras.layers.Layer] = []
    if config.head_units:
        layers.append(keras.layers.Dense(config.head_units, activation=config.head_activation, name="hidden"))
    layers.append(keras.layers.Dropout(config.dropout, name="dropout"))
    # Softmax in float32 whatever the policy of the network is.
    layers.append(keras.layers.Dense(classes, activation="softmax", dtype="float32", name="head"))
    return layers


def compile_model(
    model: keras.Model,
    config: TrainConfig,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    label_smoothing: float,
) -> None:
    """Get a classifier ready to learn labels `int64 [n]`, with the optimizer that is asked for."""
    loss = _SmoothedCrossentropy(label_smoothing) if label_smoothing else "sparse_categorical_crossentropy"
    model.compile(_OPTIMIZERS[config.optimizer](learning_rate), loss, metrics=["accuracy"])


def uncompiled(model: keras.Model) -> keras.Model:
    """Return the same layers without how they learnt: the optimizer with its state, and our loss.

    What is saved of it loads without our code.
    """
    # Not `inputs` and `outputs`: a model of lists warns when it is called with an array.
    return keras.Model(model.inputs[0], model.outputs[0], name=model.name)


class _SmoothedCrossentropy(keras.losses.Loss):  # type: ignore[misc]
    """Cross-entropy against labels of which a share is spread evenly over the classes.

    Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision", section 7. Keras's own smoothing
    takes labels in one-hot form.
    """

    def __init__(self, smoothing: float) -> None:
        super().__init__(name="smoothed_crossentropy")
        self._smoothing = smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:  # noqa: ANN401 - tensors
        labels = keras.ops.one_hot(keras.ops.reshape(y_true, [-1]), y_pred.shape[-1])
        return keras.losses.categorical_crossentropy(labels, y_pred, label_smoothing=self._smoothing)
