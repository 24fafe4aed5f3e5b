"""What Kubeflow gets: the compiled pipeline, parsed as strictly as its API server does."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from pipelines.compile import compile_pipelines

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    (path,) = compile_pipelines(tmp_path_factory.mktemp("compiled"))
    return list(yaml.safe_load_all(path.read_text()))


def dag(documents, name):
    return documents[0]["components"][name]["dag"]["tasks"]


def test_pipeline_spec_parses_strictly(documents):
    spec = json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec(), ignore_unknown_fields=False)
    assert spec.pipeline_info.name == "school-classifier-training"


def test_platform_spec_parses_strictly(documents):
    platform = json_format.ParseDict(documents[1], pipeline_spec_pb2.PlatformSpec(), ignore_unknown_fields=False)
    executors = json_format.MessageToDict(platform.platforms["kubernetes"].deployment_spec)["executors"]
    for config in executors.values():
        json_format.ParseDict(
            config, kubernetes_executor_config_pb2.KubernetesExecutorConfig(), ignore_unknown_fields=False
        )
    assert executors["exec-notify"]["secretAsEnv"][0]["secretName"] == "sat-xception-webhook"


def test_compiling_twice_gives_the_same_bytes(tmp_path):
    first, second = (compile_pipelines(tmp_path / name)[0].read_bytes() for name in ("a", "b"))
    assert first == second


def test_the_kfp_command_compiles_it(tmp_path):
    out = tmp_path / "p.yaml"
    command = [str(Path(sys.executable).parent / "kfp"), "dsl", "compile", "--py", "pipelines/training.py"]
    finished = subprocess.run([*command, "--output", str(out)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert next(yaml.safe_load_all(out.read_text()))["pipelineInfo"]["name"] == "school-classifier-training"


def test_both_trainings_wait_for_the_data_and_not_for_each_other(documents):
    tasks = dag(documents, "comp-exit-handler-1")
    for name in ("train", "train-2"):
        assert sorted(tasks[name]["dependentTasks"]) == ["convert", "validate"]
    assert tasks["train"]["taskInfo"]["name"] == "Train Xception"
    assert tasks["train-2"]["taskInfo"]["name"] == "Train MobileNetV2"


def test_trainings_ask_for_a_gpu(documents):
    executors = documents[0]["deploymentSpec"]["executors"]
    for name in ("exec-train", "exec-train-2"):
        accelerator = executors[name]["container"]["resources"]["accelerator"]
        assert accelerator["resourceType"] == "nvidia.com/gpu"
        assert accelerator["resourceCount"] == "1"


def test_package_and_deploy_hang_on_the_one_value_that_the_gate_returns(documents):
    tasks = dag(documents, "comp-exit-handler-1")
    condition = tasks["condition-2"]["triggerPolicy"]["condition"]
    assert condition == "inputs.parameter_values['pipelinechannel--gate-Output'] != 'none'"
    assert set(dag(documents, "comp-condition-2")) == {"package", "deploy"}


def test_notify_runs_however_the_rest_ended(documents):
    notify = documents[0]["root"]["dag"]["tasks"]["notify"]
    assert notify["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"


def test_what_acts_outside_is_not_cached(documents):
    tasks = {**dag(documents, "comp-exit-handler-1"), **dag(documents, "comp-condition-2")}
    cached = {name for name, task in tasks.items() if task.get("cachingOptions", {}).get("enableCache")}
    assert not cached & {"assemble", "deploy", "notify"}
    assert {"convert", "train", "train-2", "gate", "package"} <= cached


def test_every_parameter_has_a_default_and_a_description(documents):
    parameters = documents[0]["root"]["inputDefinitions"]["parameters"]
    assert len(parameters) > 10
    for name, parameter in parameters.items():
        assert "defaultValue" in parameter, name
        assert parameter["description"], name
