"""Package a model for TensorFlow Serving: export it, check it, describe it.

The test split is scored only here, once, with the exported model: the figures are those of the model that will be
served.
"""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from sat_xception import __version__
from sat_xception.errors import ConfigError, DataError, GateRefusedError
from sat_xception.evaluate.decision import Candidate, Decision
from sat_xception.evaluate.evaluate import load_model, measure
from sat_xception.evaluate.figures import Threshold
from sat_xception.evaluate.report import run_report
from sat_xception.evaluate.threshold import DEFAULT_THRESHOLD
from sat_xception.evaluate.tiles import read_tiles
from sat_xception.examples.index import ExamplesIndex
from sat_xception.log import track
from sat_xception.model.input import encoded_examples, reading
from sat_xception.package.batching import write_batching
from sat_xception.package.card import model_card, model_card_json
from sat_xception.package.export import EXPORT_TOLERANCE, check_export, export_model, write_warmup
from sat_xception.package.settings import PackageConfig
from sat_xception.serve.models import SavedModelSession
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
    served: dict[str, Any]

    def summary(self) -> str:
        """Return the version and its test accuracy."""
        test = self.served["metrics"].get("test")
        accuracy = f"test accuracy {test['accuracy']:.4f} on {test['count']:,} tiles" if test else "no test split"
        return (
            f"package   {self.served['name']} version {self.served['version']} ({self.served['backbone']}) | {accuracy}"
            f" | signatures equal Keras within {EXPORT_TOLERANCE:g}\nwrote     {self.folder}"
        )


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
    model, record = load_model(config.model)
    examples = ExamplesIndex.read(config.examples)
    if record.dataset_digest != examples.dataset_digest:
        raise DataError(
            f"{config.model} was trained on another dataset than {config.examples} holds; give its own examples"
        )
    decision = _read_decision(config.decision, record) if config.decision else None
    # The threshold and temperature of the decision; without one the model is exported as trained.
    chosen = _winner(decision) if decision else None
    calibration = chosen.calibration if chosen else None
    temperature = calibration.temperature if calibration else 1.0
    threshold = chosen.threshold if chosen else None
    version = config.version or int(time.strftime("%Y%m%d%H%M%S", time.gmtime()))
    folder = config.out / config.name / str(version)
    if has_version(folder):
        raise ConfigError(f"{folder} exists, and a version never changes; give another --version")
    with new_version(folder) as work, reading(config.examples):
        export_model(model, record.classes, work / "export", temperature)
        for item in (work / "export").iterdir():
            item.rename(work / item.name)
        (work / "export").rmdir()
        golden = _golden_tiles(config, examples)
        expected = check_export(model, record.classes, work, [tile["data"] for tile in golden], temperature)
        write_batching(work)
        write_warmup(work, config.name, [tile["data"] for tile in golden])
        write_json(work / "golden.json", _describe_golden(golden, expected.tolist(), list(record.classes)))
        trained = record.content()
        served = {
            **{
                key: trained[key]
                for key in ("backbone", "classes", "positive_label", "dataset_digest", "source", "synthetic")
            },
            "name": config.name,
            "version": version,
            "model": record.model,
            "training": {
                key: trained[key] for key in ("weights", "kept_phase", "input_size", "seconds", "hardware", "versions")
            },
            "tiles": {split: info.count for split, info in examples.splits.items()},
            "calibration": {
                "temperature": temperature,
                "fitted_on": "valid" if chosen else "",
                **(
                    {"error_before": calibration.before.error, "error_after": calibration.after.error}
                    if calibration
                    else {}
                ),
            },
            "threshold": threshold.value if threshold else DEFAULT_THRESHOLD if record.positive_label else None,
            "threshold_choice": threshold.content() if threshold else None,
            "metrics": _metrics(work, config, examples, chosen, threshold),
            "failed_candidates": _failed_candidates(decision),
            "export_tolerance": EXPORT_TOLERANCE,
            "packaged_by": f"sat_xception {__version__}, tensorflow {tf.__version__}",
        }
        write_json(work / "model.json", served)
        (work / "MODEL_CARD.md").write_text(model_card(served), encoding="utf-8")
        write_json(work / "model_card.json", model_card_json(served))
        if decision:
            (work / "report.html").write_text(run_report(decision, served), encoding="utf-8")
        write_json(work / DIGESTS_FILE, folder_digests(work))
    return PackageResult(folder, served)


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


def _golden_tiles(config: PackageConfig, examples: ExamplesIndex) -> list[dict[str, Any]]:
    """Return the first validation tiles. Stored order is shuffled, so they are of several classes."""
    stored = encoded_examples(config.examples, "valid").take(config.golden_tiles).as_numpy_iterator()
    return [{"id": tile_id.decode(), "data": data, "label": examples.classes[label]} for tile_id, data, label in stored]


def _describe_golden(tiles: list[dict[str, Any]], expected: list[list[float]], classes: list[str]) -> dict[str, Any]:
    rows = [
        {
            "id": tile["id"],
            "label": tile["label"],
            "image_bytes": {"b64": base64.b64encode(tile["data"]).decode()},
            "probabilities": probabilities,
        }
        for tile, probabilities in zip(tiles, expected, strict=True)
    ]
    return {"signature_name": "serving_default", "classes": classes, "tolerance": _GOLDEN_TOLERANCE, "tiles": rows}


def _metrics(
    saved_model: Path,
    config: PackageConfig,
    examples: ExamplesIndex,
    chosen: Candidate | None,
    threshold: Threshold | None,
) -> dict[str, Any]:
    """Return the figures by split: validation from the gate's decision, test from the exported model."""
    found = {"valid": chosen.metrics.content()} if chosen and chosen.metrics else {}
    if examples.count("test"):
        scored = _score_test(saved_model, config.examples, examples)
        tiles = read_tiles(config.examples, "test")
        found["test"] = measure(tiles, scored, examples.classes, examples.positive_label, threshold).content()
    return found


def _score_test(saved_model: Path, folder: Path, examples: ExamplesIndex) -> npt.NDArray[np.float32]:
    batches = encoded_examples(folder, "test").batch(_TEST_BATCH).as_numpy_iterator()
    total = -(-examples.count("test") // _TEST_BATCH)
    with SavedModelSession(saved_model) as session:
        return np.concatenate(
            [
                session.predict("serving_default", {"image_bytes": data})["probabilities"]
                for _, data, _ in track(batches, "test", total)
            ]
        )
