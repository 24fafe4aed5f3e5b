"""How the last run of a pipeline ended, for the message that notify posts.

`last-run.json` lies in the folder of the baseline, or else in the store of a Kubeflow installation. A run that has
finished writes it: the gate when there is nothing to deploy, deploy when the model answers or is only packaged. A run
that fails writes nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from sat_xception.clock import timestamp
from sat_xception.errors import SatXceptionError
from sat_xception.log import get_logger
from sat_xception.storage import stored_path
from sat_xception.storage.document import Document

__all__ = ["LastRun", "finish_run", "outcome_of"]

_log = get_logger(__name__)


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


def finish_run(baseline: str, run: str, outcome: str, otherwise: str = "") -> None:
    """Record that a run has finished, and how.

    Args:
        baseline: Folder or bucket address of the baseline; "" for none.
        run: Id of the run.
        outcome: How it ended, in words.
        otherwise: Address for the record without a baseline; "" for none. If it can't be written, a warning is logged.

    Raises:
        SatXceptionError: The record can't be written.
    """
    record = LastRun(run=run, finished_at=timestamp(), outcome=outcome)
    if baseline:
        record.replace(stored_path(baseline))
    elif otherwise:
        try:
            record.replace(stored_path(otherwise))
        except SatXceptionError as error:
            _log.warning("finished  notify won't know how: %s", error)


def outcome_of(baseline: Path, run: str) -> str:
    """Return how a run ended, in words; "" when the record is of another run.

    Raises:
        SatXceptionError: The record is damaged or can't be read.
    """
    record = LastRun.find(baseline)
    return record.outcome if record and run and record.run == run else ""
