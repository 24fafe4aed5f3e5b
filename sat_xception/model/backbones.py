"""The networks that training starts from. A new one is one entry in `BACKBONES`."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from sat_xception.errors import ConfigError, ModelError, ServiceError
from sat_xception.log import get_logger
from sat_xception.model.preprocess import normalisation
from sat_xception.model.settings import SMALLEST_INPUT
from sat_xception.model.weights import IMAGENET_DIR_ENV, WeightsOrigin

__all__ = ["BACKBONES", "Backbone", "add_head", "build_backbone", "freeze_before", "get_backbone"]

_log = get_logger(__name__)


@dataclass(frozen=True)
class Backbone:
    """A network of `keras.applications`.

    Attributes:
        build: Its constructor.
        input_size: Height and width it gets by default, in pixels.
        smallest_input: Smallest input size that the constructor takes.
        fine_tune_from: First layer that fine-tuning changes by default; all of a stage learn or none.
        fine_tune_learning_rate: Adam's highest rate for that; docs/training.md has what was measured.
        scratch_learning_rate: Adam's first rate from random weights. On the synthetic sample MobileNetV2 with alpha
            0.35 learns nothing in 25 epochs at 1e-3 and reaches 0.9 at 4e-3; Xception does best at 1e-3.
        has_alpha: Whether it takes a width multiplier.
    """

    build: Callable[..., keras.Model]
    input_size: int
    smallest_input: int
    fine_tune_from: str
    fine_tune_learning_rate: float
    scratch_learning_rate: float
    has_alpha: bool = False


BACKBONES = {
    # 256 is what the original trained on; zoom-18 tiles come in that size, so nothing is lost to resizing.
    "xception": Backbone(keras.applications.Xception, 256, SMALLEST_INPUT["xception"], "block13_sepconv1", 3e-4, 1e-3),
    "mobilenetv2": Backbone(
        keras.applications.MobileNetV2,
        224,
        SMALLEST_INPUT["mobilenetv2"],
        "block_6_expand",
        3e-4,
        4e-3,
        has_alpha=True,
    ),
}


def get_backbone(name: str) -> Backbone:
    """Return a backbone by name.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in BACKBONES:
        raise ConfigError(f"unknown backbone {name!r}; there are {', '.join(BACKBONES)}")
    return BACKBONES[name]


def build_backbone(name: str, input_size: int, alpha: float, weights: WeightsOrigin) -> keras.Model:
    """Build a backbone from `uint8 [n, size, size, 3]` to pooled features `float32 [n, d]`.

    Args:
        name: One of `BACKBONES`.
        input_size: Height and width in pixels.
        alpha: Width multiplier; ignored by networks that have none.
        weights: What to start from.

    Raises:
        ConfigError: The input is too small, or Keras offers no ImageNet weights for this alpha.
        ModelError: The weights file doesn't fit.
        ServiceError: The ImageNet weights can't be downloaded.
    """
    backbone = get_backbone(name)
    if input_size < backbone.smallest_input:
        raise ConfigError(
            f"--input-size {input_size} is too small for {name}; it takes {backbone.smallest_input} or more"
        )
    arguments: dict[str, Any] = {"include_top": False, "input_shape": (input_size, input_size, 3), "name": name}
    if backbone.has_alpha:
        arguments["alpha"] = alpha
    network = (
        _download(backbone, arguments) if weights.kind == "imagenet" else backbone.build(weights=None, **arguments)
    )
    if weights.path is not None:
        try:
            with warnings.catch_warnings():
                # Keras warns once a layer before it says the same in its error.
                warnings.filterwarnings("ignore", "Skipping nested container")
                network.load_weights(weights.path)
        except (ValueError, OSError, KeyError) as error:
            raise ModelError(f"{weights.path} doesn't fit {name}: {str(error).splitlines()[0]}") from None
    _log.info("backbone  %s, %d px, from %s", name, input_size, weights.description)
    pixels = keras.Input((input_size, input_size, 3), dtype="uint8", name="images")
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(network(normalisation()(pixels), training=False))
    return keras.Model(pixels, pooled, name="features")


def add_head(
    features: keras.Model, layers: Sequence[keras.layers.Layer], batch_norm_trains: bool = False
) -> keras.Model:
    """Put a classifier on a backbone.

    Args:
        features: What `build_backbone` returned.
        layers: What `head_layers` returned: from features to probabilities.
        batch_norm_trains: Update batch-norm's statistics in training. Right for random weights only: with pretrained
            ones and small batches it made the original's models worse (0.92 to 0.88 on UC Merced).

    Returns:
        Model from `uint8 [n, size, size, 3]` to probabilities `float32 [n, classes]`.
    """
    network = features.layers[-2]
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # Calling the network with training=False is not enough: fit() overrides that.
            layer.trainable = batch_norm_trains
    pixels = keras.Input(features.input_shape[1:], dtype="uint8", name="images")
    rows = features.get_layer("pool")(network(features.get_layer("normalisation")(pixels)))
    for layer in layers:
        rows = layer(rows)
    return keras.Model(pixels, rows, name=network.name)


def freeze_before(network: keras.Model, layer_name: str) -> int:
    """Let only the layers from `layer_name` on learn, batch-norm excepted; return how many weights do.

    Raises:
        ConfigError: The network has no such layer.
    """
    names = [layer.name for layer in network.layers]
    if layer_name not in names:
        raise ConfigError(f"--fine-tune-from {layer_name!r} is no layer of {network.name}; for instance {names[-1]!r}")
    first = names.index(layer_name)
    for position, layer in enumerate(network.layers):
        layer.trainable = position >= first and not isinstance(layer, keras.layers.BatchNormalization)
    return sum(int(weight.shape.num_elements() or 0) for weight in network.trainable_weights)


def _download(backbone: Backbone, arguments: dict[str, Any]) -> keras.Model:
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras shows the progress of a download on stdout
            return backbone.build(weights="imagenet", **arguments)
    except ValueError as error:
        raise ConfigError(f"Keras has no ImageNet weights for this network: {error}") from None
    except Exception as error:  # keras.utils.get_file raises a bare Exception when a download fails
        raise ServiceError(
            f"the ImageNet weights can't be downloaded: {error}. Give a file with --weights PATH, name a folder of "
            f"them in ${IMAGENET_DIR_ENV}, or start from random weights with --weights none"
        ) from None
