"""What may not be in two splits, from class folders and labels to the manifest."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageEnhance

from sat_xception.dataset.assemble import assemble
from sat_xception.dataset.dedupe import FineHashes, find_near_duplicates
from sat_xception.dataset.images import fine_hash, perceptual_hash
from sat_xception.dataset.settings import AssembleConfig
from sat_xception.errors import DataError
from sat_xception.geo.tiles import ancestors
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


@pytest.fixture
def blocks(tmp_path):
    """12 blocks of zoom 12, each with 12 tiles of zoom 18, named x-y-z."""
    for index in range(12):
        place(tmp_path / "data", "", range(index * 64, index * 64 + 3))
    return tmp_path / "data"


# Files that are no tile, or say no place: what they are called, what is in them, and what becomes of them.
STRAY = {
    "a note": (f"{X}-{Y}.txt", b"tiles of March\n", "failed"),
    "a file that GDAL writes beside a tile": (f"{X}-{Y + 1}-{ZOOM}.jpg.aux.xml", b"<PAMDataset/>\n", "failed"),
    "an image named otherwise": ("school_one.jpg", encode(scenery(99_999), quality=90), "ok"),
    "a tile of another zoom": (f"{X // 2}-{Y // 2}-{ZOOM - 1}.jpg", encode(scenery(99_998), quality=90), "ok"),
}


def splits_by_block(found: dict[str, dict]) -> dict[tuple, set]:
    by_block: dict[tuple, set] = {}
    for row in found.values():
        if row["z"] is not None and row["status"] == "ok":
            by_block.setdefault(ancestors(row["x"], row["y"], row["z"], 12), set()).add(row["split"])
    return by_block


@pytest.mark.parametrize("stray", STRAY)
def test_one_odd_file_changes_nothing_for_the_others(blocks, tmp_path, caplog, stray):
    name, data, status = STRAY[stray]
    whole = run(blocks, tmp_path / "whole")
    write(blocks / "school" / name, data)
    with caplog.at_level("WARNING"):
        found = run(blocks, tmp_path / "out")
    assert found[f"school/{name}"]["status"] == status
    assert {key: row["split"] for key, row in found.items() if key in whole} == {
        key: row["split"] for key, row in whole.items()
    }
    by_block = splits_by_block(found)
    assert len(by_block) == 12
    assert all(len(splits) == 1 for splits in by_block.values())
    told = "1 of 145 tiles have no coordinates in their names, such as school/school_one.jpg" in caplog.text
    assert told is (stray == "an image named otherwise")


def test_more_tiles_without_a_place_than_the_limit_are_refused(blocks, tmp_path):
    for number in range(20):
        write(blocks / "school" / f"photo{number}.jpg", encode(scenery(50_000 + number), quality=90))
    with pytest.raises(
        DataError, match=r"20 of 164 tiles have no coordinates in their names, such as school/photo0\.jpg; the"
    ):
        run(blocks, tmp_path / "out")
    found = run(blocks, tmp_path / "out", max_unplaced=0.2)
    assert all(len(splits) == 1 for splits in splits_by_block(found).values())
    assert {row["split"] for row in found.values()} == {"train", "valid", "test"}
    assert sum(row["z"] is None for row in found.values()) == 20


def test_a_few_names_that_look_like_places_refuse_nothing(tmp_path):
    for number in range(60):
        label = "school" if number % 2 else "not-school"
        write(tmp_path / "data" / label / f"photo{number}.jpg", encode(scenery(number), quality=90))
    place(tmp_path / "data", "", range(1))
    found = run(tmp_path / "data", tmp_path / "out", max_unplaced=0.1)
    assert sum(row["z"] is not None for row in found.values()) == 4
    assert "tile/x" in pq.read_table(next((tmp_path / "out").glob("tiles-*"))).column_names


def test_tiles_of_two_zooms_that_overlap_share_a_split_whatever_the_block_zoom(tmp_path):
    for index in range(40):
        write(tmp_path / "data" / "school" / f"{X // 2 + index}-{Y // 2}-17.jpg", encode(scenery(index), quality=90))
        for part in range(4):
            name = f"{X + 2 * index + part % 2}-{Y + part // 2}-18.jpg"
            write(tmp_path / "data" / "not-school" / name, encode(scenery(1_000 + 4 * index + part), quality=90))
    found = run(tmp_path / "data", tmp_path / "out", block_zoom=22)
    by_block: dict[tuple, set] = {}
    for row in found.values():
        by_block.setdefault(ancestors(row["x"], row["y"], row["z"], 17), set()).add(row["split"])
    assert len(by_block) == 40 and all(len(splits) == 1 for splits in by_block.values())


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


def edge(number: int, size: int = 256) -> Image.Image:
    """Draw even ground on both sides of one straight edge, with noise: a coast, or a field's border."""
    rng = np.random.default_rng(number)
    down, across = np.mgrid[0:size, 0:size] / size
    turn, at = rng.uniform(0, 2 * np.pi), rng.uniform(-0.25, 0.25)
    beyond = (across - 0.5) * np.cos(turn) + (down - 0.5) * np.sin(turn) > at
    ground = np.where(beyond, rng.uniform(40, 120), rng.uniform(120, 220)) + rng.normal(0, 5, (size, size))
    return Image.fromarray(ground.clip(0, 255).astype(np.uint8))


