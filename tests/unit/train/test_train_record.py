"""`train.json`, `history.json` and `search.json`: files of this version and of those before it."""

import json

import pytest

from sat_xception.errors import DataError
from sat_xception.model.parts import Epoch, Weights
from sat_xception.search.record import SearchCounts, SearchRecord
from sat_xception.train.record import Hardware, SearchSummary, TrainingHistory, TrainingRecord

RECORD = TrainingRecord(
    backbone="mobilenetv2",
    input_size=224,
    weights=Weights(kind="none", description="random weights"),
    classes=("not-school", "school"),
    positive_label="school",
    source="tiles",
    synthetic=False,
    dataset_digest="d" * 64,
    class_weight={0: 2.0, 1: 0.75},
    model="m" * 64,
    kept_phase="scratch",
    valid_accuracy=0.9,
    seconds={"scratch": 1.0, "all": 2.5},
    hardware=Hardware(machine="x86_64", cores=2),
)
ROW = {"phase": "head", "epoch": 1, "loss": None, "accuracy": 0.5, "val_loss": 0.6, "val_accuracy": 0.7}
TRIAL = {"number": 1, "state": "complete", "valid_accuracy": 0.9, "valid_loss": 0.1, "phase": "head", "epochs": 3}
SEARCH = {
    "space": {
        "name": "head",
        "settings": {
            "optimizer": ["adam", "sgd"],
            "head_units": [0, 64],
            "class_weights": [True, False],
            "dropout": {"low": 0, "high": 0.7, "log": False},
        },
    },
    "counts": {"asked": 1, "complete": 1, "pruned": 0, "failed": 0, "left": 0},
    "trials": [{**TRIAL, "params": {"head_units": 64, "dropout": 0.1}, "seconds": 1.5, "reason": ""}],
    "best": {**TRIAL, "params": {"head_units": 64}, "seconds": 1.5, "reason": "", "settings": {"alpha": 1.0}},
    "importance": {},
    "dataset_digest": "d",
    "synthetic": False,
    "weights": {"kind": "file", "description": "a file", "sha256": "s"},
    "seconds": 2.0,
    "config": {},
}


def store(folder, name, content):
    (folder / name).write_text(json.dumps(content))
    return folder


def test_what_is_written_is_read_back(tmp_path):
    searched = SearchSummary(
        counts=SearchCounts(asked=3, complete=1, pruned=1, failed=1, left=0), valid_accuracy=0.9, best={"dropout": 0.1}
    )
    for record in (RECORD, RECORD.model_copy(update={"search": searched})):
        record.write(tmp_path)
        assert TrainingRecord.read(tmp_path) == record
    history = TrainingHistory(epochs=(Epoch.model_validate(ROW), Epoch.model_validate({**ROW, "learning_rate": None})))
    history.write(tmp_path)
    assert TrainingHistory.read(tmp_path) == history


def test_what_there_isnt_is_left_out_of_the_file_and_what_isnt_finite_is_null():
    content = RECORD.content()
    assert "search" not in content and "sha256" not in content["weights"]
    assert (content["failed"], content["weights_digest"]) == (None, None)
    assert Epoch.model_validate(ROW).content() == ROW
    assert Epoch.model_validate({**ROW, "learning_rate": None}).content() == {**ROW, "learning_rate": None}


def test_a_record_of_an_earlier_version_is_read(tmp_path):
    content = json.loads(json.dumps(RECORD.content()))
    for key in ("failed", "weights_digest", "devices", "class_weight"):
        del content[key]
    record = TrainingRecord.read(store(tmp_path, "train.json", content))
    assert record == RECORD.model_copy(update={"class_weight": None})
    assert record.failed is None


def test_a_history_of_an_earlier_version_is_a_list_of_epochs(tmp_path):
    assert TrainingHistory.read(store(tmp_path, "history.json", [])).epochs == ()
    (epoch,) = TrainingHistory.read(store(tmp_path, "history.json", [{**ROW, "learning_rate": 1e-3}])).epochs
    assert (epoch.phase, epoch.loss, epoch.score, epoch.learning_rate) == ("head", None, 0.7, 1e-3)


def test_a_history_that_is_neither_is_refused(tmp_path):
    again = "run `sat_xception train` again"
    with pytest.raises(DataError, match=f"earlier version, or is damaged: epochs.0.phase: Field required.*{again}"):
        TrainingHistory.read(store(tmp_path, "history.json", [{"epoch": 1}]))
    with pytest.raises(DataError, match=r"history\.json holds a str, expected an object"):
        TrainingHistory.read(store(tmp_path, "history.json", "epochs"))


def test_a_search_is_read_with_the_types_of_its_values(tmp_path):
    record = SearchRecord.read(store(tmp_path, "search.json", SEARCH))
    assert record.content() == SEARCH
    settings = record.content()["space"]["settings"]
    assert settings["class_weights"][0] is True and type(settings["head_units"][0]) is int
    assert type(settings["dropout"]["low"]) is int
    assert record.best.settings == {"alpha": 1.0}
