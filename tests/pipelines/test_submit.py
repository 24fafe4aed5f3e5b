"""`sat_xception submit` as people use it, against an API server that is as strict as the real one."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sat_xception.errors import ConfigError, ServiceError
from sat_xception.kubeflow import kfp_api as cluster_module
from sat_xception.kubeflow.settings import SubmitConfig
from sat_xception.kubeflow.submit import submit
from sat_xception.kubeflow.watch import StillRunningError
from tests.kfp_server import Fault
from tests.kfp_workflow import Look

QUICK = {"poll_s": 0.01}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(cluster_module, "_PAUSES_S", (0.01, 0.01, 0.01))
    for name in ("KFP_ENDPOINT", "KFP_NAMESPACE", "KFP_EXISTING_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def settings(server, small_yaml):
    return {"endpoint": server.url, "file": small_yaml, **QUICK}


def posted(server, path):
    return [request for request in server.requests if request.method == "POST" and request.path == path]


# The whole way


def test_the_pipeline_is_uploaded_run_and_waited_for(server, process):
    ended = process("submit", "--poll-s", "0.05")
    assert ended.returncode == 0, ended.stderr
    (version,) = server.all("pipeline_versions")
    assert server.all("pipelines")[0]["display_name"] == "school-classifier-training"
    assert version["display_name"].startswith("school-classifier-training-")
    (run,) = server.all("runs")
    assert run["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert f"{server.url}/#/runs/details/{run['run_id']}" in ended.stdout
    assert "SUCCEEDED in" in ended.stdout


def test_the_summary_counts_the_tasks(settings):
    assert "tasks     3 succeeded" in submit(SubmitConfig(**settings)).summary()


def test_parameters_arrive_with_the_types_that_the_pipeline_gives_them(server, settings, tmp_path):
    params = tmp_path / "params.yaml"
    params.write_text("recall: 0.5\nname: '123'\nseed: 1\n")
    given = ("seed=7", "accuracy=1", "data=2018=a", "augment=False", 'accept=["valid:*:*"]', 'labels={"a": "1"}')
    submit(SubmitConfig(**settings, params=params, param=given))
    sent = posted(server, "/runs")[0].body["runtime_config"]["parameters"]
    assert sent == {
        "recall": 0.5,
        "name": "123",
        "seed": 7,
        "accuracy": 1.0,
        "data": "2018=a",
        "augment": False,
        "accept": ["valid:*:*"],
        "labels": {"a": "1"},
    }
    assert [type(sent[name]) for name in ("seed", "data", "augment")] == [int, str, bool]


def test_the_same_pipeline_submitted_twice_is_one_version(server, settings):
    for _ in range(2):
        submit(SubmitConfig(**settings, wait=False))
    assert len(server.all("pipelines")) == len(server.all("pipeline_versions")) == len(server.all("experiments")) == 1
    assert len(server.all("runs")) == 2


def test_a_changed_pipeline_is_a_new_version_of_the_same_pipeline(server, settings, small_yaml, tmp_path):
    submit(SubmitConfig(**settings, wait=False))
    changed = tmp_path / "changed.yaml"
    changed.write_text(small_yaml.read_text().replace("registry.example/step:1", "registry.example/step:2"))
    submit(SubmitConfig(**{**settings, "file": changed}, wait=False))
    assert len(server.all("pipelines")) == 1
    assert len({version["display_name"] for version in server.all("pipeline_versions")}) == 2


def test_a_pipeline_whose_display_name_is_another_is_found_by_its_name(server, settings):
    body = {"name": "small-training", "display_name": "A small one"}
    pipeline = server._store("pipelines", "pipeline_id", body)
    submit(SubmitConfig(**settings, run=False))
    assert server.all("pipelines") == [pipeline]
    assert server.all("pipeline_versions")[0]["pipeline_id"] == pipeline["pipeline_id"]


def test_images_that_no_cluster_can_pull_are_warned_of(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr("components.images.LOCK_FILE", tmp_path / "nothing-was-pushed")
    monkeypatch.delenv("IMAGE_REGISTRY", raising=False)
    submit(SubmitConfig(dry_run=True))
    assert "are in no registry: make push REGISTRY=" in caplog.text
    caplog.clear()
    monkeypatch.setenv("IMAGE_REGISTRY", "registry.example/x")
    submit(SubmitConfig(dry_run=True))
    assert not caplog.text


def test_trainings_on_cpus_are_told_of(monkeypatch, caplog):
    monkeypatch.setenv("IMAGE_REGISTRY", "registry.example/x")
    monkeypatch.setenv("TRAIN_DEVICE", "cpu")
    caplog.set_level("INFO")
    submit(SubmitConfig(dry_run=True))
    assert "trainings use the CPU image registry.example/x/train:" in caplog.text


def test_no_run_only_uploads(server, settings):
    shown = submit(SubmitConfig(**settings, run=False)).summary()
    assert len(server.all("pipeline_versions")) == 1
    assert not server.all("runs") and not server.all("experiments")
    assert "uploaded" in shown and "/#/pipelines/details/" in shown


def test_names_and_service_account_are_taken(server, settings):
    submit(SubmitConfig(**settings, experiment="wells", run_name="first", service_account="trainer", wait=False))
    (run,) = server.all("runs")
    assert (run["display_name"], run["service_account"]) == ("first", "trainer")
    assert server.all("experiments")[0]["display_name"] == "wells"


def test_without_cache_every_task_of_the_run_has_caching_off_also_those_within_a_condition(server, settings):
    submit(SubmitConfig(**settings, cache=False, wait=False))
    (run,) = server.all("runs")
    assert "pipeline_version_reference" not in run and not server.all("pipeline_versions")
    spec = run["pipeline_spec"]["pipeline_spec"]
    dags = [component["dag"] for component in (spec["root"], *spec["components"].values()) if "dag" in component]
    tasks = {name: task for dag in dags for name, task in dag["tasks"].items()}
    assert {"step", "step-2", "step-3", "notify"} <= set(tasks)
    assert all(not task.get("cachingOptions", {}).get("enableCache") for task in tasks.values())
    assert "a-secret" in json.dumps(run["pipeline_spec"]["platform_spec"])


def test_on_a_multi_user_kubeflow_everything_is_in_the_namespace(server, settings):
    server.multi_user = True
    submit(SubmitConfig(**settings, namespace="team-a", wait=False))
    assert server.all("pipelines")[0]["namespace"] == server.all("experiments")[0]["namespace"] == "team-a"


# What is wrong before anything is sent


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("acuracy=0.9", r"unknown parameter 'acuracy' in --param; did you mean 'accuracy'\?"),
        ("seed=1.5", "'1.5' can't be read as a whole number"),
        ("accuracy=high", "'high' can't be read as a number"),
        ("accuracy=nan", "must be a number, got nan"),
        ("accept=a", "can't be read as a list in JSON"),
        ("augment=1", "can't be read as a true or false"),
        ("accept={}", r"must be a list, got \{\}"),
        ("seed", "must be NAME=VALUE"),
    ],
)
def test_a_wrong_parameter_is_an_error_before_anything_is_sent(server, settings, param, message):
    with pytest.raises(ConfigError, match=message):
        submit(SubmitConfig(**settings, param=(param,)))
    assert not server.requests


@pytest.mark.parametrize("line", ["seed: '7'", "seed: 7.0", "seed: true", "data: 2018", "accept: all", "augment: 1"])
def test_a_value_of_another_type_in_the_file_is_not_guessed_at(server, settings, tmp_path, line):
    params = tmp_path / "params.yaml"
    params.write_text(line)
    with pytest.raises(ConfigError, match="must be a"):
        submit(SubmitConfig(**settings, params=params))
    assert not server.requests


def test_a_wrong_parameter_ends_the_command_with_2(command):
    ended = command("submit", "--param", "no_such_thing=1")
    assert ended.returncode == 2
    assert "unknown parameter 'no_such_thing' in --param" in ended.stderr and "Traceback" not in ended.stderr


def test_wrong_settings_end_the_command_with_2_before_anything_is_sent(server, tmp_path, command):
    params = tmp_path / "params.yaml"
    params.write_text("gate_min_accuracy: 2.0\nsettings: {train: {batch_size: 0}, gate: {min_gian: 1}}\n")
    ended = command("submit", "--params", params)
    assert ended.returncode == 2
    for told in ("gate_min_accuracy: Input", "train.batch_size: Input", "did you mean gate.min_gain?"):
        assert told in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not server.requests


@pytest.mark.parametrize(("content", "message"), [("a: [", "not valid YAML"), ("a: 1", "is no compiled pipeline")])
def test_a_file_that_is_no_pipeline_is_refused(settings, tmp_path, content, message):
    path = tmp_path / "p.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        submit(SubmitConfig(**{**settings, "file": path}))


def test_dry_run_says_what_would_be_sent_and_needs_no_server(settings):
    config = SubmitConfig(**{**settings, "endpoint": ""}, param=("seed=7",), dry_run=True)
    shown = submit(config).summary()
    for expected in ("nothing was sent", "small-training-", "seed = 7", "more at their defaults"):
        assert expected in shown


# How a run ends

FAILING = (
    Look("RUNNING", {"step": "SUCCEEDED", "step-2": "RUNNING"}),
    Look(
        "FAILED",
        {
            "step": "SUCCEEDED",
            "step-2": "FAILED: main: Error (exit code 3)",
            "notify": "SUCCEEDED",
        },
    ),
)


def test_a_failed_run_ends_with_4_and_names_the_task_its_reason_and_where_the_log_is(server, command, small_yaml):
    server.timeline = FAILING
    server.logs["step-2.executor"] = "error     no tiles in gs://bucket\n"
    ended = command("submit", "--file", small_yaml, "--poll-s", "0.05")
    assert ended.returncode == 4
    (run,) = server.all("runs")
    for expected in (
        "the run ended FAILED: 1 task failed",
        "Train it (step-2): main: Error (exit code 3)",
        "| error     no tiles in gs://bucket",
        "more: kubectl logs -n kubeflow small-",
        f"/#/runs/details/{run['run_id']}",
    ):
        assert expected in ended.stderr
    assert not re.search("notify|exit-handler|no reason", ended.stderr.split("the run ended")[1])


def test_in_a_log_each_change_of_a_task_is_one_line(server, command, small_yaml):
    server.timeline = (Look("RUNNING", {"step-2": "RUNNING"}),) * 3 + FAILING
    log = command("submit", "--file", small_yaml, "--poll-s", "0.02").stderr
    assert log.count("running   Train it (step-2)\n") == 1
    assert log.count("failed    Train it (step-2)\n") == 1
    assert "executor" not in log and "driver" not in log


def test_on_a_terminal_a_table_follows_the_tasks(server, environment, small_yaml):
    ours, theirs = pty.openpty()
    line = [sys.executable, "-m", "sat_xception", "submit", "--file", str(small_yaml), "--poll-s", "0.1"]
    child = subprocess.Popen(line, env={**environment, "TERM": "xterm"}, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # what a terminal says when the other side is closed
        while piece := os.read(ours, 4096):
            shown += piece
    os.close(ours)
    assert child.wait(timeout=60) == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"Train it \(step-2\)\W+RUNNING", plain)
    assert re.search(r"Train it \(step-2\)\W+SUCCEEDED", plain)


def test_when_the_time_is_over_the_run_goes_on(server, settings):
    server.timeline = (Look("RUNNING"),)
    with pytest.raises(StillRunningError, match=r"hasn't ended within .* goes on: http") as caught:
        submit(SubmitConfig(**settings, timeout_s=0.05))
    assert caught.value.exit_code == 4
    assert len(server.all("runs")) == 1


def test_ctrl_c_leaves_the_run_going_and_says_so(server, environment, small_yaml):
    server.timeline = (Look("RUNNING", {"step": "RUNNING"}),)
    line = [sys.executable, "-m", "sat_xception", "submit", "--file", str(small_yaml), "--poll-s", "0.05"]
    child = subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 60
    while not any(request.path.startswith("/runs/") for request in server.requests):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, shown = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "the run goes on: http" in shown and "Traceback" not in shown
    assert "run the same command again" not in shown
    assert len(server.all("runs")) == 1


# When the server is in trouble


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("path", ["/pipelines$", "/pipelines/upload_version$", "/experiments$", "/runs$"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_passing_refusal_is_tried_again_and_nothing_is_made_twice(server, settings, method, path, status):
    server.faults = [Fault(method, path, status, times=2)]
    submit(SubmitConfig(**settings))
    assert [len(server.all(kind)) for kind in ("pipelines", "pipeline_versions", "experiments", "runs")] == [1] * 4


@pytest.mark.parametrize("status", [0, 500, 502, 503, 504])
@pytest.mark.parametrize("path", ["/pipelines$", "/pipelines/upload_version$", "/experiments$", "/runs$"])
def test_a_lost_answer_makes_nothing_twice(server, settings, path, status):
    server.faults = [Fault("POST", path, status, done=True)]
    submit(SubmitConfig(**settings))
    assert [len(server.all(kind)) for kind in ("pipelines", "pipeline_versions", "experiments", "runs")] == [1] * 4


@pytest.mark.parametrize("status", [0, 502, 504])
def test_a_run_that_may_still_be_made_is_not_asked_for_again(server, settings, status):
    server.faults = [Fault("POST", "/runs$", status)]
    with pytest.raises(ServiceError, match="the run isn't there yet, but may still be made: look before you try again"):
        submit(SubmitConfig(**settings))
    assert len(posted(server, "/runs")) == 1


def test_trouble_that_lasts_ends_with_4(server, settings):
    server.faults = [Fault("GET", "/pipelines$", 503, times=99)]
    with pytest.raises(ServiceError, match="HTTP 503") as caught:
        submit(SubmitConfig(**settings))
    assert caught.value.exit_code == 4
    assert len(server.requests) == 4


def test_the_wait_outlives_a_server_that_is_away(server, settings):
    server.faults = [Fault("GET", "/runs/", 503, times=9), Fault("GET", "/runs/", 0, times=9)]
    assert "SUCCEEDED" in submit(SubmitConfig(**settings)).summary()


def test_a_server_that_stays_away_ends_the_wait_with_4_and_the_run_goes_on(server, settings, monkeypatch):
    monkeypatch.setattr("sat_xception.kubeflow.watch._PATIENCE_S", 0.05)
    server.faults = [Fault("GET", "/runs/", 503, times=999)]
    with pytest.raises(StillRunningError, match=r"lost sight of the run, which goes on: http.*HTTP 503") as caught:
        submit(SubmitConfig(**settings))
    assert caught.value.exit_code == 4


def test_an_address_that_is_not_kubeflows_is_told_apart(server, settings):
    with pytest.raises(
        ServiceError, match=r"doesn't speak Kubeflow Pipelines' API: /pipelines is text/html.*--endpoint"
    ):
        submit(SubmitConfig(**{**settings, "endpoint": f"{server.url}/elsewhere"}))


def test_a_redirection_to_a_login_asks_for_a_token(server, settings):
    server.faults = [Fault("GET", "/pipelines$", 302, headers={"Location": "/dex/auth"})]
    with pytest.raises(ServiceError, match=r"HTTP 302.* a bearer token is missing"):
        submit(SubmitConfig(**settings))


def test_the_server_says_how_long_to_wait(server, settings, monkeypatch):
    slept = []
    monkeypatch.setattr("sat_xception.http_clients.time.sleep", slept.append)
    server.faults = [Fault("GET", "/pipelines$", 429, headers={"Retry-After": "7"})]
    submit(SubmitConfig(**settings, run=False))
    assert slept == [7.0]


def test_an_endpoint_that_does_not_answer_ends_with_4_and_the_way_to_reach_it(command, closed_port, small_yaml):
    ended = command("submit", "--file", small_yaml, "--endpoint", f"http://127.0.0.1:{closed_port}")
    assert ended.returncode == 4
    assert "kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_without_an_endpoint_it_ends_with_2_and_the_way_to_reach_one(command, small_yaml):
    ended = command("submit", "--file", small_yaml, KFP_ENDPOINT="")
    assert ended.returncode == 2
    assert "--endpoint or $KFP_ENDPOINT" in ended.stderr and "port-forward" in ended.stderr


@pytest.mark.parametrize("endpoint", ["localhost:8080", "http://", "http://me:secret@host"])
def test_what_is_no_address_is_refused_without_showing_a_password(settings, endpoint):
    with pytest.raises(ConfigError, match=r"http\(s\)://host:port") as caught:
        submit(SubmitConfig(**{**settings, "endpoint": endpoint}))
    assert "secret" not in str(caught.value)


# Tokens


def test_the_token_comes_from_the_environment(server, settings, monkeypatch):
    server.token = "s3cret"
    monkeypatch.setenv("MY_TOKEN", "s3cret\n")
    submit(SubmitConfig(**settings, token_env="MY_TOKEN"))
    assert len(server.all("runs")) == 1


def test_a_refused_token_is_masked_and_the_message_says_where_it_comes_from(server, settings, monkeypatch):
    server.token = "right"
    monkeypatch.setenv("KFP_EXISTING_TOKEN", "wr0ng-token")
    with pytest.raises(
        ServiceError, match=r"HTTP 401.*\*\*\*.*a bearer token was sent: it comes from \$KFP_EXISTING_TOKEN"
    ) as caught:
        submit(SubmitConfig(**settings))
    assert "wr0ng-token" not in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("token", ["s3cret\nand more", "s3cret and", "s3crét"])
def test_what_can_be_no_token_is_refused_without_showing_it(server, settings, monkeypatch, token):
    monkeypatch.setenv("KFP_EXISTING_TOKEN", token)
    with pytest.raises(ConfigError, match=r"\$KFP_EXISTING_TOKEN holds no token") as caught:
        submit(SubmitConfig(**settings))
    assert "s3cr" not in str(caught.value)


def test_a_token_file_is_read_anew_for_each_request(server, settings, tmp_path):
    path = tmp_path / "token"
    path.write_text("first")
    server.timeline = (Look("RUNNING"), Look("SUCCEEDED"))
    look = server._look_at_run

    def renewed(request, run_id):
        server.token = "second"
        path.write_text("second")
        return look(request, run_id)

    server._look_at_run = renewed
    submit(SubmitConfig(**settings, token_file=path))
    assert {request.authorization for request in server.requests} == {"Bearer first", "Bearer second"}
