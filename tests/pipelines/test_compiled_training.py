"""What Kubeflow gets: the compiled pipeline, parsed as strictly as its API server does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from pipelines.compile import compile_pipelines
from pipelines.resources import retention
from pipelines.training import training
from sat_xception.errors import ConfigError
from sat_xception.kubeflow.local_runner import without_retries
from sat_xception.kubeflow.training_settings import TRAINING
from sat_xception.storage.object_store import INSTALLATION_KEYS, VARIABLES

ROOT = Path(__file__).parents[2]
# Validate reads and renews the baseline, if there is one: then the run is one of its inputs.
PURE = {"assemble", "convert", "validate", "train", "train-2", "evaluate", "evaluate-2", "package"}
# The tiles may have changed unseen. What serves is seen by no input of its evaluation. The gate and deploy record how
# the run ended.
ACTS_OUTSIDE = {"check", "evaluate-serving", "gate", "deploy", "notify"}
GROUPS = ("exit-handler-1", "condition-2")
TRIED_AGAIN = {"check", "assemble", "train", "train-2", "deploy"}
# Output artifacts: each is a node of the graph in the UI.
ARTIFACTS = {"check": 1, "assemble": 2, "convert": 1, "validate": 2, "train": 2, "train-2": 2, "evaluate": 2}
ARTIFACTS |= {"evaluate-2": 2, "evaluate-serving": 2, "gate": 3, "package": 2, "deploy": 2, "notify": 0}


@pytest.fixture(scope="module")
def compiled(compiled_files):
    assert {path.name for path in compiled_files[0].parent.iterdir()} == {path.name for path in compiled_files}
    return compiled_files


@pytest.fixture(scope="module")
def documents(compiled):
    return list(yaml.safe_load_all(compiled[0].read_text()))


@pytest.fixture(scope="module")
def tasks(documents):
    """Every task by name, wherever in the pipeline it is."""
    dags = [documents[0]["root"]["dag"], *(dag(documents, f"comp-{group}") for group in GROUPS)]
    found = {name: task for part in dags for name, task in part["tasks"].items()}
    return {name: task for name, task in found.items() if name not in GROUPS}


@pytest.fixture(scope="module")
def on_kubernetes(documents):
    """The Kubernetes settings of every task."""
    executors = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-"): config for name, config in executors.items()}


@pytest.fixture(scope="module")
def containers(documents):
    executors = documents[0]["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-"): executor["container"] for name, executor in executors.items()}


def dag(documents, name):
    return documents[0]["components"][name]["dag"]


def parse_strictly(spec, platform):
    """Parse as the API server does: an unknown field is an error; return the pipeline and its executors' number."""
    parsed = json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec(), ignore_unknown_fields=False)
    message = json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec(), ignore_unknown_fields=False)
    executors = json_format.MessageToDict(message.platforms["kubernetes"].deployment_spec)["executors"]
    for config in executors.values():
        kind = kubernetes_executor_config_pb2.KubernetesExecutorConfig()
        json_format.ParseDict(config, kind, ignore_unknown_fields=False)
    return parsed, len(executors)


def test_pipeline_platform_and_kubernetes_configurations_parse_strictly(documents, tasks):
    assert len(documents) == 2
    spec, executors = parse_strictly(*documents)
    assert spec.pipeline_info.name == "school-classifier-training"
    assert executors == len(tasks) == len(PURE | ACTS_OUTSIDE)


def test_the_kubernetes_manifests_hold_the_same_pipeline_and_parse_strictly(compiled, documents):
    pipeline, version = yaml.safe_load_all(compiled[1].read_text())
    assert {pipeline["apiVersion"], version["apiVersion"]} == {"pipelines.kubeflow.org/v2beta1"}
    assert (pipeline["kind"], version["kind"]) == ("Pipeline", "PipelineVersion")
    assert pipeline["metadata"]["name"] == version["spec"]["pipelineName"] == "school-classifier-training"
    assert [version["spec"]["pipelineSpec"], version["spec"]["platformSpec"]] == documents
    parse_strictly(version["spec"]["pipelineSpec"], version["spec"]["platformSpec"])


