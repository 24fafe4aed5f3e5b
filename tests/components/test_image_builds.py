"""`make images` and `make push` keep to what was chosen, and lose nothing of what was built.

Docker itself is stood in for; tests/containers does the same with the real one.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from components import build, images
from components.context import make_context
from components.images import IMAGES, content_tag, image, unbuilt_images
from sat_xception.errors import ConfigError, ServiceError

ROOT = Path(__file__).parents[2]
STAND_IN = Path(__file__).with_name("docker_stand_in.sh")
DEFAULT_BASE = "python:3.13-slim-trixie"
REGISTRY = "registry.example/team"
ON_CPUS = tuple(name for name in IMAGES if name != "train-gpu")


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """What images are built from; the wheel takes a second."""
    return make_context(tmp_path_factory.mktemp("context"))


class Docker:
    """The stand-in's images, registry and calls."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("images", "registry"):
            (folder / name).mkdir()
        self.offer(DEFAULT_BASE, "sha256:default")
        self.offer("own/base:1", "sha256:own")

    def file(self, kind, reference):
        return self.folder / kind / reference.replace("/", "+").replace(":", "+")

    def offer(self, reference, image_id):
        """Let the registry have an image under a reference."""
        self.file("registry", reference).write_text(image_id)

    def remove(self, *references):
        for reference in references:
            self.file("images", reference).unlink()

    def labels(self, name):
        content = self.file("images", f"sat-xception/{name}:{content_tag(name)}").read_text()
        return json.loads(content)[0]["Config"]["Labels"]

    def calls(self):
        """Return the repository names of what was built, pushed and pulled since the last call of this."""
        path = self.folder / "calls"
        lines = [line.split() for line in path.read_text().splitlines()] if path.is_file() else []
        path.unlink(missing_ok=True)
        names = [(verb, reference.rpartition("/")[2].partition(":")[0]) for verb, reference in lines]
        return tuple([name for verb, name in names if verb == kind] for kind in ("build", "push", "pull"))


@pytest.fixture
def docker(tmp_path, monkeypatch, context):
    """The stand-in on the path, an own lock, and nothing chosen in the environment."""
    programs, state = tmp_path / "programs", tmp_path / "docker"
    programs.mkdir()
    state.mkdir()
    (programs / "docker").symlink_to(STAND_IN)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.setenv("DOCKER_STATE", str(state))
    monkeypatch.setattr(build, "_revision", lambda: "of-the-test")
    monkeypatch.setattr(build, "make_context", lambda folder: shutil.copytree(context, folder, dirs_exist_ok=True))
    for module in (images, build):
        monkeypatch.setattr(module, "LOCK_FILE", tmp_path / "images.lock")
    for name in ("IMAGE_REGISTRY", "IMAGE_TAG", "TRAIN_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    return Docker(state)


def test_push_takes_the_images_as_they_were_built(docker):
    build.main(["--base-image", "own/base:1"])
    assert docker.calls() == (list(IMAGES), [], ["base"])
    build.main(["--push", REGISTRY])
    assert docker.calls() == ([], list(IMAGES), [])
    assert image("light") == f"{REGISTRY}/light:{content_tag('light')}"


def test_images_are_built_on_the_base_of_the_last_time(docker):
    build.main(["--base-image", "own/base:1", "light"])
    docker.calls()
    build.main(["light", "data"])
    assert docker.calls() == (["data"], [], [])
    assert docker.labels("data")["org.opencontainers.image.base.name"] == "own/base:1"
    build.main(["--base-image", DEFAULT_BASE, "light", "data"])
    assert docker.calls() == (["light", "data"], [], ["python"])


def test_push_by_itself_builds_on_the_default_base(docker):
    build.main(["--push", REGISTRY])
    assert docker.calls() == (list(IMAGES), list(IMAGES), ["python"])
    assert docker.labels("light")["org.opencontainers.image.base.digest"] == "sha256:default"


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        (
            "--base-image",
            DEFAULT_BASE,
            f"BASE_IMAGE is {DEFAULT_BASE}, .* BASE_IMAGE=own/base:1.* make images BASE_IMAGE=",
        ),
        ("--train-device", "gpu", "TRAIN_DEVICE is gpu, .* TRAIN_DEVICE=cpu.* make images TRAIN_DEVICE=gpu"),
    ],
)
def test_push_refuses_other_choices_than_the_images_were_built_with(docker, flag, value, message):
    build.main(["--base-image", "own/base:1", "--train-device", "cpu"])
    docker.calls()
    with pytest.raises(ConfigError, match=message):
        build.main(["--push", REGISTRY, flag, value])
    assert docker.calls() == ([], [], [])
    build.main(["--push", REGISTRY, "--base-image", "own/base:1", "--train-device", "cpu"])
    assert docker.calls() == ([], list(ON_CPUS), [])


