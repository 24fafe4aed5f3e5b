"""The dataset on disk."""

import dataclasses
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sat_xception.dataset.manifest import (
    DatasetSummary,
    ManifestRow,
    TileWriter,
    write_manifest,
)
from sat_xception.dataset.record import DatasetCounts, DatasetRecord
from sat_xception.errors import DataError
from tests import datasets
from tests.datasets import read_tiles


def row(index: int, **facts: object) -> ManifestRow:
    known = {"label": "school", "split": "train", "status": "ok", "sha256": f"{index:064x}", "format": "jpeg"}
    return ManifestRow(**{"id": f"school/{index}.jpg", "width": 8, "height": 9, "mean_luma": 1.5, **known, **facts})


def write_dataset(folder: Path, count: int, image_bytes: int = 100, shard_bytes: int = 10_000) -> Path:
    tiles = ((row(index), index.to_bytes(2, "big") * (image_bytes // 2)) for index in range(count))
    return datasets.write_dataset(folder, tiles, ["school"], shard_bytes)


@pytest.mark.parametrize(
    ("count", "shards"), [(0, 0), (1, 1), (99, 1), (100, 1), (101, 2), (200, 2), (256, 3), (257, 3), (1_000, 10)]
)
def test_tiles_come_back_in_order_from_as_many_shards_as_they_fill(tmp_path, count, shards):
    folder = write_dataset(tmp_path / "dataset", count)
    names = sorted(path.name for path in folder.glob("tiles-*"))
    assert names == [f"tiles-{index:05d}-of-{shards:05d}.parquet" for index in range(shards)]
    tiles = list(read_tiles(folder))
    assert [tile["id"] for tile in tiles] == [f"school/{index}.jpg" for index in range(count)]
    assert all(tile["image"] == index.to_bytes(2, "big") * 50 for index, tile in enumerate(tiles))


def test_a_shard_of_many_tiles_is_written_in_groups(tmp_path):
    folder = write_dataset(tmp_path / "dataset", 600, shard_bytes=10**9)
    metadata = pq.read_metadata(folder / "tiles-00000-of-00001.parquet")
    assert [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)] == [256, 256, 88]
    assert len(list(read_tiles(folder))) == 600


def test_a_tile_is_stored_with_what_the_examples_need(tmp_path):
    folder = write_dataset(tmp_path / "dataset", 1)
    assert next(read_tiles(folder)) == {
        "id": "school/0.jpg",
        "label": "school",
        "split": "train",
        "format": "jpeg",
        "width": 8,
        "height": 9,
        "bytes": 100,
        "mean_luma": 1.5,
        "std_luma": 0.0,
        "weight": 1.0,
        "image": b"\0\0" * 50,
    }


def test_shards_get_no_name_when_writing_fails(tmp_path):
    with pytest.raises(KeyboardInterrupt), TileWriter(tmp_path) as writer:
        writer.add(row(1), b"x")
        raise KeyboardInterrupt
    assert list(tmp_path.glob("*.parquet")) == []


def test_the_manifest_keeps_every_column_and_the_order(tmp_path):
    rows = [row(2), row(1, status="failed", reason="it's empty", split="", sha256="", bytes=0), row(3, std_luma=0.25)]
    rows = [dataclasses.replace(there, slices={"setting": f"s{index}"}, x=index) for index, there in enumerate(rows)]
    write_manifest(tmp_path / "manifest.parquet", rows, ["setting"])
    table = pq.read_table(tmp_path / "manifest.parquet")
    expected = [dataclasses.asdict(there) for there in rows]
    for there in expected:
        there["slice/setting"] = there.pop("slices")["setting"]
    assert table.to_pylist() == expected
    columns = [field.name for field in dataclasses.fields(ManifestRow) if field.name != "slices"]
    assert table.column_names == [*columns, "slice/setting"]


def test_an_empty_manifest_has_the_columns(tmp_path):
    write_manifest(tmp_path / "manifest.parquet", [])
    assert pq.read_table(tmp_path / "manifest.parquet").num_columns == len(dataclasses.fields(ManifestRow)) - 1


def summary(rows) -> DatasetSummary:
    result = DatasetSummary()
    for there in rows:
        result.add(there)
    return result


def content_digest(rows) -> str:
    return summary(rows).digest()


def test_the_digest_is_of_usable_content():
    rows = [row(1), row(2, split="valid"), row(3, label="not-school")]
    digest = content_digest(rows)
    assert content_digest([*rows, row(4, status="failed"), row(5, status="duplicate")]) == digest
    assert content_digest([dataclasses.replace(there, source="/elsewhere", mean_luma=9.0) for there in rows]) == digest
    assert content_digest([dataclasses.replace(rows[0], slices={"setting": "rural"}), *rows[1:]]) != digest
    assert content_digest([dataclasses.replace(rows[0], weight=2.0), *rows[1:]]) != digest
    for name in ("id", "label", "split", "sha256"):
        assert content_digest([dataclasses.replace(rows[0], **{name: "other"}), *rows[1:]]) != digest


def test_counts_are_by_status_and_of_usable_tiles_by_split_and_class():
    rows = [
        row(1, slices={"setting": "rural"}),
        row(2, slices={"setting": "urban"}),
        row(3, label="field", slices={"setting": "rural"}),
        row(4, split="valid", slices={"setting": "rural"}),
        row(5, slices={"setting": "urban"}, status="failed", split=""),
        row(6, status="duplicate"),
    ]
    assert summary(rows).counts() == DatasetCounts(
        considered=6,
        by_status={"duplicate": 1, "failed": 1, "ok": 4},
        by_split={"train": {"field": 1, "school": 2}, "valid": {"school": 1}},
        by_slice={"setting": {"rural": 3, "urban": 1}},
    )
    assert summary([]).counts() == DatasetCounts(considered=0, by_status={}, by_split={}, by_slice={})


# Damage


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(read_tiles(folder))
    return str(caught.value)


def test_a_folder_that_is_no_dataset_is_refused(tmp_path):
    assert "dataset.json is missing" in refusal(tmp_path)
    (tmp_path / "dataset.json").write_text("{}")
    advice = "run `sat_xception assemble` again"
    with pytest.raises(DataError, match=rf"dataset\.json was written by an earlier .*: name: Field required.*{advice}"):
        DatasetRecord.read(tmp_path)


def test_a_missing_shard_is_refused(tmp_path):
    folder = write_dataset(tmp_path / "dataset", 300)
    (folder / "tiles-00001-of-00003.parquet").unlink()
    assert refusal(folder) == f"{folder}/tiles-00001-of-00003.parquet is missing; run `sat_xception assemble` again"


def test_a_shard_that_was_cut_off_is_refused(tmp_path):
    folder = write_dataset(tmp_path / "dataset", 50)
    shard = folder / "tiles-00000-of-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    assert refusal(folder).startswith(f"{shard} is damaged")


def test_a_single_wrong_bit_in_an_image_is_found(tmp_path):
    folder = write_dataset(tmp_path / "dataset", 50)
    shard = folder / "tiles-00000-of-00001.parquet"
    data = bytearray(shard.read_bytes())
    data[data.index(b"\0\1" * 50) + 7] ^= 4
    shard.write_bytes(bytes(data))
    assert refusal(folder).startswith(f"{shard} is damaged")


def test_a_shard_of_another_dataset_is_refused(tmp_path):
    folder, other = write_dataset(tmp_path / "one", 50), write_dataset(tmp_path / "two", 51)
    shard = "tiles-00000-of-00001.parquet"
    (other / shard).replace(folder / shard)
    assert refusal(folder).startswith(f"{folder}/{shard} is damaged: it isn't the file that assemble wrote")


def test_files_that_the_dataset_does_not_list_are_not_read(tmp_path):
    folder = write_dataset(tmp_path / "dataset", 2)
    (folder / "tiles-00007-of-00009.parquet").write_text("left over")
    assert len(list(read_tiles(folder))) == 2


def test_no_tile_is_given_before_its_shard_was_checked(tmp_path):
    folder = write_dataset(tmp_path / "dataset", 150)
    record = DatasetRecord.read(folder)
    shards = {**record.shards, "tiles-00001-of-00002.parquet": "0" * 64}
    record.model_copy(update={"shards": shards}).write(folder)
    tiles = read_tiles(folder)
    assert [next(tiles)["id"] for _ in range(100)][-1] == "school/99.jpg"
    with pytest.raises(DataError, match="00001-of-00002"):
        next(tiles)
