"""Every image, as `make images` built it: it starts, confined; its user is nobody; nothing superfluous is in it."""

import json
import shutil
import subprocess

import pytest

from components.images import chosen_images, content_tag, read_lock, step_of

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(shutil.which("docker") is None, reason="no Docker on this machine"),
]
# As the pipeline runs them: no privileges, nothing to write to but /tmp, and here no network either.
CONFINED = ["--read-only", "--tmpfs", "/tmp:exec", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
WITHOUT_TENSORFLOW = {"assemble", "convert", "gate", "deploy", "notify", "bulk_publish"}
# `pip check` says these, and they are meant: the executor of components needs none of what kfp's SDK does, and
# `tensorflow-cpu` is the same code as `tensorflow` without CUDA, under another name.
MEANT = ("kfp 2.", "requires tensorflow, which is not installed.")


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
    assert labels["org.opencontainers.image.title"] == f"sat-xception {step_of(name)}"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    for key in ("description", "version", "revision", "base.name", "base.digest"):
        assert labels[f"org.opencontainers.image.{key}"]


def test_the_command_starts_and_has_its_verb(image):
    name, _ = image
    asked = run(name, "--help")
    assert asked.returncode == 0, asked.stderr
    verb = step_of(name).split("_")  # bulk_plan is `sat_xception bulk plan`
    assert verb[0] in asked.stdout
    assert run(name, *verb, "--help").returncode == 0


def test_everything_that_the_step_imports_is_there(image):
    name, _ = image
    step = step_of(name)
    loaded = run(
        name, "-c", f"from sat_xception.steps import step_named; step_named('{step}').load()", entrypoint="python3"
    )
    assert loaded.returncode == 0, loaded.stderr


def test_the_executor_of_components_starts(image):
    name, _ = image
    if name == "serve":
        pytest.skip("the server is no component")
    started = run(name, "-m", "kfp.dsl.executor_main", "--help", entrypoint="python3")
    assert started.returncode == 0, started.stderr


def test_there_is_no_compiler_and_no_cache(image):
    name, _ = image
    assert shell(name, "command -v cc gcc g++ c++ clang make").stdout == ""
    leftovers = "ls -d /root/.cache /tmp/* /locks /src /opt/venv/bin/pip* /var/lib/apt/lists/*_Packages 2>/dev/null"
    assert shell(name, leftovers).stdout == ""


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


def test_the_server_tells_its_health(image):
    name, facts = image
    assert ("Healthcheck" in facts["Config"]) == (name == "serve")


def test_a_step_that_is_not_in_an_image_says_so():
    asked = run("gate", "train", "--examples", "/tmp/e", "--out", "/tmp/o")
    assert asked.returncode == 2
    assert "isn't in this image" in asked.stderr
