"""Find the initial weights of a backbone and record their origin. There is no silent fallback.

Nothing here imports TensorFlow: the command line assigns weights files to backbones before any step runs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import h5py

from sat_xception.errors import ConfigError, ModelError
from sat_xception.model.backbones import BACKBONES, get_backbone
from sat_xception.model.parts import Weights
from sat_xception.storage import fetch_file, file_digest

__all__ = ["IMAGENET_DIR_ENV", "WeightsOrigin", "find_weights", "identify_weights"]

IMAGENET_DIR_ENV = "SAT_XCEPTION_IMAGENET_DIR"


@dataclass(frozen=True)
class WeightsOrigin:
    """Origin of a backbone's initial weights.

    Attributes:
        kind: "imagenet" (downloaded by Keras), "file" or "none".
        path: The file if `kind` is "file", else None.
        description: Text for the log and `train.json`.
    """

    kind: str
    path: Path | None
    description: str

    def record(self) -> Weights:
        """Return the origin with the file's digest."""
        digest = file_digest(self.path) if self.path else None
        return Weights(kind=self.kind, description=self.description, sha256=digest)


def find_weights(weights: str, backbone: str, alpha: float) -> WeightsOrigin:
    """Return the weights that a `--weights` value stands for.

    Args:
        weights: "imagenet", "none", a path or an address in a bucket. "imagenet" is taken from the folder in
            `$SAT_XCEPTION_IMAGENET_DIR` if that is set (for machines without network), else downloaded.
        backbone: Name of the backbone.
        alpha: Width multiplier, for a backbone that has one.

    Raises:
        ConfigError: There is no such file, or no such backbone.
        ModelError: The file holds weights of another network.
    """
    if weights == "none":
        return WeightsOrigin("none", None, "random weights")
    if weights != "imagenet":
        return _checked(fetch_file(weights), f"weights file {weights.rsplit('/', 1)[-1]}", backbone, alpha)
    folder = os.environ.get(IMAGENET_DIR_ENV)
    if not folder:
        return WeightsOrigin("imagenet", None, "ImageNet weights, downloaded by Keras")
    wanted = get_backbone(backbone).weight_counts.get(_alpha(backbone, alpha))
    for path in sorted(Path(folder).glob("*.h5")):
        # The folder may hold other files too, such as weights of other networks or with the classification top.
        if _count_values(path) == wanted:
            return WeightsOrigin("file", path, f"ImageNet weights, {path.name} of ${IMAGENET_DIR_ENV}")
    raise ConfigError(
        f"${IMAGENET_DIR_ENV} ({folder}) has no .h5 file for {_title(backbone, alpha)}; add it, or unset it"
    )


def identify_weights(path: Path) -> tuple[str, float]:
    """Return backbone and alpha of a weights file, recognised by its number of values.

    Raises:
        ModelError: The file isn't HDF5, or has the number of values of no registered backbone without its top.
    """
    count = _count_values(path)
    known = [(name, alpha) for name, backbone in BACKBONES.items() for alpha in backbone.weight_counts]
    for name, alpha in known:
        if BACKBONES[name].weight_counts[alpha] == count:
            return name, alpha
    raise ModelError(
        f"{path} holds {count:,} values, which is none of our backbones without its top "
        f"({', '.join(_title(*network) for network in known)}); save it with include_top=False"
    )


def _checked(path: Path, description: str, backbone: str, alpha: float) -> WeightsOrigin:
    found = identify_weights(path)
    if found != (backbone, _alpha(backbone, alpha)):
        raise ModelError(f"{path} holds weights of {_title(*found)}, but {_title(backbone, alpha)} is to be trained")
    return WeightsOrigin("file", path, description)


def _alpha(backbone: str, alpha: float) -> float:
    return alpha if get_backbone(backbone).has_alpha else 1.0


def _title(backbone: str, alpha: float) -> str:
    return f"{backbone} with alpha {alpha:g}" if get_backbone(backbone).has_alpha else backbone


def _count_values(path: Path) -> int:
    count = 0

    def add(_: str, item: object) -> None:
        nonlocal count
        if isinstance(item, h5py.Dataset) and item.dtype.kind == "f":
            count += item.size

    try:
        with h5py.File(path) as file:
            file.visititems(add)
    except OSError as error:
        raise ModelError(f"{path} is not a readable HDF5 weights file: {error}") from None
    return count
