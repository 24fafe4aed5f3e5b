"""Kill a training ten times at random moments with SIGKILL, and compare its end with that of one that was left alone.

    python bench/resume.py [KILLS] [SEED]

A small MobileNetV2 learns the same tiles from random weights (one phase) and from a weights file (features, head,
fine-tuning). Ends with 1 when a history or a digest of weights differs.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from sat_xception.data.assemble import assemble
from sat_xception.data.tfrecord import convert
from sat_xception.steps import AssembleConfig, ConvertConfig

_PHASES = {
    "scratch": {"weights": "none", "scratch-epochs": 6},
    "transfer": {"head-epochs": 10, "fine-tune-epochs": 5, "fine-tune-learning-rate": 1e-3, "patience": 20},
}


def main(kills: int = 10, seed: int = 0) -> int:
    """Run both kinds of training; return the exit code."""
    rng = random.Random(seed)
    same = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_examples(folder)
        for kind, settings in _PHASES.items():
            command = _command(folder, {"weights": folder / "random.weights.h5", **settings})
            subprocess.run([*command, "--out", folder / kind / "left-alone"], check=True, capture_output=True)
            out, done = folder / kind / "killed", 0
            while done < (kills + 1) // 2 and not out.exists():
                done += _kill_once([*command, "--out", out], out.with_name("killed.checkpoints"), rng.randint(1, 8))
            if not out.exists():
                subprocess.run([*command, "--out", out], check=True, capture_output=True)
            ends = [_end_of(folder / kind / out) for out in ("left-alone", "killed")]
            same &= ends[0] == ends[1]
            print(f"{kind:10} {done} kills | {'same' if ends[0] == ends[1] else 'DIFFERENT'}")
    return 0 if same else 1


def _kill_once(command: list[object], checkpoints: Path, writes: int) -> int:
    """Kill a training somewhere after its so many-th write of a checkpoint; return 1, or 0 when it was faster."""
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    seen = _written(checkpoints)
    while writes and process.poll() is None:
        time.sleep(0.001)
        if (now := _written(checkpoints)) != seen:
            seen, writes = now, writes - 1
    process.kill()
    _, log = process.communicate()
    resumed = [line.removeprefix("resume    ") for line in log.splitlines() if line.startswith("resume    ")]
    print(f"           {'; '.join(resumed[1:]) or 'anew'}", flush=True)
    return int(process.returncode == -signal.SIGKILL)


def _written(folder: Path) -> list[tuple[str, int]]:
    try:
        return sorted((path.name, path.stat().st_mtime_ns) for path in folder.rglob("*.npz"))
    except FileNotFoundError:  # replaced meanwhile
        return []


def _end_of(folder: Path) -> tuple[object, str]:
    history = [
        {k: v for k, v in row.items() if k != "seconds"} for row in json.loads((folder / "history.json").read_text())
    ]
    return history, json.loads((folder / "train.json").read_text())["weights_digest"]


def _command(folder: Path, settings: dict[str, object]) -> list[object]:
    common = {"examples": folder / "examples", "backbone": "mobilenetv2", "alpha": 0.35, "input-size": 32}
    common |= {"batch-size": 8, "checkpoint-minutes": 0}
    flags = [item for name, value in {**common, **settings}.items() for item in (f"--{name}", value)]
    return list(map(str, [sys.executable, "-m", "sat_xception", "train", *flags]))


def _write_examples(folder: Path) -> None:
    import keras

    rng = np.random.default_rng(0)
    for label, count in (("school", 60), ("not-school", 60)):
        (folder / "tiles" / label).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 150, (48, 48, 3))
            pixels[:: 4 if label == "school" else 48] += 90
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "tiles" / label / f"{index:03d}.png")
    assemble(AssembleConfig(data=str(folder / "tiles"), out=folder / "dataset"))
    convert(ConvertConfig(dataset=folder / "dataset", out=folder / "examples"))
    keras.utils.set_random_seed(1)
    network = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3), alpha=0.35)
    network.save_weights(folder / "random.weights.h5")


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
