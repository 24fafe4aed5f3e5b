"""What fine-tuning adds to a frozen head: `python bench/fine_tuning.py TILES labels.csv WEIGHTS [--flag value …]`.

Tiles are dealt to five folds by the hash of their names; each fold is tested on once, the one before it stops by, the
others are learnt from. On the test tiles of all folds together, the model that train keeps is compared with the head
alone, tile by tile: difference, 95 % interval by bootstrap of tiles, McNemar's exact test. Further flags go to train.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

_FOLDS = 5


def main() -> None:
    """Run the folds and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tiles", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--classes", choices=["label", "source_class"], default="source_class")
    parser.add_argument("--folds", type=int, default=_FOLDS, help="how many of the five are run")
    arguments, settings = parser.parse_known_args()
    flags = dict(zip((flag[2:].replace("-", "_") for flag in settings[::2]), settings[1::2], strict=True))
    rights: list[dict[str, Any]] = []
    for fold in range(arguments.folds):
        with tempfile.TemporaryDirectory(prefix="bench-fine-tuning-") as name:
            rights.append(_run_fold(arguments, flags, fold, Path(name)))
        told = {model: f"{np.mean(right):.4f}" for model, right in rights[-1].items() if model != "phase"}
        print(f"fold {fold}: {told}, kept the {rights[-1]['phase']}", flush=True)
    head, kept = (np.concatenate([right[model] for right in rights]) for model in ("head", "kept"))
    _compare(head, kept)


def _run_fold(arguments: argparse.Namespace, flags: dict[str, str], fold: int, folder: Path) -> dict[str, Any]:
    from sat_xception.dataset.assemble import assemble
    from sat_xception.dataset.settings import AssembleConfig
    from sat_xception.evaluate.evaluate import load_model
    from sat_xception.examples.convert import convert
    from sat_xception.examples.settings import ConvertConfig
    from sat_xception.model.input import evaluation_batches
    from sat_xception.model.settings import TrainConfig
    from sat_xception.model.weights import identify_weights
    from sat_xception.train.record import TrainingHistory
    from sat_xception.train.train import train

    with arguments.labels.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            source = next(arguments.tiles.rglob(Path(row["file"]).name))
            place = int(hashlib.sha256(row["file"].encode()).hexdigest(), 16) % _FOLDS
            split = {fold: "test", (fold - 1) % _FOLDS: "valid"}.get(place, "train")
            target = folder / "tiles" / split / row[arguments.classes] / source.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    data = {"data": str(folder / "tiles"), "out": folder / "dataset", "keep_near_duplicates": True}
    assemble(AssembleConfig(**data, near_duplicate_bits=0))
    convert(ConvertConfig(dataset=folder / "dataset", out=folder / "examples"))
    backbone, alpha = identify_weights(arguments.weights)
    network = {"backbone": backbone, "alpha": alpha, "weights": str(arguments.weights), "seed": fold}
    found: dict[str, Any] = {}
    for name, changes in (("head", {"fine_tune_epochs": 0}), ("kept", {})):
        started = time.monotonic()
        out = folder / name
        result = train(TrainConfig(examples=folder / "examples", out=out, **{**network, **flags, **changes}))
        model, record = load_model(out)
        batches = evaluation_batches(folder / "examples", "test", record.input_size, 32)
        scored = [(model(images, training=False).numpy().argmax(axis=1), labels.numpy()) for images, labels in batches]
        found[name] = np.concatenate([predicted == labels for predicted, labels in scored])
        epochs = TrainingHistory.read(out).epochs
        best = {epoch.phase: 0.0 for epoch in epochs}
        for epoch in epochs:
            best[epoch.phase] = max(best[epoch.phase], epoch.score)
        print(f"  {name}: best on validation {best}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        found["phase"] = result.phase
    return found


def _compare(head: np.ndarray, kept: np.ndarray) -> None:
    from scipy.stats import binomtest

    difference = kept.astype(float) - head
    drawn = np.random.default_rng(0).integers(0, len(head), (10_000, len(head)))
    low, high = np.percentile(difference[drawn].mean(axis=1), [2.5, 97.5])
    better, worse = int((difference > 0).sum()), int((difference < 0).sum())
    p = binomtest(better, better + worse).pvalue if better + worse else 1.0
    print(
        f"{len(head)} test tiles: head {head.mean():.4f}, kept {kept.mean():.4f}, "
        f"difference {difference.mean():+.4f} ({low:+.4f} to {high:+.4f}), {better} better {worse} worse, p = {p:.2g}"
    )


if __name__ == "__main__":
    main()
