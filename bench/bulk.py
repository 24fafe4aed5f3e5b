"""Bulk scoring against the 2018 loop and Keras's `predict`: `python bench/bulk.py TILES WEIGHTS [--tiles 2000]`.

TILES are class folders of tiles, WEIGHTS is a MobileNetV2 or Xception `.h5` file. A head is trained on the tiles and
the model packaged; then its tiles are scored over and over, out of an MBTiles file. Each contender runs in a process of
its own. Rates of bulk count from its first finished shard on, so that loading is left out, as it is of all the others.
`forward` is the engine alone, on tiles that are decoded and resized already: the limit.

The 2018 loop is that of github.com/developmentseed/unicef-schools at 96a4df4: `ImageDataGenerator.flow_from_directory`
and `predict` of a batch.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
_BATCH, _SHARD, _ZOOM, _MEASURE_S = 32, 256, 16, 15.0
_NAME, _PREPARE = "school-classifier", "prepare:"
_BULK = {
    "bulk tensorflow": ("tensorflow", "fp32", 1),
    "bulk openvino": ("openvino", "fp32", 1),
    "bulk openvino, 2 processes": ("openvino", "fp32", 2),
    "bulk openvino int8": ("openvino", "int8", 1),
}
_FORWARD = {
    "forward tensorflow": ("tensorflow", "fp32"),
    "forward openvino": ("openvino", "fp32"),
    "forward openvino int8": ("openvino", "int8"),
}


def main() -> None:
    """Prepare a model and tiles, run every contender, print the table; or be the run of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tiles", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--tiles", dest="count", type=int, default=2000, help="tiles that bulk scores")
    parser.add_argument("--run", metavar="CONTENDER")
    arguments = parser.parse_args()
    if arguments.run and arguments.run.startswith(_PREPARE):
        _prepare(Path(arguments.run.removeprefix(_PREPARE)), arguments.tiles, arguments.weights, arguments.count)
        return
    if arguments.run:
        print(json.dumps(_run(arguments.run, arguments.tiles)))
        return
    with tempfile.TemporaryDirectory(prefix="bench-bulk-") as name:
        folder = Path(name)
        # In another process: a child's peak memory begins at that of the process it was forked from.
        subprocess.run([sys.executable, *sys.argv, "--run", f"{_PREPARE}{folder}"], check=True)
        rates: dict[str, float] = {}
        print(f"\n{'':<32}{'tiles/s':>9}{'a core':>9}{'peak MB':>9}", flush=True)
        for contender in ("2018 loop", "Keras predict", *_FORWARD, *_BULK):
            command = [sys.executable, __file__, str(folder), "-", "--run", contender]
            told = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            rates[contender], peak, note = json.loads(told.stdout.splitlines()[-1])
            each = rates[contender] / len(os.sched_getaffinity(0))
            print(f"{contender:<32}{rates[contender]:>9,.1f}{each:>9,.1f}{peak:>9,.0f}  {note}", flush=True)
        _tell_ratios(rates)


def _tell_ratios(rates: dict[str, float]) -> None:
    for engine in ("tensorflow", "openvino", "openvino int8"):
        bulk = rates[f"bulk {engine}"]
        print(
            f"bulk {engine}: {bulk / rates['2018 loop']:.2f} x the 2018 loop, "
            f"{bulk / rates['Keras predict']:.2f} x predict, {bulk / rates[f'forward {engine}']:.2f} of its own forward"
        )


def _prepare(folder: Path, tiles: Path, weights: Path, count: int) -> None:
    from sat_xception.bulk.plan import plan_tiles
    from sat_xception.bulk.settings import BulkPlanConfig
    from sat_xception.dataset.assemble import assemble
    from sat_xception.dataset.settings import AssembleConfig
    from sat_xception.examples.convert import convert
    from sat_xception.examples.settings import ConvertConfig
    from sat_xception.geo.morton import tiles_of
    from sat_xception.model.settings import TrainConfig
    from sat_xception.model.weights import identify_weights
    from sat_xception.package.package import package
    from sat_xception.package.settings import PackageConfig
    from sat_xception.train.train import train

    assemble(AssembleConfig(data=str(tiles), out=folder / "dataset", keep_near_duplicates=True))
    convert(ConvertConfig(dataset=folder / "dataset", out=folder / "examples"))
    backbone, alpha = identify_weights(weights)
    settings: dict[str, Any] = {"backbone": backbone, "alpha": alpha, "weights": str(weights)}
    settings |= {"head_epochs": 30, "fine_tune_epochs": 0, "views": 1}
    train(TrainConfig(examples=folder / "examples", out=folder / "model", **settings))
    package(PackageConfig(model=folder / "model", examples=folder / "examples", out=folder / "models", version=1))
    files = [path for path in sorted(tiles.rglob("*")) if path.is_file()]
    for path in files:
        target = folder / "folders" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    import numpy as np

    x, y = (axis.tolist() for axis in tiles_of(np.arange(count)))
    database = sqlite3.connect(folder / "tiles.mbtiles")
    database.execute("CREATE TABLE metadata (name, value)")
    database.execute(
        "CREATE TABLE tiles (zoom_level INT, tile_column INT, tile_row INT, tile_data BLOB, "
        "PRIMARY KEY (zoom_level, tile_column, tile_row))"
    )
    images = cycle([path.read_bytes() for path in files])
    rows = ((_ZOOM, x[at], 2**_ZOOM - 1 - y[at], next(images)) for at in range(count))
    database.executemany("INSERT INTO tiles VALUES (?, ?, ?, ?)", rows)
    database.commit()
    database.close()
    (folder / "tiles.txt").write_text("\n".join(f"{_ZOOM}/{x[at]}/{y[at]}" for at in range(count)))
    plan = {"imagery": str(folder / "tiles.mbtiles"), "probe": 0, "shard_tiles": _SHARD}
    plan_tiles(BulkPlanConfig(tiles=folder / "tiles.txt", out=folder / "plan", **plan))


