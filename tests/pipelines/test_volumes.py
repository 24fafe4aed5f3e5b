"""Pipelines that are compiled with volumes: every task that reads or writes storage mounts them, once each."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.compile import compile_spec
from sat_xception.errors import ConfigError
from sat_xception.kubeflow.settings import SubmitConfig
from sat_xception.kubeflow.submit import submit
from sat_xception.kubeflow.volumes import using_volumes
from tests.kfp_fields import VERSIONS, compiled_problems

ROOT = Path(__file__).parents[2]
GIVEN = {"DATA_VOLUME": "tiles", "RESULTS_VOLUME": "nas/sat/run 1"}
# Those without artifacts alone: what they read or write is named by a setting.
MOUNTING = {
    "training": {"assemble", "check", "deploy", "evaluate-serving", "gate", "notify", "train", "train-2", "validate"},
    "bulk-inference": {"bulk-check", "bulk-plan", "bulk-predict", "bulk-predict-2", "bulk-publish"},
}


@pytest.fixture(autouse=True)
def no_volumes(monkeypatch):
    for name in GIVEN:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def compiled(made_once):
    """Both pipelines as `make compile` writes them with the volumes in the environment."""

    def compile_with_volumes(folder):
        folder.mkdir()
        environment = {**os.environ, **GIVEN, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "pipelines.compile"]
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)

    folder = made_once("compiled-with-volumes", compile_with_volumes) / "build"
    return {name: (folder / f"{name}.yaml").read_text() for name in MOUNTING}


def mounts(text):
    """Return the mounts of each task that has some, and the volumes that its environment names."""
    spec, platform = yaml.safe_load_all(text)
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    found = {}
    for name, config in executors.items():
        mounted = [
            (mount["pvcNameParameter"]["runtimeValue"]["constant"], mount["mountPath"], mount.get("subPath", ""))
            for mount in config.get("pvcMount", ())
        ]
        environment = spec["deploymentSpec"]["executors"][name]["container"].get("env", ())
        named = {item["name"]: item["value"] for item in environment if item["name"] in GIVEN}
        if mounted or named:
            found[name.removeprefix("exec-")] = mounted, named
    return found


@pytest.mark.parametrize("name", MOUNTING)
def test_tasks_that_read_or_write_storage_mount_both_and_no_others_do(name, compiled):
    expected = [("tiles", "/data", ""), ("nas", "/results", "sat/run 1")], GIVEN
    assert mounts(compiled[name]) == dict.fromkeys(MOUNTING[name], expected)


@pytest.mark.parametrize("name", MOUNTING)
def test_no_two_volumes_of_a_pod_have_one_name(name, compiled):
    # The driver names the volume of a claim and that of a Secret after these.
    executors = list(yaml.safe_load_all(compiled[name]))[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for config in executors.values():
        names = [mount["constant"] for mount in config.get("pvcMount", ())]
        names += [secret["secretName"] for secret in config.get("secretAsVolume", ())]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", MOUNTING)
def test_every_supported_kubeflow_takes_them(version, name, compiled):
    assert compiled_problems(compiled[name], version) == []


def test_by_default_nothing_is_mounted(compiled_files):
    assert [mounts(path.read_text()) for path in compiled_files if not path.stem.endswith("-pipeline")] == [{}, {}]


def test_a_pipeline_is_compiled_with_the_volumes_of_each_time(tmp_path):
    def claims():
        found = mounts(compile_spec("training", tmp_path).read_text())
        return {mount[0] for mounted, _ in found.values() for mount in mounted}

    assert claims() == set()
    with using_volumes("", "nas"):
        assert claims() == {"nas"}
    assert claims() == set()


def test_a_wrong_volume_ends_the_compilation_with_its_reason(tmp_path):
    environment = {**os.environ, "RESULTS_VOLUME": "nas/..", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipelines.compile"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "error     RESULTS_VOLUME=nas/..: '..' is no folder of a claim" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_submit_compiles_with_volumes_and_checks_the_settings_by_them(server, monkeypatch):
    given = ("deploy_target=kserve", "deploy_endpoint=http://gateway", "deploy_model_root=pvc://nas/sat/models")
    settings = {"endpoint": server.url, "param": given, "wait": False}
    submit(SubmitConfig(**settings, data_volume="tiles", results_volume="nas/sat"))
    (version,) = server.all("pipeline_versions")
    executors = version["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert [mount["constant"] for mount in executors["exec-check"]["pvcMount"]] == ["tiles", "nas"]
    with pytest.raises(ConfigError, match="pvc://nas/sat/models isn't mounted in the tasks; compile the pipeline with"):
        submit(SubmitConfig(**settings))


@pytest.mark.parametrize("name", ["data_volume", "results_volume"])
def test_submit_refuses_wrong_volumes_before_anything_is_sent(name, server, command, tmp_path):
    flag = f"--{name.replace('_', '-')}"
    ended = command("submit", flag, "Nas/x", "--no-wait")
    assert ended.returncode == 2
    assert f"{name.upper()}=Nas/x: 'Nas' can't be mounted" in ended.stderr
    ended = command("submit", flag, "nas", "--file", tmp_path / "training.yaml")
    assert ended.returncode == 2
    assert f"{flag} is part of a compiled pipeline, and --file is compiled already" in ended.stderr
    assert not server.all("pipelines")
