"""A training loop with early stopping and best weights that can resume in the middle of an epoch.

Keras's `fit` can't start inside an epoch. This loop runs Keras's own training step, `train_function`, on batches that
depend only on the seed, the epoch and the step. A checkpoint restores the weights, the optimizer's variables, the
states of random number generators and the sums of the metrics, so the remaining steps are the same as without the kill.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from sat_xception.errors import ServiceError
from sat_xception.log import get_logger
from sat_xception.model.checkpoint import Checkpoints, State
from sat_xception.model.parts import Epoch
from sat_xception.process import StopRequest

__all__ = ["Batches", "Phase", "PhaseProgress"]

_log = get_logger(__name__)
_LOG_EVERY_S = 5.0
Arrays = list[npt.NDArray[Any]]


class Batches(Protocol):
    """Training data with a different, repeatable order in each epoch."""

    @property
    def steps(self) -> int:
        """Number of batches per epoch."""

    def epoch(self, number: int, first_step: int = 0) -> tf.data.Dataset:
        """Return an epoch from `first_step` on: images or features, labels, sample weights."""


@dataclass
class PhaseProgress:
    """Progress of a phase.

    Attributes:
        epoch: Number of finished epochs.
        step: Number of finished steps in the current epoch.
        best: Best validation accuracy; negative before the first.
        wait: Number of epochs since the best one.
        finished: Whether the phase is over, by its last epoch, by early stopping or by a loss that isn't finite.
        diverged: Whether the loss or a weight of its last epoch isn't finite. That epoch is never the best one.
        seconds: Time spent, including attempts that were killed.
        rows: Its epochs.
    """

    epoch: int = 0
    step: int = 0
    best: float = -1.0
    wait: int = 0
    finished: bool = False
    diverged: bool = False
    seconds: float = 0.0
    rows: list[Epoch] = field(default_factory=list)


class Phase:
    """One phase of a training.

    Args:
        name: "head", "fine-tune" or "scratch".
        model: Compiled model.
        epochs: Maximum number of epochs.
        patience: Number of epochs without a better validation accuracy before the phase stops.
        checkpoints: Checkpoints that the state is saved in.
        notice: Stop request, checked after each step.
        silent: If true, epochs aren't logged (used by search).
    """

    def __init__(
        self,
        name: str,
        model: keras.Model,
        epochs: int,
        patience: int,
        checkpoints: Checkpoints,
        notice: StopRequest,
        silent: bool = False,
    ) -> None:
        """Start without progress; `run` looks for a checkpoint."""
        self.name, self.model = name, model
        self.progress = PhaseProgress()
        self._epochs, self._patience = epochs, patience
        self._checkpoints, self._notice, self._silent = checkpoints, notice, silent
        self._best: Arrays = []
        self._learning = _learning_variables(model)
        self._told = 0.0

    def run(
        self,
        data: Batches,
        valid: tf.data.Dataset,
        on_epoch: Callable[[Epoch], None],
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        """Train to the end; afterwards the model has its best weights, if any epoch had a finite loss.

        Args:
            data: Training data.
            valid: Validation batches.
            on_epoch: Called with each new epoch. If it raises a ServiceError, a checkpoint is written.
            on_step: Called after each step.

        Raises:
            PreemptedError: The process was asked to stop; a checkpoint is written.
        """
        with self.model.distribute_strategy.scope():
            self.model.optimizer.build(self.model.trainable_variables)
            self.model.test_on_batch(*next(iter(valid)))  # creates the metrics, whose sums are part of the state
        started = time.monotonic() - self._restore()
        self.model.make_train_function()
        while not self.progress.finished:
            row = self._run_epoch(data, valid, started, on_step)
            self._judge(row)
            try:
                on_epoch(row)
            except ServiceError:
                # The checkpoints may be on another disk than the full one.
                if self._best:
                    self._save(started)
                raise
            if not self._silent:
                self._log_progress(row)
            # A phase without a best epoch has no state worth resuming.
            if self._best and (self.progress.finished or self._checkpoints.due(at_rest=True)):
                self._save(started)
        done = self.progress
        if done.diverged and not self._silent:
            _log.warning("%-9s ended: the loss or a weight isn't finite after epoch %d", self.name, done.epoch)
        if not self._best:
            return
        for variable, value in zip(self._learning, self._best, strict=True):
            variable.assign(value)
        if not self._silent:
            _log.info("%-9s best validation accuracy %.4f after %d epochs", self.name, done.best, done.epoch)

    def _run_epoch(self, data: Batches, valid: tf.data.Dataset, started: float, on_step: Callable[[], None]) -> Epoch:
        begun, progress = time.monotonic(), self.progress
        if progress.step == 0:
            self.model.reset_metrics()
        if progress.step < data.steps:
            rest = data.epoch(progress.epoch, progress.step)
            iterator = iter(self.model.distribute_strategy.experimental_distribute_dataset(rest))
            while progress.step < data.steps:
                self.model.train_function(iterator)
                progress.step += 1
                on_step()
                if self._notice.given or self._checkpoints.due():
                    self._save(started)
                self._notice.raise_if_given(self._checkpoints.folder)
        figures = {name: float(value) for name, value in self.model.get_metrics_result().items()}
        figures |= {f"val_{name}": float(value) for name, value in self._validate(valid, started).items()}
        figures["learning_rate"] = float(self.model.optimizer.learning_rate.numpy())
        progress.epoch, progress.step = progress.epoch + 1, 0
        return Epoch(
            phase=self.name,
            epoch=progress.epoch,
            seconds=round(time.monotonic() - begun, 3),
            # JSON has no NaN, which the loss becomes if the rate is far too high; a rate may exceed float32.
            **{name: value if math.isfinite(value) else None for name, value in figures.items()},
        )

    def _validate(self, valid: tf.data.Dataset, started: float) -> dict[str, float]:
        sums = [variable.numpy() for variable in self.model.metrics_variables]
        stop = _StopEvaluating(self._notice)
        figures: dict[str, float] = self.model.evaluate(valid, callbacks=[stop], verbose=0, return_dict=True)
        if self._notice.given:
            for variable, value in zip(self.model.metrics_variables, sums, strict=True):
                variable.assign(value)
            self._save(started)
            self._notice.raise_if_given(self._checkpoints.folder)
        return figures

    def _judge(self, row: Epoch) -> None:
        progress = self.progress
        progress.rows.append(row)
        progress.wait += 1
        # If all outputs are NaN, argmax is 0, and the accuracy is the first class's share of the tiles.
        progress.diverged = row.loss is None or row.val_loss is None
        if not progress.diverged and row.score > progress.best:
            learnt = [variable.numpy() for variable in self._learning]
            progress.diverged = not all(np.isfinite(values).all() for values in learnt)
            if not progress.diverged:
                progress.best, progress.wait, self._best = row.score, 0, learnt
        ended = progress.epoch >= self._epochs or progress.wait >= self._patience
        progress.finished = progress.diverged or ended

    def _variables(self) -> list[Any]:
        """Return all variables that training changes, except the best weights."""
        return [*self._learning, *self.model.optimizer.variables, *self.model.metrics_variables]

    def _save(self, started: float) -> None:
        self.progress.seconds = time.monotonic() - started
        # A finished phase needs its best weights only.
        now = [] if self.progress.finished else [variable.numpy() for variable in self._variables()]
        facts = {**vars(self.progress), "rows": [row.content() for row in self.progress.rows]}
        self._checkpoints.save(self.name, State(facts, {"variables": now, "best": self._best}))

    def _restore(self) -> float:
        """Restore the last checkpoint, if there is one; return the seconds spent before it."""
        state = self._checkpoints.load(self.name)
        if state is None:
            return 0.0
        facts = {name: state.facts[name] for name in vars(self.progress) if name in state.facts}
        self.progress = PhaseProgress(**facts)
        self.progress.rows = [Epoch.model_validate(row) for row in self.progress.rows]
        self._best = list(state.arrays.get("best", []))
        if not self.progress.finished:
            for variable, value in zip(self._variables(), state.arrays["variables"], strict=True):
                variable.assign(value)
        where = "finished" if self.progress.finished else f"epoch {self.progress.epoch + 1}, step {self.progress.step}"
        _log.info("resume    %s: %s", self.name, where)
        return self.progress.seconds

    def _log_progress(self, row: Epoch) -> None:
        """Log the progress: each epoch of a slow phase, some epochs of a fast one."""
        now = time.monotonic()
        if now - self._told < _LOG_EVERY_S and row.epoch > 1:
            return
        self._told = now
        figures = (row.loss, row.accuracy, row.val_loss, row.val_accuracy)
        _log.info(
            "%-9s epoch %d/%d  loss %.4f  accuracy %.4f  validation loss %.4f  accuracy %.4f (best %.4f)",
            self.name,
            row.epoch,
            self._epochs,
            *(math.nan if figure is None else figure for figure in figures),
            self.progress.best,
        )


class _StopEvaluating(keras.callbacks.Callback):  # type: ignore[misc]
    """Stop a validation whose result would be discarded."""

    def __init__(self, notice: StopRequest) -> None:
        super().__init__()
        self._notice = notice

    def on_test_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.model.stop_evaluating = self._notice.given


def _learning_variables(model: keras.Model) -> list[Any]:
    """Return the weights and random-number states of a model, without those of frozen layers."""
    frozen = {id(variable) for layer in _leaves(model) if not layer.trainable for variable in layer.variables}
    metrics = {id(variable) for variable in model.metrics_variables}
    return [variable for variable in model.variables if id(variable) not in frozen | metrics]


def _leaves(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    if not isinstance(layer, keras.Model):
        return [layer]
    return [leaf for inner in layer.layers for leaf in _leaves(inner)]
