"""How the last run of a pipeline ended, for the message that notify posts.

`last-run.json` lies in the folder of the baseline. A run that has finished writes it: the gate when there is nothing to
deploy, deploy when the model answers. A run that fails writes nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from sat_xception.clock import timestamp
from sat_xception.storage import stored_path
from sat_xception.storage.document import Document

__all__ = ["LastRun", "finish_run", "outcome_of"]


class LastRun(Document):
    """Content of `last-run.json`.

    Attributes:
        run: Id of the run.
        finished_at: UTC.
        outcome: How it ended, in words.
    """

    file_name: ClassVar[str] = "last-run.json"
    made_by: ClassVar[str] = "deploy"
    advice: ClassVar[str] = "remove it"

    run: str
    finished_at: str
    outcome: str


def finish_run(baseline: str, run: str, outcome: str) -> None:
    """Record that a run has finished, and how; without a baseline nothing is recorded.

    Args:
        baseline: Folder or bucket address of the baseline; "" for none.
        run: Id of the run.
        outcome: How it ended, in words.

    Raises:
        SatXceptionError: The record can't be written.
    """
    if baseline:
        finished_at = timestamp()
        folder = stored_path(baseline)
        LastRun(run=run, finished_at=finished_at, outcome=outcome).replace(folder)


def outcome_of(baseline: Path, run: str) -> str:
    """Return how a run ended, in words; "" when the record is of another run.

    Raises:
        SatXceptionError: The record is damaged or can't be read.
    """
    record = LastRun.find(baseline)
    return record.outcome if record and run and record.run == run else ""