def _run(contender: str, folder: Path) -> tuple[float, float, str]:
    import resource

    note = ""
    if contender in _BULK:
        rate, note = _bulk(folder, *_BULK[contender])
    elif contender in _FORWARD:
        rate = _forward(folder, *_FORWARD[contender])
    else:
        rate = _loop(folder) if contender == "2018 loop" else _predict(folder)
    used = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    # Converting a model takes TensorFlow, in a process of its own: it was done before, and isn't in the peak.
    return rate, max(used) / 1024, note


def _model(folder: Path) -> Any:  # noqa: ANN401 - a Keras model
    import keras

    return keras.saving.load_model(folder / "model" / "model.keras")


def _loop(folder: Path) -> float:
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    model = _model(folder)
    side = model.input_shape[1]
    flow = ImageDataGenerator().flow_from_directory(
        str(folder / "folders"), (side, side), batch_size=_BATCH, shuffle=False
    )
    model.predict(next(flow)[0], verbose=0)
    started, tiles = time.perf_counter(), 0
    while time.perf_counter() - started < _MEASURE_S:
        tiles += len(model.predict(next(flow)[0], verbose=0))
    return tiles / (time.perf_counter() - started)


def _predict(folder: Path) -> float:
    import keras

    model = _model(folder)
    side = model.input_shape[1]
    tiles = keras.utils.image_dataset_from_directory(
        str(folder / "folders"), labels=None, image_size=(side, side), batch_size=_BATCH, shuffle=False
    )
    model.predict(tiles.take(2), verbose=0)
    batches = max(4, int(_MEASURE_S * 40 / _BATCH))
    started = time.perf_counter()
    found = model.predict(tiles.repeat().take(batches), steps=batches, verbose=0)
    return len(found) / (time.perf_counter() - started)


def _ready(folder: Path, engine: str, precision: str) -> tuple[Any, Any, Path]:
    from sat_xception.bulk.engines import prepare_engine
    from sat_xception.bulk.scorer import ScoringModel

    model = ScoringModel.read(folder / "models" / _NAME / "1")
    place = folder / f"{engine}-{precision}" / "engine"
    place.mkdir(parents=True, exist_ok=True)
    calibrate = None if precision == "fp32" else folder / "examples"
    return model, prepare_engine(model, engine, precision, calibrate, place), place


def _forward(folder: Path, engine: str, precision: str) -> float:
    import numpy as np

    from sat_xception.bulk.engines import open_engine
    from sat_xception.imagery.check import CheckConfig, decode_tile
    from sat_xception.train.record import TrainingRecord

    opened = open_engine(*_ready(folder, engine, precision))
    side = TrainingRecord.read(folder / "model").input_size
    from sat_xception.bulk.resampling import resized

    files = islice(cycle(sorted((folder / "folders").rglob("*.jpg"))), _BATCH)
    tiles = np.stack([resized(decode_tile(path.read_bytes(), CheckConfig()).pixels, side) for path in files])
    opened.run(tiles)
    started = time.perf_counter()

    def run(_: int) -> int:
        batches = 0
        while time.perf_counter() - started < _MEASURE_S:
            opened.run(tiles)
            batches += 1
        return batches

    with ThreadPoolExecutor(opened.at_once) as pool:
        batches = sum(pool.map(run, range(opened.at_once)))
    return batches * _BATCH / (time.perf_counter() - started)


def _bulk(folder: Path, engine: str, precision: str, processes: int) -> tuple[float, str]:
    from sat_xception.bulk.predict import predict_tiles
    from sat_xception.bulk.settings import BulkPredictConfig

    _, prepared, place = _ready(folder, engine, precision)
    out = folder / f"scores-{engine}-{precision}-{processes}"
    shutil.copytree(place, out / "engine")
    calibrate = None if precision == "fp32" else folder / "examples"
    settings: dict[str, Any] = {"engine": engine, "precision": precision, "processes": processes}
    settings |= {"model": folder / "models", "plan": folder / "plan", "calibrate": calibrate, "out": out}
    predict_tiles(BulkPredictConfig(**settings))
    finished = sorted(path.stat().st_mtime for path in out.glob("scores-*"))
    note = f"accuracy loss {prepared.accuracy_loss:.4f}" if precision != "fp32" else ""
    count = sum(1 for _ in (folder / "tiles.txt").open())
    # Two processes finish their first shards at about the same time.
    return (count - processes * _SHARD) / (finished[-1] - finished[processes - 1]), note


if __name__ == "__main__":
    main()
