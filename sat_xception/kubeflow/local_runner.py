"""Run a pipeline on this machine with kfp's local runner, with a readable log and errors that contain the reason."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import re
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sat_xception.errors import ConfigError, SatXceptionError
from sat_xception.log import duration
from sat_xception.native_log import LibraryLog, shows_library_logs

if TYPE_CHECKING:
    from kfp.dsl.graph_component import GraphComponent

__all__ = ["FAILURE", "RUN_LOG", "StepFailedError", "check_path", "check_steps_ran", "run_pipeline", "whole_path"]

# Environment variable with the file that a failing step writes its reason to.
FAILURE = "failure.json"
RUN_LOG = "run.log"
# Patterns around the lines of a step in kfp's log.
_STEP_STARTS = re.compile(r"Executing task '(.+)'")
_STEP_LOG_STARTS = "Streamed logs:"
_COLOURS = re.compile(r"\x1b\[\d+m")
_STEP_LOG_ENDS = re.compile(r"Task .* finished with status")
_STEP_CACHED = re.compile(r"Task (\S+) cache hit")


class StepFailedError(SatXceptionError):
    """A step of the pipeline failed.

    Attributes:
        exit_code: Exit code of the step.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        """Create the error; `message` names the step and the reason."""
        super().__init__(message)
        self.exit_code = exit_code


def run_pipeline(
    pipeline: GraphComponent,
    runner: Any,  # noqa: ANN401
    folder: Path,
    arguments: dict[str, Any],
    cache: Path | None = None,
) -> Path:
    """Run a pipeline; the log lines of steps go to stderr, and all that kfp logs goes to `run.log`.

    Args:
        pipeline: Pipeline to run.
        runner: kfp's runner.
        folder: Folder of the run; the steps' outputs go below it.
        arguments: Parameters of the pipeline.
        cache: Folder of kfp's local cache; None disables caching.

    Returns:
        The folder with each step's outputs.

    Raises:
        StepFailedError: A step failed; the message is the step's.
    """
    from kfp import local

    failure = folder / FAILURE
    cached = {"enable_caching": True, "cache_root": str(cache)} if cache else {}
    # If the root logger has no handler, kfp adds one, which prints each of our lines a second time.
    logging.getLogger().addHandler(logging.NullHandler())
    local.init(runner, pipeline_root=str(folder), **cached)
    with (
        (folder / RUN_LOG).open("w", encoding="utf-8") as file,
        contextlib.redirect_stdout(_RunLog(file)),
        _printing_cache_hits(),
        warnings.catch_warnings(),
    ):
        # It warns for every task that images and resources are ignored.
        warnings.simplefilter("ignore")
        try:
            without_retries(pipeline)(**arguments)
        except RuntimeError as error:
            _raise_failure(failure, folder, error)
    if failure.exists():
        _raise_failure(failure, folder, None)
    return next(path for path in folder.iterdir() if path.is_dir())


def without_retries(pipeline: GraphComponent) -> GraphComponent:
    """Return a copy of a pipeline without retries, which on one machine only delay the error message."""
    once = copy.deepcopy(pipeline)
    for component in once.pipeline_spec.components.values():
        for task in component.dag.tasks.values():
            task.ClearField("retry_policy")
    return once


def _raise_failure(failure: Path, folder: Path, error: RuntimeError | None) -> None:
    told = json.loads(failure.read_text(encoding="utf-8")) if failure.exists() else {}
    what = told.get("error") or f"the pipeline failed: {_COLOURS.sub('', str(error))}"
    step = f"step {told['step']} failed: " if told else ""
    raise StepFailedError(f"{step}{what}\n          full log: {folder}/{RUN_LOG}", told.get("exit_code", 1)) from None


def check_steps_ran(outputs: Path, needed: tuple[str, ...]) -> None:
    """Check that each step ran, or was taken from the cache.

    Raises:
        StepFailedError: A step didn't run.
    """
    # kfp's local runner skips a branch whose condition it can't evaluate, and still reports SUCCESS. So does its
    # DockerRunner, occasionally, if a failed container was removed before its exit code was read.
    log = (outputs.parent / RUN_LOG).read_text(encoding="utf-8")
    cached = set(_STEP_CACHED.findall(_COLOURS.sub("", log)))
    missing = [
        step for step in needed if step not in cached and not (outputs / step / "executor_output.json").is_file()
    ]
    if missing:
        raise StepFailedError(f"these steps didn't run: {', '.join(missing)}; full log: {outputs.parent}/{RUN_LOG}", 1)


def check_path(path: Path) -> None:
    """Refuse a folder that kfp can't run in.

    Raises:
        ConfigError: The path contains a name that kfp rewrites.
    """
    if "python3" in str(path):
        raise ConfigError(f"--out {path}: kfp's local runner rewrites 'python3' in paths; choose a folder without it")


def whole_path(place: str | Path) -> str:
    """Return a path as an absolute one, for steps in other processes; an address and "" aren't changed."""
    text = str(place)
    return text if not text or "://" in text else str(Path(text).resolve())


class _CacheHits(logging.Handler):
    """Prints that a step was taken from the cache, since kfp's logger for it has no handler."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if _STEP_CACHED.search(message):
            print(message)


@contextlib.contextmanager
def _printing_cache_hits() -> Iterator[None]:
    root, handler = logging.getLogger(), _CacheHits()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


class _RunLog(io.TextIOBase):
    """Receives what kfp prints: all of it goes to a file, and the steps' lines to stderr too."""

    def __init__(self, file: io.TextIOWrapper) -> None:
        super().__init__()
        self._file = file
        self._line = ""
        self._in_step = False
        self._step, self._started = "", 0.0
        self._library_log = LibraryLog()

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
        elif cached := _STEP_CACHED.search(plain):
            sys.stderr.write(f"step      {cached[1]} is unchanged: taken from an earlier run\n")
        elif _STEP_LOG_STARTS in plain:
            self._in_step = True
        elif _STEP_LOG_ENDS.search(plain):
            self._in_step = False
            sys.stderr.write(f"step      {self._step} took {duration(time.monotonic() - self._started)}\n")
        elif self._in_step:
            # kfp indents a step's lines by four spaces; lines of its own executor and paths of outputs are left out.
            said = line.removeprefix("    ")
            own = said.startswith(("[KFP Executor", "    ", "wrote ", "Found image "))
            hidden = self._library_log.has(said) and not shows_library_logs()
            if said.strip(" {}") and not own and not hidden:
                sys.stderr.write(f"{said}\n")
