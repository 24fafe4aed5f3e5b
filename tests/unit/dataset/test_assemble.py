"""From class folders to a dataset: what gets in, what is left out and why, and that it's the same every time."""

import functools
import hashlib
import io
import itertools
import os
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sat_xception.dataset import assemble as module
from sat_xception.dataset.assemble import AssembleResult, assemble, choose_positive_label
from sat_xception.dataset.images import encode_for_tensorflow, probe_image
from sat_xception.dataset.record import DatasetRecord
from sat_xception.dataset.settings import AssembleConfig
from sat_xception.errors import ConfigError, DataError
from sat_xception.sample.tiles import write_sample
from sat_xception.storage import file_digest, folder_digests
from tests.datasets import read_tiles


def tile(number: int, fmt: str = "JPEG", **options: object) -> bytes:
    """Return an image file of its own; the same number gives the same pixels in any lossless format."""
    pixels = np.random.default_rng(number).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, fmt, **options)
    return buffer.getvalue()


@pytest.fixture
def data(tmp_path) -> Callable[..., Path]:
    """Return a function that writes files below a data folder: bytes, or the numbers of the tiles of a class."""

    def write(files: dict[str, bytes | range], root: str = "data") -> Path:
        for name, content in files.items():
            numbered = (
                {f"{name}/{number:03d}.jpg": tile(number) for number in content}
                if isinstance(content, range)
                else {name: content}
            )
            for path, image in numbered.items():
                (tmp_path / root / path).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / root / path).write_bytes(image)
        return tmp_path / root

    return write


SCHOOLS = {"school": range(0, 20), "not-school": range(100, 120)}
SPLIT = {
    "train/school": range(0, 6),
    "train/not-school": range(100, 106),
    "valid/school": range(6, 9),
    "valid/not-school": range(106, 109),
}


def run(folder: Path | None, out: Path | None = None, **settings: object) -> AssembleResult:
    chosen = {"data": str(folder)} if folder else {}
    return assemble(AssembleConfig(out=out or (folder or Path(settings["train"])).parent / "out", **chosen, **settings))


def manifest(result: AssembleResult) -> dict[str, dict[str, object]]:
    return {row["id"]: row for row in pq.read_table(result.folder / "manifest.parquet").to_pylist()}


def nothing_left(tmp_path: Path) -> bool:
    return {path.name for path in tmp_path.iterdir()} == {"data"}


# What is in a dataset


def test_every_tile_is_stored_once_with_its_own_bytes_and_a_row_in_the_manifest(data):
    result = run(folder := data(SCHOOLS))
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.jpg")}
    stored = {there["id"]: there for there in read_tiles(result.folder)}
    rows = manifest(result)
    assert {name: there["image"] for name, there in stored.items()} == files
    assert list(rows) == sorted(files)
    for name, row in rows.items():
        assert (row["status"], row["reason"], row["label"]) == ("ok", "", name.split("/")[0])
        assert (row["sha256"], row["bytes"]) == (hashlib.sha256(files[name]).hexdigest(), len(files[name]))
        assert (row["source"], row["source_format"], row["format"]) == (str(folder / name), "jpeg", "jpeg")
        assert (row["width"], row["height"], row["split"]) == (16, 12, stored[name]["split"])
        assert row["mean_luma"] == stored[name]["mean_luma"] > 0
        assert row["std_luma"] == stored[name]["std_luma"] > 0


def test_the_description_says_what_was_made_of_what(data):
    result = run(data(SCHOOLS), seed=4)
    described = DatasetRecord.read(result.folder)
    assert (described.name, described.synthetic) == ("data", False)
    assert (described.classes, described.positive_label) == (("not-school", "school"), "school")
    assert described.counts == result.counts
    assert described.digest == result.digest
    assert described.config["seed"] == 4
    shard = result.folder / "tiles-00000-of-00001.parquet"
    assert described.shards == {shard.name: file_digest(shard)}
    others = {"dataset.json", "manifest.parquet", "report.html"}
    assert {path.name for path in result.folder.iterdir()} == {shard.name, *others}


def test_the_summary_has_the_counts_and_the_places(data):
    result = run(data({**SCHOOLS, "school/x.jpg": b"", "school/copy.jpg": tile(0)}), max_failed=0.1)
    first, *splits, last = result.summary().splitlines()
    assert first == "assemble  42 tiles | 1 duplicate  1 failed  40 ok"
    assert [line.split()[0] for line in splits] == ["test", "train", "valid"]
    assert last == f"wrote     {result.folder}/manifest.parquet   dataset {result.digest[:12]}"


