"""`sat_xception schedule`: the server's recurring runs become what the file says, once, and no run is killed for it."""

import json
from pathlib import Path

import pytest
import yaml

from sat_xception.errors import ConfigError, ServiceError
from sat_xception.kubeflow import kfp_api as cluster_module
from sat_xception.kubeflow.schedule import apply, delete, list_schedules
from sat_xception.kubeflow.settings import ApplyConfig, DeleteConfig, ListConfig, SubmitConfig
from sat_xception.kubeflow.submit import submit
from tests.kfp_server import Fault

EXAMPLE = Path(__file__).parents[2] / "pipelines" / "schedule.example.yaml"
WEEKLY = {
    "name": "weekly",
    "pipeline": "small-training",
    "cron": "0 0 3 * * 1",
    "parameters": {"seed": 7, "accuracy": 0.9, "name": "12", "augment": False, "accept": ["*:*:*"]},
}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(cluster_module, "_PAUSES_S", (0.01, 0.01, 0.01))
    for name in ("KFP_ENDPOINT", "KFP_NAMESPACE", "KFP_EXISTING_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def uploaded(server, small_yaml):
    """The server, with the small pipeline on it."""
    submit(SubmitConfig(endpoint=server.url, file=small_yaml, run=False))
    return server


@pytest.fixture
def another_version(uploaded, small_yaml, tmp_path):
    """Return a function that uploads a newer version, in which a text is replaced; it returns the version's name."""

    def upload(old: str = "example/step:1", new: str = "example/step:2") -> str:
        path = tmp_path / "newer.yaml"
        path.write_text(small_yaml.read_text().replace(old, new))
        submit(SubmitConfig(endpoint=uploaded.url, file=path, run=False))
        return uploaded.all("pipeline_versions")[-1]["display_name"]

    return upload


@pytest.fixture
def applied(uploaded, tmp_path):
    """Return a function that applies a schedule, WEEKLY with changes, and returns what was said."""

    def run(*schedules: dict, dry_run: bool = False, **changed: object) -> str:
        path = tmp_path / "schedule.yaml"
        path.write_text(yaml.safe_dump_all(schedules or [{**WEEKLY, **changed}]))
        uploaded.requests.clear()
        return apply(ApplyConfig(endpoint=uploaded.url, file=path, dry_run=dry_run)).summary()

    return run


def the_schedule(server):
    (found,) = server.all("recurring_runs")
    return found


# Created, unchanged, updated


def test_a_new_schedule_is_enabled_and_its_parameters_keep_their_types(uploaded, applied):
    assert applied().startswith("created   weekly\n")
    (sent,) = [request.body for request in uploaded.requests if request.path == "/recurringruns" and request.body]
    assert sent["mode"] == "ENABLE"
    assert sent["runtime_config"]["parameters"] == WEEKLY["parameters"]
    assert [type(sent["runtime_config"]["parameters"][name]) for name in ("seed", "accuracy")] == [int, float]
    assert sent["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * 1"}}
    assert (sent["max_concurrency"], sent["no_catchup"]) == ("1", True)
    assert the_schedule(uploaded)["status"] == "ENABLED"


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"cron": None, "interval_s": 3600},
        {"start": "2027-01-01T00:00:00Z", "end": "2027-06-01T02:00:00+02:00"},
        {"service_account": "trainer", "description": "each week", "enabled": False, "catchup": True},
        {"max_concurrency": 10, "parameters": {}},
    ],
)
def test_a_second_apply_changes_nothing(uploaded, applied, changed):
    applied(**changed)
    first = the_schedule(uploaded)
    assert applied(**changed).startswith("unchanged weekly\n")
    assert not uploaded.changing()
    assert the_schedule(uploaded) == first


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({"cron": "0 0 4 * * 1"}, 'cron: "0 0 3 * * 1" -> "0 0 4 * * 1"'),
        ({"cron": None, "interval_s": 60}, "interval: 0 -> 60"),
        ({"parameters": {"seed": 8}}, '-> {"seed": 8}'),
        ({"max_concurrency": 2}, "max_concurrency: 1 -> 2"),
        ({"catchup": True}, "catchup: false -> true"),
        ({"experiment": "wells"}, "experiment: "),
        ({"description": "new"}, 'description: "" -> "new"'),
        ({"service_account": "trainer"}, 'service account: "pipeline-runner" -> "trainer"'),
        ({"start": "2027-01-01T00:00:00Z"}, 'start: "" -> "2027-01-01T00:00:00Z"'),
    ],
)
def test_a_change_replaces_the_schedule_and_says_what_changed(uploaded, applied, changed, shown):
    applied()
    before = the_schedule(uploaded)["recurring_run_id"]
    said = applied(**changed)
    assert said.startswith("updated   weekly\n") and shown in said
    assert the_schedule(uploaded)["recurring_run_id"] != before
    assert applied(**changed).startswith("unchanged")


