"""Ask a model for its golden tiles: proof that what answers is what was packaged."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sat_xception.errors import DataError, ModelError
from sat_xception.storage import read_json

__all__ = ["GoldenTiles", "check_answers", "check_golden", "read_golden_tiles"]


class _Endpoint(Protocol):
    """What is asked for golden tiles; `EndpointClient` is one."""

    @property
    def address(self) -> str:
        """Address of the endpoint."""

    def predict(self, images: Sequence[bytes]) -> npt.NDArray[np.float32]:
        """Return probabilities `float32 [n, classes]` of encoded images."""


@dataclass(frozen=True)
class GoldenTiles:
    """The golden tiles of a version: images, the answers that were recorded, and how near others must come."""

    images: list[bytes]
    expected: npt.NDArray[np.float32]
    tolerance: float


def read_golden_tiles(version: Path) -> GoldenTiles:
    """Return the golden tiles of a packaged version.

    Raises:
        DataError: There are none.
    """
    content = _read(version)
    tiles = content["tiles"]
    images = [base64.b64decode(tile["image_bytes"]["b64"]) for tile in tiles]
    expected = np.array([tile["probabilities"] for tile in tiles], dtype=np.float32)
    return GoldenTiles(images, expected, float(content["tolerance"]))


def check_golden(version: Path, client: _Endpoint) -> float:
    """Return the largest difference of a probability between the golden answers and the endpoint's.

    Args:
        version: Packaged version, with `golden.json`.
        client: Client of the endpoint, pinned to the version.

    Raises:
        DataError: There is no `golden.json`.
        ModelError: A difference is larger than the tolerance: another model answers, or it answers wrongly.
        ServiceError: The endpoint doesn't answer.
    """
    return check_answers(version, client.predict, client.address)


def check_answers(
    version: Path,
    predict: Callable[[list[bytes]], npt.NDArray[np.float32]],
    who: str,
    tolerance: float | None = None,
) -> float:
    """Return the largest difference of a probability between the golden answers and those of a model.

    Args:
        version: Packaged version, with `golden.json`.
        predict: Returns probabilities `float32 [n, classes]` of encoded images.
        who: Who answers, for messages.
        tolerance: Largest difference that is right. Default: the package's own.

    Raises:
        DataError: There are no golden tiles.
        ModelError: A difference is larger than the tolerance.
    """
    golden = _read(version)
    expected = np.array([tile["probabilities"] for tile in golden["tiles"]], dtype=np.float32)
    answered = predict([base64.b64decode(tile["image_bytes"]["b64"]) for tile in golden["tiles"]])
    if answered.shape != expected.shape:
        raise ModelError(
            f"{who} answers golden tiles with {answered.shape[1]} classes, {version} has {expected.shape[1]}"
            ": another model is behind this address"
        )
    differences = np.abs(answered - expected).max(axis=1)
    worst = int(differences.argmax())
    allowed = golden["tolerance"] if tolerance is None else tolerance
    if not differences[worst] <= allowed:
        found, right = (array[worst].round(4).tolist() for array in (answered, expected))
        raise ModelError(
            f"{who} answers golden tile {golden['tiles'][worst]['id']} with {found}, expected {right} "
            f"within {allowed:g}: it isn't the model in {version}"
        )
    return float(differences[worst])


def _read(version: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_json(version / "golden.json", made_by="package")
    if not content["tiles"]:
        raise DataError(
            f"{version / 'golden.json'} holds no tiles, so nothing could prove that this model answers; package it "
            "again from examples with a validation split"
        )
    return content
