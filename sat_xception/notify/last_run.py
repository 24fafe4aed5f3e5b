"""How the last run of a pipeline ended, for the message that notify posts.

`last-run.json` lies in the folder of the baseline. A run that has finished writes it: the gate when there is nothing to
deploy, deploy when the model answers. A run that fails writes nothing.
"""

from __future__ import annotations

import time
from pathlib import Path

from sat_xception.storage import GcsPath, read_json_file, write_json_file
from sat_xception.storage.address import is_address

__all__ = ["LAST_RUN_FILE", "finish_run", "outcome_of"]

LAST_RUN_FILE = "last-run.json"


def finish_run(baseline: str, run: str, outcome: str) -> None:
    """Record that a run has finished, and how; without a baseline nothing is recorded.

    Args:
        baseline: Folder or gs:// address of the baseline; "" for none.
        run: Id of the run.
        outcome: How it ended, in words.

    Raises:
        SatXceptionError: The record can't be written.
    """
    if baseline:
        finished_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        folder = GcsPath(baseline) if is_address(baseline) else Path(baseline)
        write_json_file(folder / LAST_RUN_FILE, {"run": run, "finished_at": finished_at, "outcome": outcome})


def outcome_of(baseline: Path, run: str) -> str:
    """Return how a run ended, in words; "" when the record is of another run.

    Raises:
        SatXceptionError: The record is damaged or can't be read.
    """
    record = read_json_file(baseline / LAST_RUN_FILE) or {}
    return str(record.get("outcome", "")) if run and record.get("run") == run else ""
