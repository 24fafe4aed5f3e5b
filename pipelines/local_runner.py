"""Run a pipeline on this machine: kfp's local runner, with a log that people can read and errors that say why."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from sat_xception.errors import ConfigError, SatXceptionError
from sat_xception.log import duration

__all__ = ["FAILURE", "StepFailedError", "check_path", "check_steps_ran", "run_pipeline", "whole_path"]

# Gets the reason when a step fails.
FAILURE = "failure.json"
# How kfp's log marks the lines that a step printed.
_STEP_STARTS = re.compile(r"Executing task '(.+)'")
_STEP_LOG_STARTS = "Streamed logs:"
_COLOURS = re.compile(r"\x1b\[\d+m")
_STEP_LOG_ENDS = re.compile(r"Task .* finished with status")


class StepFailedError(SatXceptionError):
    """A step of the pipeline failed.

    Attributes:
        exit_code: The step's own.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        """Say which step failed and why."""
        super().__init__(message)
        self.exit_code = exit_code


def run_pipeline(pipeline: Any, runner: Any, folder: Path, arguments: dict[str, Any]) -> Path:  # noqa: ANN401 - kfp has no types
    """Run a pipeline; what its steps say goes to stderr, all that kfp says to `run.log`.

    Returns:
        The folder with each step's outputs.

    Raises:
        StepFailedError: A step failed; the message is its own.
    """
    from kfp import local

    from pipelines.resources import without_retries

    failure = folder / FAILURE
    local.init(runner, pipeline_root=str(folder))
    with (
        (folder / "run.log").open("w", encoding="utf-8") as file,
        contextlib.redirect_stdout(_RunLog(file)),
        warnings.catch_warnings(),
    ):
        # It warns, for every task, that images and resources mean nothing here.
        warnings.simplefilter("ignore")
        try:
            without_retries(pipeline)(**arguments)
        except RuntimeError as error:
            _raise_failure(failure, folder, error)
    if failure.exists():
        _raise_failure(failure, folder, None)
    return next(path for path in folder.iterdir() if path.is_dir())


def _raise_failure(failure: Path, folder: Path, error: RuntimeError | None) -> None:
    told = json.loads(failure.read_text(encoding="utf-8")) if failure.exists() else {}
    what = told.get("error") or f"the pipeline failed: {_COLOURS.sub('', str(error))}"
    step = f"step {told['step']} failed: " if told else ""
    raise StepFailedError(f"{step}{what}\n          full log: {folder}/run.log", told.get("exit_code", 1)) from None


def check_steps_ran(outputs: Path, needed: tuple[str, ...]) -> None:
    """Look for the outputs of steps that had to run.

    Raises:
        StepFailedError: A step didn't run.
    """
    # kfp's local runner skips a branch whose condition it can't evaluate, and still says SUCCESS; so does its
    # DockerRunner, now and then, of a container that failed and was removed before it was asked how it ended.
    missing = [step for step in needed if not (outputs / step / "executor_output.json").is_file()]
    if missing:
        raise StepFailedError(f"these steps didn't run: {', '.join(missing)}; full log: {outputs.parent}/run.log", 1)


def check_path(path: Path) -> None:
    """Refuse a folder that kfp can't run in.

    Raises:
        ConfigError: Its name is one that kfp rewrites.
    """
    if "python3" in str(path):
        raise ConfigError(f"--out {path}: kfp's local runner rewrites 'python3' in paths; choose a folder without it")


def whole_path(place: str | Path) -> str:
    """Return a place by its whole path, as steps elsewhere find it; an address, and nothing, stay as they are."""
    text = str(place)
    return text if not text or "://" in text else str(Path(text).resolve())


class _RunLog(io.TextIOBase):
    """What kfp prints: all of it goes to a file, what the steps say to stderr as well."""

    def __init__(self, file: io.TextIOWrapper) -> None:
        super().__init__()
        self._file = file
        self._line = ""
        self._in_step = False
        self._step, self._started = "", 0.0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._file.write(text)
        self._file.flush()
        self._line += text
        while "\n" in self._line:
            line, self._line = self._line.split("\n", 1)
            self._show(line)
        return len(text)

    def _show(self, line: str) -> None:
        plain = _COLOURS.sub("", line)
        if started := _STEP_STARTS.search(plain):
            self._step, self._started = started[1], time.monotonic()
        elif _STEP_LOG_STARTS in plain:
            self._in_step = True
        elif _STEP_LOG_ENDS.search(plain):
            self._in_step = False
            sys.stderr.write(f"step      {self._step} took {duration(time.monotonic() - self._started)}\n")
        elif self._in_step:
            # kfp indents a step's lines by four spaces; those of its own executor are of no interest here, nor are
            # paths of outputs.
            said = line.removeprefix("    ")
            if said.strip(" {}") and not said.startswith(("[KFP Executor", "    ", "wrote ", "Found image ")):
                sys.stderr.write(f"{said}\n")
