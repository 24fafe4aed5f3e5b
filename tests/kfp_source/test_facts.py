"""What KFP's backend does that the pipelines are made around: each reason has its test, and fails once it is gone.

Skipped without $KFP_SOURCE.
"""

from __future__ import annotations

import pytest

from tests.kfp_source import small_pipelines as small

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # the first build takes minutes


@pytest.fixture
def take(walk, tmp_path):
    """Return a function that compiles a pipeline and returns how its runs end."""

    def taken(pipeline, *runs):
        return walk(small.compile_to(tmp_path, pipeline), *(runs or ({},)))

    return taken


def test_an_importer_cannot_read_its_address_from_a_task_beside_it(take):
    """It looks among the parameters of the group that it is in, and nowhere else."""
    (run,) = take(small.importer_of_a_task)
    assert run.phase == "Failed"
    assert "error resolving artifact URI: parent DAG does not have input parameter" in run["importer"]["error"]


def test_an_imported_artifact_is_the_same_in_the_next_run(take):
    first, second = take(small.importer_of_a_parameter, {}, {})
    assert (first["use"]["state"], second["use"]["state"]) == ("ran", "cached")


@pytest.mark.parametrize("address", ["/data/1", "file:///data/1"])
def test_an_importer_takes_no_folder(take, address):
    (run,) = take(small.importer_of_a_parameter, {"parameters": {"address": address}})
    assert f"no provider scheme found in artifact URI: {address}" in run["importer"]["error"]


def test_an_importer_with_another_name_is_not_found(take):
    (run,) = take(small.importer_with_a_name)
    assert 'cannot find producer task "importer_' in run["use"]["error"]


def test_what_is_cached_by_an_address_has_the_same_artifact_in_the_next_run(take):
    """So an artifact stays the same without an importer: a task that is cached by its parameters makes it."""
    outputs = {"say": {"out": "gs://a/data/1"}}
    first, same, other = take(
        small.kept_by_its_address,
        {"outputs": outputs},
        {"outputs": outputs, "parameters": {"limit": 0.9}},
        {"outputs": {"say": {"out": "gs://a/data/2"}}},
    )
    assert first.states() == other.states() | {"end": "ran"}
    assert same.states() == {"say": "ran", "make": "cached", "use": "cached", "end": "ran"}
    assert {other[name]["state"] for name in ("say", "make", "use")} == {"ran"}


def test_one_of_two_has_no_value_once_its_branch_is_cached(take):
    given = {"outputs": {"say": {"out": "y"}, "say-2": {"out": "yes"}}}
    first, second = take(small.one_of_two, given, given)
    assert (first.phase, second.phase) == ("Succeeded", "Failed")
    assert "processing OneOf: No successful task found" in second["end"]["error"]


def test_a_task_that_ignores_failures_runs_once_for_each_that_it_waits_for_and_breaks_the_run(take):
    (run,) = take(small.end_after_two)
    assert run["end"]["times"] == 2
    assert run.phase == "Failed"
    assert 'two tasks have the same task name "end_' in run["say-3"]["error"]


def test_a_task_that_ignores_failures_does_not_run_when_what_it_waits_for_never_began(take):
    ran, failed = take(small.end_after_the_last, {}, {"fail": ["say"]})
    assert ran["end"]["state"] == "ran"
    assert failed.states() == {"say": "failed", "say-2": "omitted"}


def test_an_exit_task_runs_however_the_run_ends_and_leaves_its_state(take):
    go, stay = {"outputs": {"say": {"out": "go"}}}, {"outputs": {"say": {"out": "stay"}}}
    runs = take(small.exit_handler, go, stay, go | {"fail": ["say-2"]}, go | {"lost": ["say-2"]}, {"fail": ["say"]})
    assert [run["tell"]["state"] for run in runs] == ["ran"] * 5
    assert [run.phase for run in runs] == ["Succeeded", "Succeeded", "Failed", "Failed", "Failed"]
    # Only a launcher tells how a group stands: where a condition says no, or a pod is lost, nobody does.
    told = [run["tell"]["executor_input"]["inputs"]["parameterValues"]["status"] for run in runs]
    assert [status["state"] for status in told] == ["COMPLETE", "RUNNING", "FAILED", "RUNNING", "FAILED"]
    assert {str(status["error"]) for status in told} == {"{}"}


def test_an_input_artifact_comes_without_the_title_of_its_type(take):
    (run,) = take(small.every_kind)
    (artifact,) = run["use"]["executor_input"]["inputs"]["artifacts"]["data"]["artifacts"]
    assert set(artifact) == {"name", "uri", "metadata", "type"}
    assert artifact["type"] == {"instanceSchema": ""}
    assert set(artifact["metadata"]) == {"display_name", "store_session_info"}


def test_a_mount_cannot_be_left_out_in_a_run(take):
    """So volumes are set when a pipeline is compiled; a claim may well be named in a run."""
    empty, named = take(small.mounts, {}, {"parameters": {"claim": "nas"}})
    assert empty.phase == "Failed"
    assert "failed to resolve pvc name" in empty["say"]["error"]
    assert "Expected a non-empty string" in empty["say"]["error"]
    assert [volume["name"] for volume in named["say"]["pod_spec"]["volumes"]] == ["nas"]


def test_a_claim_that_is_mounted_twice_makes_a_pod_that_kubernetes_refuses(take):
    (run,) = take(small.mounts_one_claim_twice)
    assert [volume["name"] for volume in run["say"]["pod_spec"]["volumes"]] == ["nas", "nas"]
