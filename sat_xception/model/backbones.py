"""The backbones: networks that training starts from. A new one is one entry in `BACKBONES`.

Nothing here imports TensorFlow, so that the command line and the check of a pipeline's parameters know names and sizes
without its import time. Keras's constructors are imported when they are called.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator

from sat_xception.errors import ConfigError

if TYPE_CHECKING:
    import keras

__all__ = ["BACKBONES", "DEFAULT_BACKBONE", "Backbone", "BackboneName", "backbone_names", "get_backbone", "imported"]


@dataclass(frozen=True)
class Backbone:
    """Everything that the library knows about one backbone.

    Attributes:
        title: Name in reports and messages.
        build: Constructor with the arguments of those in `keras.applications`: `include_top`, `weights` and
            `input_shape`, and `alpha` where there are several widths.
        preprocessing: Makes the layer, with a given `name`, from pixels `[n, size, size, 3]` in 0 to 255 to what the
            pretrained weights expect. A layer of Keras itself: a saved model is loaded without this library's code.
        input_size: Default height and width of the input, in pixels.
        smallest_input: Smallest input size that the constructor accepts.
        fine_tune_from: Default first layer that is unfrozen in fine-tuning. Stages are unfrozen as a whole.
        fine_tune_learning_rate: Adam's highest rate in fine-tuning; docs/training.md has what was measured.
        scratch_learning_rate: Adam's first rate from random weights.
        weight_counts: Number of values in the weights without the classification top, by width multiplier; a network
            without one has 1.0 alone. A weights file is recognised by this number, so each belongs to one network.
        local_scratch_input_size: Input size of `sat_xception run` from random weights, which trains the whole network:
            on two cores that takes minutes only with small inputs.
        local_scratch_epochs: Epochs of `sat_xception run` from random weights.
        published_tiles_per_s: Tiles per second that one machine alone scores according to the sources in docs/bulk.md,
            by the name of the machine in `bulk/sizing.py`. Without it, an estimate needs a rate in `--prices`.
    """

    title: str
    build: Callable[..., keras.Model]
    preprocessing: Callable[..., keras.layers.Layer]
    input_size: int
    smallest_input: int
    fine_tune_from: str
    fine_tune_learning_rate: float
    scratch_learning_rate: float
    weight_counts: Mapping[float, int]
    local_scratch_input_size: int
    local_scratch_epochs: int
    published_tiles_per_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def has_alpha(self) -> bool:
        """Whether the network takes a width multiplier."""
        return set(self.weight_counts) != {1.0}


def imported(name: str, **arguments: object) -> Callable[..., Any]:
    """Return a function that imports `module:attribute` when it is called, and calls it.

    Args:
        name: Module and attribute, for instance "keras.layers:Rescaling".
        **arguments: Keyword arguments of every call; the caller may add others.
    """
    module, _, attribute = name.partition(":")

    def call(**more: object) -> Any:  # noqa: ANN401 - whatever is imported returns
        return getattr(importlib.import_module(module), attribute)(**arguments, **more)

    return call


# The "tf" mode of `keras.applications.imagenet_utils`: [0, 255] to [-1, 1].
_MINUS_ONE_TO_ONE = imported("keras.layers:Rescaling", scale=1 / 127.5, offset=-1.0)

DEFAULT_BACKBONE = "xception"
BACKBONES: dict[str, Backbone] = {
    "xception": Backbone(
        title="Xception",
        build=imported("keras.applications:Xception"),
        preprocessing=_MINUS_ONE_TO_ONE,
        # The original trained at 256 pixels. Map tiles have that size, so resizing loses nothing.
        input_size=256,
        smallest_input=71,
        fine_tune_from="block13_sepconv1",
        fine_tune_learning_rate=3e-4,
        scratch_learning_rate=1e-3,  # the best of those tried on the synthetic sample
        weight_counts={1.0: 20_861_480},
        local_scratch_input_size=71,
        local_scratch_epochs=5,  # 12 s each on the sample
        # At 299 pixels.
        published_tiles_per_s={"cpu-core": 3, "t4": 515, "a10": 985, "a100": 3950, "h100": 4725},
    ),
    "mobilenetv2": Backbone(
        title="MobileNetV2",
        build=imported("keras.applications:MobileNetV2"),
        preprocessing=_MINUS_ONE_TO_ONE,
        input_size=224,
        smallest_input=32,
        fine_tune_from="block_6_expand",
        fine_tune_learning_rate=3e-4,
        # On the synthetic sample, alpha 0.35 learns nothing in 25 epochs at 1e-3 and reaches 0.9 at 4e-3.
        scratch_learning_rate=4e-3,
        weight_counts={
            0.35: 410_208,
            0.5: 706_224,
            0.75: 1_382_064,
            1.0: 2_257_984,
            1.3: 3_766_048,
            1.4: 4_363_712,
        },
        local_scratch_input_size=96,
        local_scratch_epochs=24,
        # At 224 pixels.
        published_tiles_per_s={"cpu-core": 20, "t4": 2760, "a10": 6000, "a100": 8421, "h100": 26549},
    ),
}


def get_backbone(name: str) -> Backbone:
    """Return a backbone by name.

    Raises:
        ConfigError: No backbone has this name.
    """
    if name not in BACKBONES:
        raise ConfigError(f"unknown backbone {name!r}; there are {', '.join(BACKBONES)}")
    return BACKBONES[name]


def backbone_names(conjunction: str = "or") -> str:
    """Return the names for a sentence: "xception or mobilenetv2"."""
    *names, last = BACKBONES
    return f"{', '.join(names)} {conjunction} {last}" if names else last


def _is_registered(name: str) -> str:
    if name not in BACKBONES:
        raise ValueError(f"expected {backbone_names()}")
    return name


# Type of settings that name a backbone.
BackboneName = Annotated[str, AfterValidator(_is_registered)]
