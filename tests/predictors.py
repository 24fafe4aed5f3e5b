"""What answers in a pod of a predictor, for `kserve_cluster.py`: a model of a few numbers, or `sat_xception serve`.

Most rollouts are about what a cluster does with pods, not about what a pod computes: the former needs no TensorFlow, no
socket and no loading. Both answer alike: `tests/deploy/test_predictors.py`.
"""

import base64
import io
import json
import re

import numpy as np
from aiohttp import web
from PIL import Image

from sat_xception.served_model.model_root import find_versions

MODEL_FILE = "saved_model.pb"
SIGNATURES = {
    "serving_default": {"inputs": {"image_bytes": {}}, "outputs": {"probabilities": {}}},
    "classify": {"inputs": {"image_bytes": {}}, "outputs": {"probabilities": {}, "label": {}, "score": {}}},
}


def scores(seed, images):
    """Return the probabilities of encoded images, float32 [n, 2], by a linear layer on the mean colour.

    Seeds 1, 2 and 3 differ widely: on the golden tiles by 0.3 at least, and in the class of every fourth tile.

    Raises:
        ValueError: Something isn't an image.
    """
    weights = np.random.default_rng([seed, 9]).normal(0, 3, (4, 2))
    rows = []
    for data in images:
        try:
            pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float64)
        except OSError as error:
            raise ValueError(f"not an image: {error}") from None
        logits = np.append(pixels.mean((0, 1)) / 127.5 - 1, 0.1) @ weights
        rows.append(np.exp(logits - logits.max()))
    rows = np.array(rows).reshape(-1, 2)
    return (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)


class SmallPredictor:
    """A pod with a version that `tests.deploy.packages.write_package` wrote, below `<folder>/<name>/`."""

    def __init__(self, folder, name):
        self._name = name
        [(self._version, path)] = find_versions(folder / name).items()
        self._seed = json.loads((path / MODEL_FILE).read_text())["seed"]

    async def answer(self, request, path):
        """Answer a request for a path, as TensorFlow Serving's REST interface does."""
        loaded, verb = re.fullmatch(r"(.*?)(?:[:/](predict|metadata))?", path).groups()
        if loaded not in (f"v1/models/{self._name}", f"v1/models/{self._name}/versions/{self._version}"):
            return web.json_response({"error": f"{self._name} {self._version} is served, not {path}"}, status=404)
        if request.method == "GET" and verb == "metadata":
            return web.json_response({"metadata": {"signature_def": {"signature_def": SIGNATURES}}})
        if request.method == "GET":
            status = {"error_code": "OK", "error_message": ""}
            state = {"version": str(self._version), "state": "AVAILABLE", "status": status}
            return web.json_response({"model_version_status": [state]})
        try:
            instances = json.loads(await request.read())["instances"]
            images = [base64.b64decode(one["image_bytes"]["b64"]) for one in instances]
            predictions = [[float(str(value)) for value in row] for row in scores(self._seed, images)]
        except (KeyError, TypeError, ValueError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"predictions": predictions})

    def stop(self):
        """Nothing has to be stopped."""


class ServingPredictor:
    """A pod with the real server, below `<folder>/<name>/`."""

    def __init__(self, folder, name):
        from sat_xception.serve.server import RunningServer
        from sat_xception.serve.settings import ServeConfig

        self._server = RunningServer(ServeConfig(model_root=folder, name=name, rest_port=0, grpc_port=0))

    async def answer(self, request, path):
        """Pass a request on to the server, and its answer back."""
        import aiohttp

        body, headers = await request.read(), {"Content-Type": "application/json"}
        async with (
            aiohttp.ClientSession() as session,
            session.request(request.method, f"{self._server.rest_url}/{path}", data=body, headers=headers) as answer,
        ):
            return web.Response(status=answer.status, body=await answer.read(), content_type="application/json")

    def stop(self):
        """Stop the server."""
        self._server.stop()