def test_push_needs_the_base_image_only_to_build_on_it(docker):
    build.main(["light", "data"])
    docker.remove(DEFAULT_BASE)
    docker.offer(DEFAULT_BASE, "sha256:of-today")
    docker.calls()
    build.main(["--push", REGISTRY, "light", "data"])
    assert docker.calls() == ([], ["light", "data"], [])


def test_push_builds_nothing_on_a_base_that_is_another_by_now(docker):
    build.main(["light", "data"])
    docker.remove(DEFAULT_BASE, f"sat-xception/data:{content_tag('data')}")
    docker.offer(DEFAULT_BASE, "sha256:of-today")
    docker.calls()
    with pytest.raises(ConfigError, match=r"another image now \(of-today\) .* built on \(default\); run `make images`"):
        build.main(["--push", REGISTRY, "light", "data"])
    assert docker.calls() == ([], [], ["python"])
    build.main(["light", "data"])
    assert docker.calls() == (["light", "data"], [], [])


def test_push_builds_what_has_changed_on_the_base_of_the_others(docker, monkeypatch):
    build.main(["--base-image", "own/base:1", "light", "data"])
    docker.calls()
    monkeypatch.setattr(build, "content_tag", lambda name: "changed" if name == "light" else content_tag(name))
    build.main(["--push", REGISTRY, "light", "data"])
    assert docker.calls() == (["light"], ["light", "data"], [])


def test_without_gpus_their_image_is_neither_built_nor_pushed_nor_compiled(docker):
    build.main(["--train-device", "cpu"])
    assert docker.calls() == (list(ON_CPUS), [], ["python"])
    assert unbuilt_images() == []
    build.main(["--push", REGISTRY])
    assert docker.calls() == ([], list(ON_CPUS), [])
    assert image("train") == f"{REGISTRY}/train:{content_tag('train')}"
    build.main([])
    assert docker.calls() == ([], [], [])
    build.main(["--train-device", "gpu"])
    assert docker.calls() == (["train-gpu"], [], [])
    assert image("train") == f"{REGISTRY}/train-gpu:{content_tag('train-gpu')}"


def test_building_some_images_by_name_chooses_no_device(docker):
    build.main(["light"])
    docker.calls()
    build.main(["--push", REGISTRY, "--train-device", "cpu"])
    assert docker.calls() == ([name for name in ON_CPUS if name != "light"], list(ON_CPUS), [])


def test_a_build_that_fails_leaves_what_was_built_before_it_in_the_lock(docker):
    (docker.folder / "fails").write_text("train")
    with pytest.raises(ServiceError, match="docker build failed"):
        build.main(["--base-image", "own/base:1"])
    lock = images.read_lock()
    assert sorted(lock["images"]) == ["data", "light"]
    assert lock["images"]["data"]["tag"] == content_tag("data")
    docker.calls()
    (docker.folder / "fails").unlink()
    build.main(["--push", REGISTRY])
    assert docker.calls() == (list(IMAGES)[2:], list(IMAGES), [])
    assert docker.labels("light")["org.opencontainers.image.base.name"] == "own/base:1"


