"""The endpoint that the contract tests ask: any server of a packaged model, or our own with a tiny one.

`make test-endpoint URL=http://host:port NAME=model GRPC=host:port` sets ENDPOINT_URL, ENDPOINT_NAME and ENDPOINT_GRPC.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from PIL import Image

from sat_xception.serve.client import EndpointClient

SIDE = 32


@dataclass(frozen=True)
class Endpoint:
    """A server under test, its model and the version that answers."""

    url: str
    name: str
    grpc_address: str
    version: int

    @property
    def model_url(self) -> str:
        return f"{self.url}/v1/models/{self.name}"

    def post(self, body: Any, path: str = ":predict", **headers: str) -> httpx.Response:
        if isinstance(body, bytes):
            return httpx.post(self.model_url + path, content=body, headers=headers, timeout=60)
        return httpx.post(self.model_url + path, json=body, headers=headers, timeout=60)

    def predictions(self, body: Any, path: str = ":predict") -> Any:
        response = self.post(body, path)
        assert response.status_code == 200, response.text
        assert list(response.json()) == ["predictions"]
        return response.json()["predictions"]


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    url, name = os.environ.get("ENDPOINT_URL", ""), os.environ.get("ENDPOINT_NAME", "school-classifier")
    if url:
        yield _with_version(url.rstrip("/"), name, os.environ.get("ENDPOINT_GRPC", ""))
        return
    from sat_xception.serve.server import RunningServer
    from tests.serving_fixtures import NAME, serve_config, write_version

    root: Path = tmp_path_factory.mktemp("root")
    write_version(root / NAME / "1")
    with RunningServer(serve_config(root)) as server:
        yield _with_version(server.rest_url, NAME, server.grpc_address)


def _with_version(url: str, name: str, grpc_address: str) -> Endpoint:
    with EndpointClient(url, name) as client:
        versions = [status.version for status in client.status() if status.state == "AVAILABLE"]
    assert versions, f"no version of {name} is available at {url}"
    return Endpoint(url, name, grpc_address, max(version or 0 for version in versions))


@pytest.fixture(scope="session")
def channel(endpoint: Endpoint) -> Iterator[grpc.Channel]:
    if not endpoint.grpc_address:
        pytest.skip("no GRPC=host:port given")
    with grpc.insecure_channel(endpoint.grpc_address) as channel:
        yield channel


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """Noise of a colour that differs from image to image, uint8 [5, SIDE, SIDE, 3]."""
    random = np.random.default_rng(0)
    colour = random.integers(0, 256, (5, 1, 1, 3))
    return np.clip(colour + random.integers(-40, 41, (5, SIDE, SIDE, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def images(pixels: np.ndarray) -> list[bytes]:
    """The pixels as PNG files."""
    files = []
    for image in pixels:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def rows(images: list[bytes]) -> list[dict[str, Any]]:
    return [{"image_bytes": b64(data)} for data in images]
