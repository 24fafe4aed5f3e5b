"""The embedded sample: reproducible, varied, and not to be told apart by its colours."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sat_xception.errors import ConfigError
from sat_xception.sample.tiles import DEFAULT_COUNTS, SAMPLE_NAME, SAMPLE_SEED, draw_tile, write_sample

PER_CLASS = 60


@pytest.fixture(scope="module")
def tiles() -> dict[str, list[Image.Image]]:
    return {label: [draw_tile(label, index) for index in range(PER_CLASS)] for label in DEFAULT_COUNTS}


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _colours(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image, dtype=np.float64).reshape(-1, 3)
    bins = [np.histogram(pixels[:, band], 8, (0, 256))[0] / len(pixels) for band in range(3)]
    return np.concatenate([pixels.mean(axis=0), pixels.std(axis=0), *bins])


def _accuracy(rows: np.ndarray, labels: np.ndarray) -> float:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    return float(cross_val_score(model, rows, labels, cv=5).mean())


def test_tiles_are_rgb_and_256_pixels_square(tiles):
    assert {(image.mode, image.size) for images in tiles.values() for image in images} == {("RGB", (256, 256))}


@pytest.mark.parametrize("label", list(DEFAULT_COUNTS))
def test_a_tile_is_the_same_each_time_it_is_drawn(tiles, label):
    for index in (0, 7, PER_CLASS - 1):
        assert draw_tile(label, index).tobytes() == tiles[label][index].tobytes()


def test_another_process_draws_the_same_tile(tiles):
    code = "import sat_xception.sample.tiles as s, sys; sys.stdout.buffer.write(s.draw_tile('school', 3).tobytes())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "123"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert done.stdout == tiles["school"][3].tobytes()


def test_no_two_tiles_are_alike_and_another_seed_gives_others(tiles):
    drawn = {image.tobytes() for images in tiles.values() for image in images}
    assert len(drawn) == 2 * PER_CLASS
    for label in DEFAULT_COUNTS:
        assert draw_tile(label, 0, seed=SAMPLE_SEED + 1).tobytes() not in drawn


def test_each_class_varies_in_brightness_contrast_and_hue(tiles):
    for images in tiles.values():
        pixels = np.stack([np.asarray(image, dtype=np.float64).reshape(-1, 3) for image in images])
        assert pixels.mean(axis=(1, 2)).std() > 8
        assert pixels.mean(axis=2).std(axis=1).std() > 3
        assert (pixels[:, :, 0] - pixels[:, :, 2]).mean(axis=1).std() > 5


def test_colours_alone_do_not_tell_the_classes_apart(tiles):
    rows = np.stack([_colours(image) for images in tiles.values() for image in images])
    assert _accuracy(rows, np.repeat([0, 1], PER_CLASS)) < 0.85


def test_the_middle_of_a_tile_is_not_a_giveaway_either(tiles):
    thumbnails = [
        image.convert("L").resize((16, 16), Image.Resampling.BOX) for images in tiles.values() for image in images
    ]
    rows = np.stack([np.asarray(image, dtype=np.float64).ravel() for image in thumbnails])
    assert _accuracy(rows, np.repeat([0, 1], PER_CLASS)) < 0.85


def test_class_folders_hold_the_promised_files(tmp_path):
    counts = {"school": 3, "not-school": 2}
    assert write_sample(tmp_path / "sample", counts) == 5
    assert sorted(_digests(tmp_path / "sample")) == [
        "not-school/not-school-0001.jpg",
        "not-school/not-school-0002.jpg",
        "school/school-0001.jpg",
        "school/school-0002.jpg",
        "school/school-0003.jpg",
    ]
    for path in (tmp_path / "sample").rglob("*.jpg"):
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (256, 256))


def test_a_file_shows_the_tile_of_its_number(tmp_path, tiles):
    write_sample(tmp_path, {"school": 2})
    with Image.open(tmp_path / "school" / "school-0002.jpg") as image:
        stored = np.asarray(image, dtype=np.float64)
    distances = [np.abs(stored - np.asarray(tile, dtype=np.float64)).mean() for tile in tiles["school"][:4]]
    assert np.argmin(distances) == 1
    assert distances[1] < 6


def test_files_do_not_depend_on_how_many_are_written(tmp_path):
    write_sample(tmp_path / "few", {"school": 2, "not-school": 1})
    write_sample(tmp_path / "more", {"not-school": 2, "school": 4})
    few, more = _digests(tmp_path / "few"), _digests(tmp_path / "more")
    assert few.items() <= more.items()


def test_writing_again_gives_the_same_bytes(tmp_path):
    write_sample(tmp_path, {"school": 2})
    first = _digests(tmp_path)
    write_sample(tmp_path, {"school": 2})
    assert _digests(tmp_path) == first


def test_jpeg_quality_varies(tmp_path):
    write_sample(tmp_path, {"school": 6})
    tables = set()
    for path in tmp_path.rglob("*.jpg"):
        with Image.open(path) as image:
            tables.add(str(image.quantization))
    assert len(tables) > 2


def test_no_tiles_of_a_class_leaves_an_empty_folder(tmp_path):
    assert write_sample(tmp_path, {"school": 0, "not-school": 1}) == 1
    assert list((tmp_path / "school").iterdir()) == []


def test_an_unknown_class_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match=r"no class 'hospital'; its classes are school and not-school"):
        draw_tile("hospital", 0)
    with pytest.raises(ConfigError, match="hospital"):
        write_sample(tmp_path, {"school": 1, "hospital": 1})
    assert list(tmp_path.iterdir()) == []


def test_negative_counts_and_numbers_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"-1 tiles of class 'school'; give 0 or more"):
        write_sample(tmp_path, {"school": -1})
    with pytest.raises(ConfigError, match=r"index -1 of class 'school'.* from 0"):
        draw_tile("school", -1)


def test_the_sample_is_named_and_small():
    assert SAMPLE_NAME == "synthetic sample"
    assert set(DEFAULT_COUNTS) == {"school", "not-school"}
    assert 300 <= sum(DEFAULT_COUNTS.values()) <= 600
