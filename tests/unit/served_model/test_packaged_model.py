"""`model.json`: versions that are months old are read, and what can't be read says why."""

import json

import pytest

from sat_xception.errors import DataError
from sat_xception.served_model.packaged_model import PackagedModel
from tests.serving_fixtures import CLASSES, describe_version

# As the first version wrote it, in November 2026: without a threshold, calibration, intervals and slices.
FIRST = {
    "backbone": "xception",
    "classes": ["not-school", "school"],
    "positive_label": "school",
    "dataset_digest": "d" * 64,
    "source": "labels.csv",
    "synthetic": False,
    "name": "school-classifier",
    "version": 20261122231042,
    "model": "e" * 64,
    "training": {"weights": {"kind": "none", "description": "random weights"}, "kept_phase": "head"},
    "tiles": {"train": 560, "valid": 80, "test": 160},
    "metrics": {"test": {"count": 160, "accuracy": 0.9125, "confusion_matrix": [[70, 10], [4, 76]], "by_class": {}}},
    "export_tolerance": 1e-5,
    "packaged_by": "sat_xception 0.1.0, tensorflow 2.21.0",
}


def store(folder, content):
    (folder / "model.json").write_text(json.dumps(content))
    return folder


def test_a_version_that_was_packaged_by_the_first_version_is_read(tmp_path):
    model = PackagedModel.read(store(tmp_path, FIRST))
    assert (model.name, model.version, model.backbone) == ("school-classifier", 20261122231042, "xception")
    assert model.classes == ("not-school", "school")
    assert (model.metrics["test"].count, model.metrics["test"].accuracy) == (160, 0.9125)
    assert model.threshold is None and model.failed_candidates == {}
    assert model.content() == {**FIRST, "threshold": None, "failed_candidates": {}}


def test_what_is_written_is_read(tmp_path):
    written = describe_version(tmp_path)
    assert PackagedModel.read(tmp_path) == written
    assert PackagedModel.read(tmp_path).classes == tuple(CLASSES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**FIRST, "classes": []}, r"model\.json .*classes: Tuple should have at least 1 item.*sat_xception package"),
        ({"classes": ["a", "b"]}, r"model\.json .*name: Field required; .*and 5 more"),
        ({**FIRST, "metrics": {"test": {"count": 3}}}, r"metrics\.test\.accuracy: Field required"),
        ({**FIRST, "schema_version": 2}, r"has the schema_version 2, of a newer version.*Update sat-xception"),
    ],
)
def test_what_a_version_must_say_is_told_when_it_is_missing(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        PackagedModel.read(store(tmp_path, content))
