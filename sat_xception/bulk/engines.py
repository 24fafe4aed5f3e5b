"""Prepare engines: convert and measure once per run, open in each process, check before a tile is scored."""

from __future__ import annotations

import contextlib
import importlib.metadata
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from sat_xception.bulk.run_document import EngineId, PreparedEngine
from sat_xception.bulk.scorer import Engine, ScoringModel
from sat_xception.bulk.tiles import Pixels
from sat_xception.errors import ConfigError, DataError
from sat_xception.examples.index import ExamplesIndex
from sat_xception.imagery.check import CheckConfig, decode_tile
from sat_xception.log import get_logger, quiet_imports
from sat_xception.served_model.golden import check_answers
from sat_xception.storage import (
    facts_digest,
    local_folder,
    read_json_file,
    scratch_folder,
    write_json_file,
    write_stored_bytes,
)

__all__ = ["ENGINE_FOLDER", "engine_id", "open_engine", "prepare_engine"]

_log = get_logger(__name__)
ENGINE_FOLDER = "engine"
_RECORD = "engine.json"
# Number of calibration tiles; NNCF's default, https://docs.openvino.ai "Basic Quantization Flow".
_CALIBRATION_TILES = 300
_MEASURE_BATCH = 32
# Loose tolerance for lower precisions: their loss is measured as accuracy, not on golden tiles.
_COARSE = 0.5


class _Measured(NamedTuple):
    """Accuracy on validation tiles, its loss against 32-bit numbers, and the number of tiles."""

    accuracy_loss: float
    accuracy: float
    validation_tiles: int

    def figures(self) -> dict[str, int | float]:
        """Return accuracy and number of tiles, for `engine.json`."""
        return {"accuracy": self.accuracy, "validation_tiles": self.validation_tiles}


class _Tiles(NamedTuple):
    """Tiles `uint8 [n, size, size, 3]`, and the indices of their classes `int64 [n]`."""

    pixels: Pixels
    labels: npt.NDArray[np.int64]


class _ExampleTiles(NamedTuple):
    """Tiles of two splits."""

    train: _Tiles
    valid: _Tiles


class _Conversion(EngineId):
    """Content of `engine.json`, next to a converted network.

    Attributes:
        model: Digest of the model.
        accuracy_loss: As in `PreparedEngine`.
        measured: `accuracy` and `validation_tiles`; empty where they weren't measured.
    """

    model: str
    accuracy_loss: float
    measured: dict[str, int | float]

    def engine(self) -> PreparedEngine:
        """Return the engine."""
        return PreparedEngine(**(self.content() | self.measured))

    def is_of(self, engine: EngineId, model: ScoringModel) -> bool:
        """Return whether the network was made of a model, and for an engine."""
        return self.model == model.digest and EngineId(**self.content()) == engine


def engine_id(engine: str, precision: str, calibrate: Path | None) -> EngineId:
    """Return everything except the model that an engine's results depend on, without preparing the engine.

    Args:
        engine: "tensorflow" or "openvino".
        precision: "fp32", "bf16" or "int8".
        calibrate: Examples, which affect the numbers of lower precisions.
    """
    names = ("tensorflow", "tensorflow-cpu") if engine == "tensorflow" else (engine,)
    calibrated_on = None
    if calibrate and precision != "fp32":
        calibrated_on = facts_digest(ExamplesIndex.read(calibrate).content()["splits"])
    return EngineId(name=engine, precision=precision, made_by=_version_of(names), calibrated_on=calibrated_on)


def _version_of(names: Sequence[str]) -> str:
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return f"{names[0]} {importlib.metadata.version(name)}"
    return names[0]


def prepare_engine(
    model: ScoringModel, engine: str, precision: str, calibrate: Path | None, folder: Path
) -> PreparedEngine:
    """Make what an engine needs, unless it is there already.

    Args:
        model: The packaged version.
        engine: "tensorflow" or "openvino".
        precision: "fp32", "bf16" or "int8".
        calibrate: Examples, for lower precisions.
        folder: Folder, local or in a bucket, that all workers read.

    Raises:
        ConfigError: The processor doesn't support the precision, or a library isn't installed.
        ModelError: The model can't be converted, or its results differ from the package's.
    """
    wanted = engine_id(engine, precision, calibrate)
    if engine == "tensorflow":
        return PreparedEngine(**wanted.content())
    with quiet_imports():
        from sat_xception.bulk.openvino_engine import NETWORK_FILE, check_precision, write_network
    check_precision(precision)
    earlier = _read_conversion(folder)
    if earlier and earlier.is_of(wanted, model):
        return earlier.engine()
    _log.info("engine    converting %s %s for OpenVINO, %s", model.name, model.version, precision)
    with scratch_folder() as work, _other_process() as other:
        graph, size = other.submit(_network_of, model.folder).result()
        tiles = other.submit(_example_tiles, calibrate, size).result() if calibrate else None
        calibration = tiles.train.pixels if tiles and precision == "int8" else None
        try:
            write_network(graph, work, calibration)
        except ModuleNotFoundError as error:
            raise ConfigError(f"--precision int8 needs {error.name}: pip install 'sat-xception[openvino]'") from None
        measured = _measure(work, graph, precision, tiles.valid) if tiles and precision != "fp32" else None
        # Readers ignore the folder until it is complete.
        write_json_file(folder / _RECORD, {})
        for path in sorted(work.glob(f"{Path(NETWORK_FILE).stem}.*")):
            write_stored_bytes(path.read_bytes(), folder / path.name)
    conversion = _Conversion(
        **wanted.content(),
        model=model.digest,
        accuracy_loss=measured.accuracy_loss if measured else 0.0,
        measured=measured.figures() if measured else {},
    )
    write_json_file(folder / _RECORD, conversion.content())
    return conversion.engine()


