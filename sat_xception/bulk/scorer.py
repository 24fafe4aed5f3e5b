"""The common interface of scorers: a model in this process, on one of several engines, or a server."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sat_xception.bulk.plan_document import ModelId
from sat_xception.bulk.score_files import Row
from sat_xception.bulk.tiles import LoadedTile, Pixels
from sat_xception.errors import ConfigError
from sat_xception.served_model.model_root import DIGESTS_FILE, read_digests
from sat_xception.served_model.packaged_model import PackagedModel
from sat_xception.storage import file_digest

__all__ = ["Engine", "Scorer", "ScoringModel", "choose_engine", "model_id", "score_here"]

Probabilities = npt.NDArray[np.float32]


class Scorer(Protocol):
    """Scores batches of tiles.

    Attributes:
        at_once: Number of concurrent calls that is worthwhile.
    """

    at_once: int

    def fit(self, pixels: Pixels) -> Pixels:
        """Return a tile's pixels in the form for `score`. Called from threads that read tiles."""

    def score(self, tiles: Sequence[LoadedTile]) -> list[Row]:
        """Return the result of each tile, none of which has failed before. Called from several threads."""

    def close(self) -> None:
        """Release the model or the connection."""


class Engine(Protocol):
    """A model in this process."""

    at_once: int

    def fit(self, pixels: Pixels) -> Pixels:
        """Return a tile `uint8 [h, w, 3]` in the size for `run`. Called while other tiles are scored."""

    def run(self, pixels: Pixels) -> Probabilities:
        """Return probabilities `float32 [n, classes]` of `uint8 [n, h, w, 3]`. Called from several threads."""

    def close(self) -> None:
        """Release the model."""


@dataclass(frozen=True)
class ScoringModel:
    """A packaged version on this machine, as scores name it.

    Attributes:
        folder: Local folder of the version.
        classes: Names in the order of the probabilities.
        positive_label: The positive class; "" without one.
        threshold: Its decision threshold; None without one.
        name: Name that it is served as.
        version: Its number.
        digest: SHA-256 of `digests.json`, which holds that of each of its files.
        backbone: Name of the backbone.
    """

    folder: Path
    classes: tuple[str, ...]
    positive_label: str
    threshold: float | None
    name: str
    version: int
    digest: str
    backbone: str

    @classmethod
    def read(cls, folder: Path) -> ScoringModel:
        """Read a version's `model.json`.

        Raises:
            DataError: The folder wasn't written by package.
        """
        read_digests(folder)
        packaged = PackagedModel.read(folder)
        return cls(
            folder,
            packaged.classes,
            packaged.positive_label,
            packaged.threshold,
            packaged.name,
            packaged.version,
            file_digest(folder / DIGESTS_FILE),
            packaged.backbone,
        )


def model_id(model: ScoringModel) -> ModelId:
    """Return the name, version and digest of a model."""
    return ModelId(name=model.name, version=model.version, digest=model.digest)


def choose_engine(wanted: str) -> str:
    """Return "tensorflow" or "openvino"; "auto" is openvino if it is installed and there is no GPU.

    Raises:
        ConfigError: The engine isn't installed.
    """
    installed = {name: importlib.util.find_spec(name) is not None for name in ("openvino", "tensorflow")}
    if wanted == "auto":
        has_gpu = any(Path("/dev").glob("nvidia[0-9]*"))
        wanted = "openvino" if installed["openvino"] and not has_gpu else "tensorflow"
    if not installed[wanted]:
        extra = "bulk,openvino" if wanted == "openvino" else "bulk"
        raise ConfigError(f"--engine {wanted} isn't installed: pip install 'sat-xception[{extra}]'")
    return wanted


def score_here(engine: Engine, tiles: Sequence[LoadedTile]) -> list[Row]:
    """Return the probabilities of tiles from a model in this process; tiles of the same size are batched."""
    rows: list[Row] = [""] * len(tiles)
    by_size: dict[tuple[int, ...], list[int]] = {}
    for index, tile in enumerate(tiles):
        by_size.setdefault(tile.pixels.shape, []).append(index)
    for indices in by_size.values():
        found = engine.run(np.stack([tiles[index].pixels for index in indices]))
        for index, probabilities in zip(indices, found, strict=True):
            rows[index] = probabilities
    return rows