def test_the_new_one_is_made_before_the_old_one_is_taken_away(uploaded, applied):
    applied()
    applied(max_concurrency=2)
    done = [(request.method, request.path.rpartition(":")[2]) for request in uploaded.changing()]
    assert [method for method, _ in done] == ["POST", "POST", "DELETE"]
    assert done[0][1] == "/recurringruns" and done[1][1] == "disable"


def test_enabling_and_disabling_is_done_in_place(uploaded, applied):
    applied()
    before = the_schedule(uploaded)["recurring_run_id"]
    assert applied(enabled=False).startswith("updated   weekly\n          enabled: true -> false\n")
    assert the_schedule(uploaded)["status"] == "DISABLED"
    assert applied(enabled=True).startswith("updated   weekly\n          enabled: false -> true\n")
    assert the_schedule(uploaded)["status"] == "ENABLED"
    assert the_schedule(uploaded)["recurring_run_id"] == before


def test_a_schedule_that_kfp_made_with_texts_for_numbers_is_put_right(uploaded, applied):
    applied()
    the_schedule(uploaded)["runtime_config"]["parameters"]["seed"] = "7"
    assert '"seed": "7"' in applied()
    assert the_schedule(uploaded)["runtime_config"]["parameters"]["seed"] == 7


def test_a_file_may_hold_several_schedules(uploaded, applied):
    monthly = {**WEEKLY, "name": "monthly", "cron": "0 0 3 1 * *"}
    assert applied(WEEKLY, monthly).count("created") == 2
    assert applied(WEEKLY, monthly).count("unchanged") == 2


def test_dry_run_prints_the_difference_and_changes_nothing(uploaded, applied):
    assert "nothing was changed; weekly would be created" in applied(dry_run=True)
    assert not uploaded.all("experiments")
    applied()
    shown = applied(dry_run=True, cron="0 0 4 * * 1")
    assert "weekly would be updated" in shown and '"0 0 3 * * 1" -> "0 0 4 * * 1"' in shown
    assert f"would take away {the_schedule(uploaded)['recurring_run_id']}" in shown
    assert not uploaded.changing()


# Versions


def test_latest_names_no_version_so_that_each_run_takes_the_newest(uploaded, applied, another_version):
    applied()
    assert "pipeline_version_id" not in the_schedule(uploaded)["pipeline_version_reference"]
    another_version()
    assert applied().startswith("unchanged")


def test_a_named_version_stays_until_the_file_names_another(uploaded, applied, another_version):
    first = uploaded.all("pipeline_versions")[0]
    applied(pipeline_version=first["display_name"])
    second = another_version()
    assert applied(pipeline_version=first["display_name"]).startswith("unchanged")
    assert applied(pipeline_version=second).startswith("updated")
    reference = the_schedule(uploaded)["pipeline_version_reference"]
    assert reference["pipeline_version_id"] == uploaded.all("pipeline_versions")[1]["pipeline_version_id"]


def test_parameters_are_held_against_the_newest_version(uploaded, applied, another_version):
    another_version("accuracy", "gate_accuracy")
    with pytest.raises(ConfigError, match=r"unknown parameter 'accuracy'.*did you mean 'gate_accuracy'"):
        applied()
    assert not uploaded.changing()