def test_stored_order_mixes_classes_and_follows_from_content_and_seed(data):
    result = run(folder := data({"a": range(0, 60), "b": range(100, 160)}))
    labels = [there["label"] for there in read_tiles(result.folder)]
    assert sum(here != there for here, there in itertools.pairwise(labels)) > 20
    order = [there["id"] for there in read_tiles(result.folder)]
    other = [there["id"] for there in read_tiles(run(folder, seed=1).folder)]
    assert order != other
    assert sorted(order) == sorted(other)


def test_three_classes_without_a_positive_one_are_fine(data):
    result = run(data({"field": range(20), "town": range(20, 40), "water": range(40, 60)}))
    described = DatasetRecord.read(result.folder)
    assert (described.classes, described.positive_label) == (("field", "town", "water"), "")
    assert {label for counts in result.counts.by_split.values() for label in counts} == set(described.classes)


@pytest.mark.parametrize("negative", ["not-school", "not_school"])
def test_both_spellings_of_the_other_class_work(data, negative):
    described = DatasetRecord.read(run(data({"school": range(20), negative: range(100, 120)})).folder)
    assert (described.classes, described.positive_label) == ((negative, "school"), "school")


@pytest.mark.parametrize(
    ("classes", "asked", "positive"),
    [
        (["not-school", "school"], "", "school"),
        (["a", "school", "z"], "", "school"),
        (["not-residential", "residential"], "", "residential"),
        (["no_pool", "pool"], "", "pool"),
        (["non-urban", "urban"], "", "urban"),
        (["notschool", "schoolyard"], "", ""),
        (["a", "not-a", "z"], "", ""),
        (["a", "b"], "", ""),
        (["a", "b"], "b", "b"),
        (["not-school", "school"], "not-school", "not-school"),
    ],
)
def test_the_positive_class_is_the_one_asked_for_or_told_by_the_names(classes, asked, positive):
    assert choose_positive_label(classes, asked) == positive


def test_a_positive_class_that_is_none_is_refused_before_the_work(data, tmp_path):
    with pytest.raises(ConfigError) as caught:
        run(data(SCHOOLS), positive_label="schol")
    assert str(caught.value) == "--positive-label 'schol' is not a class; the classes are not-school, school"
    assert nothing_left(tmp_path)


# Formats


def test_formats_may_be_mixed_and_only_what_tensorflow_cannot_read_is_converted(data):
    mixed = {
        f"a/{number}.{fmt}": tile(number, fmt, **options)
        for number, (fmt, options) in enumerate(
            [("JPEG", {}), ("PNG", {}), ("TIFF", {}), ("WEBP", {}), ("BMP", {})] * 4
        )
    }
    result = run(folder := data({**mixed, "b": range(100, 110)}))
    rows = manifest(result)
    for there in read_tiles(result.folder):
        source = (folder / there["id"]).read_bytes()
        row = rows[there["id"]]
        assert row["sha256"] == hashlib.sha256(source).hexdigest()
        assert row["bytes"] == len(there["image"])
        if row["source_format"] in ("jpeg", "png", "webp"):
            assert there["image"] == source
            assert there["format"] == row["source_format"]
        else:
            assert there["format"] == "png"
            np.testing.assert_array_equal(Image.open(io.BytesIO(there["image"])), Image.open(io.BytesIO(source)))
    assert Counter(row["source_format"] for row in rows.values()) == {
        "jpeg": 14,
        "png": 4,
        "tiff": 4,
        "webp": 4,
        "bmp": 4,
    }


def test_what_is_converted_keeps_to_the_limit_of_pixels_that_was_given(data, monkeypatch):
    monkeypatch.setattr(encode_for_tensorflow, "__defaults__", (10,))
    monkeypatch.setattr(probe_image, "__defaults__", (10,))
    result = run(data({**SCHOOLS, "school/large.tiff": tile(50, "TIFF")}))
    assert manifest(result)["school/large.tiff"]["status"] == "ok"


# Unreadable files


