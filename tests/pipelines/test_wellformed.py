"""References of a compiled pipeline that lead nowhere are found, of every kind, and the pipelines have none."""

import copy
import re

import pytest
import yaml
from kfp import compiler, dsl, kubernetes

from pipelines.compile import compile_pipelines
from pipelines.resources import use_gpus
from sat_xception.errors import ServiceError
from sat_xception.kubeflow.wellformed import find_problems


@dsl.component(base_image="python:3.13", install_kfp_package=False)
def step(text: str) -> str:
    return text


@pytest.fixture(scope="module")
def compiled(compiled_files):
    return [
        list(yaml.safe_load_all(path.read_text())) for path in compiled_files if not path.stem.endswith("-pipeline")
    ]


@pytest.fixture
def training(compiled):
    return copy.deepcopy(compiled[0])


def test_both_pipelines_hold_together(compiled):
    assert [find_problems(*documents) for documents in compiled] == [[], []]


def test_an_accelerator_in_a_group_that_is_not_handed_its_parameters_is_found(tmp_path):
    """The fault of kfp's compiler that keeps a training from starting, as Kubeflow's driver says it.

    "parent DAG does not have input parameter pipelinechannel--count" (driver/resolve.go): the setters of accelerators
    write the parameter's name into the container, and the compiler passes to a group what is registered with its tasks.
    """

    @dsl.pipeline
    def faulty(count: str = "1"):
        with dsl.If(step(text="a").output == "a"):
            step(text="b").set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(count)

    @dsl.pipeline
    def mended(kind: str = "nvidia.com/gpu", count: str = "1", nodes: dict[str, str] = {}, taints: list[dict] = []):  # noqa: B006
        with dsl.If(step(text="a").output == "a"):
            use_gpus(step(text="b"), kind, count, nodes, taints)

    problems = []
    for pipeline in (faulty, mended):
        compiler.Compiler().compile(pipeline, str(tmp_path / "p.yaml"))
        spec, *platform = yaml.safe_load_all((tmp_path / "p.yaml").read_text())
        problems.append(find_problems(spec, *(platform or [{}])))
    assert problems == [
        [
            "comp-condition-1, task step-2: input pipelinechannel--count is pipelinechannel--count of the group around "
            "it, which has no such input"
        ],
        [],
    ]


def test_a_pipeline_that_the_driver_cannot_run_is_not_written_as_if_it_could(tmp_path, monkeypatch):
    monkeypatch.setattr("kfp.dsl.PipelineTask.register_pipeline_channels", lambda task, channels: None)

    @dsl.pipeline(name="faulty")
    def faulty(count: str = "1"):
        with dsl.If(step(text="a").output == "a"):
            step(text="b").set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(count)

    monkeypatch.setattr("pipelines.training.training", faulty)
    with pytest.raises(ServiceError, match=r"Kubeflow could not run .*pipelinechannel--count of the group around it"):
        compile_pipelines(tmp_path)


def test_an_optional_artifact_is_found(tmp_path):
    @dsl.container_component
    def looking(data: dsl.Input[dsl.Dataset] = None):
        return dsl.ContainerSpec(image="i", command=["true"])

    @dsl.pipeline
    def faulty():
        looking()

    compiler.Compiler().compile(faulty, str(tmp_path / "p.yaml"))
    (spec,) = yaml.safe_load_all((tmp_path / "p.yaml").read_text())
    (problem,) = find_problems(spec, {})
    assert "artifact data is optional" in problem


def _without(mapping, name):
    del mapping[name]


def _group(documents):
    return documents[0]["components"]["comp-exit-handler-1"]


