"""JSON schemas of the documents that steps write: `python -m sat_xception.steps.schemas docs/schemas`."""

from __future__ import annotations

import sys
from pathlib import Path

from sat_xception.dataset.record import DatasetRecord
from sat_xception.evaluate.decision import Decision
from sat_xception.evaluate.evaluation import Evaluation
from sat_xception.examples.index import ExamplesIndex
from sat_xception.search.record import SearchRecord
from sat_xception.storage.document import Document
from sat_xception.storage.files import json_text
from sat_xception.train.record import TrainingHistory, TrainingRecord

__all__ = ["DOCUMENTS", "write_schemas"]

DOCUMENTS: tuple[type[Document], ...] = (
    DatasetRecord,
    Decision,
    Evaluation,
    ExamplesIndex,
    SearchRecord,
    TrainingHistory,
    TrainingRecord,
)


def write_schemas(folder: Path) -> None:
    """Write the schema of each document into a folder, as `<name>.schema.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for document in DOCUMENTS:
        path = folder / Path(document.file_name).with_suffix(".schema.json")
        path.write_text(json_text(document.json_schema()), encoding="utf-8")


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]))
