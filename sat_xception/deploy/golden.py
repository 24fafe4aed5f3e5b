"""Ask an endpoint for its golden tiles: proof that the model which answers is the one that was packaged."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np

from sat_xception.errors import ModelError
from sat_xception.serve.client import EndpointClient
from sat_xception.storage import read_json

__all__ = ["check_golden"]


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
    golden = read_json(version / "golden.json", made_by="package")
    images = [base64.b64decode(tile["image_bytes"]["b64"]) for tile in golden["tiles"]]
    expected = np.array([tile["probabilities"] for tile in golden["tiles"]], dtype=np.float32)
    answered = client.predict(images)
    if answered.shape != expected.shape:
        raise ModelError(
            f"{client.address} answers golden tiles with {answered.shape[1]} classes, {version} has {expected.shape[1]}"
            ": another model is behind this address"
        )
    differences = np.abs(answered - expected).max(axis=1)
    worst = int(differences.argmax())
    if not differences[worst] <= golden["tolerance"]:
        found, right = (array[worst].round(4).tolist() for array in (answered, expected))
        raise ModelError(
            f"{client.address} answers golden tile {golden['tiles'][worst]['id']} with {found}, expected {right} "
            f"within {golden['tolerance']:g}: it isn't the model in {version}"
        )
    return float(differences[worst])