def test_an_unreadable_file_is_a_row_with_its_reason_and_the_counts_close(data, caplog):
    folder = data(
        {
            **SCHOOLS,
            "school/empty.jpg": b"",
            "school/page.jpg": b"<html>404</html>",
            "school/cut.jpg": tile(7)[:200],
            "school/copy.jpg": tile(0),
        }
    )
    (folder / "school" / "gone.jpg").symlink_to(folder / "nowhere")
    (folder / "school" / "folder.jpg").symlink_to(folder / "not-school")
    result = run(folder, max_failed=0.2)
    rows = manifest(result)
    failed = {name: row["reason"] for name, row in rows.items() if row["status"] == "failed"}
    assert failed.pop("school/cut.jpg").startswith("can't be decoded: ")
    assert failed == {
        "school/empty.jpg": "the file is empty",
        "school/page.jpg": "not an image (starts with b'<html>40')",
        "school/gone.jpg": "can't be read: No such file or directory",
        "school/folder.jpg": "can't be read: Is a directory",
    }
    assert rows["school/page.jpg"]["sha256"] == hashlib.sha256(b"<html>404</html>").hexdigest()
    assert rows["school/gone.jpg"]["sha256"] == ""
    assert result.counts.considered == len(rows) == 46
    assert result.counts.by_status == {"duplicate": 1, "failed": 5, "ok": 40}
    assert sum(sum(counts.values()) for counts in result.counts.by_split.values()) == 40
    assert len(list(read_tiles(result.folder))) == 40
    assert "left out  school/empty.jpg: the file is empty" in caplog.messages


def test_too_many_unreadable_files_stop_the_run_with_advice_and_leave_nothing(data, tmp_path):
    folder = data({**SCHOOLS, "school/x.jpg": b"", "school/y.jpg": b"", "school/z.jpg": b"{}"})
    with pytest.raises(DataError) as caught:
        run(folder)
    assert str(caught.value) == (
        "3 of 43 tiles can't be read (7.0%, limit 5.0%); most common: the file is empty x 2; "
        f"the first is {folder}/school/x.jpg. Remove or repair them, or raise --max-failed"
    )
    assert nothing_left(tmp_path)


def test_the_limit_of_unreadable_files_is_inclusive(data):
    folder = data({"a": range(9), "b": range(100, 109), "a/x.jpg": b"", "b/x.jpg": b""})
    assert run(folder, max_failed=0.1).counts.by_status == {"failed": 2, "ok": 18}
    with pytest.raises(DataError):
        run(folder, max_failed=0.09)


def test_only_the_first_unreadable_files_are_told(data, caplog):
    run(data({**SCHOOLS, **{f"school/x{number}.jpg": b"" for number in range(9)}}), max_failed=0.5)
    assert sum(message.startswith("left out  ") for message in caplog.messages) == 5


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_a_reason_and_no_warning(data):
    result = run(data({**SCHOOLS, "school/bomb.png": png_claiming(9_500, 9_500)}))
    assert manifest(result)["school/bomb.png"]["reason"] == "9500 x 9500 pixels, more than the limit of 64,000,000"


