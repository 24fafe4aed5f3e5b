"""Every image, as `make images` built it: it starts, confined; its user is nobody; nothing superfluous is in it."""

import json
import shutil
import subprocess

import pytest

from components.images import chosen_images, content_tag, read_lock
from sat_xception.steps import BULK_VERBS, DATASET_VERBS, MODELS_VERBS, STEPS

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(shutil.which("docker") is None, reason="no Docker on this machine"),
]
# As the pipeline runs them: no privileges, nothing to write to but /tmp, and here no network either.
CONFINED = ["--read-only", "--tmpfs", "/tmp:exec", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
WITHOUT_TENSORFLOW = {"light", "data"}
# All verbs by what they are called with; `train-gpu` has those of `train`.
VERBS = {
    **STEPS,
    **{f"bulk {verb}": step for verb, step in BULK_VERBS.items()},
    **{f"dataset {verb}": step for verb, step in DATASET_VERBS.items()},
    **{f"models {verb}": step for verb, step in MODELS_VERBS.items()},
}
# `pip check` says these, and they are meant: the executor of components needs none of what kfp's SDK does,
# `tensorflow-cpu` is the same code as `tensorflow` without CUDA, under another name, and what has no wheel is left out
# (sat_xception/validation/tfdv_import.py).
MEANT = (
    "kfp 2.",
    "requires tensorflow, which is not installed.",
    "requires pyfarmhash, which is not installed.",
    "requires google-apitools, which is not installed.",
)


def docker(*arguments):
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)


def run(name, *command, entrypoint=""):
    start = [*CONFINED, "--network", "none", *(["--entrypoint", entrypoint] if entrypoint else [])]
    return docker("run", "--rm", *start, f"sat-xception/{name}:{content_tag(name)}", *command)


def shell(name, script):
    return run(name, "-c", script, entrypoint="sh")


@pytest.fixture(scope="module", params=chosen_images(read_lock().get("choices", {}).get("train_device", "")))
def image(request):
    reference = f"sat-xception/{request.param}:{content_tag(request.param)}"
    found = docker("image", "inspect", reference)
    if found.returncode:
        pytest.fail(f"{reference} isn't here; run `make images`")
    return request.param, json.loads(found.stdout)[0]


def test_the_user_is_a_number_and_not_root(image):
    name, facts = image
    assert facts["Config"]["User"] == "65532:65532"
    assert shell(name, "id -u").stdout.strip() == "65532"


def test_the_labels_say_what_it_is(image):
    name, facts = image
    labels = facts["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == f"sat-xception {name}"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    for key in ("description", "version", "revision", "base.name", "base.digest"):
        assert labels[f"org.opencontainers.image.{key}"]


def verbs_of(name):
    return [verb for verb, step in VERBS.items() if step.image == name.removesuffix("-gpu")]


def test_the_command_starts_and_has_the_verbs_of_the_image(image):
    name, _ = image
    asked = shell(name, " && ".join(f"sat_xception {verb} --help >/dev/null" for verb in verbs_of(name)))
    assert asked.returncode == 0, asked.stderr


def test_everything_that_its_steps_import_is_there(image):
    name, _ = image
    functions = [VERBS[verb].function.split(":")[0] for verb in verbs_of(name)]
    loaded = run(name, "-c", f"import {', '.join(functions)}", entrypoint="python3")
    assert loaded.returncode == 0, loaded.stderr


def test_the_package_is_installed_whole_as_a_wheel(image):
    name, facts = image
    script = "import importlib.metadata as m; d = m.distribution('sat-xception'); print(d.version, len(d.files))"
    version, files = run(name, "-c", script, entrypoint="python3").stdout.split()
    assert version == facts["Config"]["Labels"]["org.opencontainers.image.version"]
    assert int(files) > 300


def test_the_executor_of_components_starts(image):
    name, _ = image
    started = run(name, "-m", "kfp.dsl.executor_main", "--help", entrypoint="python3")
    assert started.returncode == 0, started.stderr


def test_there_is_no_compiler_and_no_cache(image):
    name, _ = image
    assert shell(name, "command -v cc gcc g++ c++ clang make uv").stdout == ""
    leftovers = (
        "/root/.cache /tmp/* /locks /wheel /src /opt/venv/bin/pip* /opt/venv/bin/uv* /var/lib/apt/lists/*_Packages"
    )
    assert shell(name, f"ls -d {leftovers} 2>/dev/null").stdout == ""


def test_what_is_installed_fits_together(image):
    name, _ = image
    checked = shell(name, "PATH=/usr/local/bin:/usr/bin python3 -m pip --python /opt/venv/bin/python3 check")
    assert "No module named pip" not in checked.stderr
    complaints = [line for line in checked.stdout.splitlines() if not any(text in line for text in MEANT)]
    assert complaints in ([], ["No broken requirements found."])


def test_tensorflow_is_only_where_it_is_needed(image):
    name, _ = image
    found = run(name, "-c", "import importlib.util as u; print(bool(u.find_spec('tensorflow')))", entrypoint="python3")
    assert found.stdout.strip() == str(name not in WITHOUT_TENSORFLOW)


def test_only_the_gpu_image_has_cuda(image):
    name, _ = image
    found = run(name, "-c", "import importlib.util as u; print(bool(u.find_spec('nvidia')))", entrypoint="python3")
    assert found.stdout.strip() == str(name == "train-gpu")


def test_a_step_in_an_image_without_its_libraries_names_the_image_that_has_them():
    asked = run("light", "train", "--examples", "/tmp/e", "--out", "/tmp/o")
    assert asked.returncode == 2
    assert "in a container, use the image `train`" in asked.stderr


def test_files_that_no_step_needs_are_in_no_layer():
    """What a later layer removes is pushed all the same."""
    history = docker(
        "history", "--no-trunc", "--format", "{{.CreatedBy}}", f"sat-xception/score:{content_tag('score')}"
    )
    installing = [line for line in history.stdout.splitlines() if "tensorflow/include" in line]
    assert len(installing) == 1 and "train.txt" in installing[0]


def test_images_share_the_layers_of_the_packages_they_share():
    def layers(name):
        found = docker("image", "inspect", f"sat-xception/{name}:{content_tag(name)}")
        return json.loads(found.stdout)[0]["RootFS"]["Layers"]

    packages = {name: layers(name)[:-2] for name in chosen_images("cpu")}  # without the wheel: copied, installed
    for below, above in (("light", "data"), ("light", "train"), ("train", "validate"), ("train", "score")):
        assert packages[above][: len(packages[below])] == packages[below]
