"""A dataset as folders again: every usable tile once, in bytes as stored, and assembled again it is the same data."""

import hashlib

import pytest

from sat_xception.dataset.assemble import assemble
from sat_xception.dataset.diff import diff_datasets
from sat_xception.dataset.export_folders import export_folders
from sat_xception.dataset.folders import find_candidates
from sat_xception.dataset.manifest import ManifestRow
from sat_xception.dataset.settings import AssembleConfig, DiffConfig, ExportFoldersConfig
from sat_xception.errors import ConfigError, DataError
from tests.conftest import draw_tile, encode
from tests.datasets import read_tiles, write_dataset


def row(name, label="school", split="train", **facts):
    return ManifestRow(
        name, label, split, "ok", sha256=hashlib.sha256(name.encode()).hexdigest(), format="jpeg", **facts
    )


def test_exported_and_assembled_again_it_is_the_same_data(class_folders, tmp_path):
    assemble(AssembleConfig(data=str(class_folders), out=tmp_path / "dataset"))
    result = export_folders(ExportFoldersConfig(dataset=tmp_path / "dataset", out=tmp_path / "folders"))
    assert result.counts.total() == 80
    for tile in read_tiles(tmp_path / "dataset"):
        name = tile["id"].rsplit("/", 1)[1]
        assert (tmp_path / "folders" / tile["split"] / tile["label"] / name).read_bytes() == tile["image"]
    assemble(AssembleConfig(data=str(tmp_path / "folders"), out=tmp_path / "again"))
    assert diff_datasets(DiffConfig(old=tmp_path / "dataset", new=tmp_path / "again")).summary().endswith("no change")
    with pytest.raises(ConfigError, match="isn't an earlier result"):
        export_folders(ExportFoldersConfig(dataset=tmp_path / "dataset", out=tmp_path / "folders"))


def test_of_two_tiles_with_one_name_both_are_kept(tmp_path):
    tiles = [(row("a/1.jpg"), b"one"), (row("b/1.jpg"), b"two")]
    write_dataset(tmp_path / "dataset", tiles, ("not-school", "school"), 1000)
    export_folders(ExportFoldersConfig(dataset=tmp_path / "dataset", out=tmp_path / "out"))
    found = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*.jpg")}
    assert found == {"1.jpg": b"one", f"1-{hashlib.sha256(b'two').hexdigest()[:12]}.jpg": b"two"}


def test_a_place_is_in_the_name(tmp_path):
    image = encode(draw_tile("school", 1))
    placed = row("18/151000/93000", x=151000, y=93000, z=18, lon=27.4, lat=46.2)
    folder = write_dataset(tmp_path / "dataset", [(placed, image)], ("school", "not-school"), 1000, located=True)
    export_folders(ExportFoldersConfig(dataset=folder, out=tmp_path / "out"))
    (path,) = (tmp_path / "out").rglob("*.jpg")
    assert path.relative_to(tmp_path / "out").as_posix() == "train/school/151000-93000-18.jpg"
    (found,) = find_candidates(tmp_path / "out" / "train")
    assert (found.place.x, found.place.y, found.place.z) == (151000, 93000, 18)


def test_a_class_that_would_lead_out_of_the_folder_is_refused(tmp_path):
    write_dataset(tmp_path / "dataset", [(row("1", label="../x"), b"one")], ("../x", "school"), 1000)
    with pytest.raises(DataError, match=r"class '\.\./x' can't be the name of a folder"):
        export_folders(ExportFoldersConfig(dataset=tmp_path / "dataset", out=tmp_path / "out"))
    assert not (tmp_path / "x").exists()
