"""The record of how the last run of a pipeline ended."""

import pytest

from sat_xception.errors import ConfigError, DataError
from sat_xception.kubeflow.pod import record_folder
from sat_xception.notify.last_run import LastRun, finish_run, outcome_of


def test_without_a_baseline_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finish_run("", "run-1", "done")
    assert list(tmp_path.iterdir()) == []


def test_without_a_baseline_it_is_written_to_the_other_address_if_that_is_possible(tmp_path, caplog):
    finish_run("", "run-1", "done", otherwise=str(tmp_path / "store"))
    assert outcome_of(tmp_path / "store", "run-1") == "done"
    finish_run(str(tmp_path / "baseline"), "run-2", "done", otherwise=str(tmp_path / "store"))
    assert outcome_of(tmp_path / "store", "run-2") == "" and outcome_of(tmp_path / "baseline", "run-2") == "done"
    (tmp_path / "file").write_text("")
    finish_run("", "run-3", "done", otherwise=str(tmp_path / "file" / "store"))
    assert "notify won't know how: can't write" in caplog.text


def test_the_other_address_is_in_the_store_of_the_installation_where_the_keys_reach(tmp_path, monkeypatch):
    monkeypatch.setattr("sat_xception.kubeflow.pod._NAMESPACE", tmp_path / "namespace")
    monkeypatch.setenv("MINIO_ACCESS_KEY", "minio")
    assert record_folder() == ""  # on this machine
    monkeypatch.setenv("KFP_POD_NAME", "run-1-system-container-impl-1")
    assert record_folder() == "minio://mlpipeline/sat-xception/last-run"
    (tmp_path / "namespace").write_text("team")
    assert record_folder() == "minio://mlpipeline/private/team/sat-xception/last-run"
    monkeypatch.delenv("MINIO_ACCESS_KEY")
    assert record_folder() == ""


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
