"""Examples as batches: every tile once a pass, in stored order to evaluate, in a new and repeatable order to train."""

import io
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from sat_xception.errors import DataError
from sat_xception.model import input as model_input
from sat_xception.model.input import encoded_examples, evaluation_batches, reading, training_batches
from sat_xception.storage import file_digest

COUNT, SIDE = 13, 16


def numbered_tile(number):
    """A tile with 3 bright pixels more than the one before: their number outlives every view of it."""
    pixels = np.full((SIDE * SIDE,), 100, dtype=np.uint8)
    pixels[: 3 * (number + 1)] = 160
    buffer = io.BytesIO()
    Image.fromarray(pixels.reshape(SIDE, SIDE)).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def number_of(image):
    middle = (int(image.max()) + int(image.min())) / 2
    return (image[:, :, 0] > middle).sum() // 3 - 1


def write_shard(path, numbers, image=None):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in numbers:
            values = {"image/encoded": image or numbered_tile(number), "tile/id": f"tile {number}".encode()}
            feature = {
                key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for key, value in values.items()
            }
            feature["image/class/label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[number % 3]))
            if number % 4 == 0:
                feature["tile/weight"] = tf.train.Feature(float_list=tf.train.FloatList(value=[2.5]))
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two shards of a training split, as convert writes them, with the number of a tile in its id."""
    folder = tmp_path_factory.mktemp("numbered")
    (folder / "train").mkdir()
    shards = []
    for shard, numbers in enumerate((range(8), range(8, COUNT))):
        name = f"examples-{shard:05d}-of-00002.tfrecord"
        write_shard(folder / "train" / name, numbers)
        shards.append({"file": name, "count": len(numbers), "sha256": file_digest(folder / "train" / name)})
    train = {"count": COUNT, "by_class": {}, "shards": shards}
    facts = {"dataset_digest": "", "slices": [], "source": "numbers", "synthetic": False}
    description = {"classes": ["0", "1", "2"], "splits": {"train": train}, **facts}
    (folder / "examples.json").write_text(json.dumps(description))
    return folder


def numbers_of_a_pass(batches):
    images, labels, *weights = zip(*batches.as_numpy_iterator(), strict=True)
    numbers = [int(number_of(image)) for image in np.concatenate(images)]
    assert np.concatenate(labels).tolist() == [number % 3 for number in numbers]  # each keeps its own label
    for some in weights:
        assert np.concatenate(some).tolist() == [1.0 if number % 4 else 2.5 for number in numbers]
    return numbers


def test_examples_come_in_stored_order_with_id_and_bytes(folder):
    found = list(encoded_examples(folder, "train").as_numpy_iterator())
    assert [(tile_id, label) for tile_id, _, label in found] == [
        (f"tile {number}".encode(), number % 3) for number in range(COUNT)
    ]
    assert found[9][1] == numbered_tile(9)


@pytest.mark.parametrize("batch", [1, 4, COUNT - 1, COUNT, COUNT + 1])
def test_evaluation_keeps_the_order_and_the_short_last_batch(folder, batch):
    batches = evaluation_batches(folder, "train", SIDE, batch)
    assert int(batches.cardinality()) == len(list(batches)) == -(-COUNT // batch)
    assert numbers_of_a_pass(batches) == list(range(COUNT))
    sizes = [len(labels) for _, labels in batches]
    assert sizes[:-1] == [batch] * (len(sizes) - 1)
    assert sum(sizes) == COUNT


def test_batches_are_the_models_input(folder):
    training = training_batches(folder, "train", 24, 4, seed=0).epoch(0)
    for batches in (evaluation_batches(folder, "train", 24, 4), training):
        images, labels = next(iter(batches))[:2]
        assert (images.shape, images.dtype) == ((4, 24, 24, 3), tf.uint8)
        assert (labels.shape, labels.dtype) == ((4,), tf.int64)


@pytest.mark.parametrize("batch", [1, 4, COUNT])
def test_training_shows_every_tile_once_a_pass_in_another_order_each(folder, batch):
    batches = training_batches(folder, "train", SIDE, batch, seed=1)
    assert batches.steps == -(-COUNT // batch)
    passes = [numbers_of_a_pass(batches.epoch(number)) for number in range(3)]
    for numbers in passes:
        assert sorted(numbers) == list(range(COUNT))
    assert len({tuple(numbers) for numbers in [list(range(COUNT)), *passes]}) == 4


def pixels_of_passes(folder, seed, passes=2):
    batches = training_batches(folder, "train", SIDE, 4, seed=seed)
    numbers = [batches.epoch(number).as_numpy_iterator() for number in range(passes)]
    return [np.concatenate([images for images, *_ in one]) for one in numbers]


@pytest.mark.parametrize("seed", [0, 7])
def test_order_and_views_follow_from_the_seed(folder, seed):
    tf.random.set_seed(seed)
    first = pixels_of_passes(folder, seed)
    tf.random.set_seed(seed)
    np.testing.assert_array_equal(first, pixels_of_passes(folder, seed))
    assert not np.array_equal(first, pixels_of_passes(folder, seed + 1))


@pytest.mark.parametrize("step", [0, 1, 3])
def test_what_is_left_of_an_epoch_is_the_end_of_it(folder, step):
    batches = training_batches(folder, "train", SIDE, 4, seed=5)
    whole, rest = (list(batches.epoch(2, first).as_numpy_iterator()) for first in (0, step))
    assert len(rest) == len(whole) - step
    for one, other in zip(whole[step:], rest, strict=True):
        for part, same in zip(one, other, strict=True):
            np.testing.assert_array_equal(part, same)


def test_tiles_are_decoded_once_whatever_the_number_of_epochs(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    batches = training_batches(copy, "train", SIDE, 4, seed=0)
    first = sorted(numbers_of_a_pass(batches.epoch(0)))
    shutil.rmtree(copy / "train")
    assert sorted(numbers_of_a_pass(batches.epoch(1))) == first


def test_another_pass_shows_other_views(folder):
    views = [{image.tobytes() for image in images} for images in pixels_of_passes(folder, 0)]
    assert not views[0] & views[1]


def test_data_that_is_too_large_to_keep_in_memory_gives_the_same_batches(folder, monkeypatch):
    tf.random.set_seed(3)
    kept = pixels_of_passes(folder, 3)
    monkeypatch.setattr(model_input, "_CACHE_BYTES", 0)
    tf.random.set_seed(3)
    np.testing.assert_array_equal(kept, pixels_of_passes(folder, 3))


def test_a_missing_split_or_file_is_told(folder, tmp_path):
    for batches in (evaluation_batches, lambda *given: training_batches(*given, seed=0)):
        with pytest.raises(DataError, match="no test split; it has train"):
            batches(folder, "test", SIDE, 4)
        with pytest.raises(DataError, match=r"examples\.json is missing.*sat_xception convert"):
            batches(tmp_path, "train", SIDE, 4)
    (tmp_path / "examples.json").write_bytes((folder / "examples.json").read_bytes())
    with pytest.raises(DataError, match=r"00000-of-00002\.tfrecord is missing"):
        evaluation_batches(tmp_path, "train", SIDE, 4)


@pytest.fixture
def network():
    layers = [keras.Input((SIDE, SIDE, 3)), keras.layers.Flatten(), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse")
    return model


def damage(folder, tmp_path, change):
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    file = damaged / "train" / "examples-00001-of-00002.tfrecord"
    file.write_bytes(change(file.read_bytes()))
    return damaged


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:200] + b"?" + data[201:], "corrupted record at"),
        (lambda data: data[:-9], "truncated record at"),
        (lambda data: b"<html>not found</html>", "corrupted record at 0"),
    ],
)
@pytest.mark.parametrize("inside_fit", [False, True])
def test_a_damaged_file_is_the_users_to_repair_and_no_fault_of_ours(
    folder, network, tmp_path, change, reason, inside_fit
):
    damaged = damage(folder, tmp_path, change)
    with pytest.raises(DataError, match=rf"an example in {damaged} can't be read: {reason}.*Run assemble and convert"):
        with reading(damaged):
            if inside_fit:
                network.fit(training_batches(damaged, "train", SIDE, 4, seed=0).epoch(0), verbose=0, shuffle=False)
            list(evaluation_batches(damaged, "train", SIDE, 4))


def test_an_image_that_cant_be_decoded_is_named_with_its_tile(folder, tmp_path):
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    write_shard(damaged / "train" / "examples-00001-of-00002.tfrecord", range(8, COUNT), image=b"no image at all")
    first = [tile.decode() for tile, *_ in encoded_examples(damaged, "train").as_numpy_iterator()][8]
    with pytest.raises(DataError, match=rf"Unknown image file format.* It is the tile {first}: repair or remove it"):
        with reading(damaged):
            list(evaluation_batches(damaged, "train", SIDE, 4))


def test_converted_tiles_come_with_the_labels_of_their_folders(examples):
    classes = json.loads((examples / "examples.json").read_text())["classes"]
    for tile_id, _, label in encoded_examples(examples, "valid").as_numpy_iterator():
        assert tile_id.decode().split("/")[0] == classes[label]
