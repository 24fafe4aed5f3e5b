"""Steps in containers: what `make run RUNNER=docker` promises beyond the run itself."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from sat_xception.errors import ConfigError
from sat_xception.kubeflow.run_settings import RunConfig
from sat_xception.kubeflow.run_training import StepFailedError, run

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(shutil.which("docker") is None, reason="no Docker on this machine"),
]


def config(tmp_path, data):
    return RunConfig(runner="docker", data=str(data), out=tmp_path / "runs", model_root=tmp_path / "serving")


def containers():
    listed = subprocess.run(["docker", "ps", "--all"], capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()


def test_a_step_that_fails_in_its_container_ends_the_run_with_its_reason_and_exit_code(tmp_path):
    data = tmp_path / "data"
    (data / "only-one-class").mkdir(parents=True)
    with pytest.raises(StepFailedError, match="assemble failed: found 0 class") as failure:
        run(config(tmp_path, data))
    assert failure.value.exit_code == 3


def test_nothing_is_left_of_a_run_that_is_interrupted(tmp_path):
    places = ["--out", str(tmp_path / "runs"), "--model-root", str(tmp_path / "serving")]
    command = [sys.executable, "-m", "sat_xception", "run", "--runner", "docker", *places]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not any("/data:" in line for line in containers()):
            assert time.monotonic() < deadline, "the first step didn't start"
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again" in shown
    assert not [line for line in containers() if "sat-xception/" in line]
    networks = subprocess.run(["docker", "network", "ls"], capture_output=True, text=True, check=True).stdout
    assert "sat-xception-" not in networks


def test_without_a_docker_daemon_the_run_says_what_to_do(tmp_path):
    command = [sys.executable, "-m", "sat_xception", "run", "--runner", "docker", "--out", str(tmp_path / "runs")]
    environment = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/absent.sock"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 4
    assert "no Docker daemon answers" in ended.stderr
    assert "leave out --runner docker" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_images_that_are_not_built_are_asked_for(tmp_path):
    from sat_xception.kubeflow.docker_runner import check_images

    with pytest.raises(ConfigError, match="nowhere/light:1 is the first; run `make images`"):
        check_images(["nowhere/light:1"])
