"""Choose precision, XLA and the distribution strategy of a training, by the available devices or the settings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import keras
import tensorflow as tf

from sat_xception.errors import ConfigError
from sat_xception.log import get_logger
from sat_xception.model.settings import TrainConfig

__all__ = ["DevicePlan", "choose", "device_scope", "in_float32"]

_log = get_logger(__name__)
# https://docs.nvidia.com/deeplearning/performance/mixed-precision-training: tensor cores take float16 from compute
# capability 7 on and bfloat16, which needs no scaling of the loss, from 8 on.
_FLOAT16_FROM, _BFLOAT16_FROM = (7, 0), (8, 0)


@dataclass(frozen=True)
class DevicePlan:
    """Use of the devices by a training.

    Attributes:
        precision: Keras dtype policy: "float32", "mixed_float16" or "mixed_bfloat16".
        xla: Whether steps are compiled by XLA.
        replicas: Number of devices that share each step.
        deterministic: Whether GPU operations that aren't repeatable are replaced by slower ones that are.
    """

    precision: str
    xla: bool
    replicas: int
    deterministic: bool

    def describe(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return asdict(self)


def choose(config: TrainConfig) -> DevicePlan:
    """Return the device plan of a training, and log it.

    On CPUs the plan is float32 without XLA: mixed precision and XLA both made convolutional networks slower there.

    Raises:
        ConfigError: `config.gpus` is larger than the number of GPUs.
    """
    gpus = _gpus()
    if config.gpus > len(gpus):
        raise ConfigError(f"--gpus {config.gpus} but TensorFlow sees {len(gpus)}; give fewer, or 0 for all there are")
    replicas = max(1, config.gpus or len(gpus))
    precision = _fitting_precision(gpus) if config.precision == "auto" else config.precision
    # Keras doesn't use XLA either if several devices share a step.
    xla = bool(gpus) and replicas == 1 if config.xla == "auto" else config.xla == "on"
    choices = DevicePlan(precision, xla, replicas, config.deterministic)
    _log.info(
        "devices   %s | %s | XLA %s | deterministic %s",
        f"{replicas} of {len(gpus)} GPUs" if gpus else "CPU",
        precision,
        *("on" if chosen else "off" for chosen in (xla, config.deterministic)),
    )
    return choices


@contextlib.contextmanager
def device_scope(choices: DevicePlan) -> Iterator[None]:
    """Apply a device plan while the block runs; determinism, once on, stays on in this process."""
    if choices.deterministic:
        tf.config.experimental.enable_op_determinism()
    names = [device.name for device in _gpus()[: choices.replicas]]
    strategy = tf.distribute.MirroredStrategy(names) if choices.replicas > 1 else tf.distribute.get_strategy()
    earlier = keras.config.dtype_policy()
    keras.config.set_dtype_policy(choices.precision)
    try:
        with strategy.scope():
            yield
    finally:
        keras.config.set_dtype_policy(earlier)


def in_float32(model: keras.Model) -> None:
    """Switch a model trained in mixed precision to float32, for packaging and serving; weights don't change."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            in_float32(layer)
        layer.dtype_policy = "float32"


def _fitting_precision(gpus: list[Any]) -> str:
    details = [
        tf.config.experimental.get_device_details(device).get("compute_capability", (0, 0))
        for device in tf.config.list_physical_devices("GPU")
    ]
    least = min(details, default=(0, 0)) if gpus else (0, 0)
    if least >= _BFLOAT16_FROM:
        return "mixed_bfloat16"
    return "mixed_float16" if least >= _FLOAT16_FROM else "float32"


def _gpus() -> list[Any]:
    gpus: list[Any] = tf.config.list_logical_devices("GPU")
    return gpus
