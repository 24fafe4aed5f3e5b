"""The networks: a backbone from pixels to pooled features, with a head; which layers learn, and a digest of weights."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from sat_xception.errors import ConfigError, ModelError, ServiceError
from sat_xception.log import get_logger
from sat_xception.model.backbones import Backbone, get_backbone
from sat_xception.model.weights import IMAGENET_DIR_ENV, WeightsOrigin

__all__ = ["add_head", "build_backbone", "freeze_before", "weights_digest"]

_log = get_logger(__name__)
# Layer that scales pixels as the backbone expects them. It is in the model, so everything that loads the model scales
# pixels in the same way: evaluation, the exported SavedModel, the bulk engines.
_PREPROCESSING = "normalisation"


def build_backbone(name: str, input_size: int, alpha: float, weights: WeightsOrigin) -> keras.Model:
    """Build a backbone from `uint8 [n, size, size, 3]` to pooled features `float32 [n, d]`.

    Args:
        name: One of `BACKBONES`.
        input_size: Height and width in pixels.
        alpha: Width multiplier; ignored by networks that have none.
        weights: Initial weights.

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
    arguments: dict[str, Any] = {"include_top": False, "input_shape": (input_size, input_size, 3)}
    if backbone.has_alpha:
        arguments["alpha"] = alpha
    network = (
        _download(backbone, arguments) if weights.kind == "imagenet" else backbone.build(weights=None, **arguments)
    )
    # Not an argument: constructors of several families, such as EfficientNetV2, look up their layers by that name.
    network.name = name
    if weights.path is not None:
        try:
            with warnings.catch_warnings():
                # Keras warns once per layer before its error, with the same text.
                warnings.filterwarnings("ignore", "Skipping nested container")
                network.load_weights(weights.path)
        except (ValueError, OSError, KeyError) as error:
            raise ModelError(f"{weights.path} doesn't fit {name}: {str(error).splitlines()[0]}") from None
    _log.info("backbone  %s, %d px, from %s", name, input_size, weights.description)
    pixels = keras.Input((input_size, input_size, 3), dtype="uint8", name="images")
    scaled = backbone.preprocessing(name=_PREPROCESSING)(pixels)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(network(scaled, training=False))
    return keras.Model(pixels, pooled, name="features")


def add_head(
    features: keras.Model, layers: Sequence[keras.layers.Layer], batch_norm_trains: bool = False
) -> keras.Model:
    """Put a classifier on a backbone.

    Args:
        features: Backbone that `build_backbone` returned.
        layers: Layers that `head_layers` returned.
        batch_norm_trains: Whether batch norm's statistics are updated in training. For random weights only: with
            pretrained weights and small batches it made the original's models worse (0.92 to 0.88 on UC Merced).

    Returns:
        Model from `uint8 [n, size, size, 3]` to probabilities `float32 [n, classes]`.
    """
    network = features.layers[-2]
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # Calling the network with training=False is not enough: fit() overrides that.
            layer.trainable = batch_norm_trains
    pixels = keras.Input(features.input_shape[1:], dtype="uint8", name="images")
    rows = features.get_layer("pool")(network(features.get_layer(_PREPROCESSING)(pixels)))
    for layer in layers:
        rows = layer(rows)
    return keras.Model(pixels, rows, name=network.name)


def freeze_before(network: keras.Model, layer_name: str) -> int:
    """Make the layers from `layer_name` on trainable, without batch norm; return the number of trainable weights.

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


def weights_digest(model: keras.Model) -> str:
    """Return the SHA-256 of a model's weights, in order. `model.keras` contains the time, so its own digest varies."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).data)
    return digest.hexdigest()
