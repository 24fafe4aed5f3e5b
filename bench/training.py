"""Training against the 2018 recipe and Keras's own loader: `python bench/training.py TILES WEIGHTS`.

TILES are class folders, WEIGHTS is a MobileNetV2 `.h5` file. Two tables: images a second of the input alone, with the
limit (bare decode) beside it, and the time to a validation accuracy, with the limit (a bare forward and backward pass)
beside it. Each contender runs in a process of its own; rates count from after its imports.

The recipe is that of github.com/developmentseed/unicef-schools, `main_model/sat_xception` at 96a4df4: its
augmentation, a dense layer of 256 with dropout 0.25, two epochs with a frozen backbone, then all layers; where it
searched, the middle of its space. Its epochs were of 256 steps; here they are one pass over the tiles.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
_BATCH = 32
_PASSES = 4
# `train_config.py` of the recipe.
_AUGMENTATION = {
    "horizontal_flip": True,
    "vertical_flip": True,
    "rotation_range": 180,
    "zoom_range": (1, 1.2),
    "brightness_range": (0.8, 1.2),
    "channel_shift_range": 10,
}
_WORKERS = 8
_HEAD_RATE, _ALL_RATE = 5e-4, 5e-5
_HEAD_EPOCHS = 2


def main() -> None:
    """Prepare the tiles, run every contender, print the tables; or be the run of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tiles", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--epochs", type=int, default=3, help="epochs of the recipe's second phase")
    parser.add_argument("--only", choices=["input", "accuracy"], help="one of the two tables")
    parser.add_argument("--run", nargs=2, metavar=("CONTENDER", "PIXELS"))
    arguments = parser.parse_args()
    if arguments.run:
        name, pixels = arguments.run
        print(json.dumps({**_INPUTS, **_TRAININGS}[name](arguments, int(pixels))))
        return
    with tempfile.TemporaryDirectory(prefix="bench-training-") as name:
        prepared = _prepare(arguments.tiles, Path(name))
        if arguments.only != "accuracy":
            _compare_inputs(prepared, arguments)
        if arguments.only != "input":
            _compare_trainings(prepared, arguments)


def _prepare(tiles: Path, folder: Path) -> Path:
    """Write the same split twice: as class folders, and as examples."""
    from sat_xception.dataset.assemble import assemble
    from sat_xception.dataset.settings import AssembleConfig
    from sat_xception.examples.convert import convert
    from sat_xception.examples.settings import ConvertConfig

    for path in sorted(path for path in tiles.rglob("*") if path.is_file()):
        # Neighbouring numbers often show the same area: the split is by tens of them.
        number = int("".join(filter(str.isdigit, path.stem)) or 0)
        split = "valid" if number // 10 % 4 == 3 else "train"
        target = folder / "folders" / split / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    assemble(AssembleConfig(data=str(folder / "folders"), out=folder / "dataset", keep_near_duplicates=True))
    convert(ConvertConfig(dataset=folder / "dataset", out=folder / "examples"))
    return folder


def _compare_inputs(prepared: Path, arguments: argparse.Namespace) -> None:
    for pixels in (224, 256):
        print(f"\ninput, {pixels} px{'':<35}{'images/s':>10}{'ratio':>8}", flush=True)
        rates = {name: float(_run(name, pixels, prepared, arguments)) for name in _INPUTS}
        ours = rates["ours, first pass"]
        for name, rate in rates.items():
            print(f"{name:<48}{rate:>10,.0f}{ours / rate:>8.2f}")


def _compare_trainings(prepared: Path, arguments: argparse.Namespace) -> None:
    recipe, ours, limits = (_run(name, 224, prepared, arguments) for name in _TRAININGS)
    best = max(row["val_accuracy"] for row in recipe)
    print(f"\n{'training, MobileNetV2, 224 px':<34}{'accuracy':>10}{'reached after':>15}{'best':>8}{'all':>9}")
    after = {}
    for name, rows in (("the recipe of 2018", recipe), ("ours", ours)):
        after[name] = next((row["seconds"] for row in rows if row["val_accuracy"] >= best), None)
        told = f"{after[name]:.1f} s" if after[name] else "never"
        highest = max(row["val_accuracy"] for row in rows)
        print(f"{name:<34}{best:>10.4f}{told:>15}{highest:>8.4f}{rows[-1]['seconds']:>7.1f} s")
    if after["ours"]:
        first, whole = after["the recipe of 2018"] / after["ours"], recipe[-1]["seconds"] / after["ours"]
        print(f"ratio {first:.1f} to the recipe's first time there, {whole:.1f} to its end")
    print(f"limits: forward {limits['forward']:,.0f} tiles/s, forward and backward {limits['backward']:,.0f} tiles/s")


