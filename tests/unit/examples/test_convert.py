"""From a dataset to TFRecord files that TensorFlow's own tools read."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from sat_xception.dataset.assemble import assemble
from sat_xception.dataset.settings import AssembleConfig
from sat_xception.errors import ConfigError, DataError
from sat_xception.examples.convert import ConvertResult, convert
from sat_xception.examples.index import shard_files
from sat_xception.examples.settings import ConvertConfig
from sat_xception.storage import file_digest, folder_digests, write_json
from tests.datasets import read_tiles

FEATURES = {
    "image/encoded": "bytes_list",
    "image/format": "bytes_list",
    "image/height": "int64_list",
    "image/width": "int64_list",
    "image/bytes": "int64_list",
    "image/mean_luma": "float_list",
    "image/std_luma": "float_list",
    "tile/weight": "float_list",
    "image/class/label": "int64_list",
    "image/class/text": "bytes_list",
    "tile/id": "bytes_list",
}


def image(number: int, fmt: str, size: tuple[int, int] = (12, 16)) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (*size, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, fmt)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def tiles(tmp_path_factory) -> Path:
    """Class folders of JPEG, PNG and TIFF tiles, 24 a class."""
    folder = tmp_path_factory.mktemp("tiles") / "data"
    for number, label in enumerate(("école", "field", "water")):
        (folder / label).mkdir(parents=True)
        for index in range(24):
            fmt = ("JPEG", "PNG", "TIFF")[index % 3]
            (folder / label / f"{index}.{fmt.lower()}").write_bytes(image(100 * number + index, fmt))
    return folder


@pytest.fixture
def dataset(tiles, tmp_path) -> Path:
    return assemble(AssembleConfig(data=str(tiles), out=tmp_path / "dataset", positive_label="field")).folder


def run(dataset: Path, **settings: object) -> ConvertResult:
    return convert(ConvertConfig(dataset=dataset, out=dataset.parent / "examples", **settings))


def read(folder: Path, split: str) -> list[tf.train.Example]:
    return [
        tf.train.Example.FromString(data)
        for data in tf.data.TFRecordDataset(list(map(str, shard_files(folder, split)))).as_numpy_iterator()
    ]


def described_by(folder: Path) -> dict[str, object]:
    return json.loads((folder / "examples.json").read_text())


def values(example: tf.train.Example) -> dict[str, object]:
    """Return the only value of each feature."""
    result = {}
    for name, feature in example.features.feature.items():
        (result[name],) = getattr(feature, feature.WhichOneof("kind")).value
    return result


# What is in the examples


def test_an_example_has_exactly_the_features_of_the_contract(dataset):
    for example in read(run(dataset).folder, "train"):
        kinds = {name: feature.WhichOneof("kind") for name, feature in example.features.feature.items()}
        assert kinds == FEATURES
        assert all(len(getattr(there, kinds[name]).value) == 1 for name, there in example.features.feature.items())


def test_examples_are_the_tiles_of_the_dataset_in_stored_order(dataset):
    result = run(dataset)
    classes = ["field", "water", "école"]
    assert described_by(result.folder)["classes"] == classes
    for split in ("train", "valid", "test"):
        stored = [tile for tile in read_tiles(dataset) if tile["split"] == split]
        found = [values(example) for example in read(result.folder, split)]
        assert len(found) == len(stored) > 0
        for tile, example in zip(stored, found, strict=True):
            assert example == {
                "image/encoded": tile["image"],
                "image/format": tile["format"].encode(),
                "image/height": 12,
                "image/width": 16,
                "image/bytes": len(tile["image"]),
                "image/mean_luma": tile["mean_luma"],
                "image/std_luma": tile["std_luma"],
                "tile/weight": 1.0,
                "image/class/label": classes.index(tile["label"]),
                "image/class/text": tile["label"].encode(),
                "tile/id": tile["id"].encode(),
            }


def test_source_bytes_of_jpeg_and_png_are_never_encoded_again(dataset, tiles):
    result = run(dataset)
    formats = []
    for split in ("train", "valid", "test"):
        for example in map(values, read(result.folder, split)):
            source = (tiles / example["tile/id"].decode()).read_bytes()
            kept = hashlib.sha256(example["image/encoded"]).digest() == hashlib.sha256(source).digest()
            assert kept is not example["tile/id"].endswith(b".tiff")
            formats.append(example["image/format"])
    assert sorted(formats) == [b"jpeg"] * 24 + [b"png"] * 48


def test_the_description_counts_by_split_and_class_and_has_the_digests(dataset):
    result = run(dataset)
    described = described_by(result.folder)
    counts = json.loads((dataset / "dataset.json").read_text())["counts"]["by_split"]
    assert {split: facts["by_class"] for split, facts in described["splits"].items()} == counts
    for split, facts in described["splits"].items():
        (shard,) = facts["shards"]
        assert shard["file"] == "examples-00000-of-00001.tfrecord"
        assert shard["sha256"] == file_digest(result.folder / split / shard["file"])
        assert shard["count"] == facts["count"] == sum(counts[split].values()) == result.counts[split]
    facts = {key: described[key] for key in ("positive_label", "source", "synthetic", "slices")}
    assert facts == {"positive_label": "field", "source": "data", "synthetic": False, "slices": []}
    assert described["dataset_digest"] == json.loads((dataset / "dataset.json").read_text())["digest"]
    assert described["config"]["dataset"] == str(dataset)


def test_the_summary_has_the_counts_and_the_place(dataset):
    result = run(dataset)
    counts = "  ".join(f"{split} {number}" for split, number in result.counts.items())
    assert result.summary() == f"convert   72 examples | {counts}\nwrote     {result.folder}"


def test_a_dataset_without_a_test_split_gives_none(tiles, tmp_path):
    fractions = (0.8, 0.2, 0)
    result = run(assemble(AssembleConfig(data=str(tiles), out=tmp_path / "dataset", fractions=fractions)).folder)
    assert sorted(path.name for path in result.folder.iterdir()) == ["examples.json", "train", "valid"]
    with pytest.raises(DataError, match="has no test split; it has train, valid"):
        shard_files(result.folder, "test")


# Files


def test_the_same_dataset_gives_the_same_bytes(dataset):
    first = folder_digests(run(dataset).folder)
    assert folder_digests(run(dataset).folder) == first
    assert len(first) == 4


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A dataset of which the training split is a few megabytes."""
    folder = tmp_path_factory.mktemp("large")
    for number, label in enumerate(("a", "b")):
        (folder / "data" / label).mkdir(parents=True)
        for index in range(12):
            data = image(100 * number + index, "PNG", (256, 256))
            (folder / "data" / label / f"{index}.png").write_bytes(data)
    return assemble(AssembleConfig(data=str(folder / "data"), out=folder / "dataset")).folder


