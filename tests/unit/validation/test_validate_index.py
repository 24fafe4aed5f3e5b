"""Whether the files of examples are those that convert wrote."""

import hashlib
import json
from pathlib import Path

import pytest

from sat_xception.errors import DataError
from sat_xception.examples.index import ExamplesIndex, check_shards


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    splits = {}
    for split in ("train", "valid"):
        path = tmp_path / split / "examples-00000-of-00001.tfrecord"
        path.parent.mkdir()
        path.write_bytes(split.encode() * 100)
        shard = {"file": path.name, "count": 3, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        splits[split] = {"count": 3, "by_class": {"a": 3}, "shards": [shard]}
    index = {
        "classes": ["a", "b"],
        "positive_label": "",
        "dataset_digest": "d",
        "source": "s",
        "synthetic": False,
        "slices": [],
        "splits": splits,
    }
    (tmp_path / "examples.json").write_text(json.dumps(index))
    return tmp_path


def test_whole_files_are_returned_by_split(examples: Path) -> None:
    index = ExamplesIndex.read(examples)
    assert index.classes == ("a", "b")
    assert check_shards(examples, index) == {
        split: (examples / split / "examples-00000-of-00001.tfrecord",) for split in ("train", "valid")
    }


def test_a_missing_file_is_named(examples: Path) -> None:
    path = examples / "valid" / "examples-00000-of-00001.tfrecord"
    path.unlink()
    with pytest.raises(DataError, match=f"{path} is missing"):
        check_shards(examples, ExamplesIndex.read(examples))


def test_a_file_cut_off_is_named_with_its_size(examples: Path) -> None:
    path = examples / "train" / "examples-00000-of-00001.tfrecord"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"{path} was cut off or changed .* 499 bytes"):
        check_shards(examples, ExamplesIndex.read(examples))


def test_a_file_that_is_not_listed_is_refused(examples: Path) -> None:
    (examples / "train" / "examples-00001-of-00002.tfrecord").write_bytes(b"old")
    with pytest.raises(DataError, match=r"examples-00001-of-00002.tfrecord isn't listed"):
        check_shards(examples, ExamplesIndex.read(examples))


def test_a_folder_that_convert_did_not_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="`sat_xception convert` wrote"):
        ExamplesIndex.read(tmp_path)


def test_an_index_of_a_newer_version_is_refused(examples: Path) -> None:
    content = json.loads((examples / "examples.json").read_text())
    (examples / "examples.json").write_text(json.dumps({**content, "schema_version": 2}))
    with pytest.raises(DataError, match="schema_version 2, of a newer version of sat-xception"):
        ExamplesIndex.read(examples)


def test_an_index_without_what_is_needed_is_refused(examples: Path) -> None:
    content = json.loads((examples / "examples.json").read_text())
    del content["splits"]["train"]["count"]
    (examples / "examples.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"earlier version, or is damaged: splits.train.count: Field required; run"):
        ExamplesIndex.read(examples)