def test_a_schedule_without_caching_holds_a_copy_of_its_version(uploaded, applied):
    version = uploaded.all("pipeline_versions")[0]["display_name"]
    applied(pipeline_version=version, caching=False)
    spec = the_schedule(uploaded)["pipeline_spec"]["pipeline_spec"]
    assert "enableCache" not in json.dumps(spec)
    assert applied(pipeline_version=version, caching=False).startswith("unchanged")
    assert applied(pipeline_version=version).startswith("updated")
    with pytest.raises(ConfigError, match="needs the name of a version"):
        applied(caching=False)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pipeline": "absent"}, "there is no pipeline 'absent'"),
        ({"pipeline_version": "v9"}, "has no version 'v9'"),
        ({"parameters": {"seed": "7"}}, r"'seed' in .*schedule 'weekly' must be a whole number, got '7' \(str\)"),
        ({"cron": "0 3 * * *"}, r"5 fields; .* write '0 0 3 \* \* \*'"),
        ({"interval_s": 60}, "either cron or interval_s"),
        ({"max_concurrency": 11}, "less than or equal to 10"),
        ({"max_concurrency": "1"}, "valid integer"),
        ({"enabled": "yes"}, "valid boolean"),
        ({"start": "2027-01-01T00:00:00"}, "add a time zone"),
        ({"start": "2027-01-02T00:00:00Z", "end": "2027-01-01T00:00:00Z"}, "isn't after start"),
        ({"timezone": "Europe/Berlin"}, "changes its clocks"),
        ({"max_concurency": 2}, "unknown key 'max_concurency'; did you mean 'max_concurrency'"),
    ],
)
def test_what_cannot_be_is_an_error_and_nothing_is_changed(uploaded, applied, changed, message):
    with pytest.raises(ConfigError, match=message):
        applied(**changed)
    assert not uploaded.changing()


def test_one_wrong_schedule_of_a_file_keeps_all_of_them_from_being_applied(uploaded, applied):
    with pytest.raises(ConfigError, match="no pipeline 'absent'"):
        applied(WEEKLY, {**WEEKLY, "name": "other", "pipeline": "absent"})
    assert not uploaded.changing()


# Runs in flight, and updates that were stopped


def test_an_update_lets_a_run_in_flight_end_and_the_next_apply_cleans_up(uploaded, applied):
    applied()
    old = the_schedule(uploaded)
    run = uploaded.trigger(old)
    said = applied(max_concurrency=2)
    assert f"its run {run['run_id']} goes on" in said
    assert old["status"] == "DISABLED" and len(uploaded.all("recurring_runs")) == 2
    assert not uploaded.killed

    assert applied(max_concurrency=2).startswith("unchanged")
    assert not uploaded.changing()

    run["state"] = "SUCCEEDED"
    applied(max_concurrency=2)
    assert the_schedule(uploaded)["max_concurrency"] == "2"
    assert not uploaded.killed


def test_a_run_that_begins_just_before_the_deletion_is_orphaned_and_not_killed(uploaded, applied):
    applied()
    old = the_schedule(uploaded)
    remove = uploaded._delete_recurring_run

    def begin_and_remove(request, identifier):
        uploaded.trigger(old)
        return remove(request, identifier)

    uploaded._delete_recurring_run = begin_and_remove
    applied(max_concurrency=2)
    assert len(uploaded.all("runs")) == 1 and not uploaded.killed


@pytest.mark.parametrize("stopped_at", ["POST .*:disable", "DELETE .*"])
def test_an_update_that_was_stopped_is_finished_by_the_next_one(uploaded, applied, stopped_at):
    applied()
    method, _, path = stopped_at.partition(" ")
    uploaded.faults = [Fault(method, path, 500)]
    with pytest.raises(ServiceError):
        applied(max_concurrency=2)
    assert len(uploaded.all("recurring_runs")) == 2
    assert applied(max_concurrency=2).startswith("unchanged")
    assert the_schedule(uploaded)["max_concurrency"] == "2"


def test_going_back_before_the_old_one_is_gone_enables_it_again(uploaded, applied):
    applied()
    old = the_schedule(uploaded)
    uploaded.trigger(old)
    applied(max_concurrency=2)
    assert applied().startswith("updated   weekly\n          enabled: false -> true\n")
    assert the_schedule(uploaded)["recurring_run_id"] == old["recurring_run_id"]
    assert old["status"] == "ENABLED"


@pytest.mark.parametrize("status", [0, 500, 502, 503, 504])
def test_a_lost_answer_makes_no_second_schedule(uploaded, applied, status):
    uploaded.faults = [Fault("POST", "/recurringruns$", status, done=True)]
    applied()
    assert the_schedule(uploaded)["status"] == "ENABLED"