BREAKS = {
    "a group that doesn't declare an input": (
        lambda documents: _without(_group(documents)["inputDefinitions"]["parameters"], "pipelinechannel--data_seed"),
        "task check: input data_seed is pipelinechannel--data_seed of the group around it",
    ),
    "a group that isn't passed an input": (
        lambda documents: _without(
            documents[0]["root"]["dag"]["tasks"]["exit-handler-1"]["inputs"]["parameters"], "pipelinechannel--data_seed"
        ),
        "task exit-handler-1: doesn't pass pipelinechannel--data_seed, which comp-exit-handler-1 needs",
    ),
    "a parameter of the pipeline that isn't there": (
        lambda documents: _without(documents[0]["root"]["inputDefinitions"]["parameters"], "data_seed"),
        "root, task exit-handler-1: input pipelinechannel--data_seed is data_seed of the group around it",
    ),
    "an artifact that nobody makes": (
        lambda documents: _without(documents[0]["components"]["comp-convert"]["outputDefinitions"], "artifacts"),
        "task train: input examples is examples of task convert, which has no such output",
    ),
    "an artifact that isn't passed": (
        lambda documents: _without(_group(documents)["dag"]["tasks"]["train"]["inputs"], "artifacts"),
        "task train: doesn't pass examples, which comp-train needs",
    ),
    "a producer in another group": (
        lambda documents: _without(_group(documents)["dag"]["tasks"], "validate"),
        "task train: waits for validate, which isn't beside it",
    ),
    "a condition on a value that isn't passed": (
        lambda documents: _without(
            _group(documents)["dag"]["tasks"]["condition-2"]["inputs"]["parameters"], "pipelinechannel--gate-Output"
        ),
        "task condition-2: its condition names pipelinechannel--gate-Output, which isn't passed to it",
    ),
    "a node selector by a parameter that isn't there": (
        lambda documents: _without(
            _group(documents)["inputDefinitions"]["parameters"], "pipelinechannel--gpu_node_selector"
        ),
        "task train: a Kubernetes setting is pipelinechannel--gpu_node_selector of the group around it",
    ),
    "tolerations by a parameter that isn't there": (
        lambda documents: _without(
            _group(documents)["inputDefinitions"]["parameters"], "pipelinechannel--gpu_tolerations"
        ),
        "task train-2: a Kubernetes setting is pipelinechannel--gpu_tolerations of the group around it",
    ),
    "an accelerator by a parameter that the task isn't passed": (
        lambda documents: _without(
            _group(documents)["dag"]["tasks"]["train"]["inputs"]["parameters"], "pipelinechannel--gpu_type"
        ),
        "task train: its container names pipelinechannel--gpu_type, which isn't passed to it",
    ),
    "the status of a task that isn't there": (
        lambda documents: documents[0]["root"]["dag"]["tasks"]["notify"]["inputs"]["parameters"]["status"][
            "taskFinalStatus"
        ].update(producerTask="run"),
        "task notify: input status is the status of task run, which isn't beside it",
    ),
    "a component that isn't there": (
        lambda documents: _without(documents[0]["components"], "comp-gate"),
        "task gate: there is no component comp-gate",
    ),
    "an executor that isn't there": (
        lambda documents: _without(documents[0]["deploymentSpec"]["executors"], "exec-gate"),
        "task gate: there is no executor exec-gate",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_reference_that_leads_nowhere_is_found(name, training):
    change, expected = BREAKS[name]
    change(training)
    assert [problem for problem in find_problems(*training) if expected in problem], find_problems(*training)


def test_the_loop_of_the_bulk_pipeline_is_followed(compiled):
    documents = copy.deepcopy(compiled[1])
    loop = _group(documents)["dag"]["tasks"]["for-loop-2"]
    del loop["inputs"]["parameters"]["pipelinechannel--bulk-plan-Output"]
    outputs = documents[0]["components"]["comp-for-loop-2"]["dag"]["outputs"]["parameters"]
    outputs["pipelinechannel--bulk-predict-Output"]["valueFromParameter"]["outputParameterKey"] = "other"
    text = "\n".join(find_problems(*documents))
    assert re.search("task for-loop-2: it loops over pipelinechannel--bulk-plan-Output, which isn't passed to it", text)
    assert "comp-for-loop-2, outputs: pipelinechannel--bulk-predict-Output is other of bulk-predict" in text


def test_a_secret_that_a_parameter_names_is_followed(tmp_path):
    @dsl.pipeline
    def pipeline(secret: str = "s"):
        kubernetes.use_secret_as_env(step(text="a"), secret, {"key": "VALUE"})

    compiler.Compiler().compile(pipeline, str(tmp_path / "p.yaml"))
    spec, platform = yaml.safe_load_all((tmp_path / "p.yaml").read_text())
    assert find_problems(spec, platform) == []
    del spec["root"]["inputDefinitions"]["parameters"]["secret"]
    assert any(
        "a Kubernetes setting is secret of the group around it" in line for line in find_problems(spec, platform)
    )
