"""What may not be in two splits, from class folders and labels to the manifest."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageEnhance

from sat_xception.data.assemble import assemble
from sat_xception.data.images import perceptual_hash
from sat_xception.errors import DataError
from sat_xception.geo.tiles import ancestors
from sat_xception.steps import AssembleConfig
from tests.conftest import encode

X, Y, ZOOM = 148_000, 93_000, 18


def scenery(number: int, size: int = 96) -> Image.Image:
    """Draw a picture with large and small forms, another one for each number."""
    rng = np.random.default_rng(number)
    image = Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)).resize(
        (size, size), Image.Resampling.BICUBIC
    )
    return Image.fromarray(np.clip(np.asarray(image) + rng.integers(-20, 20, (size, size, 3)), 0, 255).astype(np.uint8))


def rows(folder: Path) -> dict[str, dict]:
    return {row["id"]: row for row in pq.read_table(folder / "manifest.parquet").to_pylist()}


def run(data: Path, out: Path, **settings) -> dict[str, dict]:
    assemble(AssembleConfig(data=str(data), out=out, **settings))
    return rows(out)


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture
def splits(tmp_path):
    """20 tiles each of two classes in train, 5 each in valid and test."""
    number = 0
    for split, count in (("train", 20), ("valid", 5), ("test", 5)):
        for label in ("school", "not-school"):
            for _ in range(count):
                write(tmp_path / "data" / split / label / f"{number}.jpg", encode(scenery(number), quality=90))
                number += 1
    return tmp_path / "data"


def other_file_of(path: Path) -> bytes:
    return encode(ImageEnhance.Brightness(Image.open(path)).enhance(1.1), quality=50)


def test_a_tile_that_looks_like_one_of_the_exam_is_not_trained_on(splits, tmp_path):
    exam = splits / "test" / "school" / "50.jpg"
    write(splits / "train" / "school" / "again.jpg", other_file_of(exam))
    found = run(splits, tmp_path / "out")
    assert (found["train/school/again.jpg"]["status"], found["train/school/again.jpg"]["reason"]) == (
        "duplicate",
        "looks like test/school/50.jpg",
    )
    assert found["test/school/50.jpg"]["status"] == "ok"
    assert sum(row["status"] == "ok" for row in found.values()) == 60


def test_tiles_that_look_the_same_and_are_labelled_differently_are_left_out(splits, tmp_path):
    write(splits / "train" / "not-school" / "again.jpg", other_file_of(splits / "train" / "school" / "3.jpg"))
    found = run(splits, tmp_path / "out")
    left_out = {name: row["reason"] for name, row in found.items() if row["status"] == "duplicate"}
    end = ", which is labelled differently; both are left out"
    assert left_out == {
        "train/not-school/again.jpg": f"looks like train/school/3.jpg{end}",
        "train/school/3.jpg": f"looks like train/not-school/again.jpg{end}",
    }


def test_when_tiles_that_look_the_same_are_kept_two_splits_of_them_stop_the_run(splits, tmp_path):
    write(splits / "train" / "school" / "again.jpg", other_file_of(splits / "train" / "school" / "3.jpg"))
    found = run(splits, tmp_path / "out", keep_near_duplicates=True)
    assert found["train/school/again.jpg"]["status"] == "ok"
    write(splits / "train" / "school" / "exam.jpg", other_file_of(splits / "test" / "school" / "50.jpg"))
    with pytest.raises(DataError, match=r"1 tiles look like one in another split: train/school/exam\.jpg in train and"):
        run(splits, tmp_path / "out", keep_near_duplicates=True)
    assert "train/school/exam.jpg" not in rows(tmp_path / "out")


def place(folder: Path, split: str, columns: range) -> None:
    for x in columns:
        for y in range(4):
            label = "school" if (x + y) % 2 else "not-school"
            name = f"{X + x}-{Y + y}-{ZOOM}.jpg"
            write(folder / split / label / name, encode(scenery(10 * x + y), quality=90))


def test_a_split_by_hand_that_is_random_in_space_is_refused(tmp_path):
    place(tmp_path / "data", "train", range(0, 20, 2))
    place(tmp_path / "data", "valid", range(1, 20, 2))
    with pytest.raises(
        DataError, match=r"1 blocks of zoom 12 have tiles in more than one split: 12/\d+/\d+ \(train and"
    ):
        run(tmp_path / "data", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    kept = run(tmp_path / "data", tmp_path / "out", block_zoom=22)
    assert {row["split"] for row in kept.values()} == {"train", "valid"}


def test_tiles_that_names_place_are_split_by_block(tmp_path):
    for index in range(12):
        place(tmp_path / "data", "", range(index * 64, index * 64 + 3))
    found = run(tmp_path / "data", tmp_path / "out").values()
    by_block: dict[tuple, set] = {}
    for row in found:
        block = ancestors(row["x"], row["y"], ZOOM, 12)
        by_block.setdefault(block, set()).add(row["split"])
    assert len(by_block) > 10
    assert all(len(splits) == 1 for splits in by_block.values())
    assert {row["split"] for row in found} == {"train", "valid", "test"}


def test_places_are_used_when_all_names_say_one(tmp_path):
    place(tmp_path / "data", "", range(10))
    write(tmp_path / "data" / "school" / "another.jpg", encode(scenery(99_999), quality=90))
    found = run(tmp_path / "data", tmp_path / "out")
    assert {row["x"] for row in found.values()} == {None}
    assert "tile/x" not in pq.read_table(next((tmp_path / "out").glob("tiles-*"))).column_names


def test_a_hash_hardly_changes_with_what_people_do_to_pictures():
    def distance(one: Image.Image, other: Image.Image) -> int:
        hashes = (int(perceptual_hash(image.convert("L")), 16) for image in (one, other))
        return (next(hashes) ^ next(hashes)).bit_count()

    for index in range(20):
        tile = scenery(index, size=256)
        assert distance(tile, Image.open(io.BytesIO(encode(tile, quality=30)))) <= 6
        assert distance(tile, tile.resize((128, 128))) <= 6
        assert distance(tile, ImageEnhance.Brightness(tile).enhance(1.15)) <= 6
        assert distance(tile, scenery(1_000 + index, size=256)) > 12


def test_real_tiles_that_differ_stay(ucmerced, tmp_path):
    found = run(ucmerced, tmp_path / "out")
    assert {row["status"] for row in found.values()} == {"ok"}


def test_a_picture_of_one_colour_has_no_hash():
    assert perceptual_hash(Image.new("L", (256, 256), 90)) == ""
    assert len(perceptual_hash(scenery(0).convert("L"))) == 16
