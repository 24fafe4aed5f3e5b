"""The processes of a search: each takes the next trial, runs it and records the result."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import optuna
import tensorflow as tf
from optuna.trial import Trial, TrialState

from sat_xception.clock import utc_now
from sat_xception.errors import DivergedError, SatXceptionError
from sat_xception.log import duration, get_logger, set_up_logging
from sat_xception.native_log import show_held
from sat_xception.process import ignore_signals
from sat_xception.search.study import DIVERGED, REASON, Job, closed, open_study, state_of
from sat_xception.search.trial import run_trial
from sat_xception.storage import file_lock

__all__ = ["run_trials"]

_log = get_logger(__name__)
# Optuna's default: the first guesses are random, so that TPE has something to learn from.
_RANDOM_TRIALS = 10
_POLL_S = 0.2

Stopped = Callable[[], bool]


class _Interrupted(Exception):
    """The search is to end; the trial is done again another time."""


def run_trials(job: Job, workers: int, minutes: float, stopped: Stopped) -> None:
    """Run trials until the budget is spent or `stopped` returns True; every trial that was started is closed.

    Args:
        job: Parameters of the search, with the number of trials.
        workers: Number of processes; a single one is this process itself.
        minutes: No trial is started after this many; 0 for no limit.
        stopped: Returns whether to end; called after every epoch.

    Raises:
        DataError: The journal is damaged.
    """
    study = open_study(job)
    deadline = utc_now().timestamp() + 60 * minutes if minutes else math.inf  # the clock that processes share
    _close_running(study, "")  # of a run that was killed
    if workers == 1:
        _work(job, deadline, stopped)
        return
    while not _is_spent(job, study, deadline) and not stopped():
        before = len(closed(study))
        ended = _run_processes(job, workers, deadline, stopped)
        bad = [code for code in ended if code]
        if bad:
            show_held()
        _close_running(study, "" if stopped() else f"its process ended with code {bad[0] if bad else 0}")
        if len(closed(study)) == before:
            break  # no process got as far as a trial


def _run_processes(job: Job, workers: int, deadline: float, stopped: Stopped) -> list[int | None]:
    """Run processes until all have ended; return their exit codes."""
    context = multiprocessing.get_context("spawn")  # TensorFlow doesn't survive a fork
    stop = context.Event()
    processes = [context.Process(target=_work_in_process, args=(job, deadline, stop)) for _ in range(workers)]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        if stopped():
            stop.set()
        time.sleep(_POLL_S)
    return [process.exitcode for process in processes]


def _work_in_process(job: Job, deadline: float, stop: Any) -> None:  # noqa: ANN401 - multiprocessing's
    # The parent process handles the signals, and stops its children.
    ignore_signals(signal.SIGINT, signal.SIGTERM)
    set_up_logging()
    parent = os.getppid()
    _work(job, deadline, lambda: stop.is_set() or os.getppid() != parent)


def _work(job: Job, deadline: float, stopped: Stopped) -> None:
    study = open_study(job)
    while True:
        with _turn(job):
            if stopped() or _is_spent(job, study, deadline):
                return
            trial, settings = _begin(job, study)
        _try(job, study, trial, settings, stopped)


@contextlib.contextmanager
def _turn(job: Job) -> Iterator[None]:
    """Let one process at a time begin a trial."""
    with file_lock(job.journal.with_name("turn"), held=None):
        yield


def _is_spent(job: Job, study: optuna.Study, deadline: float) -> bool:
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return utc_now().timestamp() >= deadline or 0 < job.trials <= len(closed(study)) + len(running)


def _begin(job: Job, study: optuna.Study) -> tuple[Trial, dict[str, Any]]:
    # The guess follows from the seed and the trials so far: a search that was stopped goes on as if it hadn't been.
    count = len(closed(study)) + len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=_RANDOM_TRIALS, seed=job.seed + 1_000_003 * count)
    if count == 0:
        # The best is never worse than what train does by itself, where the space holds that.
        study.enqueue_trial(job.space.defaults(), skip_if_exists=True)
    trial = study.ask()
    return trial, job.space.suggest(trial)


def _try(job: Job, study: optuna.Study, trial: Trial, settings: dict[str, Any], stopped: Stopped) -> None:
    def report(step: int, accuracy: float) -> None:
        trial.report(accuracy, step)
        if stopped():
            raise _Interrupted
        if trial.should_prune():
            raise optuna.TrialPruned

    started = time.monotonic()
    try:
        outcome = run_trial(job.data, job.config(settings), report)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
        told = "pruned"
    except _Interrupted:
        study.tell(trial, state=TrialState.FAIL)
        return
    except (SatXceptionError, ValueError, MemoryError, tf.errors.OpError) as error:
        # Settings that don't go together, or don't fit into memory: the others may.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        trial.set_user_attr(REASON, reason)
        trial.set_user_attr(DIVERGED, isinstance(error, DivergedError))
        study.tell(trial, state=TrialState.FAIL)
        told = f"failed: {reason}"
    else:
        trial.set_user_attr("valid_loss", outcome.loss)
        trial.set_user_attr("phase", outcome.phase)
        study.tell(trial, outcome.accuracy)
        told = f"{outcome.accuracy:.4f}"
    _say(job, study, told, settings, time.monotonic() - started)


def _say(job: Job, study: optuna.Study, told: str, settings: dict[str, Any], seconds: float) -> None:
    done = closed(study)
    complete = [trial for trial in done if state_of(trial) is TrialState.COMPLETE]
    best = f"best {max(trial.value or 0.0 for trial in complete):.4f}" if complete else "none yet"
    of = f" of {job.trials:,}" if job.trials else ""
    shown = ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in settings.items()
    )
    _log.info("trial     %d%s  %s (%s), %s: %s", len(done), of, told, best, duration(seconds), shown)


def _close_running(study: optuna.Study, reason: str) -> None:
    """Close trials that no worker runs any more: as failed for a reason, or else to be done again."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if reason:
            Trial(study, trial._trial_id).set_user_attr(REASON, reason)
        study.tell(trial.number, state=TrialState.FAIL)