def test_others_of_a_similar_name_are_left_alone(uploaded, applied):
    applied({**WEEKLY, "name": "Weekly"}, {**WEEKLY, "name": "weekly-2"})
    applied()
    assert sorted(item["display_name"] for item in uploaded.all("recurring_runs")) == ["Weekly", "weekly", "weekly-2"]


def test_more_schedules_than_a_page_are_all_looked_at(uploaded, applied, monkeypatch):
    monkeypatch.setattr(cluster_module, "_PAGE", 2)
    applied(*[{**WEEKLY, "name": f"s{index}"} for index in range(5)])
    shown = json.loads(list_schedules(ListConfig(endpoint=uploaded.url, as_json=True)).summary())
    assert [item["display_name"] for item in shown] == [f"s{index}" for index in range(5)]


# List and delete


def test_list_shows_what_is_there(uploaded, applied):
    assert "no schedules" in list_schedules(ListConfig(endpoint=uploaded.url)).summary()
    applied(WEEKLY, {"name": "hourly", "pipeline": WEEKLY["pipeline"], "interval_s": 3600, "enabled": False})
    shown = list_schedules(ListConfig(endpoint=uploaded.url)).summary()
    for expected in ("weekly", "0 0 3 * * 1 UTC", "enabled", "hourly", "every 3600 s", "disabled", "latest"):
        assert expected in shown
    assert WEEKLY["pipeline"] in shown


def test_list_shows_a_schedule_whose_pipeline_is_gone(uploaded, applied):
    applied()
    uploaded.stored["pipelines"].clear()
    assert "(deleted)" in list_schedules(ListConfig(endpoint=uploaded.url)).summary()


def test_delete_takes_away_by_name_and_says_when_there_is_none(uploaded, applied):
    applied(WEEKLY, {**WEEKLY, "name": "other"})
    said = delete(DeleteConfig(endpoint=uploaded.url, names=("weekly", "absent"))).summary()
    assert said == "deleted   weekly\nabsent    absent"
    assert the_schedule(uploaded)["display_name"] == "other"


def test_delete_does_not_kill_a_run_in_flight(uploaded, applied):
    applied()
    run = uploaded.trigger(the_schedule(uploaded))
    config = DeleteConfig(endpoint=uploaded.url, names=("weekly",))
    assert f"its run {run['run_id']} goes on: delete again" in delete(config).summary()
    assert the_schedule(uploaded)["status"] == "DISABLED"
    run["state"] = "FAILED"
    assert delete(config).summary() == "deleted   weekly"
    assert not uploaded.killed


def test_delete_wants_names_or_a_file():
    with pytest.raises(ValueError, match="either names or --file"):
        DeleteConfig()


def test_on_a_multi_user_kubeflow_schedules_are_the_namespaces_own(server, small_yaml, tmp_path):
    server.multi_user = True
    submit(SubmitConfig(endpoint=server.url, namespace="team-a", file=small_yaml, run=False))
    path = tmp_path / "schedule.yaml"
    path.write_text(yaml.safe_dump(WEEKLY))
    for word in ("created", "unchanged"):
        said = apply(ApplyConfig(endpoint=server.url, namespace="team-a", file=path)).summary()
        assert said.startswith(word)
    assert the_schedule(server)["namespace"] == "team-a"


# The example and the command line


def test_the_example_is_applied_listed_and_deleted_by_the_command(server, command):
    assert command("submit", "--no-run").returncode == 0
    done = command("schedule", "apply", "-f", EXAMPLE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("created   school-classifier-nightly\n")
    assert the_schedule(server)["trigger"]["cron_schedule"]["cron"] == "0 0 8 * * *"
    assert "0 0 3 * * * in America/Bogota is 0 0 8 * * * in UTC" in done.stderr
    listed = command("schedule", "list", "--json")
    assert json.loads(listed.stdout)[0]["display_name"] == "school-classifier-nightly"
    assert command("schedule", "delete", "-f", EXAMPLE).stdout == "deleted   school-classifier-nightly\n"
    assert not server.all("recurring_runs")


def test_wrong_usage_ends_with_2(command):
    ended = command("schedule", "delete")
    assert ended.returncode == 2 and "either names or --file" in ended.stderr
    assert command("schedule", "apply", "-f", "absent.yaml").returncode == 2
    assert "apply" in command("schedule", "--help").stdout
