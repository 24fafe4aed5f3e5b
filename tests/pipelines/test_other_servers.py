"""An address that answers JSON of something else than Kubeflow Pipelines, and what an answer can lack."""

import json
import time

import pytest

from sat_xception.errors import ConfigError
from sat_xception.kubeflow import kfp_api as cluster_module
from sat_xception.kubeflow.kfp_api import KfpError
from sat_xception.kubeflow.schedule import apply, delete, list_schedules
from sat_xception.kubeflow.settings import ApplyConfig, DeleteConfig, KfpConfig, ListConfig, SubmitConfig
from sat_xception.kubeflow.submit import submit
from sat_xception.kubeflow.watch import StillRunningError
from tests.dripping_server import KINDS, dripping_server
from tests.kfp_server import Fault
from tests.kfp_workflow import Look

OTHERS = [
    "[]",
    "null",
    '"ok"',
    "5",
    "true",
    "{}",
    '{"items": [], "kind": "List"}',
    '{"pipelines": [], "recurringRuns": [], "experiments": []}',
    '{"recurringRuns": null, "pipelines": null}',
    '{"recurringRuns": 5, "pipelines": "no"}',
    '{"recurringRuns": {}, "pipelines": {"a": 1}}',
    '{"recurringRuns": [5], "pipelines": [null]}',
    '{"recurringRuns": [{}], "pipelines": [{}]}',
    '{"recurringRuns": [{"recurring_run_id": 7, "experiment_id": "e"}], "pipelines": [{"pipeline_id": 7}]}',
    '{"recurringRuns": [{"recurring_run_id": "../x", "experiment_id": "e"}], "pipelines": [{"pipeline_id": ""}]}',
    '{"next_page_token": 5}',
    "[" * 100_000 + "]" * 100_000,
]
ITEM = {"recurring_run_id": "r-1", "experiment_id": "e-1", "display_name": "nightly"}
SCHEDULE = "name: nightly\npipeline: small-training\ncron: '0 0 3 * * 1'\n"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(cluster_module, "_PAUSES_S", (0.01, 0.01, 0.01))
    for name in ("KFP_ENDPOINT", "KFP_NAMESPACE", "KFP_EXISTING_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def refused(action, *texts):
    with pytest.raises(KfpError) as caught:
        action()
    assert caught.value.exit_code == 4
    for text in ("doesn't speak Kubeflow Pipelines' API", "check --endpoint", *texts):
        assert text in str(caught.value)


@pytest.mark.parametrize("body", OTHERS, ids=lambda body: body[:40])
def test_another_servers_json_is_no_list_of_schedules_and_no_place_for_a_pipeline(server, small_yaml, tmp_path, body):
    server.faults = [Fault("", "", 200, times=999, body=body)]
    file = tmp_path / "schedule.yaml"
    file.write_text(SCHEDULE)
    at = {"endpoint": server.url}
    refused(lambda: list_schedules(ListConfig(**at)))
    refused(lambda: delete(DeleteConfig(**at, names=("nightly",))))
    refused(lambda: apply(ApplyConfig(**at, file=file)))
    refused(lambda: submit(SubmitConfig(**at, file=small_yaml, wait=False)))
    refused(lambda: submit(SubmitConfig(**at, file=small_yaml, wait=False, cache=False)))
    assert not server.changing()


def test_a_kubeflow_without_schedules_has_none(server):
    """Without one the API server answers {} (EmitUnpopulated is false in common/utils.go, CustomMarshaler)."""
    assert "no schedules at" in list_schedules(ListConfig(endpoint=server.url)).summary()
    assert [request.path for request in server.requests] == ["/recurringruns", "/healthz"]


UI_READY = {"apiServerReady": True, "apiServerMultiUser": False, "multi_user": False, "buildDate": "", "tag_name": None}


@pytest.mark.parametrize(
    "health",
    [
        {"commit_sha": "unknown", "tag_name": "unknown", "multi_user": False},
        {"commit_sha": "7b70c7b95f", "tag_name": "2.17.0", "multi_user": True, "pipeline_store": "kubernetes"},
        UI_READY,
        {"apiServerReady": False, "buildDate": "", "frontendCommitHash": ""},
    ],
    ids=["2.5", "2.17", "through the UI", "through the UI, API server just away"],
)
def test_kubeflow_is_known_by_its_health(server, health):
    """2.5 to 2.17 (apiserver/main.go), and the UI's server in their stead (frontend/server/handlers/healthz.ts)."""
    server.faults = [Fault("GET", "/healthz$", 200, body=json.dumps(health))]
    assert "no schedules at" in list_schedules(ListConfig(endpoint=server.url)).summary()


@pytest.mark.parametrize("health", ["[]", '{"status": "UP"}', '{"multi_user": false}', '{"multi_user": "no"}'])
def test_another_health_is_another_server(server, health):
    server.faults = [Fault("GET", "/healthz$", 200, body=health)]
    refused(lambda: list_schedules(ListConfig(endpoint=server.url)))


@pytest.mark.parametrize("kind", ["POST /pipelines$", "POST /upload_version$", "POST /experiments$", "POST /runs$"])
def test_what_was_made_is_looked_at(server, small_yaml, kind):
    method, path = kind.split()
    server.faults = [Fault(method, path, 200, body="{}")]
    refused(lambda: submit(SubmitConfig(endpoint=server.url, file=small_yaml, wait=False)), "is missing")


@pytest.mark.parametrize(
    "content",
    [
        {"recurringRuns": [ITEM], "next_page_token": "again"},
        {"recurringRuns": [], "next_page_token": "again"},
    ],
    ids=["the same page", "an empty page"],
)
def test_a_list_without_an_end_ends(server, content):
    server.faults = [Fault("GET", "/recurringruns$", 200, times=9999, body=json.dumps(content))]
    refused(lambda: list_schedules(ListConfig(endpoint=server.url)), "has no end")
    assert len(server.requests) <= 3


@pytest.mark.parametrize(
    "broken",
    [
        {"trigger": []},
        {"trigger": {"periodic_schedule": {"interval_second": "soon"}}},
        {"trigger": {"cron_schedule": {"start_time": "tomorrow"}}},
        {"max_concurrency": "many"},
        {"max_concurrency": [1]},
        {"pipeline_version_reference": {}},
        {"pipeline_version_reference": "latest"},
        {"runtime_config": {"parameters": [1]}},
        {"mode": 1},
        {"display_name": {"a": 1}},
    ],
    ids=json.dumps,
)
def test_a_schedule_with_a_field_of_another_type_is_named(server, broken):
    body = json.dumps({"recurringRuns": [ITEM, {**ITEM, **broken}]})
    server.faults = [Fault("GET", "/recurringruns$", 200, body=body)]
    refused(lambda: list_schedules(ListConfig(endpoint=server.url)), f"recurringRuns[1].{next(iter(broken))}")


def test_a_pipeline_that_is_an_argo_workflow_is_told_from_one_that_can_be_scheduled(server, small_yaml, tmp_path):
    """Kubeflow Pipelines still keeps v1 pipelines, whose spec is the Workflow."""
    submit(SubmitConfig(endpoint=server.url, file=small_yaml, run=False))
    (version,) = server.all("pipeline_versions")
    version["pipeline_spec"] = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "spec": {}}
    file = tmp_path / "schedule.yaml"
    file.write_text(SCHEDULE)
    with pytest.raises(ConfigError, match=r"small-training.* has no v2 pipeline in it"):
        apply(ApplyConfig(endpoint=server.url, file=file))


