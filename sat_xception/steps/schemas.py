"""JSON schemas of the documents that steps write: `python -m sat_xception.steps.schemas docs/schemas`."""

from __future__ import annotations

import sys
from pathlib import Path

from sat_xception.bulk.plan_document import BulkPlan
from sat_xception.bulk.run_document import BulkRun, BulkScores
from sat_xception.dataset.record import DatasetRecord
from sat_xception.deploy.deployment import CheckedPackage, Deployment
from sat_xception.deploy.rollout_record import RolloutRecord
from sat_xception.evaluate.decision import Decision
from sat_xception.evaluate.evaluation import Evaluation
from sat_xception.examples.index import ExamplesIndex
from sat_xception.notify.last_run import LastRun
from sat_xception.package.record import ModelRecord
from sat_xception.publish.publication import Publication
from sat_xception.search.record import SearchRecord
from sat_xception.served_model.golden import GoldenTiles
from sat_xception.storage.document import Document
from sat_xception.storage.files import json_text
from sat_xception.train.record import TrainingHistory, TrainingRecord

__all__ = ["DOCUMENTS", "schema_file", "write_schemas"]

DOCUMENTS: tuple[type[Document], ...] = (
    BulkPlan,
    BulkRun,
    BulkScores,
    CheckedPackage,
    DatasetRecord,
    Decision,
    Deployment,
    Evaluation,
    ExamplesIndex,
    GoldenTiles,
    LastRun,
    ModelRecord,
    Publication,
    RolloutRecord,
    SearchRecord,
    TrainingHistory,
    TrainingRecord,
)
# Documents that share the name of their file with another.
_NAMES: dict[type[Document], str] = {CheckedPackage: "deployment-none"}


def write_schemas(folder: Path) -> None:
    """Write the schema of each document into a folder, as `schema_file` names it."""
    folder.mkdir(parents=True, exist_ok=True)
    for document in DOCUMENTS:
        (folder / schema_file(document)).write_text(json_text(document.json_schema()), encoding="utf-8")


def schema_file(document: type[Document]) -> str:
    """Return the file name of a document's schema: `model.schema.json` for `model.json`."""
    return f"{_NAMES.get(document, Path(document.file_name).stem)}.schema.json"


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]))
