"""Ask a model for its golden tiles: proof that what answers is what was packaged."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sat_xception.errors import ModelError
from sat_xception.serve.client import EndpointClient
from sat_xception.storage import read_json

__all__ = ["check_answers", "check_golden"]


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
        DataError: There is no `golden.json`.
        ModelError: A difference is larger than the tolerance.
    """
    golden = read_json(version / "golden.json", made_by="package")
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