def test_a_split_is_cut_into_files_of_about_the_size_asked_for(large):
    result = run(large, shard_mb=1)
    facts = described_by(result.folder)["splits"]["train"]
    assert [shard["file"] for shard in facts["shards"]] == [
        f"examples-{index:05d}-of-{len(facts['shards']):05d}.tfrecord" for index in range(len(facts["shards"]))
    ]
    files = shard_files(result.folder, "train")
    assert sorted(files) == sorted((result.folder / "train").iterdir())
    sizes = [file.stat().st_size for file in files]
    assert len(sizes) > 2
    assert all(10**6 <= size < 1.3 * 10**6 for size in sizes[:-1])
    in_one = [example.SerializeToString(deterministic=True) for example in read(run(large).folder, "train")]
    result = run(large, shard_mb=1)
    assert [example.SerializeToString(deterministic=True) for example in read(result.folder, "train")] == in_one
    counted = [sum(1 for _ in tf.data.TFRecordDataset(str(file))) for file in files]
    assert counted == [shard["count"] for shard in facts["shards"]]


# What is refused


def refusal(dataset: Path) -> str:
    """Return the message, after checking that nothing was left behind."""
    with pytest.raises(DataError) as caught:
        run(dataset)
    assert {path.name for path in dataset.parent.iterdir()} <= {"dataset"}
    return str(caught.value)


@pytest.fixture
def described(dataset) -> Callable[..., None]:
    """Return a function that changes the dataset's description."""

    def change(**facts: object) -> None:
        path = dataset / "dataset.json"
        write_json(path, {**json.loads(path.read_text()), **facts})

    return change


def test_a_folder_that_is_no_dataset_is_refused(tmp_path):
    assert "is missing: is " in refusal(tmp_path / "dataset")


def test_a_missing_shard_is_refused(dataset):
    (dataset / "tiles-00000-of-00001.parquet").unlink()
    assert refusal(dataset) == f"{dataset}/tiles-00000-of-00001.parquet is missing; run `sat_xception assemble` again"


def test_a_damaged_shard_is_refused(dataset):
    shard = dataset / "tiles-00000-of-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert refusal(dataset).startswith(f"{shard} is damaged")


def test_counts_that_do_not_match_the_tiles_are_refused(dataset, described):
    counts = json.loads((dataset / "dataset.json").read_text())["counts"]
    counts["by_split"]["train"]["field"] += 1
    described(counts=counts)
    assert f"{dataset} holds " in (told := refusal(dataset))
    assert told.endswith("; run assemble again")


def test_a_split_that_the_description_lacks_is_refused(dataset, described):
    counts = json.loads((dataset / "dataset.json").read_text())["counts"]
    del counts["by_split"]["test"]
    described(counts=counts)
    assert "is a split or a class that" in refusal(dataset)


def test_a_class_that_the_description_lacks_is_refused(dataset, described):
    described(classes=["field", "water"])
    assert "is a split or a class that" in refusal(dataset)


def test_the_dataset_is_not_replaced_by_its_examples(dataset):
    before = folder_digests(dataset)
    with pytest.raises(ConfigError, match="isn't an earlier result of this step"):
        convert(ConvertConfig(dataset=dataset, out=dataset))
    assert folder_digests(dataset) == before


def test_examples_that_are_not_there_are_told(dataset, tmp_path):
    with pytest.raises(DataError, match=r"is missing: is .* a folder that `sat_xception convert` wrote"):
        shard_files(tmp_path, "train")
    folder = run(dataset).folder
    (folder / "train" / "examples-00000-of-00001.tfrecord").unlink()
    with pytest.raises(DataError, match=r"00000-of-00001\.tfrecord is missing; run `sat_xception convert` again"):
        shard_files(folder, "train")
