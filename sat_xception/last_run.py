"""What the last finished run was made of, so that a run in which nothing is new can end early.

`last-run.json` lies in the folder of the baseline. A run that has finished writes it: the gate when no model passes,
deploy when the model answers. A run that fails writes nothing, so the next one does its work again.
"""

from __future__ import annotations

import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sat_xception.errors import DataError
from sat_xception.log import get_logger
from sat_xception.storage import GcsPath, read_record, write_record
from sat_xception.storage.address import is_address

__all__ = ["LAST_RUN_FILE", "NO_NEW_DATA", "RunContent", "finish_run", "look_for_news", "outcome_of"]

_log = get_logger(__name__)
LAST_RUN_FILE = "last-run.json"
NO_NEW_DATA = "no new data"
_SHOWN = 12
_CONTENT = re.compile(r"dataset=([0-9a-f]+) parameters=([0-9a-f]+) code=([0-9a-f]+)")


@dataclass(frozen=True)
class RunContent:
    """What a run's result follows from, each as a digest in hexadecimal digits.

    Attributes:
        dataset: The usable tiles, their labels and splits.
        parameters: The parameters that have a say in what is made of them.
        code: The images of the steps that make it.
    """

    dataset: str
    parameters: str
    code: str

    def __str__(self) -> str:
        """Return all of it as one text, which tasks of a pipeline can hand on."""
        return f"dataset={self.dataset} parameters={self.parameters} code={self.code}"

    @classmethod
    def parse(cls, text: str) -> RunContent:
        """Read what `str` gave.

        Raises:
            DataError: It is something else.
        """
        found = _CONTENT.fullmatch(text)
        if found is None:
            raise DataError(f"expected what assemble returns, 'dataset=… parameters=… code=…'; got {text!r}")
        return cls(*found.groups())

    def changes_since(self, record: dict[str, Any]) -> list[str]:
        """Return the names of what isn't as a record says."""
        return [name for name, digest in asdict(self).items() if record.get(name) != digest]


def look_for_news(content: RunContent, baseline: str, skip_unchanged: bool, run: str) -> str:
    """Compare a run with the last finished one.

    Args:
        content: What the run is made of.
        baseline: Folder of the baseline, here or at gs://; "" when there is none.
        skip_unchanged: Whether a run in which nothing is new ends here.
        run: What Kubeflow calls this run; it is noted as one that ended here.

    Returns:
        `NO_NEW_DATA` when the run shall end here; else the content as a text, for whoever finishes the run.

    Raises:
        SatXceptionError: The record is damaged, or can't be read or written.
    """
    record = read_record(_place(baseline)) if baseline else None
    if record is None:
        _log.info("new data  %s", "nothing is known of an earlier run" if baseline else "no earlier run was named")
        return str(content)
    changes = content.changes_since(record)
    last = f"the last finished run, of {record.get('finished_at', 'an unknown time')} ({record.get('outcome', '')})"
    if not changes and skip_unchanged:
        write_record(_place(baseline), record | {"skipped_run": run, "skipped_at": _now()})
        _log.info("no new data: dataset, parameters and code are those of %s; every later step is skipped", last)
        return NO_NEW_DATA
    if changes:
        old = str(record.get("dataset", ""))[:_SHOWN]
        tiles = f"; dataset {old} → {content.dataset[:_SHOWN]}" if "dataset" in changes else ""
        _log.info("new data  %s changed since %s%s", " and ".join(changes), last, tiles)
    else:
        _log.info("same data as %s; this run isn't one to be skipped", last)
    return str(content)


def finish_run(baseline: str, content: str, run: str, outcome: str) -> None:
    """Note that a run has finished, and how; without a baseline there is no place to note it.

    Args:
        baseline: Folder of the baseline, here or at gs://; "" when there is none.
        content: What `look_for_news` returned.
        run: What Kubeflow calls the run.
        outcome: How it ended, in words.

    Raises:
        SatXceptionError: The record can't be written, or `content` is something else.
    """
    if baseline:
        finished = {"run": run, "finished_at": _now(), "outcome": outcome}
        write_record(_place(baseline), finished | asdict(RunContent.parse(content)))


def outcome_of(baseline: Path, run: str) -> str:
    """Return how a run ended, in words; "" when the record isn't of this run.

    Raises:
        SatXceptionError: The record is damaged or can't be read.
    """
    record = read_record(baseline / LAST_RUN_FILE) or {}
    if run and record.get("skipped_run") == run:
        return (
            f"{NO_NEW_DATA} since {record.get('finished_at')} ({record.get('outcome')}); every later step was skipped"
        )
    return str(record.get("outcome", "")) if run and record.get("run") == run else ""


def _place(baseline: str) -> Path:
    return (GcsPath(baseline) if is_address(baseline) else Path(baseline)) / LAST_RUN_FILE


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
