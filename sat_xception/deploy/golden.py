"""Ask a model for its golden tiles: proof that what answers is what was packaged."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sat_xception.errors import DataError, ModelError, ServiceError
from sat_xception.serve.client import EndpointClient
from sat_xception.storage import read_json

__all__ = ["Golden", "check_answers", "check_golden", "read_golden", "wait_until_available"]

_POLL_S = 0.5


@dataclass(frozen=True)
class Golden:
    """The golden tiles of a version: images, the answers that were recorded, and how near others must come."""

    images: list[bytes]
    expected: npt.NDArray[np.float32]
    tolerance: float


def read_golden(version: Path) -> Golden:
    """Return the golden tiles of a packaged version.

    Raises:
        DataError: There are none.
    """
    content = _read(version)
    tiles = content["tiles"]
    images = [base64.b64decode(tile["image_bytes"]["b64"]) for tile in tiles]
    expected = np.array([tile["probabilities"] for tile in tiles], dtype=np.float32)
    return Golden(images, expected, float(content["tolerance"]))


def check_golden(version: Path, client: EndpointClient) -> float:
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


def wait_until_available(client: EndpointClient, version: int, timeout_s: float) -> None:
    """Wait until a version answers at an endpoint.

    Raises:
        ModelError: It doesn't load.
        ServiceError: It doesn't answer in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            found = next((status for status in client.status() if status.version == version), None)
            state = found.state if found else "unknown to the endpoint"
        except ServiceError as error:
            found, state = None, str(error)
        if found and found.state == "AVAILABLE":
            return
        if found and found.error_message:
            raise ModelError(f"version {version} doesn't load at {client.address}: {found.error_message}")
        if time.monotonic() > deadline:
            raise ServiceError(
                f"version {version} doesn't answer at {client.address} after {timeout_s:g} s ({state}). "
                "Does that server follow the model root given as --model-root?"
            )
        time.sleep(_POLL_S)
