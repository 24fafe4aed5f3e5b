"""The compiled pipelines against the fields of the KFP versions that clusters run."""

import pytest
import yaml

from tests.kfp_fields import VERSIONS, compiled_problems, problems


@pytest.fixture(scope="module")
def compiled(compiled_files):
    return [path.read_text() for path in compiled_files if not path.stem.endswith("-pipeline")]


def test_there_are_fields_of_the_version_that_people_have_and_of_the_newest():
    assert VERSIONS == ("2.16", "2.17")


def test_kfp_2_17_takes_both_pipelines(compiled):
    assert len(compiled) == 2
    assert [compiled_problems(text, "2.17") for text in compiled] == [[], []]


def test_kfp_2_16_takes_both_pipelines(compiled):
    """The Kubeflow distribution 26.03 ships 2.16.

    With one unknown field in the settings for Kubernetes, it runs a pipeline without any of them: no Secret, no node
    selector, no deadline.
    """
    assert [compiled_problems(text, "2.16") for text in compiled] == [[], []]


def test_what_came_after_2_16_is_found():
    text = yaml.safe_dump_all(
        [
            {"schemaVersion": "2.1.0"},
            {
                "platforms": {
                    "kubernetes": {"pipelineConfig": {"activeDeadlineSeconds": 1, "resource_ttl_on_success": 2}}
                }
            },
        ]
    )
    assert compiled_problems(text, "2.17") == []
    first, second = compiled_problems(text, "2.16")
    assert first == (
        "platforms.kubernetes.pipelineConfig.activeDeadlineSeconds: "
        "KFP 2.16 knows no field 'activeDeadlineSeconds' of PipelineConfig"
    )
    assert second.startswith("platforms.kubernetes.pipelineConfig.resource_ttl_on_success: ")


@pytest.mark.parametrize("version", VERSIONS)
def test_unknown_fields_are_found_wherever_they_stand(version):
    """The executors are structs in the proto file: KFP parses them when a run starts, as strictly."""
    executor = {"container": {"image": "x", "resources": {"accelerator": {"resourceType": "gpu", "kind": "gpu"}}}}
    platform = {"exec-a": {"secretAsEnv": [{"secret_name": "s", "optional": "yes"}], "tolerance": []}}
    text = yaml.safe_dump_all(
        [
            {"deploymentSpec": {"executors": {"exec-a": executor}}},
            {"platforms": {"kubernetes": {"deploymentSpec": {"executors": platform}}}},
        ]
    )
    assert [line.partition(": ")[0] for line in compiled_problems(text, version)] == [
        "deploymentSpec.executors.exec-a.container.resources.accelerator.kind",
        "platforms.kubernetes.deploymentSpec.executors.exec-a.secretAsEnv[0].optional",
        "platforms.kubernetes.deploymentSpec.executors.exec-a.tolerance",
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("maxRetryCount", "many"),
        ("backoffFactor", "2"),
        ("backoffDuration", 60),
        ("maxRetryCount", True),
    ],
)
def test_values_of_another_kind_are_found(field, value):
    """An integer may be a text of digits, as 64-bit integers are in protobuf's JSON; nothing else differs."""
    kind = "ml_pipelines.PipelineTaskSpec.RetryPolicy"
    assert len(problems({field: value}, kind, "2.17")) == 1


def test_integers_may_be_texts_of_digits():
    assert problems({"maxRetryCount": "2"}, "ml_pipelines.PipelineTaskSpec.RetryPolicy", "2.17") == []


def test_an_enum_has_its_names_alone():
    fields = {"strategy": "SOMETIMES"}
    assert len(problems(fields, "ml_pipelines.PipelineTaskSpec.TriggerPolicy", "2.17")) == 1
