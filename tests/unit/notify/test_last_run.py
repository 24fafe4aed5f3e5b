"""The record of how the last run of a pipeline ended."""

import pytest

from sat_xception.errors import ConfigError, DataError
from sat_xception.notify.last_run import LastRun, finish_run, outcome_of


def test_without_a_baseline_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finish_run("", "run-1", "done")
    assert list(tmp_path.iterdir()) == []


def test_the_record_names_the_run_and_how_it_ended(tmp_path):
    folder = tmp_path / "not" / "there" / "yet"
    finish_run(str(folder), "run-1", "deployed")
    record = LastRun.read(folder)
    assert record.finished_at.endswith("Z")
    assert (record.run, record.outcome) == ("run-1", "deployed")
    assert [path.name for path in folder.iterdir()] == ["last-run.json"]


def test_the_outcome_is_that_of_the_run_that_is_asked_for(tmp_path):
    finish_run(str(tmp_path), "run-1", "deployed")
    assert outcome_of(tmp_path, "run-1") == "deployed"
    assert outcome_of(tmp_path, "run-0") == outcome_of(tmp_path, "") == ""


def test_a_record_of_the_version_before_is_read(tmp_path):
    (tmp_path / "last-run.json").write_text('{"finished_at": "2026-11-30T10:00:00Z", "outcome": "x", "run": "run-1"}')
    assert outcome_of(tmp_path, "run-1") == "x"


def test_a_damaged_record_is_an_error(tmp_path):
    (tmp_path / "last-run.json").write_text("[]")
    with pytest.raises(DataError, match=r"last-run\.json holds a list, expected an object; remove it"):
        outcome_of(tmp_path, "run-2")


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"can't write .*/file/last-run\.json: .*name another folder"):
        finish_run(str(tmp_path / "file"), "run-1", "deployed")
