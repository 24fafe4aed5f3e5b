"""The Katib Experiment is what Katib's API takes, searches our space, runs our command and reads what that prints.

The models follow kubeflow/katib v0.18, pkg/apis/controller/experiments/v1beta1/experiment_types.go and
pkg/apis/controller/common/v1beta1/common_types.go; the rules those of its webhook, pkg/webhook/v1beta1/experiment.
"""

import re
from pathlib import Path
from typing import Any, Literal

import click
import pytest
import typer
import yaml
from pydantic import BaseModel, ConfigDict, Field

from components.images import IMAGES
from sat_xception.cli import app
from sat_xception.model.settings import TrainConfig
from sat_xception.search.space import PRESETS, Choice
from sat_xception.settings.config import load_config
from sat_xception.train.train import TrainResult

FOLDER = Path(__file__).parents[2] / "manifests" / "katib"
REFERENCE = re.compile(r"\$\{trialParameters\.([^}]+)\}")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Setting(Strict):
    name: str = Field(min_length=1)
    value: str


class FeasibleSpace(Strict):
    max: str = ""
    min: str = ""
    values: list[str] = Field([], alias="list")
    step: str = ""
    distribution: Literal["", "uniform", "logUniform", "normal", "logNormal"] = ""


class Parameter(Strict):
    name: str = Field(min_length=1)
    parameterType: Literal["double", "int", "discrete", "categorical"]
    feasibleSpace: FeasibleSpace


class Strategy(Strict):
    name: str
    value: Literal["min", "max", "latest"]


class Objective(Strict):
    type: Literal["minimize", "maximize"]
    goal: float | None = None
    objectiveMetricName: str = Field(min_length=1)
    additionalMetricNames: list[str] = []
    metricStrategies: list[Strategy] = []


class Algorithm(Strict):
    algorithmName: str
    algorithmSettings: list[Setting] = []


class Filter(Strict):
    metricsFormat: list[str]


class Source(Strict):
    filter: Filter


class Collector(Strict):
    kind: Literal["StdOut"]


class MetricsCollector(Strict):
    source: Source
    collector: Collector


class TrialParameter(Strict):
    name: str = Field(min_length=1)
    description: str = ""
    reference: str = Field(min_length=1)


class TrialTemplate(Strict):
    retain: bool = False
    trialParameters: list[TrialParameter]
    primaryContainerName: str = Field(min_length=1)
    trialSpec: dict[str, Any]


class Spec(Strict):
    parameters: list[Parameter]
    objective: Objective
    algorithm: Algorithm
    trialTemplate: TrialTemplate
    parallelTrialCount: int = Field(gt=0)
    maxTrialCount: int = Field(gt=0)
    maxFailedTrialCount: int = Field(ge=0)
    metricsCollectorSpec: MetricsCollector
    resumePolicy: Literal["Never", "LongRunning", "FromVolume"]


class Metadata(Strict):
    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    labels: dict[str, str] = {}


class Experiment(Strict):
    apiVersion: Literal["kubeflow.org/v1beta1"]
    kind: Literal["Experiment"]
    metadata: Metadata
    spec: Spec


@pytest.fixture(scope="module")
def experiment():
    return Experiment.model_validate(yaml.safe_load((FOLDER / "head-search-experiment.yaml").read_text()))


