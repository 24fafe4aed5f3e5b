"""The record of the last finished run: what it holds, and what counts as new."""

import json

import pytest

from sat_xception.errors import ConfigError, DataError
from sat_xception.last_run import LAST_RUN_FILE, NO_NEW_DATA, RunContent, finish_run, look_for_news, outcome_of

CONTENT = RunContent("da7a", "9a", "c0de")


def test_a_run_hands_on_what_it_is_made_of_as_one_text():
    assert RunContent.parse(str(CONTENT)) == CONTENT
    with pytest.raises(DataError, match=r"expected what assemble returns.*got 'no new data'"):
        RunContent.parse(NO_NEW_DATA)


def test_without_a_baseline_every_run_is_new_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finish_run("", str(CONTENT), "run-1", "done")
    assert look_for_news(CONTENT, "", True, "run-2") == str(CONTENT)
    assert list(tmp_path.iterdir()) == []


def test_the_record_says_what_the_run_was_made_of_and_how_it_ended(tmp_path):
    folder = tmp_path / "not" / "there" / "yet"
    assert look_for_news(CONTENT, str(folder), True, "run-1") == str(CONTENT)
    finish_run(str(folder), str(CONTENT), "run-1", "deployed")
    record = json.loads((folder / LAST_RUN_FILE).read_text())
    assert record.pop("finished_at").endswith("Z")
    assert record == {"run": "run-1", "outcome": "deployed", "dataset": "da7a", "parameters": "9a", "code": "c0de"}
    assert [path.name for path in folder.iterdir()] == [LAST_RUN_FILE]


@pytest.mark.parametrize("changed", ["dataset", "parameters", "code"])
def test_a_change_in_any_part_is_news_and_is_named(tmp_path, caplog, changed):
    caplog.set_level("INFO")
    finish_run(str(tmp_path), str(CONTENT), "run-1", "deployed")
    other = RunContent(**{**vars(CONTENT), changed: "0123"})
    assert look_for_news(other, str(tmp_path), True, "run-2") == str(other)
    assert f"new data  {changed} changed since the last finished run, of 2" in caplog.text


def test_a_skipped_run_is_noted_and_the_record_stays_that_of_the_finished_one(tmp_path):
    finish_run(str(tmp_path), str(CONTENT), "run-1", "deployed")
    before = json.loads((tmp_path / LAST_RUN_FILE).read_text())
    for run in ("run-2", "run-3"):
        assert look_for_news(CONTENT, str(tmp_path), True, run) == NO_NEW_DATA
        assert outcome_of(tmp_path, run).startswith(f"no new data since {before['finished_at']} (deployed)")
    after = json.loads((tmp_path / LAST_RUN_FILE).read_text())
    assert before.items() <= after.items()
    assert after["skipped_run"] == "run-3"
    assert outcome_of(tmp_path, "run-1") == "deployed"
    assert outcome_of(tmp_path, "run-0") == outcome_of(tmp_path, "") == ""


def test_a_run_that_is_not_to_be_skipped_goes_on_with_the_same_data(tmp_path):
    finish_run(str(tmp_path), str(CONTENT), "run-1", "deployed")
    assert look_for_news(CONTENT, str(tmp_path), False, "run-2") == str(CONTENT)
    assert outcome_of(tmp_path, "run-2") == ""


def test_a_damaged_record_is_an_error_and_not_a_first_run(tmp_path):
    (tmp_path / LAST_RUN_FILE).write_text("[]")
    with pytest.raises(DataError, match=r"last-run\.json holds a list, expected an object; remove it"):
        look_for_news(CONTENT, str(tmp_path), True, "run-2")


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"can't write .*/file/last-run\.json: .*name another folder"):
        finish_run(str(tmp_path / "file"), str(CONTENT), "run-1", "deployed")
