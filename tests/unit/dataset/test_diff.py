"""What changed between two versions of a dataset."""

import csv
import json
from pathlib import Path

import pytest

from sat_xception.cli import main
from sat_xception.dataset.assemble import assemble
from sat_xception.dataset.diff import diff_datasets
from sat_xception.dataset.settings import AssembleConfig, DiffConfig
from sat_xception.errors import DataError
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
    assert not any(diff.by_slice.values())
    assert {kind: found for kind, found in diff.counts.items() if found} == {
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


def test_the_command_prints_a_table_or_json(folders, capsys):
    before = dataset(folders, "a")
    (folders / "train" / "school" / "000.jpg").unlink()
    after = dataset(folders, "b")

    def printed(*options: str) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["dataset", "diff", str(before), str(after), *options])
        assert ended.value.code == 0
        return capsys.readouterr().out

    table = printed()
    assert "1 removed" in table.splitlines()[0]
    assert table.splitlines()[1].split() == ["removed", "1", "train", "school"]
    told = json.loads(printed("--json"))
    assert told["changes"] == [{"change": "removed", "label": "school", "split": "train", "tiles": 1}]


def test_what_is_no_dataset_is_refused(folders, tmp_path):
    made = dataset(folders, "a")
    with pytest.raises(DataError, match=r"dataset\.json is missing"):
        diff_datasets(DiffConfig(old=made, new=tmp_path))
    (made / "manifest.parquet").write_text("not Parquet")
    with pytest.raises(DataError, match=r"manifest\.parquet can't be read: .* Run `sat_xception assemble` again"):
        diff_datasets(DiffConfig(old=made, new=made))


def of_labels(folder: Path, name: str, rows: list[dict], **settings) -> Path:
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    imagery = folder / "imagery"
    for row in rows:
        tile = imagery / f"18/{row['x']}/{row['y']}.jpg"
        tile.parent.mkdir(parents=True, exist_ok=True)
        tile.write_bytes(encode(draw_tile("school", row["x"] * 64 + row["y"]), quality=90))
    given = {"imagery": str(imagery), "block_zoom": 18, "fractions": (0.7, 0.3, 0), **settings}
    return assemble(AssembleConfig(labels=folder / f"{name}.csv", out=folder / name, **given)).folder


def test_changes_are_counted_by_slice(tmp_path):
    rows = [
        {
            "x": x,
            "y": y,
            "z": 18,
            "label": "school" if (x + y) % 2 else "farm",
            "setting": "rural" if x % 2 else "urban",
        }
        for x in range(148_000, 148_008)
        for y in range(93_000, 93_008)
    ]
    before = of_labels(tmp_path, "a", rows, slice_columns=("setting",))
    changed = [{**rows[0], "label": "school"}, {**rows[1], "setting": "rural"}, *rows[3:]]
    diff = diff_datasets(DiffConfig(old=before, new=of_labels(tmp_path, "b", changed, slice_columns=("setting",))))
    assert {kind: dict(found) for kind, found in diff.by_slice.items() if found} == {
        "removed": {("setting", "urban", "farm"): 1},
        "relabelled": {("setting", "urban", "farm → school"): 1},
        "resliced": {("setting", "urban → rural", "school"): 1},
    }
    assert "resliced" in diff.summary()
    assert "setting=urban → rural  school" in diff.summary()
    told = json.loads(diff_datasets(DiffConfig(old=before, new=tmp_path / "b", as_json=True)).summary())
    assert {
        "change": "removed", "slice": "setting", "value": "urban", "label": "farm", "tiles": 1
    } in told["slices"]  # fmt: skip
    # A dataset that lacks the column is compared all the same.
    without = diff_datasets(DiffConfig(old=before, new=of_labels(tmp_path, "c", rows)))
    assert without.counts["resliced"].total() == 64
    assert without.by_slice["resliced"]["setting", "rural → ", "farm"] == 16
