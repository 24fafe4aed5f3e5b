"""Kill a training ten times at random moments with SIGKILL, and compare its end with that of one that was left alone.

    python bench/resume.py [KILLS] [SEED]

A small MobileNetV2 learns the same tiles from random weights (one phase) and from a weights file (features, head,
fine-tuning). Ends with 1 when a history or a digest of weights differs.
"""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from sat_xception.dataset.assemble import assemble
from sat_xception.dataset.settings import AssembleConfig
from sat_xception.examples.convert import convert
from sat_xception.examples.settings import ConvertConfig
from sat_xception.train.record import TrainingHistory, TrainingRecord

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
            _, writes, _ = _run(command, folder / kind / "left-alone")
            moments = [0, *sorted(rng.sample(range(1, writes), (kills + 1) // 2))]
            gaps = [after - before for before, after in itertools.pairwise(moments)]
            out, done = folder / kind / "killed", 0
            while not out.exists():
                killed, _, resumed = _run(command, out, gaps.pop(0) if gaps else None)
                print(f"           {resumed or 'anew'}", flush=True)
                done += killed
            ends = [_end_of(folder / kind / end) for end in ("left-alone", "killed")]
            same &= ends[0] == ends[1]
            print(f"{kind:10} {done} kills | {'same' if ends[0] == ends[1] else 'DIFFERENT'}")
    return 0 if same else 1


def _run(command: list[str], out: Path, kill_after: int | None = None) -> tuple[bool, int, str]:
    """Train, killed after so many writes of a checkpoint: whether it was, how many there were, where it resumed."""
    checkpoints, writes = out.with_name(f"{out.name}.checkpoints"), 0
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.DEVNULL, stderr=log)
        seen = _written(checkpoints)
        while process.poll() is None and (kill_after is None or writes < kill_after):
            time.sleep(0.001)
            if (now := _written(checkpoints)) != seen:
                seen, writes = now, writes + 1
        process.kill()
        killed = process.wait() == -signal.SIGKILL
        log.seek(0)
        lines = log.read().splitlines()
    if not killed and process.returncode:
        sys.exit("\n".join(lines[-5:]))
    resumed = [line.removeprefix("resume    ") for line in lines if line.startswith("resume    ")]
    return killed, writes, "; ".join(resumed[1:])


def _written(folder: Path) -> list[tuple[str, int]]:
    try:
        return sorted((path.name, path.stat().st_mtime_ns) for path in folder.rglob("*.npz"))
    except FileNotFoundError:  # replaced meanwhile
        return []


def _end_of(folder: Path) -> tuple[object, str | None]:
    epochs = [epoch.model_copy(update={"seconds": None}) for epoch in TrainingHistory.read(folder).epochs]
    return epochs, TrainingRecord.read(folder).weights_digest


def _command(folder: Path, settings: dict[str, object]) -> list[str]:
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
