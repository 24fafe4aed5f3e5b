"""Images go to a real registry, and pipelines compiled afterwards take them from there."""

import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from components import build, images
from components.images import content_tag
from sat_xception.errors import ConfigError

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(shutil.which("docker") is None, reason="no Docker on this machine"),
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="no docker-registry (Debian's) on this machine"),
]


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """The address of a registry; one for all tests, so that layers are compressed and pushed once."""
    folder = tmp_path_factory.mktemp("registry")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(folder / "blobs")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (folder / "config.yml").write_text(json.dumps(config))
    command = ["docker-registry", "serve", str(folder / "config.yml")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 20
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/v2/", trust_env=False).raise_for_status()
                break
            except httpx.HTTPError:
                assert time.monotonic() < deadline, "the registry didn't start"
                time.sleep(0.1)
        yield f"127.0.0.1:{port}"
        process.terminate()


def test_a_pushed_image_is_in_the_registry_and_is_what_pipelines_name(registry, tmp_path, monkeypatch):
    lock = tmp_path / "images.lock"
    for module in (images, build):
        monkeypatch.setattr(module, "LOCK_FILE", lock)
    monkeypatch.setattr(build, "ROOT", ROOT)
    monkeypatch.delenv("IMAGE_REGISTRY", raising=False)
    found = build.find_image("light")
    assert found is not None, "sat-xception/light isn't here; run `make images`"
    reference = build.push_image(found, f"{registry}/sat-xception/")
    build.write_lock([found], f"{registry}/sat-xception/")
    assert reference == f"{registry}/sat-xception/light:{content_tag('light')}" == images.image("light")
    manifest = httpx.get(
        f"http://{registry}/v2/sat-xception/light/manifests/{content_tag('light')}",
        headers={"Accept": "application/vnd.docker.distribution.manifest.v2+json"},
        trust_env=False,
    )
    assert manifest.json()["config"]["digest"] == found.image_id


def test_push_takes_what_was_built_and_asks_for_no_base_image(registry, tmp_path, monkeypatch):
    found = build.find_image("light")
    assert found is not None, "sat-xception/light isn't here; run `make images`"
    for module in (images, build):
        monkeypatch.setattr(module, "LOCK_FILE", tmp_path / "images.lock")
    build.write_lock(choices=build.Choices("absent.invalid/none:1", found.base_id, "cpu"))
    build.main(["--push", f"{registry}/again", "light"])
    assert build.find_image("light") == found
    listed = httpx.get(f"http://{registry}/v2/again/light/tags/list", trust_env=False).json()
    assert listed["tags"] == [content_tag("light")]
    assert images.read_lock()["images"]["light"]["id"] == found.image_id
    with pytest.raises(ConfigError, match=r"BASE_IMAGE is other/base:1, .* make images BASE_IMAGE=other/base:1"):
        build.main(["--push", f"{registry}/again", "--base-image", "other/base:1", "light"])


def test_without_a_registry_make_push_says_what_is_missing():
    ended = subprocess.run(["make", "push"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "make push REGISTRY=" in ended.stdout


def test_a_base_image_that_cannot_be_had_fails_with_its_reason():
    command = [sys.executable, "-m", "components.build", "--base-image", "absent.invalid/none:1", "light"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 4
    assert "docker pull failed" in ended.stderr
