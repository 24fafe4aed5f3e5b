"""The source of a run's dataset: the same address for the same data, whatever else has changed."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from sat_xception.dataset.source import find_source, take_dataset
from sat_xception.errors import DataError
from sat_xception.storage import folder_digests
from sat_xception.storage.files import json_text


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def settings(data, **changes):
    return {"data": str(data), **changes}


def test_without_a_store_every_run_has_a_source_of_its_own_and_assembles(class_folders, tmp_path):
    sources = [find_source(settings(class_folders), "", run) for run in ("run-1", "run-2")]
    assert sources[0] != sources[1]
    assert json.loads(sources[0])["run"] == "run-1"
    result = take_dataset(sources[0], tmp_path / "dataset")
    assert result.counts.by_status["ok"] == 80
    assert (tmp_path / "dataset" / "report.html").is_file()


def test_the_same_data_has_the_same_address_in_every_run_and_is_stored_once(class_folders, store, tmp_path):
    first = find_source(settings(class_folders), str(store), "run-1")
    written = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    # How tiles are fetched, and how many may fail, doesn't change what came of it.
    assert find_source(settings(class_folders, max_pixels=10**6, max_failed=0.5), str(store), "run-2") == first
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == written
    result = take_dataset(first, tmp_path / "dataset")
    assert result.digest == json.loads((tmp_path / "dataset" / "dataset.json").read_text())["digest"]
    assert result.counts.by_status["ok"] == 80
    assert folder_digests(tmp_path / "dataset") == folder_digests(store / first.rpartition("/")[2])


def another_label(folder, _):
    moved = next((folder / "school").iterdir())
    moved.rename(folder / "not-school" / f"was-{moved.name}")


@pytest.mark.parametrize(
    "change",
    [
        another_label,
        lambda folder, _: next((folder / "school").iterdir()).unlink(),
        lambda _, given: given.update(seed=7),
        lambda _, given: given.update(positive_label="not-school"),
        lambda _, given: given.update(fractions=(0.5, 0.3, 0.2)),
        lambda _, given: given.update(block_zoom=9),
    ],
)
def test_whatever_later_steps_see_of_a_dataset_is_in_its_address(change, class_folders, store, tmp_path):
    folder = tmp_path / "tiles"
    shutil.copytree(class_folders, folder)
    given = settings(folder)
    before = find_source(given, str(store), "run-1")
    change(folder, given)
    assert find_source(given, str(store), "run-2") != before
    assert len(list(store.iterdir())) == 2


def test_a_dataset_that_was_changed_in_the_store_is_refused(class_folders, store, tmp_path):
    source = find_source(settings(class_folders), str(store), "run-1")
    path = store / source.rpartition("/")[2] / "dataset.json"
    path.write_text(path.read_text().replace('"school"', '"church"'))
    with pytest.raises(DataError, match="was changed after it was stored; remove it and start the run again"):
        take_dataset(source, tmp_path / "dataset")


def test_a_dataset_that_an_earlier_version_stored_is_taken(class_folders, store, tmp_path):
    address = Path(find_source(settings(class_folders), str(store), "run-1"))
    record = address / "dataset.json"
    # Without a version, and without what that version didn't know.
    content = json.loads(record.read_text())
    del content["schema_version"], content["attribution"]
    record.write_text(json_text(content))
    seen = json_text({**content, "config": {"block_zoom": content["config"]["block_zoom"]}})
    stored = address.rename(address.with_name(hashlib.sha256(seen.encode()).hexdigest()))
    assert take_dataset(str(stored), tmp_path / "dataset").digest == content["digest"]


def test_the_version_of_the_document_is_not_in_the_address(class_folders, store):
    address = Path(find_source(settings(class_folders), str(store), "run-1"))
    content = json.loads((address / "dataset.json").read_text())
    del content["schema_version"]
    seen = json_text({**content, "config": {"block_zoom": content["config"]["block_zoom"]}})
    assert hashlib.sha256(seen.encode()).hexdigest() == address.name


def test_a_dataset_that_is_gone_from_the_store_is_named(class_folders, store, tmp_path):
    source = find_source(settings(class_folders), str(store), "run-1")
    shutil.rmtree(store)
    with pytest.raises(DataError, match=r"dataset\.json is missing"):
        take_dataset(source, tmp_path / "dataset")