def _read_conversion(folder: Path) -> _Conversion | None:
    """Return the record of a converted network; None if it is missing or incomplete."""
    record = read_json_file(folder / _RECORD)
    try:
        return _Conversion.model_validate(record) if record else None
    except ValidationError:
        return None


def open_engine(model: ScoringModel, prepared: EngineId, folder: Path, threads: int = 0) -> Engine:
    """Open an engine that `prepare_engine` made, and check its answers on the package's golden tiles.

    Raises:
        ModelError: The engine can't be loaded, or its results differ.
    """
    engine: Engine
    with quiet_imports():
        if prepared.name == "tensorflow":
            from sat_xception.bulk.tensorflow_engine import TensorFlowEngine

            engine = TensorFlowEngine(model.folder, threads)
        else:
            from sat_xception.bulk.openvino_engine import NETWORK_FILE, OpenVinoEngine

            here = local_folder(folder, NETWORK_FILE)
            engine = OpenVinoEngine(here, prepared.precision, threads)
    tolerance = None if prepared.precision == "fp32" else _COARSE
    check_answers(model.folder, lambda images: _answers(engine, images), f"the engine {prepared.name}", tolerance)
    return engine


def _answers(engine: Engine, images: list[bytes]) -> Any:  # noqa: ANN401 - float32 [n, classes]
    check = CheckConfig(blank_std=-1.0)
    return np.concatenate([engine.run(engine.fit(decode_tile(data, check).pixels)[np.newaxis]) for data in images])


def _measure(folder: Path, graph: bytes, precision: str, valid: _Tiles) -> _Measured:
    """Return the accuracy on validation tiles, and its loss against 32-bit numbers."""
    from sat_xception.bulk.openvino_engine import OpenVinoEngine, write_network

    pixels, labels = valid
    if not len(labels):
        raise DataError("--calibrate has no validation tiles to measure the loss of accuracy on; give other examples")

    def accuracy_of(network: Path, numbers: str) -> float:
        engine = OpenVinoEngine(network, numbers)
        found = np.concatenate(
            [engine.run(pixels[at : at + _MEASURE_BATCH]) for at in range(0, len(pixels), _MEASURE_BATCH)]
        )
        return float((found.argmax(axis=1) == labels).mean())

    with scratch_folder() as exact:
        write_network(graph, exact)
        in_fp32 = accuracy_of(exact, "fp32")
    accuracy = accuracy_of(folder, precision)
    _log.info(
        "engine    %s: accuracy %.4f, %.4f in fp32, on %s validation tiles",
        *(precision, accuracy, in_fp32, f"{len(labels):,}"),
    )
    return _Measured(in_fp32 - accuracy, accuracy, len(labels))


@contextlib.contextmanager
def _other_process() -> Iterator[ProcessPoolExecutor]:
    """Yield a process pool for work with TensorFlow, which would take over a gigabyte of this process's memory.

    On SIGTERM this process doesn't wait for it.
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


def _example_tiles(folder: Path, size: int) -> _ExampleTiles:
    """Return tiles of `size` pixels: all of valid, and as many of train as calibrate."""
    with quiet_imports():
        from sat_xception.model.input import evaluation_batches, reading

    def read(split: str, limit: int | None) -> _Tiles:
        batches = evaluation_batches(folder, split, size, _MEASURE_BATCH).unbatch()
        tiles = list((batches.take(limit) if limit else batches).as_numpy_iterator())
        if not tiles:
            raise DataError(f"{folder} has no {split} tiles; give examples with train and valid as --calibrate")
        return _Tiles(np.stack([pixels for pixels, _ in tiles]), np.array([label for _, label in tiles]))

    with reading(folder):
        return _ExampleTiles(read("train", _CALIBRATION_TILES), read("valid", None))
