"""A tiny model as `package` would write it, and a server that serves it: what the serving tests stand on.

PYTEST_DONT_REWRITE: test modules both import this and name it in `pytest_plugins`, and it asserts nothing.
"""

from __future__ import annotations

import atexit
import functools
import io
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from sat_xception.serve.settings import ServeConfig
from sat_xception.served_model.golden import EncodedImage, GoldenTile, GoldenTiles
from sat_xception.served_model.packaged_model import PackagedModel

if TYPE_CHECKING:  # tests of rollouts need no TensorFlow
    import keras
    import tensorflow as tf

NAME = "tiny"
VERSION = 1
SIDE = 32
TOO_HIGH = 100  # pixels: an image that is fine and that the model refuses nevertheless
CLASSES = ["not-school", "school"]


def tiny_keras_model(seed: int) -> keras.Model:
    """Return a network of a few weights; another seed gives other answers."""
    import keras

    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            keras.layers.Rescaling(1 / 127.5, offset=-1),
            keras.layers.Conv2D(4, 3, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(len(CLASSES), activation="softmax"),
        ]
    )


def write_version(folder: Path, seed: int = 0) -> Path:
    """Write a version with the signatures of a packaged model; each seed is exported once a process."""
    shutil.copytree(_exported(seed), folder)
    return folder


