"""Kill a bulk run three times with SIGKILL, and compare its end with that of a run that was left alone.

    python bench/bulk_kills.py [--tiles FOLDER] [COUNT …]

A small network scores so many tiles (100,000 unless said) out of an MBTiles file: those of a folder over and over, or
drawn ones. For each count: how long the run that was left alone took, its peak memory, and whether the other one's
ledger closes with the same bytes. Ends with 1 if not.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

_ZOOM, _SHARD, _KILLS, _NAME = 17, 2_000, 3, "school-classifier"


def main() -> int:
    """Run each count; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("counts", type=int, nargs="*", default=[100_000], metavar="COUNT")
    parser.add_argument("--tiles", type=Path, help="folder of images, below which all .jpg files are taken")
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.prepare:
        _prepare(arguments.prepare)
        return 0
    images = [_draw(number) for number in range(200)]
    if arguments.tiles:
        images = [path.read_bytes() for path in sorted(arguments.tiles.rglob("*.jpg"))]
    with tempfile.TemporaryDirectory(prefix="bench-bulk-kills-") as name:
        folder = Path(name)
        _prepare_model(folder)
        print(f"{'tiles':>9}{'tiles/s':>9}{'peak MB':>9}  {_KILLS} kills")
        return max(_compare(folder, count, [*images, b"no image"]) for count in arguments.counts)


def _compare(folder: Path, count: int, images: list[bytes]) -> int:
    work = folder / str(count)
    work.mkdir()
    _prepare_plan(work, count, images)
    started = time.perf_counter()
    process = subprocess.Popen(_command(folder, work, "whole"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit("the run that was left alone failed")
    rng, shards = random.Random(0), -(-count // _SHARD)
    moments = sorted(rng.sample(range(shards), min(_KILLS, shards)))
    killed = sum(_kill_after(moment, folder, work) for moment in moments)
    ended = subprocess.run(_command(folder, work, "killed"), capture_output=True, text=True)
    same = ended.returncode == 0 and _contents(work / "whole") == _contents(work / "killed")
    facts = json.loads((work / "killed" / "scores.json").read_text())
    closes = facts["planned"] == count == facts["scored"] + facts["failed"]
    told = f"{killed} done, ledger {'closes' if closes else 'DOES NOT CLOSE'}, {'same' if same else 'OTHER'} bytes"
    print(f"{count:>9,}{count / seconds:>9,.0f}{used.ru_maxrss / 1024:>9,.0f}  {told}", flush=True)
    shutil.rmtree(work)
    return 0 if same and closes else 1


def _kill_after(finished: int, folder: Path, work: Path) -> int:
    """Kill a run when so many shards are there and it works at the next one; return 1, or 0 when it was faster."""
    process = subprocess.Popen(_command(folder, work, "killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    out = work / "killed"
    while process.poll() is None and len(list(out.glob("scores-*.parquet"))) < finished:
        time.sleep(0.01)
    time.sleep(random.random() * 2)
    process.kill()
    return int(process.wait() == -signal.SIGKILL)


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("scores*"))}


def _command(folder: Path, work: Path, out: str) -> list[str]:
    if not (work / out).exists():
        shutil.copytree(folder / "engine", work / out / "engine")
    command = [sys.executable, "-m", "sat_xception", "bulk", "predict", "--engine", "openvino", "--batch-size", "64"]
    command += ["--plan", str(work / "plan"), "--model", str(folder / "models"), "--name", _NAME]
    return [*command, "--out", str(work / out)]


def _draw(number: int) -> bytes:
    coarse = np.random.default_rng(number).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(coarse).resize((64, 64)).save(content, "JPEG")
    return content.getvalue()


def _prepare_plan(folder: Path, count: int, images: list[bytes]) -> None:
    from sat_xception.bulk.plan import plan_tiles
    from sat_xception.bulk.settings import BulkPlanConfig
    from sat_xception.geo.morton import tiles_of

    x, y = (axis.tolist() for axis in tiles_of(np.arange(count)))
    database = sqlite3.connect(folder / "tiles.mbtiles")
    database.execute("CREATE TABLE metadata (name, value)")
    database.execute(
        "CREATE TABLE tiles (zoom_level INT, tile_column INT, tile_row INT, tile_data BLOB, "
        "PRIMARY KEY (zoom_level, tile_column, tile_row))"
    )
    rows = ((_ZOOM, x[at], 2**_ZOOM - 1 - y[at], images[at % len(images)]) for at in range(count))
    database.executemany("INSERT INTO tiles VALUES (?, ?, ?, ?)", rows)
    database.commit()
    database.close()
    (folder / "tiles.txt").write_text("\n".join(f"{_ZOOM}/{x[at]}/{y[at]}" for at in range(count)))
    settings = {"imagery": str(folder / "tiles.mbtiles"), "probe": 0, "shard_tiles": _SHARD}
    plan_tiles(BulkPlanConfig(tiles=folder / "tiles.txt", out=folder / "plan", **settings))


def _prepare_model(folder: Path) -> None:
    """Train a small network on drawn tiles for an epoch, package it, and convert it, in a process of its own."""
    subprocess.run([sys.executable, __file__, "--prepare", str(folder)], check=True, stderr=subprocess.DEVNULL)


def _prepare(folder: Path) -> None:
    from sat_xception.bulk.engines import prepare_engine
    from sat_xception.bulk.scorer import ScoringModel
    from sat_xception.dataset.assemble import assemble
    from sat_xception.dataset.settings import AssembleConfig
    from sat_xception.examples.convert import convert
    from sat_xception.examples.settings import ConvertConfig
    from sat_xception.model.settings import TrainConfig
    from sat_xception.package.package import package
    from sat_xception.package.settings import PackageConfig
    from sat_xception.train.train import train

    for index in range(80):
        path = folder / "tiles" / ("school" if index % 2 else "not-school") / f"{index:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_draw(1000 + index))
    assemble(AssembleConfig(data=str(folder / "tiles"), out=folder / "dataset"))
    convert(ConvertConfig(dataset=folder / "dataset", out=folder / "examples"))
    settings = {"backbone": "mobilenetv2", "weights": "none", "alpha": 0.35, "input_size": 32, "scratch_epochs": 1}
    train(TrainConfig(examples=folder / "examples", out=folder / "model", **settings))
    package(PackageConfig(model=folder / "model", examples=folder / "examples", out=folder / "models", version=1))
    model = ScoringModel.read(folder / "models" / _NAME / "1")
    prepare_engine(model, "openvino", "fp32", None, folder / "engine")


if __name__ == "__main__":
    sys.exit(main())
