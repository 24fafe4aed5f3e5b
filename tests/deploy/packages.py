"""Packages of models of a few weights, as `package` writes them, for rollouts."""

import json

from sat_xception.storage import folder_digests, write_json
from tests.predictors import MODEL_FILE, scores
from tests.serving_fixtures import (
    describe_version,
    encoded,
    expected,
    pixels_of,
    pngs,
    write_golden_tiles,
    write_version,
)

NAME = "school-classifier"
GOLDEN = 3


def write_package(root, version, seed=None, **facts):
    """Write `<root>/<NAME>/<version>/` of a `SmallPredictor`; another seed gives other answers. Return the root."""
    seed = version if seed is None else seed
    folder = root / NAME / str(version)
    folder.mkdir(parents=True)
    (folder / MODEL_FILE).write_text(json.dumps({"seed": seed}))
    images = pngs(GOLDEN, seed=7)
    return _finish(root, folder, images, scores(seed, images), seed, facts)


def write_saved_model(root, version, seed=None, **facts):
    """Write `<root>/<NAME>/<version>/` of a `ServingPredictor`, with a SavedModel. Return the root."""
    seed = version if seed is None else seed
    folder = write_version(root / NAME / str(version), seed)
    pixels = pixels_of(GOLDEN, seed=7)
    return _finish(root, folder, [encoded(image) for image in pixels], expected(pixels, seed), seed, facts)


def _finish(root, folder, images, answers, seed, facts):
    write_golden_tiles(folder, images, answers, tolerance=1e-4)
    describe_version(folder, **{"name": NAME, "version": int(folder.name), "model": f"{seed:064x}", **facts})
    write_json(folder / "digests.json", folder_digests(folder))
    return root
