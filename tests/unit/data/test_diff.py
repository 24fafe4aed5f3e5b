"""What changed between two versions of a dataset."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sat_xception.data.assemble import assemble
from sat_xception.data.diff import diff_datasets
from sat_xception.errors import DataError
from sat_xception.steps import AssembleConfig, DiffConfig
from tests.conftest import draw_tile, encode


@pytest.fixture
def folders(make_folders, tmp_path) -> Path:
    make_folders(tmp_path / "data" / "train", count=6)
    return make_folders(tmp_path / "data" / "valid", count=3, start=6).parent


def dataset(folder: Path, name: str) -> Path:
    return assemble(AssembleConfig(data=str(folder), out=folder.parent / name)).folder


def test_the_same_tiles_from_another_place_are_no_change(folders, tmp_path):
    before = dataset(folders, "a")
    (tmp_path / "elsewhere").mkdir()
    diff = diff_datasets(DiffConfig(old=before, new=dataset(folders.rename(tmp_path / "elsewhere" / "data"), "b")))
    assert diff.digests[0] == diff.digests[1]
    assert not any(diff.counts.values())
    assert diff.summary().endswith("| no change")


def test_every_change_is_counted_by_class_and_split(folders):
    before = dataset(folders, "a")
    school, other = folders / "train" / "school", folders / "train" / "not-school"
    (school / "000.jpg").unlink()
    (school / "001.jpg").write_bytes(encode(draw_tile("school", 901)))
    (school / "900.jpg").write_bytes(encode(draw_tile("school", 900)))
    (school / "002.jpg").rename(other / "school-002.jpg")
    (folders / "valid" / "school" / "007.jpg").rename(school / "007.jpg")
    (folders / "valid" / "school" / "008.jpg").rename(other / "008.jpg")
    diff = diff_datasets(DiffConfig(old=before, new=dataset(folders, "b")))
    assert diff.digests[0] != diff.digests[1]
    assert diff.counts == {
        "added": {("school", "train"): 1},
        "removed": {("school", "train"): 1},
        "changed": {("school", "train"): 1},
        "relabelled": {("school → not-school", "train"): 1, ("school → not-school", "valid → train"): 1},
        "moved": {("school", "valid → train"): 1, ("school → not-school", "valid → train"): 1},
    }


def test_the_other_way_round_added_is_removed(folders):
    before = dataset(folders, "a")
    (folders / "train" / "school" / "000.jpg").unlink()
    after = dataset(folders, "b")
    there, back = (diff_datasets(DiffConfig(old=old, new=new)) for old, new in ((before, after), (after, before)))
    assert there.counts["removed"] == back.counts["added"] == {("school", "train"): 1}


def test_another_seed_moves_tiles_between_splits_and_changes_nothing_else(class_folders, tmp_path):
    made = [
        assemble(AssembleConfig(data=str(class_folders), out=tmp_path / str(seed), seed=seed)).folder for seed in (0, 1)
    ]
    diff = diff_datasets(DiffConfig(old=made[0], new=made[1]))
    assert {kind for kind, found in diff.counts.items() if found} == {"moved"}
    assert all(" → " in split and " → " not in label for label, split in diff.counts["moved"])


def test_the_command_prints_a_table_or_json(folders):
    before = dataset(folders, "a")
    (folders / "train" / "school" / "000.jpg").unlink()
    command = [sys.executable, "-m", "sat_xception", "dataset", "diff", str(before), str(dataset(folders, "b"))]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "1 removed" in table.splitlines()[0]
    assert table.splitlines()[1].split() == ["removed", "1", "train", "school"]
    told = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout)
    assert told["changes"] == [{"change": "removed", "label": "school", "split": "train", "tiles": 1}]


def test_what_is_no_dataset_is_refused(folders, tmp_path):
    made = dataset(folders, "a")
    with pytest.raises(DataError, match=r"dataset\.json is missing"):
        diff_datasets(DiffConfig(old=made, new=tmp_path))
    (made / "manifest.parquet").write_text("not Parquet")
    with pytest.raises(DataError, match=r"manifest\.parquet can't be read: .* Run `sat_xception assemble` again"):
        diff_datasets(DiffConfig(old=made, new=made))