@functools.cache
def _exported(seed: int) -> Path:
    import keras
    import tensorflow as tf

    model = tiny_keras_model(seed)
    names = tf.constant(CLASSES)

    def decode(data: tf.Tensor) -> tf.Tensor:
        pixels = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
        tf.debugging.assert_less(tf.shape(pixels)[0], TOO_HIGH, message="the image is too high")
        return tf.image.resize(tf.cast(pixels, tf.float32), (SIDE, SIDE))

    def score_bytes(image_bytes: tf.Tensor) -> tf.Tensor:
        pixels = tf.map_fn(decode, image_bytes, fn_output_signature=tf.TensorSpec((SIDE, SIDE, 3), tf.float32))
        return model(pixels)

    def serving_default(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": score_bytes(image_bytes)}

    def classify(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = score_bytes(image_bytes)
        label = tf.gather(names, tf.argmax(probabilities, axis=-1))
        return {"probabilities": probabilities, "label": label, "score": tf.reduce_max(probabilities, axis=-1)}

    def images(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": model(tf.image.resize(tf.cast(images, tf.float32), (SIDE, SIDE)))}

    archive = keras.export.ExportArchive()
    archive.track(model)
    encoded = [tf.TensorSpec((None,), tf.string, name="image_bytes")]
    archive.add_endpoint("serving_default", serving_default, encoded)
    archive.add_endpoint("classify", classify, encoded)
    archive.add_endpoint("images", images, [tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")])
    temporary = tempfile.mkdtemp(prefix="tiny-model-")
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    folder = Path(temporary) / str(VERSION)
    archive.write_out(str(folder), verbose=False)
    describe_version(folder)
    return folder


def describe_version(folder: Path, **facts: Any) -> PackagedModel:
    """Write the `model.json` of a tiny model, or change what is given of the one that is there; return it."""
    model = PackagedModel.find(folder) or PackagedModel(
        name=NAME,
        version=VERSION,
        backbone="mobilenetv2",
        model="0" * 64,
        classes=tuple(CLASSES),
        positive_label="school",
        threshold=0.5,
        dataset_digest="1" * 64,
        tiles={"train": 8, "valid": 4},
        metrics={},
    )
    model = PackagedModel.model_validate(model.content() | facts)
    model.write(folder)
    return model


def write_golden_tiles(folder: Path, images: list[bytes], probabilities: np.ndarray, tolerance: float) -> None:
    """Write the `golden.json` of a tiny model, which gives the images these probabilities."""
    tiles = [
        GoldenTile(
            tile_id=f"tile-{index}",
            label="school",
            image_bytes=EncodedImage.of(image),
            probabilities=tuple(row.tolist()),
        )
        for index, (image, row) in enumerate(zip(images, probabilities, strict=True))
    ]
    GoldenTiles(
        signature_name="serving_default", classes=tuple(CLASSES), tolerance=tolerance, tiles=tuple(tiles)
    ).write(folder)


def reverse_golden_tiles(folder: Path, *numbers: int) -> list[str]:
    """Expect the opposite of what the model answers, of these tiles or of all; return their ids."""
    golden = GoldenTiles.read(folder)
    chosen = numbers or range(len(golden.tiles))
    tiles = tuple(
        tile.model_copy(update={"probabilities": tile.probabilities[::-1]}) if index in chosen else tile
        for index, tile in enumerate(golden.tiles)
    )
    golden.model_copy(update={"tiles": tiles}).write(folder)
    return [golden.tiles[index].tile_id for index in chosen]


def write_echo_version(folder: Path) -> Path:
    """Write a version that answers with its own inputs, of any shape."""
    import tensorflow as tf

    class Echo(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec(None, tf.string, name="text"),
                tf.TensorSpec(None, tf.string, name="data_bytes"),
                tf.TensorSpec(None, tf.uint64, name="number"),
                tf.TensorSpec(None, tf.float32, name="value"),
            ]
        )
        def all(
            self, text: tf.Tensor, data_bytes: tf.Tensor, number: tf.Tensor, value: tf.Tensor
        ) -> dict[str, tf.Tensor]:
            named = {"text": text, "data_bytes": data_bytes, "number": number, "value": value}
            return {name: tf.identity(tensor) for name, tensor in named.items()}

        @tf.function(input_signature=[tf.TensorSpec(None, tf.string, name="data_bytes")])
        def one(self, data_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"data_bytes": tf.identity(data_bytes)}

    model = Echo()
    tf.saved_model.save(model, str(folder), signatures={"serving_default": model.all, "one": model.one})
    return folder


def write_slow_version(folder: Path) -> Path:
    """Write a version that works as many seconds on a request as it says, with one `seconds` a row."""
    import tensorflow as tf

    class Slow(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, name="seconds")])
        def work(self, seconds: tf.Tensor) -> dict[str, tf.Tensor]:
            end = tf.timestamp() + tf.cast(tf.reduce_max(seconds), tf.float64)
            tf.while_loop(lambda: tf.timestamp() < end, lambda: (), ())
            return {"seconds": seconds}

    model = Slow()
    tf.saved_model.save(model, str(folder), signatures={"serving_default": model.work})
    return folder


def pixels_of(count: int, seed: int = 0, side: int = SIDE) -> np.ndarray:
    """Return noise, uint8 [count, side, side, 3], of a colour that differs from image to image."""
    random = np.random.default_rng(seed)
    colour = random.integers(0, 256, (count, 1, 1, 3))
    return np.clip(colour + random.integers(-40, 41, (count, side, side, 3)), 0, 255).astype(np.uint8)


def encoded(pixels: np.ndarray, image_format: str = "PNG") -> bytes:
    """Return one image's file, lossless unless the format is JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format)
    return buffer.getvalue()


def pngs(count: int, seed: int = 0) -> list[bytes]:
    """Return the files of `pixels_of`."""
    return [encoded(image) for image in pixels_of(count, seed)]


def expected(pixels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return what Keras itself says, float32 [n, classes]."""
    return np.asarray(tiny_keras_model(seed)(pixels.astype(np.float32)))


@dataclass(frozen=True)
class Contract:
    """A server under test."""

    rest_url: str
    grpc_address: str

    @property
    def model_url(self) -> str:
        """Return the model's address."""
        return f"{self.rest_url}/v1/models/{NAME}"


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: Any) -> Path:
    """Return a model root with version 1; not to be changed."""
    root: Path = tmp_path_factory.mktemp("root")
    write_version(root / NAME / str(VERSION))
    return root


@pytest.fixture(scope="session")
def contract(tiny_root: Path) -> Iterator[Contract]:
    """Return the server under test."""
    from sat_xception.serve.server import RunningServer

    with RunningServer(serve_config(tiny_root)) as server:
        yield Contract(server.rest_url, server.grpc_address)


def serve_config(root: Path, **settings: Any) -> ServeConfig:
    """Return a configuration with free ports and a short poll."""
    return ServeConfig(**{"model_root": root, "name": NAME, "rest_port": 0, "grpc_port": 0, "poll_s": 0.05, **settings})
