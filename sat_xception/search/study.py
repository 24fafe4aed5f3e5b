"""The study of a search: its trials, in one journal file.

The journal is a file that processes append to under a lock, so it needs no database. Settings or data that differ make
another study in the same file.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from sat_xception.errors import DataError
from sat_xception.log import get_logger
from sat_xception.model.settings import TrainConfig
from sat_xception.search.space import Space
from sat_xception.search.trial import TrialData
from sat_xception.storage import file_lock, reporting_disk_errors, write_error

__all__ = [
    "DIVERGED",
    "REASON",
    "Job",
    "closed",
    "diverged",
    "interrupted",
    "loss_of",
    "mend_journal",
    "merit",
    "open_study",
    "own_folder",
    "reason_of",
    "state_of",
]

_log = get_logger(__name__)
REASON, DIVERGED = "reason", "diverged"
# A process that is killed while it writes leaves the journal's lock, which others take after this time.
_DEAD_LOCK_S = 10
_ADVICE = "free some, or name another --study"
# Optuna's default, and no verdict before early stopping could have one: the median of fewer epochs says little.
_TRIALS_BEFORE_PRUNING, _EPOCHS_BEFORE_PRUNING = 5, 10


@dataclass(frozen=True)
class Job:
    """Parameters of a search that every process gets.

    Attributes:
        journal: The file that holds the study.
        name: The study's name.
        space: Search space.
        base: Settings of train that all trials share.
        data: Features and classes that all trials share.
        trials: Trials in all; 0 for no limit.
        pruner: Name of the pruner.
        seed: Seed of the guesses.
    """

    journal: Path
    name: str
    space: Space
    base: dict[str, Any]
    data: TrialData
    trials: int
    pruner: str
    seed: int

    def config(self, settings: dict[str, Any]) -> TrainConfig:
        """Return a trial's settings of train."""
        return TrainConfig.model_validate({**self.base, **settings})


def open_study(job: Job) -> optuna.Study:
    """Open the study, or make it.

    Raises:
        DataError: The journal is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        # The lock by an open file works on NFS, too; the one by a link doesn't on every file system.
        backend = JournalFileBackend(
            str(job.journal), lock_obj=JournalFileOpenLock(str(job.journal), grace_period=_DEAD_LOCK_S)
        )
        return optuna.create_study(
            storage=JournalStorage(backend),
            study_name=job.name,
            direction="maximize",
            pruner=_pruner(job),
            load_if_exists=True,
        )
    except (ValueError, KeyError) as error:
        raise DataError(f"{job.journal} is damaged: {error}; remove it, and run again") from None


def mend_journal(journal: Path) -> None:
    """Cut off the end of a journal that a kill or a full disk left incomplete; nothing else may write it meanwhile.

    Raises:
        ServiceError: It can't be written.
    """
    if not journal.is_file():
        return
    with reporting_disk_errors(journal), journal.open("r+b") as file:
        whole = 0
        for line in file:
            if not line.endswith(b"\n") or not _is_json(line):
                break
            whole += len(line)
        rest = file.seek(0, 2) - whole
        file.seek(whole)
        if rest and file.read().count(b"\n") <= 1:  # more than the last line is damage that is no half-written end
            _log.warning("journal   %s ended in half a line, %d bytes, which were cut off", journal, rest)
            file.truncate(whole)


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _pruner(job: Job) -> optuna.pruners.BasePruner:
    if job.pruner == "none":
        return optuna.pruners.NopPruner()
    if job.pruner == "hyperband":
        most = job.config({}).head_epochs + job.config({}).fine_tune_epochs
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=most)
    return optuna.pruners.MedianPruner(_TRIALS_BEFORE_PRUNING, _EPOCHS_BEFORE_PRUNING)


def closed(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count: complete, pruned or failed for a reason of their own."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished() and not interrupted(trial)]


def interrupted(trial: FrozenTrial) -> bool:
    """Return whether a trial was interrupted by the end of the search."""
    return trial.state is TrialState.FAIL and REASON not in trial.user_attrs


def state_of(trial: FrozenTrial) -> TrialState:
    """Return the state of a trial; one without a finite loss has failed, though an earlier version called it complete.

    Its accuracy is that of a model whose answers are no numbers.
    """
    return TrialState.FAIL if _lost(trial) else trial.state


def _lost(trial: FrozenTrial) -> bool:
    return trial.state is TrialState.COMPLETE and loss_of(trial) is None


def diverged(trial: FrozenTrial) -> bool:
    """Return whether a trial failed because its loss or a weight became infinite or NaN."""
    return _lost(trial) or bool(trial.user_attrs.get(DIVERGED, False))


def loss_of(trial: FrozenTrial) -> float | None:
    """Return the validation loss of a trial; None where it has none that is finite. A journal holds NaN as null."""
    loss = trial.user_attrs.get("valid_loss")
    return float(loss) if loss is not None and math.isfinite(loss) else None


def reason_of(trial: FrozenTrial) -> str:
    """Return why a trial failed; "" if it didn't."""
    return "its loss isn't finite" if _lost(trial) else str(trial.user_attrs.get(REASON, ""))


def merit(trial: FrozenTrial) -> tuple[float, float]:
    """Return what complete trials are sorted by: the accuracy, then the loss, as few tiles make many ties."""
    loss = loss_of(trial)
    return float(trial.value or 0.0), -math.inf if loss is None else -loss


@contextlib.contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """Make the folder of a study, where no other search works meanwhile.

    Raises:
        ConfigError: It can't be written, or another search has it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(error, folder, _ADVICE) from None
    held = f"another search works in {folder}; wait for it, or name another --study"
    with file_lock(folder / "lock", held, folder, _ADVICE):
        yield
