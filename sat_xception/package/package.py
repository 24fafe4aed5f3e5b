"""Package a model for TensorFlow Serving: export it, check it, describe it.

The test split is scored only here, once, with the exported model: the figures are those of the model that will be
served.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from sat_xception import __version__
from sat_xception.clock import version_of
from sat_xception.errors import ConfigError, DataError, GateRefusedError
from sat_xception.evaluate.decision import Candidate, Decision
from sat_xception.evaluate.evaluate import load_model, measure
from sat_xception.evaluate.figures import Metrics, Threshold
from sat_xception.evaluate.report import run_report
from sat_xception.evaluate.threshold import DEFAULT_THRESHOLD
from sat_xception.evaluate.tiles import read_tiles
from sat_xception.examples.index import ExamplesIndex
from sat_xception.log import track
from sat_xception.model.input import encoded_examples, reading
from sat_xception.package.batching import write_batching
from sat_xception.package.card import model_card, model_card_json
from sat_xception.package.export import EXPORT_TOLERANCE, check_export, export_model, write_warmup
from sat_xception.package.record import AppliedCalibration, ModelRecord, PackagedTraining
from sat_xception.package.settings import PackageConfig
from sat_xception.serve.models import SavedModelSession
from sat_xception.served_model.golden import EncodedImage, GoldenTile, GoldenTiles
from sat_xception.served_model.model_root import DIGESTS_FILE, has_version, new_version
from sat_xception.storage import folder_digests, write_json
from sat_xception.train.record import TrainingRecord

__all__ = ["PackageResult", "package"]

# Rounding differs with hardware, TensorFlow version and graph optimisation; a wrong model differs by far more.
_GOLDEN_TOLERANCE = 1e-3
_TEST_BATCH = 32


@dataclass(frozen=True)
class PackageResult:
    """Result of packaging.

    Attributes:
        folder: Folder of the version.
        served: Content of `model.json`.
    """

    folder: Path
    served: ModelRecord

    def summary(self) -> str:
        """Return the version and its test accuracy."""
        test = self.served.test
        accuracy = f"test accuracy {test.accuracy:.4f} on {test.count:,} tiles" if test else "no test split"
        return (
            f"package   {self.served.name} version {self.served.version} ({self.served.backbone}) | {accuracy}"
            f" | signatures equal Keras within {EXPORT_TOLERANCE:g}\nwrote     {self.folder}"
        )


class _Tile(NamedTuple):
    tile_id: str
    label: str
    data: bytes


class _Choice(NamedTuple):
    """The threshold and temperature of the decision; without one the model is exported as trained."""

    candidate: Candidate | None = None

    @property
    def calibration(self) -> AppliedCalibration:
        found = self.candidate.calibration if self.candidate else None
        if found is None:
            return AppliedCalibration(temperature=1.0, fitted_on="")
        before, after = found.before.error, found.after.error
        return AppliedCalibration(
            temperature=found.temperature, fitted_on="valid", error_before=before, error_after=after
        )

    @property
    def threshold(self) -> Threshold | None:
        return self.candidate.threshold if self.candidate else None

    @property
    def metrics(self) -> Metrics | None:
        return self.candidate.metrics if self.candidate else None


def package(config: PackageConfig) -> PackageResult:
    """Write `OUT/<name>/<version>/`: SavedModel, warm-up, batching parameters, golden tiles, model card, digests.

    The temperature that evaluate fitted is part of the export, so the served probabilities are calibrated.

    Raises:
        DataError: The model, the examples or the decision are missing or don't belong together.
        ConfigError: The version exists, or the model root can't be written.
        ServiceError: The bucket of the model root can't be read or written.
        GateRefusedError: The decision names another model, or none.
        ModelError: The export doesn't load as TensorFlow Serving loads it, or its outputs differ from Keras's.

    Example:
        result = package(
            PackageConfig(model="models/xception", examples="examples", decision="decision", out="models/serving")
        )
        print(result.folder)
    """
    model, trained = load_model(config.model)
    examples = ExamplesIndex.read(config.examples)
    if trained.dataset_digest != examples.dataset_digest:
        raise DataError(
            f"{config.model} was trained on another dataset than {config.examples} holds; give its own examples"
        )
    decision = _read_decision(config.decision, trained) if config.decision else None
    choice = _Choice(_winner(decision)) if decision else _Choice()
    version = config.version or version_of()
    folder = config.out / config.name / str(version)
    if has_version(folder):
        raise ConfigError(f"{folder} exists, and a version never changes; give another --version")
    with new_version(folder) as work, reading(config.examples):
        _write_saved_model(work, model, examples, config, choice.calibration.temperature)
        record = ModelRecord(
            name=config.name,
            version=version,
            backbone=trained.backbone,
            model=trained.model or "",
            classes=trained.classes,
            positive_label=trained.positive_label,
            source=trained.source,
            synthetic=trained.synthetic,
            dataset_digest=trained.dataset_digest,
            training=PackagedTraining.of(trained),
            tiles={split: info.count for split, info in examples.splits.items()},
            calibration=choice.calibration,
            threshold=_threshold(choice, trained.positive_label),
            threshold_choice=choice.threshold,
            metrics=_metrics(work, config, examples, choice),
            failed_candidates=_failed_candidates(decision),
            export_tolerance=EXPORT_TOLERANCE,
            packaged_by=f"sat_xception {__version__}, tensorflow {tf.__version__}",
        )
        _write_documents(work, record, decision)
    return PackageResult(folder, record)


def _write_saved_model(
    work: Path, model: keras.Model, examples: ExamplesIndex, config: PackageConfig, temperature: float
) -> None:
    """Export the model and check it; write warm-up requests, batching parameters and golden tiles next to it."""
    export_model(model, examples.classes, work / "export", temperature)
    for item in (work / "export").iterdir():
        item.rename(work / item.name)
    (work / "export").rmdir()
    tiles = _first_tiles(config, examples)
    images = [tile.data for tile in tiles]
    expected = check_export(model, examples.classes, work, images, temperature)
    write_batching(work)
    write_warmup(work, config.name, images)
    golden = [
        GoldenTile(
            tile_id=tile.tile_id, label=tile.label, image_bytes=EncodedImage.of(tile.data), probabilities=tuple(row)
        )
        for tile, row in zip(tiles, expected.tolist(), strict=True)
    ]
    GoldenTiles(
        signature_name="serving_default", classes=examples.classes, tolerance=_GOLDEN_TOLERANCE, tiles=tuple(golden)
    ).write(work)


def _write_documents(work: Path, record: ModelRecord, decision: Decision | None) -> None:
    """Write `model.json` and the model card, and finally the digests of all files."""
    record.write(work)
    (work / "MODEL_CARD.md").write_text(model_card(record), encoding="utf-8")
    write_json(work / "model_card.json", model_card_json(record))
    if decision:
        (work / "report.html").write_text(run_report(decision, record), encoding="utf-8")
    write_json(work / DIGESTS_FILE, folder_digests(work))


def _read_decision(folder: Path, record: TrainingRecord) -> Decision:
    decision = Decision.read(folder)
    if decision.model != record.model:
        raise GateRefusedError(
            f"the gate chose {decision.winner}, not this {record.backbone}: {decision.reason}. "
            "Give the winner's model folder, or leave --decision out to package without a gate"
        )
    return decision


def _winner(decision: Decision) -> Candidate:
    return next(each for each in decision.candidates if each.model == decision.model)


def _failed_candidates(decision: Decision | None) -> dict[str, str]:
    """Return why candidates of the decision have no model (the failure of their training), by backbone."""
    candidates = decision.candidates if decision else ()
    return {each.backbone: each.failed for each in candidates if each.failed}


def _threshold(choice: _Choice, positive_label: str) -> float | None:
    if not positive_label:
        return None
    return choice.threshold.value if choice.threshold else DEFAULT_THRESHOLD


def _first_tiles(config: PackageConfig, examples: ExamplesIndex) -> list[_Tile]:
    """Return the first validation tiles. Stored order is shuffled, so they are of several classes."""
    stored = encoded_examples(config.examples, "valid").take(config.golden_tiles).as_numpy_iterator()
    return [_Tile(tile_id.decode(), examples.classes[label], data) for tile_id, data, label in stored]


def _metrics(saved_model: Path, config: PackageConfig, examples: ExamplesIndex, choice: _Choice) -> dict[str, Metrics]:
    """Return the figures by split: validation from the gate's decision, test from the exported model."""
    found = {"valid": choice.metrics} if choice.metrics else {}
    if examples.count("test"):
        scored = _score_test(saved_model, config.examples, examples)
        tiles = read_tiles(config.examples, "test")
        found["test"] = measure(tiles, scored, examples.classes, examples.positive_label, choice.threshold)
    return found


def _score_test(saved_model: Path, folder: Path, examples: ExamplesIndex) -> npt.NDArray[np.float32]:
    batches = encoded_examples(folder, "test").batch(_TEST_BATCH).as_numpy_iterator()
    total = -(-examples.count("test") // _TEST_BATCH)
    with SavedModelSession(saved_model) as session:
        return np.concatenate([session.probabilities(data) for _, data, _ in track(batches, "test", total)])