def test_an_interruption_leaves_what_was_built_before_it_in_the_lock(docker, tmp_path):
    (docker.folder / "interrupts").write_text("data")
    start = (
        "import runpy, pathlib, sys; from components import images; "
        f"images.LOCK_FILE = pathlib.Path({str(tmp_path / 'images.lock')!r}); sys.argv = ['build']; "
        "runpy.run_module('components.build', run_name='__main__')"
    )
    ended = subprocess.run([sys.executable, "-c", start], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 130
    assert "what was built is kept: run the same command again" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(images.read_lock()["images"]) == ["light"]
    assert not list(tmp_path.glob("images.lock.*"))


def test_a_lock_is_whole_whenever_it_is_read(docker, monkeypatch):
    build.main(["light"])
    before = images.read_lock()

    def full_disk(self, *_, **__):
        self.open("w").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(ServiceError, match=r"images\.lock: No space left on device\. Once"):
        build.main(["data"])
    assert images.read_lock() == before


def test_a_push_that_fails_leaves_the_registry_of_the_one_before(docker, monkeypatch):
    build.main(["--push", REGISTRY, "light", "data"])

    def refuse(built, registry):
        raise ServiceError("docker push failed")

    monkeypatch.setattr(build, "push_image", refuse)
    with pytest.raises(ServiceError):
        build.main(["--push", "elsewhere.example", "light", "data"])
    assert image("light").startswith(f"{REGISTRY}/")


def test_a_base_that_cannot_be_had_is_not_kept(docker):
    build.main(["--base-image", "own/base:1", "light"])
    with pytest.raises(ServiceError, match=r"docker pull failed .* built on no/such:1; BASE_IMAGE=… names another"):
        build.main(["--base-image", "no/such:1"])
    assert images.read_lock()["choices"]["base_image"] == "own/base:1"


def test_a_pipeline_compiled_for_cpus_says_so_and_asks_for_no_gpu(docker, tmp_path):
    build.main(["--train-device", "cpu"])
    start = (
        "import runpy, pathlib; from components import images; images.LOCK_FILE = pathlib.Path('images.lock'); "
        "runpy.run_module('pipelines.compile', run_name='__main__')"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", start]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert f"trainings use the CPU image sat-xception/train:{content_tag('train')}" in ended.stdout
    assert "aren't built" not in ended.stdout
    spec = next(yaml.safe_load_all((tmp_path / "build" / "training.yaml").read_text()))
    executors = spec["deploymentSpec"]["executors"]
    assert executors["exec-train"]["container"]["image"] == f"sat-xception/train:{content_tag('train')}"
    assert "train-gpu" not in (tmp_path / "build" / "training.yaml").read_text()
    assert spec["root"]["inputDefinitions"]["parameters"]["gpu_count"]["defaultValue"] == "0"


@pytest.mark.parametrize("content", ["", '{"images": {', "[]"])
def test_a_lock_that_is_no_lock_says_what_to_do(docker, tmp_path, content):
    (tmp_path / "images.lock").write_text(content)
    with pytest.raises(ConfigError, match="remove it, then run `make images`"):
        image("light")


def test_the_device_is_one_of_two(docker, monkeypatch, capsys):
    monkeypatch.setenv("TRAIN_DEVICE", "tpu")
    with pytest.raises(ConfigError, match="TRAIN_DEVICE is 'tpu' in the environment; it must be gpu or cpu"):
        image("train")
    with pytest.raises(SystemExit):
        build.main(["--train-device", "tpu"])
    assert "TRAIN_DEVICE is 'tpu'; it must be gpu or cpu" in capsys.readouterr().err
    command = [sys.executable, "-m", "pipelines.compile"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error     TRAIN_DEVICE is 'tpu' in the environment")


def test_slow_machines_have_time_to_compile_bytecode():
    joined = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    commands = [command for command in re.split(r"&&|\n", joined) if " --compile-bytecode" in command]
    assert commands
    for command in commands:
        given = re.search(r"UV_COMPILE_BYTECODE_TIMEOUT=(\d+) +\S*uv ", command)
        assert given, f"uv has its 60 s alone: {command}"
        assert int(given[1]) >= 300


def test_the_locked_uv_reads_that_time_out(tmp_path):
    wheel = tmp_path / "tiny-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "")
        archive.writestr("tiny-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1\n")
        archive.writestr("tiny-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny-1.dist-info/RECORD", "")
    uv = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--reinstall", "--no-index", "--no-cache"]
    command = [*uv, "--compile-bytecode", "--python", sys.executable, "--target", str(tmp_path / "target"), str(wheel)]

    def install(timeout):
        environment = {**os.environ, "UV_COMPILE_BYTECODE_TIMEOUT": timeout}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert install("600").returncode == 0
    assert "invalid value from environment for UV_COMPILE_BYTECODE_TIMEOUT" in install("long").stderr