@pytest.fixture(scope="module")
def pod(experiment):
    job = experiment.spec.trialTemplate.trialSpec
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert "metadata" not in job  # Katib names it
    return job["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod, experiment):
    (container,) = pod["containers"]
    assert container["name"] == experiment.spec.trialTemplate.primaryContainerName
    return container


def values_of(parameter):
    """Return the first and the last value that Katib may choose."""
    space = parameter.feasibleSpace
    return (space.values[0], space.values[-1]) if space.values else (space.min, space.max)


def test_the_kustomization_names_every_file():
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(path.name for path in FOLDER.glob("*-*.yaml"))


def test_the_space_is_the_originals(experiment):
    space = PRESETS["original"].settings
    assert [parameter.name for parameter in experiment.spec.parameters] == list(space)
    for parameter in experiment.spec.parameters:
        ours, theirs = space[parameter.name], parameter.feasibleSpace
        if isinstance(ours, Choice):
            assert parameter.parameterType == "categorical"
            assert theirs == FeasibleSpace(list=[str(value) for value in ours.values])
        else:
            assert parameter.parameterType == "double"
            assert (float(theirs.min), float(theirs.max)) == (ours.low, ours.high)
            assert theirs.distribution == ("logUniform" if ours.log else "uniform")


def test_every_parameter_reaches_the_command_once(experiment, container):
    template = experiment.spec.trialTemplate
    names = [parameter.name for parameter in template.trialParameters]
    references = [parameter.reference for parameter in template.trialParameters]
    assert sorted(references) == sorted(parameter.name for parameter in experiment.spec.parameters)
    assert len(set(references)) == len(references)
    assert REFERENCE.findall(yaml.safe_dump(template.trialSpec)) == names
    given = dict(argument.split("=", 1) for argument in container["args"] if "trialParameters" in argument)
    by_name = {parameter.name: parameter.reference for parameter in template.trialParameters}
    for flag, value in given.items():
        assert flag.removeprefix("--").replace("-", "_") == by_name[REFERENCE.fullmatch(value)[1]]


@pytest.mark.parametrize("end", [0, 1])
def test_train_takes_the_arguments_with_either_end_of_each_parameter(experiment, container, end):
    template = experiment.spec.trialTemplate
    values = {parameter.name: values_of(parameter)[end] for parameter in experiment.spec.parameters}
    by_name = {parameter.name: values[parameter.reference] for parameter in template.trialParameters}
    verb, *flags = [REFERENCE.sub(lambda match: by_name[match[1]], argument) for argument in container["args"]]
    assert (container["command"], verb) == (["sat_xception"], "train")
    command = typer.main.get_command(app).commands[verb]
    with click.Context(command) as context:
        command.parse_args(context, flags)
    own = {key: value for key, value in context.params.items() if key in TrainConfig.model_fields}
    given = {key: value for key, value in own.items() if value not in (None, [], ())}
    config = load_config(TrainConfig, None, given)
    assert {name: str(getattr(config, name)) for name in ("optimizer", "head_units", "head_activation")} == {
        name: values[name] for name in ("optimizer", "head_units", "head_activation")
    }
    assert config.fine_tune_learning_rate == float(values["fine_tune_learning_rate"])


def test_katib_reads_the_accuracy_from_the_summary_and_from_nothing_else(experiment):
    result = TrainResult(Path("/work/model"), "mobilenetv2", "ImageNet weights", "head", 0.95204, 12, 3.0)
    progress = [
        "head      epoch 1/100  loss 0.6  accuracy 0.5000  validation loss 0.5  accuracy 0.6000 (best 0.6000)",
        "head      best validation accuracy 0.9800 after 12 epochs",
        "kept      the head: fine-tuning reached 0.9000, less than 0.9520",
    ]
    (pattern,) = experiment.spec.metricsCollectorSpec.source.filter.metricsFormat
    found = [
        match.groups() for line in [*progress, *result.summary().splitlines()] for match in re.finditer(pattern, line)
    ]
    objective = experiment.spec.objective
    assert found == [(objective.objectiveMetricName, "0.9520")]
    assert objective.type == "maximize"
    assert objective.metricStrategies == [Strategy(name=objective.objectiveMetricName, value="max")]


def test_the_algorithm_is_tpe_with_settings_it_has(experiment):
    assert experiment.spec.algorithm.algorithmName == "tpe"
    # pkg/suggestion/v1beta1/hyperopt/service.py refuses any other.
    known = {"gamma", "prior_weight", "n_EI_candidates", "random_state"}
    settings = experiment.spec.algorithm.algorithmSettings
    assert {setting.name for setting in settings} <= known
    assert all(setting.value.isdigit() for setting in settings)
    assert experiment.spec.parallelTrialCount <= experiment.spec.maxTrialCount


def test_the_pod_is_a_restricted_one(pod, container):
    assert pod["restartPolicy"] == "Never"
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"].keys() == {"requests", "limits"}
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/tmp", "/work"}
    assert container["image"].split("/")[-1].split(":")[0] in IMAGES