# While a run is watched


def watched(server, small_yaml):
    return submit(SubmitConfig(endpoint=server.url, file=small_yaml, poll_s=0.01))


@pytest.mark.parametrize(
    "body",
    [
        "[]",
        "{}",
        '{"run_id": "a", "state": 3}',
        '{"run_id": "a", "run_details": []}',
        '{"run_id": "a", "run_details": {"task_details": 5}}',
        '{"run_id": "a", "run_details": {"task_details": [null]}}',
        '{"run_id": "a", "run_details": {"task_details": [{"state": []}]}}',
        '{"run_id": "a", "run_details": {"task_details": [{"error": "no"}]}}',
    ],
)
def test_a_look_that_is_no_run_ends_the_wait_and_the_run_goes_on(server, small_yaml, body):
    server.faults = [Fault("GET", "/runs/", 200, body=body)]
    with pytest.raises(StillRunningError, match=r"lost sight of the run, which goes on: http.*doesn't speak Kubeflow"):
        watched(server, small_yaml)


def test_a_run_that_the_server_cannot_show_ends_the_wait(server, small_yaml):
    """Where the API server can't convert a run it sends its ids and an error, and no state (toApiRun)."""
    body = {"run_id": "a", "experiment_id": "e", "error": {"code": 13, "message": "Failed to parse runtime config"}}
    server.faults = [Fault("GET", "/runs/", 200, times=99, body=json.dumps(body))]
    with pytest.raises(StillRunningError, match=r"can't show the run: Failed to parse runtime config"):
        watched(server, small_yaml)