def _run(name: str, pixels: int, prepared: Path, arguments: argparse.Namespace) -> Any:  # noqa: ANN401
    command = [sys.executable, __file__, str(prepared), str(arguments.weights), "--epochs", str(arguments.epochs)]
    command += ["--run", name, str(pixels)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return json.loads(told.splitlines()[-1])


def _rate(batches: Iterator[Any], count: int) -> float:
    """Return images a second over a number of images, after one batch to begin with."""
    next(batches)
    seen, started = 0, time.perf_counter()
    for batch in batches:
        seen += len(batch[0])
        if seen >= count:
            break
    return seen / (time.perf_counter() - started)


def _count(arguments: argparse.Namespace) -> int:
    return sum(path.is_file() for path in (arguments.tiles / "folders" / "train").rglob("*"))


def _decode_alone(arguments: argparse.Namespace, pixels: int) -> float:
    import tensorflow as tf

    paths = [str(path) for path in (arguments.tiles / "folders" / "train").rglob("*") if path.is_file()]
    # In memory before: the limit is of decoding, not of files.
    data = tf.data.Dataset.from_tensor_slices([Path(path).read_bytes() for path in paths]).repeat()
    decode = lambda image: tf.io.decode_jpeg(image, channels=3, dct_method="INTEGER_ACCURATE")  # noqa: E731
    # In groups, so that the loop in Python costs nothing.
    decoded = data.map(decode, num_parallel_calls=tf.data.AUTOTUNE).map(lambda image: tf.shape(image)[:1])
    return _rate(iter(decoded.batch(_BATCH).map(lambda sizes: (sizes,))), _PASSES * len(paths))


def _generator(arguments: argparse.Namespace, pixels: int, split: str = "train") -> Any:  # noqa: ANN401
    import keras
    from keras._tf_keras.keras.preprocessing.image import ImageDataGenerator

    changes = _AUGMENTATION if split == "train" else {}
    generator = ImageDataGenerator(preprocessing_function=keras.applications.mobilenet_v2.preprocess_input, **changes)
    batches = generator.flow_from_directory(
        str(arguments.tiles / "folders" / split),
        target_size=(pixels, pixels),
        batch_size=_BATCH,
        seed=42,
        shuffle=split == "train",
    )
    batches.workers = _WORKERS
    return batches


def _input_of_2018(arguments: argparse.Namespace, pixels: int) -> float:
    from concurrent.futures import ThreadPoolExecutor

    batches = _generator(arguments, pixels)
    with ThreadPoolExecutor(_WORKERS) as pool:
        number = range(2 + _PASSES * _count(arguments) // _BATCH)
        return _rate(pool.map(lambda index: batches[index % len(batches)], number), _count(arguments))


def _keras_loader(arguments: argparse.Namespace, pixels: int) -> float:
    import keras
    import tensorflow as tf

    data = keras.utils.image_dataset_from_directory(
        str(arguments.tiles / "folders" / "train"), image_size=(pixels, pixels), batch_size=_BATCH, seed=42
    )
    layers = keras.layers
    change = keras.Sequential(
        [
            layers.RandomFlip("horizontal_and_vertical"),
            layers.RandomRotation(0.5),
            layers.RandomBrightness(0.1),
            layers.RandomContrast(0.15),
        ]
    )
    changed = data.map(lambda images, labels: (change(images, training=True), labels), num_parallel_calls=-1)
    return _rate(iter(changed.repeat().prefetch(tf.data.AUTOTUNE)), _PASSES * _count(arguments))


def _ours(arguments: argparse.Namespace, pixels: int, cached: bool) -> float:
    from sat_xception.model import input as model_input

    if not cached:
        model_input._CACHE_BYTES = 0
    data = model_input.training_batches(arguments.tiles / "examples", "train", pixels, _BATCH, seed=0)
    passes = chain.from_iterable(data.epoch(number) for number in count())
    if cached:
        for _ in islice(passes, data.steps):
            pass
    return _rate(passes, _PASSES * _count(arguments))


def _recipe_of_2018(arguments: argparse.Namespace, pixels: int) -> list[dict[str, float]]:
    import keras

    keras.utils.set_random_seed(42)
    train, valid = _generator(arguments, pixels), _generator(arguments, pixels, "valid")
    started = time.monotonic()
    network = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(pixels, pixels, 3), pooling="avg", alpha=_alpha(arguments.weights)
    )
    network.load_weights(arguments.weights)
    rows = keras.layers.Dense(256, activation="relu")(network.output)
    output = keras.layers.Dense(train.num_classes, activation="softmax")(keras.layers.Dropout(0.25)(rows))
    model = keras.Model(network.input, output)
    told: list[dict[str, float]] = []

    class Clock(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            accuracy = float((logs or {})["val_accuracy"])
            told.append({"seconds": time.monotonic() - started, "val_accuracy": accuracy})

    for trainable, rate, epochs in ((False, _HEAD_RATE, _HEAD_EPOCHS), (True, _ALL_RATE, arguments.epochs)):
        network.trainable = trainable
        # Compiled by XLA, which Keras 3 does by itself, these networks are several times slower on CPUs; Keras of 2018
        # didn't.
        model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy"], jit_compile=False)
        model.fit(train, validation_data=valid, epochs=epochs, callbacks=[Clock()], verbose=0)
    return told


def _our_training(arguments: argparse.Namespace, pixels: int) -> list[dict[str, float]]:
    from sat_xception.model.settings import TrainConfig
    from sat_xception.train.record import TrainingHistory, TrainingRecord
    from sat_xception.train.train import train

    with tempfile.TemporaryDirectory() as folder:
        settings = {"backbone": "mobilenetv2", "alpha": _alpha(arguments.weights), "weights": str(arguments.weights)}
        train(TrainConfig(examples=arguments.tiles / "examples", out=Path(folder) / "out", **settings))
        epochs = TrainingHistory.read(Path(folder) / "out").epochs
        record = TrainingRecord.read(Path(folder) / "out")
    # Whatever isn't an epoch counts as if it came before the first: reading, features, writing the model.
    spent = record.total_seconds - sum(epoch.seconds for epoch in epochs)
    told = []
    for epoch in epochs:
        spent += epoch.seconds
        told.append({"seconds": spent, "val_accuracy": epoch.val_accuracy})
    return told


def _limits(arguments: argparse.Namespace, pixels: int) -> dict[str, float]:
    import keras
    import numpy as np
    import tensorflow as tf

    network = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(pixels, pixels, 3), pooling="avg", alpha=_alpha(arguments.weights)
    )
    images = tf.constant(np.random.default_rng(0).random((_BATCH, pixels, pixels, 3), dtype=np.float32))

    @tf.function
    def forward() -> tf.Tensor:
        return tf.reduce_sum(network(images, training=False))

    @tf.function
    def backward() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(network(images, training=False))
        return [tf.reduce_sum(gradient) for gradient in tape.gradient(loss, network.trainable_variables)]

    rates = {}
    for name, function in (("forward", forward), ("backward", backward)):
        function()
        started = time.perf_counter()
        for _ in range(10):
            function()
        rates[name] = 10 * _BATCH / (time.perf_counter() - started)
    return rates


def _alpha(weights: Path) -> float:
    from sat_xception.model.weights import identify_weights

    return identify_weights(weights)[1]


_INPUTS: dict[str, Callable[[argparse.Namespace, int], float]] = {
    "ours, first pass": lambda arguments, pixels: _ours(arguments, pixels, cached=False),
    "ours, later passes (decoded tiles in memory)": lambda arguments, pixels: _ours(arguments, pixels, cached=True),
    "ImageDataGenerator with the recipe's changes": _input_of_2018,
    "image_dataset_from_directory, Keras layers": _keras_loader,
    "limit: JPEG decode alone": _decode_alone,
}
_TRAININGS: dict[str, Callable[[argparse.Namespace, int], Any]] = {
    "recipe": _recipe_of_2018,
    "our training": _our_training,
    "limits": _limits,
}


if __name__ == "__main__":
    main()
