"""TensorBoard's logs reach a bucket of any kind while a training runs, and a bucket that fails ends no training."""

import re
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sat_xception.errors import PreemptedError
from sat_xception.model import tensorboard_upload
from sat_xception.model.parts import Epoch
from sat_xception.model.tensorboard import TensorBoardWriter
from sat_xception.model.tensorboard_upload import local_logs, uploading_logs
from sat_xception.storage import fetch_folder, list_files, read_stored_bytes, stored_path
from sat_xception.storage import store as stores
from tests.waiting import wait_until

# Google's client leaves the body of a refused download unread, and its connection to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def epoch(number: int) -> Epoch:
    return Epoch(phase="head", epoch=number, loss=0.5, accuracy=0.7, learning_rate=0.1, val_loss=0.5, val_accuracy=0.6)


def epochs_in(folder: Path) -> list[int]:
    events = EventAccumulator(str(folder / "head" / "train")).Reload()
    # A file that was copied as it grew may end before its first epoch.
    return [event.step for event in events.Tensors("epoch_loss")] if "epoch_loss" in events.Tags()["tensors"] else []


def test_logs_are_in_the_bucket_while_the_training_runs_and_whole_at_its_end(bucket_of_any_kind, tmp_path):
    there = bucket_of_any_kind.root / "logs"
    logs = local_logs(there, tmp_path)
    with uploading_logs(logs, there, 0.05), TensorBoardWriter(logs / "head") as board:
        board.add(epoch(1))
        wait_until(lambda: len(list_files(there)) == 2)
        wait_until(lambda: epochs_in(fetch_folder(there)) == [0])
        board.add(epoch(2))
    here = [path for path in sorted(logs.rglob("events.*")) if path.is_file()]
    assert [path.relative_to(logs) for path in here] == [path.relative_to(there) for path in list_files(there)]
    assert [path.read_bytes() for path in here] == [read_stored_bytes(path) for path in list_files(there)]
    assert epochs_in(fetch_folder(there)) == [0, 1]


def test_a_file_that_has_not_grown_is_copied_once(s3, tmp_path):
    (tmp_path / "old").write_text("finished")
    with uploading_logs(tmp_path, s3.root / "logs", 0.02):
        wait_until(lambda: list_files(s3.root / "logs"))
        (tmp_path / "new").write_text("one")
        wait_until(lambda: len(list_files(s3.root / "logs")) == 2)
    assert s3.proxy.count(s3.writes("logs/old")) == 1


def test_a_bucket_that_fails_is_a_warning_and_is_tried_again(bucket_of_any_kind, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(stores, "_LOOK_S", 0.05)
    (tmp_path / "events").write_text("1")
    there = bucket_of_any_kind.root / "logs"
    bucket_of_any_kind.proxy.fail(bucket_of_any_kind.writes("logs/events"), 403, times=3)
    with uploading_logs(tmp_path, there, 0.02):
        wait_until(lambda: list_files(there))
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert re.fullmatch(
        rf"logs      can't be copied to {there}: .*training goes on, and it is tried again", warnings[0]
    )


def test_what_was_never_copied_is_said_at_the_end_and_an_error_of_the_training_stays(s3, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(stores, "_LOOK_S", 0.05)
    (tmp_path / "events").write_text("1")
    s3.proxy.fail(".", 503, times=1000)
    with pytest.raises(PreemptedError, match="asked to stop"), uploading_logs(tmp_path, s3.root / "logs", 60):
        raise PreemptedError("asked to stop")
    assert f"the copy for TensorBoard at {s3.root}/logs isn't complete" in caplog.text


def test_logs_that_cant_be_listed_are_said_too(s3, tmp_path, caplog, monkeypatch):
    (tmp_path / "events").write_text("1")

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tensorboard_upload, "_state", refuse)
    with uploading_logs(tmp_path, s3.root / "logs", 60):
        pass
    assert "Permission denied" in caplog.text and "isn't complete" in caplog.text


def test_nothing_is_copied_of_logs_in_a_local_folder(tmp_path):
    assert local_logs(None, tmp_path) == tmp_path / "tensorboard"
    assert local_logs(tmp_path / "asked", tmp_path) == tmp_path / "asked"
    assert local_logs(stored_path("az://container/logs"), tmp_path) == tmp_path / "tensorboard"
    with uploading_logs(tmp_path, None), uploading_logs(tmp_path, tmp_path / "asked"):
        (tmp_path / "events").write_text("1")
    assert [path.name for path in tmp_path.iterdir()] == ["events"]