def test_a_run_that_was_deleted_is_gone(server, small_yaml):
    server.timeline = (Look("RUNNING"),)
    look = server._look_at_run

    def deleted(request, run_id):
        answer = look(request, run_id)
        server.stored["runs"].clear()
        return answer

    server._look_at_run = deleted
    with pytest.raises(KfpError, match=r"the run .* isn't at http.* any more; somebody deleted it") as caught:
        watched(server, small_yaml)
    assert caught.value.exit_code == 4 and "goes on" not in str(caught.value)


def test_a_404_of_a_gateway_says_nothing_about_a_run(server, small_yaml):
    server.faults = [Fault("GET", "/runs/", 404, body='{"reason": "default backend"}')]
    with pytest.raises(StillRunningError, match=r"lost sight of the run, which goes on.*is it Kubeflow Pipelines\?"):
        watched(server, small_yaml)


def test_a_404_of_a_gateway_deletes_no_schedule(server):
    recurring_run = server._store("recurring_runs", "recurring_run_id", {**ITEM, "mode": "DISABLE"})
    server.faults = [Fault("DELETE", "/recurringruns/", 404, body='{"reason": "default backend"}')]
    with pytest.raises(KfpError, match="HTTP 404"):
        delete(DeleteConfig(endpoint=server.url, names=("nightly",)))
    assert server.all("recurring_runs") == [recurring_run]


# Deadlines


@pytest.mark.parametrize("kind", KINDS)
def test_the_deadline_of_a_request_holds_whatever_the_server_drips(kind):
    with dripping_server(kind) as url:
        started = time.monotonic()
        with pytest.raises(KfpError, match=r"no whole answer within .* s; if it is only slow, raise") as caught:
            list_schedules(ListConfig(endpoint=url, request_timeout_s=0.5))
        assert 0.4 < time.monotonic() - started < 10
    assert caught.value.exit_code == 4


def test_repetitions_are_within_the_deadline(server, monkeypatch):
    monkeypatch.setattr(cluster_module, "_PAUSES_S", (0.2, 0.2, 60.0))
    server.faults = [Fault("GET", "/recurringruns$", 503, times=99)]
    with pytest.raises(KfpError, match="HTTP 503"):
        list_schedules(ListConfig(endpoint=server.url, request_timeout_s=5.0))
    assert len(server.requests) == 3


def test_a_server_that_asks_for_more_patience_than_there_is_gets_none(server):
    server.faults = [Fault("GET", "/recurringruns$", 503, times=99, headers={"Retry-After": "20"})]
    with pytest.raises(KfpError, match="HTTP 503"):
        list_schedules(ListConfig(endpoint=server.url, request_timeout_s=5.0))
    assert len(server.requests) == 1


def test_the_help_says_that_the_timeout_includes_retries():
    assert "including retries" in KfpConfig.model_fields["request_timeout_s"].description


def test_an_address_that_no_name_lookup_takes_is_a_wrong_setting():
    with pytest.raises(ConfigError, match=r"--endpoint http://a\.\.b is no address"):
        list_schedules(ListConfig(endpoint="http://a..b"))
