"""An image's tag follows from what goes into it, and what goes into it is what its step imports."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components import images
from components.images import IMAGES, content_tag, copy_code, image, step_code, unbuilt_images

ROOT = Path(__file__).parents[2]
TAGS = "import json; from components.images import *; print(json.dumps({name: content_tag(name) for name in IMAGES}))"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what images are made of, and a function that returns the tags there."""
    root = tmp_path_factory.mktemp("checkout")
    for folder in ("components", "sat_xception"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__", "images.lock"))

    def tags():
        ended = subprocess.run([sys.executable, "-c", TAGS], cwd=root, capture_output=True, text=True, check=True)
        return json.loads(ended.stdout)

    return root, tags


@pytest.mark.parametrize(
    ("changed", "affected"),
    [
        ("sat_xception/evaluate/gate.py", {"gate"}),
        ("sat_xception/served_model/golden.py", {"package", "deploy", "bulk_plan", "bulk_predict"}),
        ("sat_xception/train/train.py", {"train", "train-gpu"}),
        (
            "sat_xception/model/preprocess.py",
            {"train", "train-gpu", "evaluate", "package", "bulk_plan", "bulk_predict"},
        ),
        ("sat_xception/examples/convert.py", {"convert"}),
        ("sat_xception/imagery/geotiff.py", {"assemble", "bulk_plan", "bulk_predict", "bulk_publish"}),
        ("sat_xception/serve/server.py", {"serve", "deploy"}),
        ("sat_xception/errors.py", set(IMAGES)),
        ("sat_xception/workflows/train_folders.py", set()),
        ("components/train/requirements-gpu.txt", {"train-gpu"}),
        ("components/gate/requirements.txt", {"gate"}),
        ("components/train/Dockerfile", {"train", "train-gpu"}),
        ("components/gate/component.py", set()),
        ("components/gate/README.md", set()),
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


def test_tags_are_the_same_on_every_checkout(checkout):
    _, tags = checkout
    assert tags() == {name: content_tag(name) for name in IMAGES}


@pytest.mark.parametrize("step", ["assemble", "gate", "deploy", "notify"])
def test_a_step_loads_from_the_code_of_its_image_alone_and_without_tensorflow(step, tmp_path):
    copy_code(step, tmp_path)
    check = (
        f"import sys, sat_xception; from sat_xception.steps import STEPS; STEPS[{step!r}].load(); "
        "print(sat_xception.__file__, 'tensorflow' in sys.modules)"
    )
    # -P and -I would leave out PYTHONPATH or the environment's packages; the copy comes before the editable install.
    ended = subprocess.run(
        [sys.executable, "-c", check], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == [str(tmp_path / "sat_xception" / "__init__.py"), "False"]


def test_what_a_component_imports_is_in_its_image():
    assert "sat_xception/dataset/source.py" in step_code("assemble")  # for check
    assert "sat_xception/dataset/source.py" not in step_code("gate")


@pytest.mark.parametrize("component", sorted(path.parent.name for path in (ROOT / "components").glob("*/component.py")))
def test_a_dockerfile_copies_each_contract_whose_imports_go_into_its_image(component):
    shared = {name: step for step, names in images._SHARING.items() for name in names}
    step = shared.get(component, component)
    line = f"COPY components/{component}/component.py /src/components/{component}/"
    assert line in (ROOT / "components" / step / "Dockerfile").read_text().splitlines()


def test_imports_inside_functions_count():
    assert "sat_xception/serve/server.py" in step_code("deploy")


def test_pages_take_their_templates_along():
    templates = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "sat_xception" / "reports" / "templates").glob("*.html")
    }
    assert templates and templates <= set(step_code("gate"))
    assert not templates & set(step_code("notify"))


def test_an_unknown_step_has_no_code():
    with pytest.raises(LookupError, match="no step 'publish-everything'"):
        step_code("publish-everything")


def test_references_follow_the_environment(monkeypatch):
    for name in ("IMAGE_REGISTRY", "IMAGE_TAG", "TRAIN_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(images, "LOCK_FILE", ROOT / "absent")
    assert image("gate") == f"sat-xception/gate:{content_tag('gate')}"
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
    assert image("gate").startswith("ghcr.io/team/gate:")
    assert unbuilt_images() == []
    facts["gate"]["tag"] = "of-older-code"
    del facts["notify"]
    lock.write_text(json.dumps({"images": facts}))
    assert unbuilt_images() == ["gate", "notify"]
