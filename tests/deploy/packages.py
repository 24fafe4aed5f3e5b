"""Packages of models of a few weights, as `package` writes them, for rollouts."""

import numpy as np

from sat_xception.storage import folder_digests, write_json
from tests.serving_fixtures import (
    describe_version,
    encoded,
    pixels_of,
    tiny_keras_model,
    write_golden_tiles,
    write_version,
)

NAME = "school-classifier"
GOLDEN = 3


def write_package(root, version, seed=None, **facts):
    """Write `<root>/<NAME>/<version>/`; another seed gives other answers. Return the root."""
    seed = version if seed is None else seed
    folder = write_version(root / NAME / str(version), seed)
    pixels = pixels_of(GOLDEN, seed=7)
    answers = np.asarray(tiny_keras_model(seed)(pixels.astype(np.float32)))
    write_golden_tiles(folder, [encoded(image) for image in pixels], answers, tolerance=1e-4)
    describe_version(folder, **{"name": NAME, "version": version, "model": f"{seed:064x}", **facts})
    write_json(folder / "digests.json", folder_digests(folder))
    return root
