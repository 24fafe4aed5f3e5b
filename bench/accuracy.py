"""What is said to raise accuracy, measured on frozen features: `python bench/accuracy.py TILES LABELS WEIGHTS…`.

TILES is a folder of images, LABELS a CSV file with the columns file, label and source_class, WEIGHTS are ImageNet
weights of MobileNetV2 and of Xception. Features of every tile in all eight symmetries are computed once. Then tiles are
dealt at random, class by class: 70 % to learn from, 15 % to stop by, 15 % to measure on, which nothing is chosen by.
All variants see the same deals, so what counts is the mean difference to plain training and its standard error.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from sat_xception.model.augment import view
from sat_xception.model.backbones import get_backbone
from sat_xception.model.head import compile_model, head_layers
from sat_xception.model.network import build_backbone
from sat_xception.model.preprocess import decode_and_resize
from sat_xception.model.settings import TrainConfig
from sat_xception.model.weights import find_weights, identify_weights

_DEALS = 10
_BATCH, _EPOCHS, _PATIENCE, _VIEWS = 256, 100, 10, 8
_SMOOTHING, _MIXUP = (0.05, 0.1, 0.2), (0.2, 0.4)

Deal = tuple[np.ndarray, np.ndarray, np.ndarray]


def main() -> None:
    """Measure both tasks and print a table of each."""
    tiles, labels, *weights = (Path(argument) for argument in sys.argv[1:])
    with labels.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if (tiles.parent / row["file"]).is_file()]
    files = [tiles.parent / row["file"] for row in rows]
    features = {}
    for path in weights:
        backbone, alpha = identify_weights(path)
        started = time.perf_counter()
        features[backbone] = _features(files, path, backbone, alpha)
        print(f"{backbone}: {len(files)} tiles in {_VIEWS} views, {time.perf_counter() - started:.0f} s", flush=True)
    for column in ("label", "source_class"):
        classes, target = np.unique([row[column] for row in rows], return_inverse=True)
        print(f"\n{len(classes)} classes, {_DEALS} deals", flush=True)
        _measure(features, target)


def _features(files: list[Path], path: Path, backbone: str, alpha: float) -> np.ndarray:
    """Return `float32 [views, n, d]`."""
    size = get_backbone(backbone).input_size
    network = build_backbone(backbone, size, alpha, find_weights(str(path), backbone, alpha))
    forward = tf.function(lambda images: network(images, training=False), reduce_retracing=True)
    pixels = tf.data.Dataset.from_tensor_slices([str(file) for file in files])
    pixels = pixels.map(lambda file: decode_and_resize(tf.io.read_file(file), size)).batch(32)
    rows = [[forward(view(images, index)).numpy() for index in range(_VIEWS)] for images in pixels]
    return np.concatenate([np.stack(batch) for batch in rows], axis=1)


def _measure(features: dict[str, np.ndarray], target: np.ndarray) -> None:
    results: dict[str, list[tuple[float, float]]] = {}
    for seed in range(_DEALS):
        deal = _deal(target, seed)
        truth = target[deal[2]]

        def note(name: str, probabilities: np.ndarray, truth: np.ndarray = truth) -> None:
            right = float((probabilities.argmax(axis=1) == truth).mean())
            loss = float(-np.log(np.maximum(probabilities[np.arange(len(truth)), truth], 1e-7)).mean())
            results.setdefault(name, []).append((right, loss))

        single, averaged = {}, {}
        for backbone, rows in features.items():
            predict = _fit(rows, target, deal, seed)
            single[backbone] = predict(rows[0, deal[2]])
            averaged[backbone] = np.mean([predict(rows[index, deal[2]]) for index in range(_VIEWS)], axis=0)
            note(backbone, single[backbone])
            note(f"{backbone}, 8 views averaged", averaged[backbone])
            predict = _fit(rows, target, deal, seed, views=_VIEWS)
            note(f"{backbone}, trained on 8 views", predict(rows[0, deal[2]]))
            both = np.mean([predict(rows[index, deal[2]]) for index in range(_VIEWS)], axis=0)
            note(f"{backbone}, trained and averaged", both)
            for share in _SMOOTHING:
                note(f"{backbone}, label smoothing {share}", _fit(rows, target, deal, seed, share)(rows[0, deal[2]]))
            for alpha in _MIXUP:
                note(f"{backbone}, mixup {alpha}", _fit(rows, target, deal, seed, 0.0, alpha)(rows[0, deal[2]]))
        if len(features) > 1:
            note("both averaged", np.mean(list(single.values()), axis=0))
            note("both averaged, 8 views", np.mean(list(averaged.values()), axis=0))
    _print(results)


def _deal(target: np.ndarray, seed: int) -> Deal:
    rng = np.random.default_rng(seed)
    parts: list[list[int]] = [[], [], []]
    for label in np.unique(target):
        own = rng.permutation(np.flatnonzero(target == label))
        ends = [round(0.7 * len(own)), round(0.85 * len(own))]
        for part, some in zip(parts, np.split(own, ends), strict=True):
            part.extend(some)
    return tuple(np.array(part) for part in parts)  # type: ignore[return-value]


def _fit(
    rows: np.ndarray,
    target: np.ndarray,
    deal: Deal,
    seed: int,
    smoothing: float = 0.0,
    mixup: float = 0.0,
    views: int = 2,
) -> Callable[[np.ndarray], np.ndarray]:
    """Train a head as the train step does, and return what predicts with it."""
    learn, stop, _ = deal
    classes = int(target.max()) + 1
    config = TrainConfig(examples="-", out="-", label_smoothing=smoothing)
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input(rows.shape[2:]), *head_layers(config, classes)])
    compile_model(model, config, config.head_learning_rate, smoothing)
    inputs = np.concatenate([rows[index, learn] for index in range(views)])
    labels = np.tile(target[learn], views)
    weights = (len(learn) / classes / np.bincount(target[learn], minlength=classes))[labels]
    data = tf.data.Dataset.from_tensor_slices((inputs, labels, weights.astype(np.float32)))
    data = data.shuffle(len(inputs), seed=seed).batch(_BATCH)
    valid: Any = (rows[0, stop], target[stop])
    if mixup:
        rng = np.random.default_rng(seed)
        shapes = ([None, rows.shape[2]], [None, classes], [None])

        def mix(*batch: tf.Tensor) -> tuple[tf.Tensor, ...]:
            mixed = tf.numpy_function(lambda *b: _mix(rng, mixup, classes, *b), batch, 3 * [tf.float32])
            return tuple(tf.ensure_shape(part, shape) for part, shape in zip(mixed, shapes, strict=True))

        data = data.map(mix)
        model.compile(
            keras.optimizers.Adam(config.head_learning_rate), "categorical_crossentropy", metrics=["accuracy"]
        )
        valid = (valid[0], np.eye(classes, dtype=np.float32)[valid[1]])
    stopping = keras.callbacks.EarlyStopping("val_accuracy", patience=_PATIENCE, restore_best_weights=True)
    model.fit(data, validation_data=valid, epochs=_EPOCHS, callbacks=[stopping], verbose=0)
    return lambda inputs: model(inputs, training=False).numpy()


def _mix(
    rng: np.random.Generator, alpha: float, classes: int, rows: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Mix each row with another of the batch, and their labels alike (Zhang et al. 2018, "mixup")."""
    share = rng.beta(alpha, alpha, (len(rows), 1)).astype(np.float32)
    other = rng.permutation(len(rows))
    targets = np.eye(classes, dtype=np.float32)[labels]
    return (
        share * rows + (1 - share) * rows[other],
        share * targets + (1 - share) * targets[other],
        share[:, 0] * weights + (1 - share[:, 0]) * weights[other],
    )


def _print(results: dict[str, list[tuple[float, float]]]) -> None:
    print(f"{'':<34}{'accuracy':>10}{'to plain':>18}{'log loss':>10}{'to plain':>18}")
    for name, rows in results.items():
        figures = np.array(rows)
        base = np.array(results[name.split(",")[0]] if name.split(",")[0] in results else rows)
        change = figures - base
        error = change.std(axis=0, ddof=1) / np.sqrt(len(rows))
        line = f"{name:<34}"
        for column in (0, 1):
            line += f"{figures[:, column].mean():>10.4f}"
            line += f"{change[:, column].mean():>+10.4f} ± {error[column]:.4f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