def test_a_version_is_named_after_what_is_in_it(compiled, tmp_path, monkeypatch):
    def name(path):
        return list(yaml.safe_load_all(path.read_text()))[1]["metadata"]["name"]

    first, again = name(compiled[1]), name(compile_pipelines(tmp_path / "again")[1])
    monkeypatch.setattr("pipelines.training.training", without_retries(training))
    other = name(compile_pipelines(tmp_path / "other")[1])
    assert first == again != other
    assert len(first) <= 63  # a label's value, which Kubeflow makes of it


@pytest.mark.parametrize("seed", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_the_same_code_gives_the_same_bytes_in_any_process_and_folder(compiled, seed, tmp_path):
    expected = [path.read_bytes() for path in compiled]
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipelines.compile"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert [(tmp_path / "build" / path.name).read_bytes() for path in compiled] == expected


def test_the_compiled_pipeline_is_small_enough_for_the_annotations_that_kubeflow_makes_of_it(compiled):
    # A workflow's annotations may hold 256 KB together (kubeflow/pipelines#10968); the specs are JSON in them.
    documents = yaml.safe_load_all(compiled[0].read_text())
    assert sum(len(json.dumps(document, separators=(",", ":"))) for document in documents) < 130_000


def test_the_kfp_command_compiles_it(tmp_path):
    out = tmp_path / "p.yaml"
    command = [str(Path(sys.executable).parent / "kfp"), "dsl", "compile", "--py", "pipelines/training.py"]
    finished = subprocess.run([*command, "--output", str(out)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert next(yaml.safe_load_all(out.read_text()))["pipelineInfo"]["name"] == "school-classifier-training"


def test_both_trainings_wait_for_the_data_and_not_for_each_other(tasks):
    for name in ("train", "train-2"):
        assert sorted(tasks[name]["dependentTasks"]) == ["check", "convert", "validate"]


def test_the_first_screen_of_a_run_is_flat_but_for_what_hangs_on_the_gate(documents):
    """One group holds everything, since only an exit handler runs notify however the run ends.

    The Argo compiler makes a lifecycle hook of a task that runs however those before it ended (argocompiler/dag.go),
    and Argo runs such a hook only after a node that was started: not after one that was skipped or left out because an
    earlier one failed. With several tasks before it, the hook runs once for each.
    """
    root = documents[0]["root"]["dag"]["tasks"]
    assert set(root) == {"exit-handler-1", "notify"}
    assert root["exit-handler-1"]["taskInfo"]["name"] == "run"
    inside = dag(documents, "comp-exit-handler-1")["tasks"]
    assert set(inside) == (PURE | ACTS_OUTSIDE | {"condition-2"}) - {"package", "deploy", "notify"}
    assert inside["condition-2"]["taskInfo"]["name"] == "a-model-passed"
    assert set(dag(documents, "comp-condition-2")["tasks"]) == {"package", "deploy"}


def test_package_and_deploy_hang_on_the_one_value_that_the_gate_returns(documents):
    condition = dag(documents, "comp-exit-handler-1")["tasks"]["condition-2"]["triggerPolicy"]["condition"]
    assert condition == "inputs.parameter_values['pipelinechannel--gate-Output'] != 'none'"


def test_a_task_has_only_the_artifacts_that_somebody_reads(documents, tasks):
    for name, task in tasks.items():
        component = documents[0]["components"][task["componentRef"]["name"]]
        assert len(component.get("outputDefinitions", {}).get("artifacts", {})) == ARTIFACTS[name], name


def test_the_run_is_known_by_its_id_wherever_it_is_recorded(tasks):
    for name in ("check", "gate", "deploy", "notify"):
        assert tasks[name]["inputs"]["parameters"]["run"]["runtimeValue"]["constant"] == "{{$.pipeline_job_uuid}}"


def test_notify_runs_however_the_rest_ended(documents):
    notify = documents[0]["root"]["dag"]["tasks"]["notify"]
    assert notify["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"


def test_what_acts_outside_is_not_cached_and_everything_else_is(tasks):
    cached = {name for name, task in tasks.items() if task.get("cachingOptions", {}).get("enableCache")}
    assert cached == PURE
    assert set(tasks) == PURE | ACTS_OUTSIDE


def test_every_task_has_a_name_for_people(tasks):
    names = {name: task["taskInfo"]["name"] for name, task in tasks.items()}
    assert names["train"] == "Train Xception"
    assert names["train-2"] == "Train MobileNetV2"
    assert len(set(names.values())) == len(names)
    assert not [name for name in names.values() if not name[0].isupper()]


def test_every_parameter_has_a_default_a_type_and_a_sentence(documents):
    parameters = documents[0]["root"]["inputDefinitions"]["parameters"]
    assert 20 < len(parameters) < 30
    for name, parameter in parameters.items():
        assert "defaultValue" in parameter, name
        assert parameter["parameterType"] != "PARAMETER_TYPE_ENUM_UNSPECIFIED", name
        assert parameter["description"].endswith("."), name
        assert parameter["description"][0].isupper(), name


def test_parameters_stand_in_the_ui_in_groups_that_begin_with_what_they_are_about(documents):
    names = list(documents[0]["root"]["inputDefinitions"]["parameters"])
    assert names == sorted(names)  # the order in which the UI shows them
    groups = list(dict.fromkeys(name.split("_")[0] for name in names))
    assert groups == ["data", "deploy", "gate", "gpu", "mobilenetv2", "settings", "train", "xception"]


def test_the_parameters_are_the_headlines_with_their_types_defaults_and_descriptions(documents):
    types = {int: "NUMBER_INTEGER", float: "NUMBER_DOUBLE", str: "STRING", list: "LIST", dict: "STRUCT"}
    parameters = documents[0]["root"]["inputDefinitions"]["parameters"]
    assert parameters.keys() == {*TRAINING.headlines, *TRAINING.parameters.model_fields, "settings"}
    for name, parameter in parameters.items():
        default = TRAINING.default_of(name)
        assert parameter["defaultValue"] == default, name
        assert parameter["parameterType"] == types[type(default)], name
        assert " ".join(parameter["description"].split()) == TRAINING.help_of(name), name


def test_the_first_step_takes_every_parameter_and_returns_a_text_for_every_task(documents, tasks):
    parameters = set(documents[0]["root"]["inputDefinitions"]["parameters"])
    given = tasks["check"]["inputs"]["parameters"]
    assert {
        name: value["componentInputParameter"].removeprefix("pipelinechannel--")
        for name, value in given.items()
        if name != "run"
    } == {name: name for name in parameters}
    outputs = documents[0]["components"]["comp-check"]["outputDefinitions"]["parameters"]
    assert set(outputs) == {"source", "baseline_run", "deploy_reason", *TRAINING.tasks} - {"assemble"}
    assert {output["parameterType"] for output in outputs.values()} == {"STRING"}


def test_every_other_task_takes_the_settings_that_the_first_one_made_for_it(tasks):
    own = {"train": "xception", "train-2": "mobilenetv2", "evaluate-2": "evaluate"}
    others = {"baseline", "run", "winner", "reason"}
    for name, task in tasks.items():
        given = {
            key: value
            for key, value in task["inputs"].get("parameters", {}).items()
            if not key.startswith(("pipelinechannel--", "accelerator_"))
        }
        if name in ("check", "notify"):
            continue
        if name == "assemble":
            assert given == {"source": of_check("source")}
            continue
        settings = own.get(name, name.replace("-", "_"))
        if name in ("package", "deploy"):  # in a group, which hands it on
            assert given["settings"] == {"componentInputParameter": f"pipelinechannel--check-{settings}"}
        else:
            assert given["settings"] == of_check(settings)
        assert set(given) - {"settings"} <= others, name
    assert tasks["validate"]["inputs"]["parameters"]["run"] == of_check("baseline_run")
    reason = tasks["deploy"]["inputs"]["parameters"]["reason"]["componentInputParameter"]
    assert reason == "pipelinechannel--check-deploy_reason"
    for name in ("gate", "deploy", "notify"):
        baseline = tasks[name]["inputs"]["parameters"]["baseline"]["componentInputParameter"]
        assert baseline.removeprefix("pipelinechannel--") == "data_baseline"


def of_check(output):
    return {"taskOutputParameter": {"outputParameterKey": output, "producerTask": "check"}}


def test_trainings_ask_for_the_gpus_that_the_parameters_name(documents, tasks, containers, on_kubernetes):
    # Text: Kubeflow's driver makes no request of a number, and doesn't say so.
    parameters = documents[0]["root"]["inputDefinitions"]["parameters"]
    assert parameters["gpu_count"]["parameterType"] == "STRING"
    assert parameters["gpu_count"]["defaultValue"] == "1"
    assert parameters["gpu_node_selector"]["parameterType"] == "STRUCT"
    assert parameters["gpu_tolerations"]["parameterType"] == "LIST"
    inputs = dag(documents, "comp-exit-handler-1")
    for name in ("train", "train-2"):
        accelerator = containers[name]["resources"]["accelerator"]
        assert accelerator["resourceCount"] == "{{$.inputs.parameters['pipelinechannel--gpu_count']}}"
        assert accelerator["resourceType"] == "{{$.inputs.parameters['pipelinechannel--gpu_type']}}"
        own = inputs["tasks"][name]["inputs"]["parameters"]
        assert own["pipelinechannel--gpu_count"] == {"componentInputParameter": "pipelinechannel--gpu_count"}
        selector = on_kubernetes[name]["nodeSelector"]["nodeSelectorJson"]
        (toleration,) = on_kubernetes[name]["tolerations"]
        # The driver looks for all of them among the inputs of the group that the task is in.
        around = documents[0]["components"]["comp-exit-handler-1"]["inputDefinitions"]["parameters"]
        assert selector["componentInputParameter"] in around
        assert toleration["tolerationJson"]["componentInputParameter"] in around
        assert {"pipelinechannel--gpu_count", "pipelinechannel--gpu_type"} <= set(around)
    assert not [name for name in containers if "accelerator" in containers[name]["resources"] and "train" not in name]


def test_every_task_has_requests_limits_and_a_deadline(containers, on_kubernetes):
    for name, container in containers.items():
        resources = container["resources"]
        assert resources["cpuRequest"] <= resources["cpuLimit"], name
        assert resources["memoryRequest"] <= resources["memoryLimit"], name
        assert 0 < int(on_kubernetes[name]["activeDeadlineSeconds"]) <= 86_400, name


def test_every_task_runs_as_a_user_that_isnt_root_and_says_what_it_is(on_kubernetes):
    for name, config in on_kubernetes.items():
        assert config["securityContext"] == {"runAsUser": "65532", "runAsGroup": "65532", "runAsNonRoot": True}, name
        labels = config["podMetadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "sat-xception"
        assert labels["app.kubernetes.io/component"] == name.removesuffix("-2")


def test_only_tasks_that_trying_again_can_help_are_tried_again(tasks, on_kubernetes):
    assert {name for name, task in tasks.items() if "retryPolicy" in task} == TRIED_AGAIN
    for name, task in tasks.items():
        if policy := task.get("retryPolicy"):
            assert policy["maxRetryCount"] == 2
            assert policy["backoffFactor"] == 2
            assert int(policy["backoffDuration"].removesuffix("s")) >= 15
            # Argo ends every try when this is over, counted from the start of the first.
            longest = int(policy["backoffMaxDuration"].removesuffix("s"))
            assert longest > 3 * int(on_kubernetes[name]["activeDeadlineSeconds"]), name


def test_a_run_on_one_machine_tries_each_task_once():
    def tried_again(pipeline):
        parts = pipeline.pipeline_spec.components.values()
        return [name for part in parts for name, task in part.dag.tasks.items() if task.HasField("retry_policy")]

    assert tried_again(without_retries(training)) == []
    assert set(tried_again(training)) == TRIED_AGAIN


def test_secrets_are_named_and_may_be_absent(on_kubernetes):
    variables = {
        name: {
            (secret["secretName"], item["secretKey"], item["envVar"])
            for secret in config["secretAsEnv"]
            for item in secret["keyToEnv"]
            if secret["optional"] is True
        }
        for name, config in on_kubernetes.items()
        if "secretAsEnv" in config
    }
    keys = {"path": "GOOGLE_APPLICATION_CREDENTIALS", **{name: name for name in VARIABLES}}
    storage = {("sat-xception-storage", key, name) for key, name in keys.items()}
    storage |= {("mlpipeline-minio-artifact", key, name) for key, name in INSTALLATION_KEYS.items()}
    endpoint = {
        ("sat-xception-endpoint", "token-path", "SAT_XCEPTION_TOKEN_FILE"),
        ("sat-xception-endpoint", "ca-path", "SAT_XCEPTION_CA_FILE"),
    }
    assert variables == {
        "check": {("sat-xception-imagery", "token", "IMAGERY_TOKEN"), *storage},
        "assemble": {("sat-xception-imagery", "token", "IMAGERY_TOKEN"), *storage},
        "validate": storage,
        "train": storage,
        "train-2": storage,
        "evaluate-serving": {*storage, *endpoint},
        "gate": storage,
        "deploy": {*storage, *endpoint},
        "notify": {("sat-xception-webhook", "url", "SAT_XCEPTION_WEBHOOK"), *storage},
    }
    for task, found in variables.items():
        names = [variable for _, _, variable in found]
        assert len(names) == len(set(names)), f"{task}: Kubeflow keeps only the last of two variables of one name"
    for name in variables:
        volumes = [(volume["secretName"], volume["optional"]) for volume in on_kubernetes[name]["secretAsVolume"]]
        asks = [("sat-xception-endpoint", True)] if name in ("deploy", "evaluate-serving") else []
        assert volumes == [("sat-xception-storage", True), *asks]


def test_no_task_is_told_of_credentials_that_may_not_be_there(containers):
    # Google's libraries refuse to work when this names no file, instead of using workload identity.
    for container in containers.values():
        assert "GOOGLE_APPLICATION_CREDENTIALS" not in str(container.get("env", ""))


def test_by_default_there_is_no_setting_that_kubeflow_pipelines_216_refuses(documents):
    # Of all settings these alone came with 2.17 (api/v2alpha1/pipeline_spec.proto, PipelineConfig).
    assert "pipelineConfig" not in documents[1]["platforms"]["kubernetes"]


def test_on_217_what_kubernetes_keeps_of_a_run_goes_away_and_no_run_waits_for_ever(monkeypatch):
    day = 86_400
    monkeypatch.setenv("KFP_VERSION", "2.17.0")
    config = retention()
    assert (config.ttl_seconds_after_success, config.ttl_seconds_after_failure) == (3 * day, 14 * day)
    assert config.active_deadline_seconds == 5 * day


def test_the_retention_of_217_reaches_the_compiled_pipelines(tmp_path):
    environment = {**os.environ, "KFP_VERSION": "2.17", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "pipelines.compile"], cwd=tmp_path, env=environment, check=True)
    for name in ("training", "bulk-inference"):
        documents = list(yaml.safe_load_all((tmp_path / "build" / f"{name}.yaml").read_text()))
        assert set(documents[1]["platforms"]["kubernetes"]["pipelineConfig"]) == {
            "resourceTtlOnSuccess",
            "resourceTtlOnFailure",
            "activeDeadlineSeconds",
        }


@pytest.mark.parametrize("version", ["2", "2.15.0", "newest", ""])
def test_a_version_of_kubeflow_pipelines_that_is_not_supported_is_refused(version, monkeypatch):
    monkeypatch.setenv("KFP_VERSION", version)
    with pytest.raises(ConfigError) as refused:
        retention()
    assert f"KFP_VERSION={version}: expected the version of Kubeflow Pipelines, 2.16 or newer" in str(refused.value)
    assert refused.value.exit_code == 2


def test_a_version_that_is_not_supported_ends_the_compilation_with_its_reason(tmp_path):
    version = "2.15.0"
    environment = {**os.environ, "KFP_VERSION": version, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipelines.compile"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert f"KFP_VERSION={version}: expected the version of Kubeflow Pipelines, 2.16 or newer" in ended.stderr
    assert "Traceback" not in ended.stderr