def road(number: int, size: int = 256) -> Image.Image:
    """Draw a road on even ground, with noise."""
    rng = np.random.default_rng(number)
    down, across = np.mgrid[0:size, 0:size] / size
    turn, at = rng.uniform(0, 2 * np.pi), rng.uniform(-0.25, 0.25)
    beside = abs((across - 0.5) * np.cos(turn) + (down - 0.5) * np.sin(turn) - at) > 0.02
    ground = np.where(beside, rng.uniform(60, 130), rng.uniform(150, 220)) + rng.normal(0, 5, (size, size))
    return Image.fromarray(ground.clip(0, 255).astype(np.uint8))


# What people do to pictures.
CHANGES = {
    "JPEG at quality 30": lambda image: Image.open(io.BytesIO(encode(image, quality=30))),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "15 % more light": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "4 pixels cut off": lambda image: image.crop((4, 4, image.width - 4, image.height - 4)),
}


def same(images: list[Image.Image]) -> dict[int, tuple[int, bool]]:
    """Return which of some pictures, all of one label, look like one before."""
    grey = [image.convert("L") for image in images]
    hashes = np.array([int(perceptual_hash(image), 16) for image in grey], dtype=np.uint64)
    return find_near_duplicates(
        hashes,
        np.zeros(len(images), np.uint32),
        AssembleConfig.model_fields["near_duplicate_bits"].default,
        lambda places: FineHashes(places, [fine_hash(grey[place]) for place in places.tolist()]),
    )


@pytest.mark.parametrize("draw", [edge, road])
def test_pictures_of_one_line_are_not_taken_for_each_other(draw):
    left_out = same([draw(number) for number in range(600)])
    assert len(left_out) < 0.005 * 600


def found_again(images: list[Image.Image], change: str) -> float:
    """Return the share of changed pictures that are found to look like what they were made of."""
    left_out = same([*images, *map(CHANGES[change], images)])
    return sum(left_out.get(len(images) + place, (-1,))[0] == place for place in range(len(images))) / len(images)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("draw", [edge, road])
def test_changed_pictures_of_one_line_are_found(draw, change):
    assert found_again([draw(number) for number in range(60)], change) > 0.9


def test_changed_real_tiles_are_found_and_others_not(ucmerced):
    images = [Image.open(path).convert("RGB") for path in sorted(ucmerced.rglob("*.jpg"))]
    assert same(images) == {}
    for change in CHANGES:
        assert found_again(images[::4], change) > 0.9, change


def test_real_tiles_that_differ_stay(ucmerced, tmp_path):
    found = run(ucmerced, tmp_path / "out")
    assert {row["status"] for row in found.values()} == {"ok"}


def test_a_picture_of_one_colour_has_no_hash():
    assert perceptual_hash(Image.new("L", (256, 256), 90)) == ""
    assert len(perceptual_hash(scenery(0).convert("L"))) == 16


@pytest.mark.parametrize(("plain", "level"), [(1, "INFO"), (12, "WARNING")])
def test_tiles_that_cannot_be_compared_by_their_look_are_counted_and_named(tmp_path, caplog, plain, level):
    for label in ("school", "not-school"):
        for index in range(30):
            write(tmp_path / "data" / label / f"{index}.png", encode(scenery(100 * len(label) + index), "PNG"))
    for index in range(plain):
        image = Image.new("RGB", (64, 64), (40 + index, 90, 120))
        write(tmp_path / "data" / "school" / f"plain{index}.png", encode(image, "PNG"))
    with caplog.at_level("INFO"):
        run(tmp_path / "data", tmp_path / "out")
    [line] = [record for record in caplog.records if "nearly one colour" in record.getMessage()]
    assert line.levelname == level
    assert f"{plain} of {60 + plain} tiles" in line.getMessage() and "school/plain0.png" in line.getMessage()
