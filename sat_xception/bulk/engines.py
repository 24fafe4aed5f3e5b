"""Make engines ready: convert and measure once a run, open in each process, and prove before a tile is scored."""

from __future__ import annotations

import contextlib
import importlib.metadata
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from sat_xception.bulk.scorer import Engine, ScoringModel
from sat_xception.bulk.tiles import Pixels
from sat_xception.errors import ConfigError, DataError
from sat_xception.examples.index import ExamplesIndex
from sat_xception.imagery.check import CheckConfig, decode_tile
from sat_xception.log import get_logger, quiet_imports
from sat_xception.served_model.golden import check_answers
from sat_xception.storage import (
    GcsPath,
    facts_digest,
    fetch_folder,
    read_json_file,
    scratch_folder,
    write_json_file,
    write_stored_bytes,
)

__all__ = ["ENGINE_FOLDER", "engine_identity", "open_engine", "prepare_engine"]

_log = get_logger(__name__)
ENGINE_FOLDER = "engine"
_RECORD = "engine.json"
# NNCF's own number for a calibration, https://docs.openvino.ai "Basic Quantization Flow".
_CALIBRATION_TILES = 300
_MEASURE_BATCH = 32
# Whatever differs from the package in 8 or 16 bits is told by the accuracy that was measured, not by golden tiles.
_COARSE = 0.5


def engine_identity(engine: str, precision: str, calibrate: Path | None) -> dict[str, Any]:
    """Return what an engine's answers depend on beside the model, without making it ready.

    Args:
        engine: "tensorflow" or "openvino".
        precision: "fp32", "bf16" or "int8".
        calibrate: Examples, which have a say in numbers that are less exact.
    """
    names = ("tensorflow", "tensorflow-cpu") if engine == "tensorflow" else (engine,)
    facts = {"name": engine, "precision": precision, "made_by": _version_of(names)}
    if calibrate and precision != "fp32":
        facts["calibrated_on"] = facts_digest(ExamplesIndex.read(calibrate).content()["splits"])
    return facts


def _version_of(names: Sequence[str]) -> str:
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return f"{names[0]} {importlib.metadata.version(name)}"
    return names[0]


def prepare_engine(
    model: ScoringModel, engine: str, precision: str, calibrate: Path | None, place: Path
) -> dict[str, Any]:
    """Make what an engine needs, unless it is there already, and return what `scores.json` tells of it.

    Args:
        model: The packaged version.
        engine: "tensorflow" or "openvino".
        precision: "fp32", "bf16" or "int8".
        calibrate: Examples, for numbers that are less exact.
        place: Folder, here or in a bucket, that all workers read.

    Raises:
        ConfigError: This processor, or what is installed, can't do it.
        ModelError: The model can't be converted, or doesn't answer as its package does.
    """
    facts = engine_identity(engine, precision, calibrate)
    if engine == "tensorflow":
        return facts | {"accuracy_loss": 0.0}
    with quiet_imports():
        from sat_xception.bulk.openvino_engine import NETWORK_FILE, check_precision, write_network
    check_precision(precision)
    made_of = facts | {"model": model.digest}
    record = read_json_file(place / _RECORD)
    if record is not None and all(record.get(key) == value for key, value in made_of.items()):
        return facts | {"accuracy_loss": record["accuracy_loss"], **record["measured"]}
    _log.info("engine    converting %s %s for OpenVINO, %s", model.name, model.version, precision)
    with scratch_folder() as work, _other_process() as other:
        graph, size = other.submit(_network_of, model.folder).result()
        tiles = other.submit(_example_tiles, calibrate, size).result() if calibrate else None
        calibration = tiles["train"][0] if tiles and precision == "int8" else None
        try:
            write_network(graph, work, calibration)
        except ModuleNotFoundError as error:
            raise ConfigError(f"--precision int8 needs {error.name}: pip install 'sat-xception[openvino]'") from None
        measured = _measure(work, graph, precision, tiles["valid"]) if tiles and precision != "fp32" else {}
        # What is there isn't whole until all of it is written.
        write_json_file(place / _RECORD, {})
        for path in sorted(work.glob(f"{Path(NETWORK_FILE).stem}.*")):
            write_stored_bytes(path.read_bytes(), place / path.name)
    loss = measured.pop("accuracy_loss", 0.0)
    write_json_file(place / _RECORD, made_of | {"accuracy_loss": loss, "measured": measured})
    return facts | {"accuracy_loss": loss, **measured}


