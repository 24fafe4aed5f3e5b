"""An image's tag follows from its content, and its content is the whole package and the locks of its layers."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from components import context, images
from components.context import build_wheel, make_context
from components.images import IMAGES, content_tag, image, unbuilt_images

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "components" / "locks"
DOCKERFILE = (ROOT / "components" / "Dockerfile").read_text()
EVERY = set(IMAGES)
# Packages whose versions for TensorFlow Data Validation are older or newer than those in the layers below, and in place
# of which they are installed.
OF_VALIDATE_ALONE = {"absl-py", "requests", "tenacity", "urllib3"}
# Left out of the locks, as they have no wheel: sat_xception/validation/tfdv_import.py.
WITHOUT_WHEEL = {"pyfarmhash", "google-apitools"}


def forget_tags():
    images.content_tag.cache_clear()
    images._code_digest.cache_clear()


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of what images are made of."""
    root = tmp_path_factory.mktemp("checkout")
    for folder in ("components", "sat_xception"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__", "images.lock"))
    for file in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copyfile(ROOT / file, root / file)
    compiled = root / "sat_xception" / "__pycache__" / "cli.cpython-313.pyc"
    compiled.parent.mkdir()
    compiled.write_bytes(b"compiled")
    return root


@pytest.fixture
def checkout(copied, monkeypatch):
    """The copy, and a function that returns the tags there."""
    monkeypatch.setattr(images, "ROOT", copied)

    def tags():
        forget_tags()
        return {name: content_tag(name) for name in IMAGES}

    yield copied, tags
    forget_tags()


def locked(lock):
    """Return the version of each package in a lock, for x86-64."""
    found = {}
    for line in (LOCKS / f"{lock}.txt").read_text().splitlines():
        if line and not line.startswith(("#", " ")):
            requirement = Requirement(line.rstrip("\\ "))
            if requirement.marker is None or requirement.marker.evaluate({"platform_machine": "x86_64"}):
                found[canonicalize_name(requirement.name)] = next(iter(requirement.specifier)).version
    return found


def in_image(name):
    """Return the version of each package in an image: the last layer counts."""
    versions = {}
    for lock in ("kfp-runtime", *IMAGES[name]):
        versions |= locked(lock)
    return versions


@pytest.mark.parametrize(
    ("changed", "affected"),
    [
        ("sat_xception/evaluate/gate.py", EVERY),
        ("sat_xception/reports/templates/base.html", EVERY),
        ("components/Dockerfile", EVERY),
        ("LICENSE", EVERY),
        ("components/locks/kfp-runtime.txt", EVERY),
        ("components/locks/light.txt", EVERY),
        ("components/locks/data.txt", {"data"}),
        ("components/locks/train.txt", {"train", "validate", "score"}),
        ("components/locks/train-gpu.txt", {"train-gpu"}),
        ("components/locks/validate.txt", {"validate"}),
        ("components/locks/score.txt", {"score"}),
        ("components/gate/component.py", set()),
        ("components/gate/README.md", set()),
        ("components/build.py", set()),
        ("README.md", set()),
    ],
)
def test_a_change_changes_just_the_tags_of_the_images_that_contain_it(checkout, changed, affected):
    root, tags = checkout
    before = tags()
    content = (root / changed).read_text()
    (root / changed).write_text(content + "\n# changed\n")
    after = tags()
    (root / changed).write_text(content)
    assert {name for name in IMAGES if before[name] != after[name]} == affected


@pytest.mark.parametrize(
    ("old", "new", "affected"),
    [
        ('"sat_xception.cli:console"', '"sat_xception.cli:other"', EVERY),
        ('requires = ["hatchling', 'requires = ["other', EVERY),
        ("line-length = 120", "line-length = 100", set()),
        ('"sat-xception[deploy,gate,notify]"', '"sat-xception[deploy]"', set()),  # until the lock is made again
    ],
)
def test_of_the_project_file_just_what_the_wheel_is_built_with_counts(checkout, old, new, affected):
    root, tags = checkout
    before = tags()
    project = root / "pyproject.toml"
    content = project.read_text()
    assert old in content
    project.write_text(content.replace(old, new))
    after = tags()
    project.write_text(content)
    assert {name for name in IMAGES if before[name] != after[name]} == affected


def test_tags_are_the_same_on_every_checkout(checkout, monkeypatch):
    _, tags = checkout
    there = tags()
    monkeypatch.setattr(images, "ROOT", ROOT)
    assert there == tags()


def test_the_same_code_makes_the_same_wheel_with_all_that_the_tag_counts_and_no_more(copied, tmp_path, monkeypatch):
    root, first, second = copied, tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    here = build_wheel(first)
    monkeypatch.setattr(context, "ROOT", root)
    for path in root.rglob("sat_xception/**/*.py"):
        os.utime(path, (0, 1_000_000_000))
    there = build_wheel(second)
    assert here.name == there.name and here.read_bytes() == there.read_bytes()
    counted = {path.relative_to(root).as_posix() for path in (root / "sat_xception").rglob("*") if path.is_file()}
    with zipfile.ZipFile(there) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == {path for path in counted if "__pycache__" not in path}
    assert {"sat_xception/reports/templates/base.html", "sat_xception/py.typed"} <= held


def test_what_images_are_built_from_is_readable_to_all_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        folder = make_context(tmp_path)
    finally:
        os.umask(before)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    wheel = {name for name in files if name.endswith(".whl")}
    locks = {
        f"locks/{name}.txt" for name in ("kfp-runtime", "light", "data", "validate", "train", "train-gpu", "score")
    }
    assert len(wheel) == 1 and files - wheel == {"Dockerfile", "LICENSE", *locks}
    assert {(folder / name).stat().st_mode & 0o777 for name in files} == {0o644}
    assert {path.stat().st_mode & 0o777 for path in (folder, folder / "locks")} == {0o755}


def stages():
    """Return of each stage of the Dockerfile the stage below it and its lines, continued lines joined."""
    found = {}
    for line in DOCKERFILE.replace("\\\n", " ").splitlines():
        if begun := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            found[begun[2]] = (begun[1], lines := [])
        elif found and line and not line.startswith("#"):
            lines.append(line)
    return found


def test_the_dockerfile_has_the_layers_of_each_image_in_the_order_in_which_they_are_built():
    found = stages()
    assert [name for name in found if not name.endswith("-packages")] == [
        "light",
        "data",
        "train",
        "validate",
        "score",
        "train-gpu",
    ]
    for name, locks in IMAGES.items():
        below, installed = name, []
        while below != "${BASE_IMAGE}":
            below, lines = found[below]
            copied = [
                file for line in lines for file in re.findall(r"locks/(\S+)\.txt", line) if line.startswith("COPY")
            ]
            installed = [lock for lock in copied if lock != "kfp-runtime"] + installed
        assert tuple(installed) == locks
    # Docker's classic builder makes every stage before its target: an image needs none of a later one.
    order = list(found)
    assert order == sorted(order, key=lambda name: [*IMAGES].index(name.removesuffix("-packages")))


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_runs_as_nobody_and_installs_nothing_but_what_is_locked(name):
    _, lines = stages()[name]
    assert "USER 65532:65532" in lines and 'ENTRYPOINT ["sat_xception"]' in lines
    assert lines.index("USER 65532:65532") > max(n for n, line in enumerate(lines) if line.startswith("RUN"))
    assert any(line.startswith("COPY *.whl") for line in lines)
    packages = stages()[f"{name}-packages"][1]
    for command in re.findall(r"pip --python \S+ install ([^&]*)", "\n".join([*lines, *packages])):
        assert "--no-deps" in command and "--no-cache-dir" in command
        assert "--no-index" in command or ("--require-hashes" in command and "--only-binary :all:" in command)
    assert not re.search(r"apt-get|g\+\+|\bcurl\b|--mount", DOCKERFILE)


@pytest.mark.parametrize("name", IMAGES)
def test_the_locks_of_an_image_agree_on_versions(name):
    *below, own = (locked(lock) for lock in IMAGES[name])
    differing = {package for lock in below for package in lock.keys() & own.keys() if lock[package] != own[package]}
    assert differing == (OF_VALIDATE_ALONE if name == "validate" else set())


def requirements(extra):
    """Return the names of the packages that an extra needs, with those of the extras in it and the project's own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names, waiting = set(), [*project["dependencies"], *project["optional-dependencies"][extra]]
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.name == "sat-xception":
            waiting += [item for name in requirement.extras for item in project["optional-dependencies"][name]]
        else:
            names.add(canonicalize_name(requirement.name))
    return names


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_has_what_its_extra_asks_for(name):
    needed = requirements("train") | requirements("gpu") if name == "train-gpu" else requirements(name)
    versions = in_image(name)
    if name != "train-gpu":
        needed = {"tensorflow-cpu" if package == "tensorflow" else package for package in needed}
        assert not versions.keys() & {"tensorflow", "nvidia-cudnn-cu12"}
    assert needed <= versions.keys()
    assert not versions.keys() & WITHOUT_WHEEL


@pytest.mark.parametrize("name", ["light", "data"])
def test_the_steps_of_an_image_load_with_its_packages_alone(name):
    packages = sorted({*in_image(name), "sat-xception"})
    check = (
        "import importlib.abc, importlib.metadata, json, sys\n"
        "allowed = set(json.loads(sys.argv[1]))\n"
        "class Refuse(importlib.abc.MetaPathFinder):\n"
        "    def __init__(self):\n"
        "        self.of = importlib.metadata.packages_distributions()\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        owners = {owner.lower().replace('_', '-') for owner in self.of.get(name, ())}\n"
        "        if owners and not owners & allowed:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from sat_xception.steps.registry import BULK_VERBS, DATASET_VERBS, STEPS\n"
        "tables = {**STEPS, **BULK_VERBS, **DATASET_VERBS}\n"
        "loaded = [verb for verb, step in tables.items() if step.image == sys.argv[2] and step.load()]\n"
        "print(' '.join(loaded), 'tensorflow' in sys.modules)\n"
    )
    command = [sys.executable, "-c", check, json.dumps(packages), name]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    *loaded, tensorflow = ended.stdout.split()
    assert tensorflow == "False"
    assert {"light": {"gate", "deploy", "notify"}, "data": {"assemble", "convert", "publish"}}[name] <= set(loaded)


def test_references_follow_the_environment(monkeypatch):
    for name in ("IMAGE_REGISTRY", "IMAGE_TAG", "TRAIN_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(images, "LOCK_FILE", ROOT / "absent")
    assert image("light") == f"sat-xception/light:{content_tag('light')}"
    assert image("train") == f"sat-xception/train-gpu:{content_tag('train-gpu')}"
    monkeypatch.setenv("TRAIN_DEVICE", "cpu")
    monkeypatch.setenv("IMAGE_REGISTRY", "registry.example/team/")
    assert image("train") == f"registry.example/team/train:{content_tag('train')}"
    monkeypatch.setenv("IMAGE_TAG", "abc123")
    assert image("train") == "registry.example/team/train:abc123"


def test_after_a_push_images_come_from_where_they_went(monkeypatch, tmp_path):
    monkeypatch.delenv("IMAGE_REGISTRY", raising=False)
    lock = tmp_path / "images.lock"
    facts = {name: {"tag": content_tag(name)} for name in IMAGES}
    lock.write_text(json.dumps({"registry": "ghcr.io/team", "images": facts}))
    monkeypatch.setattr(images, "LOCK_FILE", lock)
    assert image("light").startswith("ghcr.io/team/light:")
    assert unbuilt_images() == []
    facts["light"]["tag"] = "of-older-code"
    del facts["data"]
    lock.write_text(json.dumps({"images": facts}))
    assert unbuilt_images() == ["light", "data"]
