"""Packages of models of a few weights, as `package` writes them, for rollouts."""

import base64
import json

import numpy as np

from sat_xception.storage import folder_digests, write_json
from tests.serving_fixtures import encoded, pixels_of, tiny_keras_model, write_version

NAME = "school-classifier"
GOLDEN = 3


def write_package(root, version, seed=None, **facts):
    """Write `<root>/<NAME>/<version>/`; another seed gives other answers. Return the root."""
    seed = version if seed is None else seed
    folder = write_version(root / NAME / str(version), seed)
    pixels = pixels_of(GOLDEN, seed=7)
    answers = np.asarray(tiny_keras_model(seed)(pixels.astype(np.float32)))
    tiles = [
        {
            "id": f"tile-{number}",
            "image_bytes": {"b64": base64.b64encode(encoded(image)).decode()},
            "probabilities": [float(value) for value in row],
        }
        for number, (image, row) in enumerate(zip(pixels, answers, strict=True))
    ]
    write_json(folder / "golden.json", {"tiles": tiles, "tolerance": 1e-4})
    served = json.loads((folder / "model.json").read_text())
    served |= {"name": NAME, "version": version, "backbone": "mobilenetv2", "model": f"{seed:064x}", **facts}
    write_json(folder / "model.json", served)
    write_json(folder / "digests.json", folder_digests(folder))
    return root