def open_engine(model: ScoringModel, facts: dict[str, Any], place: Path, threads: int = 0) -> Engine:
    """Open an engine that `prepare_engine` made ready, and prove on the package's golden tiles that it answers rightly.

    Raises:
        ModelError: It can't be loaded, or answers wrongly.
    """
    engine: Engine
    with quiet_imports():
        if facts["name"] == "tensorflow":
            from sat_xception.bulk.tensorflow_engine import TensorFlowEngine

            engine = TensorFlowEngine(model.folder, threads)
        else:
            from sat_xception.bulk.openvino_engine import NETWORK_FILE, OpenVinoEngine

            folder = fetch_folder(place, NETWORK_FILE) if isinstance(place, GcsPath) else place
            engine = OpenVinoEngine(folder, facts["precision"], threads)
    tolerance = None if facts["precision"] == "fp32" else _COARSE
    check_answers(model.folder, lambda images: _answers(engine, images), f"the engine {facts['name']}", tolerance)
    return engine


def _answers(engine: Engine, images: list[bytes]) -> Any:  # noqa: ANN401 - float32 [n, classes]
    check = CheckConfig(blank_std=-1.0)
    return np.concatenate([engine.run(engine.fit(decode_tile(data, check).pixels)[np.newaxis]) for data in images])


def _measure(folder: Path, graph: bytes, precision: str, valid: tuple[Pixels, Any]) -> dict[str, Any]:
    """Return what is lost in accuracy on validation tiles against 32-bit numbers, in shares of 1, and on how many."""
    from sat_xception.bulk.openvino_engine import OpenVinoEngine, write_network

    pixels, labels = valid
    if not len(labels):
        raise DataError("--calibrate has no validation tiles to measure the loss of accuracy on; give other examples")
    accuracy = {}
    with scratch_folder() as exact:
        write_network(graph, exact)
        for kind, place in (("fp32", exact), (precision, folder)):
            engine = OpenVinoEngine(place, kind)
            found = np.concatenate(
                [engine.run(pixels[at : at + _MEASURE_BATCH]) for at in range(0, len(pixels), _MEASURE_BATCH)]
            )
            accuracy[kind] = float((found.argmax(axis=1) == labels).mean())
    loss = accuracy["fp32"] - accuracy[precision]
    _log.info(
        "engine    %s: accuracy %.4f, %.4f in fp32, on %s validation tiles",
        *(precision, accuracy[precision], accuracy["fp32"], f"{len(labels):,}"),
    )
    return {"accuracy_loss": loss, "accuracy": accuracy[precision], "validation_tiles": len(labels)}


@contextlib.contextmanager
def _other_process() -> Iterator[ProcessPoolExecutor]:
    """Yield a process for what needs TensorFlow, which would stay in this one's memory: over a gigabyte.

    Whoever is told to end doesn't wait for it.
    """
    others = multiprocessing.active_children()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            yield pool
        except BaseException:
            for process in multiprocessing.active_children():
                if process not in others:
                    process.kill()
            raise


def _network_of(version: Path) -> tuple[bytes, int]:
    with quiet_imports():
        from sat_xception.bulk.frozen import network_of
    return network_of(version)


def _example_tiles(folder: Path, size: int) -> dict[str, tuple[Pixels, Any]]:
    """Return `uint8 [n, size, size, 3]` and `int64 [n]` by split: all of valid, and as many of train as calibrate."""
    with quiet_imports():
        from sat_xception.model.input import evaluation_batches, reading
    found = {}
    with reading(folder):
        for split, most in (("train", _CALIBRATION_TILES), ("valid", None)):
            batches = evaluation_batches(folder, split, size, _MEASURE_BATCH).unbatch()
            tiles = list((batches.take(most) if most else batches).as_numpy_iterator())
            if not tiles:
                raise DataError(f"{folder} has no {split} tiles; give examples with train and valid as --calibrate")
            found[split] = np.stack([pixels for pixels, _ in tiles]), np.array([label for _, label in tiles])
    return found