def test_a_class_that_has_only_unreadable_files_is_refused(data, tmp_path):
    with pytest.raises(DataError, match="no usable tile of class 'b' is left in the train split"):
        run(data({"a": range(50), "b/x.jpg": b""}))
    assert nothing_left(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_file_whose_name_is_no_utf8_gets_in(data):
    folder = data(SCHOOLS)
    (folder / os.fsdecode(b"school/caf\xe9.jpg")).write_bytes(tile(60))
    row = manifest(run(folder))[r"school/caf\xe9.jpg"]
    assert (row["status"], row["source"]) == ("ok", rf"{folder}/school/caf\xe9.jpg")


# Duplicates and splits


def test_duplicates_never_leak_between_splits_that_folders_give(data):
    folder = data(
        {
            **SPLIT,
            "test/school": range(20, 22),
            "test/not-school": range(120, 122),
            "train/school/of-valid.jpg": tile(6),
            "train/school/of-test.jpg": tile(20),
            "valid/school/of-test.jpg": tile(20),
            "train/school/of-train.jpg": tile(0),
            "train/school/other-label.jpg": tile(121),
        }
    )
    result = run(folder)
    rows = manifest(result)
    assert {name: row["reason"] for name, row in rows.items() if row["status"] == "duplicate"} == {
        "train/school/of-valid.jpg": "same bytes as valid/school/006.jpg",
        "train/school/of-test.jpg": "same bytes as test/school/020.jpg",
        "valid/school/of-test.jpg": "same bytes as test/school/020.jpg",
        "train/school/of-train.jpg": "same bytes as train/school/000.jpg",
        "train/school/other-label.jpg": (
            "same bytes as test/not-school/121.jpg, which is labelled differently; all copies are left out"
        ),
        "test/not-school/121.jpg": (
            "same bytes as train/school/other-label.jpg, which is labelled differently; all copies are left out"
        ),
    }
    contents = [row["sha256"] for row in rows.values() if row["status"] == "ok"]
    assert len(contents) == len(set(contents)) == len(list(read_tiles(result.folder)))
    assert result.counts.considered == sum(result.counts.by_status.values()) == 27


def test_duplicates_in_unsplit_folders_are_dealt_once(data, caplog):
    copies = {f"school/copy-{number}.jpg": tile(number) for number in range(20)}
    result = run(data({**SCHOOLS, **copies}))
    assert result.counts.by_status == {"duplicate": 20, "ok": 40}
    assert {name for name, row in manifest(result).items() if row["status"] == "duplicate"} == set(copies)
    assert "left out  20 duplicate tiles; the manifest names the tiles they repeat" in caplog.messages


def test_a_split_whose_tiles_are_all_copies_is_refused(data, tmp_path):
    folder = data({**SPLIT, "train/school": range(6, 9), "valid/school": range(6, 9)})
    with pytest.raises(DataError, match=r"no usable tile of class 'school' is left in the train split; .*duplicates"):
        run(folder)
    assert nothing_left(tmp_path)


def test_a_split_that_folders_give_is_kept(data):
    rows = manifest(run(data(SPLIT), fractions=(0, 0, 1)))
    assert {(row["split"], name.split("/")[0]) for name, row in rows.items()} == {
        ("train", "train"),
        ("valid", "valid"),
    }
    assert len(rows) == 18


def test_the_originals_two_folders_are_training_and_validation(data, tmp_path):
    data({"school": range(5), "not_school": range(100, 105)}, root="a/train")
    data({"school": range(5, 9), "not_school": range(105, 109)}, root="a/test")
    result = run(None, tmp_path / "out", train=tmp_path / "a" / "train", valid=tmp_path / "a" / "test")
    assert result.counts.by_split == {
        "train": {"not_school": 5, "school": 5},
        "valid": {"not_school": 4, "school": 4},
    }
    assert "valid/school/005.jpg" in manifest(result)


def test_validation_without_a_class_of_training_is_refused(data, tmp_path):
    with pytest.raises(DataError, match="no usable tile of class 'field' is left in the valid split"):
        run(data({**SPLIT, "train/field": range(200, 203)}))
    assert nothing_left(tmp_path)


def test_no_tile_moves_when_tiles_are_added(data, tmp_path):
    before = manifest(run(data({"a": range(40), "b": range(100, 140)})))
    after = manifest(run(data({"a": range(40, 99), "b": range(140, 199)})))
    assert len(after) == len(before) + 118
    assert {name: after[name]["split"] for name in before} == {name: row["split"] for name, row in before.items()}


def test_a_fraction_of_zero_makes_no_split(data):
    assert set(run(data(SCHOOLS), fractions=(0.8, 0.2, 0)).counts.by_split) == {"train", "valid"}
    with pytest.raises(DataError, match="is left in the train split; add tiles, change --fractions"):
        run(data(SCHOOLS), fractions=(0, 0.5, 0.5))


# The same every time


def test_the_same_command_twice_gives_the_same_bytes(data):
    folder = data({**SCHOOLS, "school/x.tiff": tile(50, "TIFF"), "school/copy.jpg": tile(1), "a.txt": b"not a tile"})
    first = folder_digests(run(folder).folder)
    assert folder_digests(run(folder).folder) == first


def test_the_place_and_age_of_the_files_change_nothing_but_the_sources(data, tmp_path):
    first = run(data(SCHOOLS), tmp_path / "out" / "a")
    moved = {name: range(numbers.stop - 1, numbers.start - 1, -1) for name, numbers in reversed(SCHOOLS.items())}
    second = run(data(moved, root="elsewhere/data"), tmp_path / "out" / "b")
    assert second.digest == first.digest
    assert DatasetRecord.read(second.folder).shards == DatasetRecord.read(first.folder).shards
    described = [DatasetRecord.read(result.folder).model_copy(update={"config": {}}) for result in (first, second)]
    assert described[0] == described[1]
    rows = [manifest(result) for result in (first, second)]
    assert rows[0] != rows[1]
    for row in (*rows[0].values(), *rows[1].values()):
        assert row.pop("source").endswith(f"data/{row['id']}")
    assert rows[0] == rows[1]


def test_the_digest_changes_with_content_label_and_split(data, tmp_path):
    folder = data(SCHOOLS)
    digests = {run(folder).digest, run(folder, seed=1).digest}
    (folder / "school" / "000.jpg").rename(folder / "not-school" / "000.jpg")
    digests.add(run(folder).digest)
    (folder / "school" / "001.jpg").write_bytes(tile(70))
    digests.add(run(folder).digest)
    assert len(digests) == 4


def test_the_sample_is_the_same_every_time_and_says_that_it_is_synthetic(tmp_path, monkeypatch):
    few = functools.partial(write_sample, counts={"school": 8, "not-school": 8})
    monkeypatch.setattr("sat_xception.sample.tiles.write_sample", few)
    digests = []
    for _ in range(2):
        result = assemble(AssembleConfig(data="sample", out=tmp_path / "out"))
        digests.append(folder_digests(result.folder))
    assert digests[0] == digests[1]
    described = DatasetRecord.read(result.folder)
    assert (described.name, described.synthetic) == ("synthetic sample", True)
    assert {row["source"] for row in manifest(result).values()} == {"drawn"}


# What is at --out, and interruptions


def test_an_earlier_dataset_is_replaced_whole(data, tmp_path):
    run(data(SCHOOLS), tmp_path / "out")
    (tmp_path / "out" / "tiles-00003-of-00009.parquet").write_text("left over")
    result = run(data({"school": range(20, 25)}), tmp_path / "out")
    assert result.counts.considered == 45
    assert [path.name for path in result.folder.glob("*.parquet")].count("tiles-00003-of-00009.parquet") == 0
    assert len(list(result.folder.iterdir())) == 4
    assert {path.name for path in tmp_path.iterdir()} == {"data", "out"}


def test_the_data_themselves_are_never_replaced(data, tmp_path):
    folder = data(SCHOOLS)
    before = folder_digests(folder)
    for out in (folder, tmp_path, folder / "school"):
        with pytest.raises(ConfigError, match="isn't an earlier result of this step"):
            run(folder, out)
    assert folder_digests(folder) == before


def test_a_file_at_out_is_refused_before_a_tile_is_read(data, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "probe_tiles", None)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="is a file; name a folder"):
        run(data(SCHOOLS), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def meanwhile(monkeypatch, happens: Callable[[], object]) -> None:
    """Let something happen after the tiles were read once, and before they are stored."""
    original = module.drop_copies

    def drop_copies(bench):
        happens()
        return original(bench)

    monkeypatch.setattr(module, "drop_copies", drop_copies)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_run_leaves_nothing_half_and_can_be_run_again(data, tmp_path, monkeypatch, interruption):
    folder = data(SCHOOLS)

    def stop() -> None:
        raise interruption

    with monkeypatch.context() as patch, pytest.raises(interruption):
        meanwhile(patch, stop)
        run(folder)
    assert nothing_left(tmp_path)
    assert run(folder).counts.by_status == {"ok": 40}


def test_an_interrupted_run_leaves_the_earlier_dataset(data, tmp_path, monkeypatch):
    folder = data(SCHOOLS)
    before = folder_digests(run(folder).folder)
    meanwhile(monkeypatch, (folder / "school" / "003.jpg").unlink)
    with pytest.raises(DataError):
        run(folder)
    assert folder_digests(tmp_path / "out") == before


@pytest.mark.parametrize("change", ["rewritten", "gone"])
def test_a_file_that_changes_during_the_run_stops_it(data, tmp_path, monkeypatch, change):
    folder = data(SCHOOLS)
    path = folder / "school" / "003.jpg"
    meanwhile(monkeypatch, path.unlink if change == "gone" else functools.partial(path.write_bytes, tile(90)))
    with pytest.raises(DataError) as caught:
        run(folder)
    assert str(caught.value) == f"{path} changed while the dataset was being assembled; run the command again"
    assert nothing_left(tmp_path)


def test_a_failed_run_leaves_the_files_alone(data):
    folder = data({**SCHOOLS, **{f"school/x{number}.jpg": b"" for number in range(9)}})
    before = folder_digests(folder)
    with pytest.raises(DataError):
        run(folder)
    assert folder_digests(folder) == before


def test_a_large_class_is_dealt_as_a_small_one(data, monkeypatch):
    folder = data({"school": range(300), "not-school": range(300, 600)})
    small = run(folder)
    monkeypatch.setattr(module, "_LARGE_CLASS", 100)
    assert run(folder).digest == small.digest
