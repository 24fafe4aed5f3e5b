"""The cache key that tests compute in Python is that of KFP's backend."""

import copy

import pytest

from tests.kfp_cache_key import _go_json, cache_key, fingerprint
from tests.kfp_source import small_pipelines as small
from tests.kfp_source.cases import BULK_PARAMETERS, TRAINING, planned

_ROOT = "minio://mlpipeline/v2/artifacts/every-kind/run-0"
# The task `use` of `small_pipelines.every_kind`, as the driver of KFP 2.17.0 resolved it and the key that it computed.
EXECUTOR_INPUT = {
    "inputs": {
        "artifacts": {
            "data": {
                "artifacts": [
                    {
                        "name": "10",
                        "type": {"instanceSchema": ""},
                        "uri": f"{_ROOT}/make/eb6fd4ab/data",
                        "metadata": {"display_name": "data"},
                    }
                ]
            }
        },
        "parameterValues": {
            "count": 3,
            "more": {"a": 2, "b": {"c": False}},
            "names": ["a", 1, []],
            "share": 1e-07,
            "text": "<a> & é",
            "yes": True,
        },
    },
    "outputs": {
        "parameters": {"score": {"outputFile": "/tmp/kfp/outputs/score"}},
        "artifacts": {
            "executor-logs": {
                "artifacts": [
                    {
                        "name": "executor-logs",
                        "type": {"schemaTitle": "system.Artifact"},
                        "uri": f"{_ROOT}/use/a84f191f/executor-logs",
                    }
                ]
            },
            "model": {
                "artifacts": [
                    {
                        "name": "model",
                        "type": {"schemaTitle": "system.Model", "schemaVersion": "0.0.1"},
                        "uri": f"{_ROOT}/use/a84f191f/model",
                    }
                ]
            },
        },
        "outputFile": "/minio/mlpipeline/v2/artifacts/every-kind/run-0/use/a84f191f/output_metadata.json",
    },
}
COMPONENT = {"outputDefinitions": {"parameters": {"score": {"parameterType": "NUMBER_DOUBLE"}}}}
CONTAINER = {
    "image": "busybox:1",
    "command": ["sh", "-c", "true && : <é>"],
    "args": [
        "{{$.inputs.artifacts['data'].path}}",
        *(f"{{{{$.inputs.parameters['{name}']}}}}" for name in ("text", "count", "share", "yes", "names", "more")),
        "{{$.outputs.artifacts['model'].path}}",
        "{{$.outputs.parameters['score'].output_file}}",
    ],
}
RECORDED = "b6ee03d2d817536027be0e49a5f86b6b945775adf89d800e12f18460bc24bb60"


def key(**changed) -> str:
    given = {"executor_input": copy.deepcopy(EXECUTOR_INPUT), "component": COMPONENT, "container": CONTAINER}
    return fingerprint(**given | changed)


def test_the_key_is_the_one_that_the_backend_computed():
    assert key() == RECORDED


def test_addresses_and_metadata_of_inputs_and_outputs_are_not_in_the_key():
    other = copy.deepcopy(EXECUTOR_INPUT)
    (data,) = other["inputs"]["artifacts"]["data"]["artifacts"]
    data |= {"uri": "gs://elsewhere", "metadata": {}, "type": {}}
    other["outputs"]["artifacts"]["model"]["artifacts"][0]["uri"] = "gs://elsewhere"
    other["outputs"]["outputFile"] = "/elsewhere"
    assert key(executor_input=other) == RECORDED


def test_variables_and_resources_of_the_container_are_not_in_the_key():
    others = {"env": [{"name": "A", "value": "1"}], "resources": {"resourceCpuLimit": "4"}}
    assert key(container=CONTAINER | others) == RECORDED


@pytest.mark.parametrize(
    "changed",
    [
        {"container": CONTAINER | {"image": "busybox:2"}},
        {"container": CONTAINER | {"args": []}},
        {"volume_claims": ["data"]},
        {"component": {"outputDefinitions": {"parameters": {"score": {"parameterType": "STRING"}}}}},
    ],
)
def test_image_arguments_claims_and_types_of_outputs_are_in_the_key(changed):
    assert key(**changed) != RECORDED


def test_the_id_of_an_input_and_each_parameter_are_in_the_key():
    keys = {RECORDED}
    for name in EXECUTOR_INPUT["inputs"]["parameterValues"]:
        other = copy.deepcopy(EXECUTOR_INPUT)
        del other["inputs"]["parameterValues"][name]
        keys.add(key(executor_input=other))
    other = copy.deepcopy(EXECUTOR_INPUT)
    other["inputs"]["artifacts"]["data"]["artifacts"][0]["name"] = "11"
    keys.add(key(executor_input=other))
    assert len(keys) == 8


def test_claims_are_in_order_and_once():
    assert key(volume_claims=["b", "a", "b"]) == key(volume_claims=["a", "b"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.0, "3"),
        (0.1, "0.1"),
        (0.00001, "0.00001"),
        (1e-6, "0.000001"),
        (1.5e-7, "1.5e-7"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (-2.5, "-2.5"),
        (True, "true"),
        (None, "null"),
        ("<é>&\u2028", '"\\u003cé\\u003e\\u0026\\u2028"'),
        ({"b": [], "a": {}}, '{"a":{},"b":[]}'),
    ],
)
def test_json_is_written_as_go_writes_it(value, text):
    """Compared with Go 1.26's encoding/json over 6,000 random numbers, 2026-11-30."""
    assert _go_json(value) == text


def test_a_task_without_inputs_and_outputs_has_a_key_of_its_container():
    assert cache_key({}, {}, {"image": "a"}) == {"containerSpec": {"image": "a"}}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_task_of_both_pipelines_has_the_key_that_the_backend_computes(walk, compiled, tmp_path):
    bulk = {"parameters": BULK_PARAMETERS, "outputs": planned(["1/1"])}
    runs = [
        *walk(small.compile_to(tmp_path, small.every_kind), {}),
        *walk(compiled["training"], TRAINING["defaults"][0]),
        *walk(compiled["bulk-inference"], bulk),
    ]
    tasks = [task for run in runs for task in run.tasks.values() if task.get("fingerprint")]
    assert len(tasks) >= 3
    for task in tasks:
        assert fingerprint(task["executor_input"], task["component"], task["container"]) == task["fingerprint"]
