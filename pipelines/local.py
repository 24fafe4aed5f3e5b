"""Run the training pipeline on this machine: the very same, with its steps as processes or in their containers."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from components.images import LOCAL_REGISTRY, image
from pipelines.run_config import RunConfig, pipeline_arguments
from pipelines.run_result import RunResult
from sat_xception.cli import add_step, run_app
from sat_xception.errors import ConfigError, SatXceptionError
from sat_xception.last_run import NO_NEW_DATA
from sat_xception.log import duration, get_logger
from sat_xception.steps import TERMINATION_LOG_ENV, NotifyConfig, Step

__all__ = ["StepFailedError", "run"]

_log = get_logger(__name__)
# How kfp's log marks the lines that a step printed.
_STEP_STARTS = re.compile(r"Executing task '(.+)'")
_STEP_LOG_STARTS = "Streamed logs:"
_COLOURS = re.compile(r"\x1b\[\d+m")
_STEP_LOG_ENDS = re.compile(r"Task .* finished with status")
_STEPS = ("assemble", "convert", "validate", "train", "train-2", "evaluate", "evaluate-2", "evaluate-3", "gate")
_STEPS_OF_A_WINNER = ("package", "deploy")
_WEBHOOK_ENV = NotifyConfig.model_fields["webhook_env"].default
# Parameters that name what steps read, and what they write, besides their outputs.
_READ = (
    "data",
    "data_imagery",
    "data_labels",
    "data_negatives_lookalikes",
    "data_negatives_review",
    "data_negatives_within",
    "mobilenetv2_weights",
    "xception_weights",
)
_WRITTEN = ("data_baseline", "data_tile_cache")
# Gets the reason when a step fails.
_FAILURE = "failure.json"


def run(config: RunConfig) -> RunResult:
    """Run the pipeline and check that every step which had to run did.

    Raises:
        ConfigError: A weights file or a path can't be used.
        StepFailedError: A step failed; the message is its own.
    """
    started = time.monotonic()
    run_id = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    folder = (config.out / run_id).resolve()
    _log.info("run       school-classifier-training on this machine; everything goes to %s", config.out / run_id)
    _check_path(folder)
    arguments = pipeline_arguments(config)
    folder.mkdir(parents=True)
    with _step_runner(config, folder, arguments) as runner:
        _run_pipeline(runner, folder, arguments)
    outputs = next(path for path in folder.iterdir() if path.is_dir())
    _check_steps_ran(outputs, _STEPS[:1])
    if _found_nothing_new(outputs):
        shutil.copyfile(outputs / "assemble" / "report", folder / "report.html")
        return RunResult(config.out / run_id, None, None, None, time.monotonic() - started)
    _check_steps_ran(outputs, _STEPS)
    decision = _read(outputs / "gate" / "decision" / "decision.json")
    served = deployment = None
    report = outputs / "gate" / "decision" / "report.html"
    if decision["winner"] != "none":
        _check_steps_ran(outputs, _STEPS_OF_A_WINNER)
        deployment = _read(outputs / "deploy" / "deployment" / "deployment.json")
        version = outputs / "package" / "served_model" / config.name / str(deployment["version"])
        served, report = _read(version / "model.json"), version / "report.html"
    shutil.copyfile(report, folder / "report.html")
    return RunResult(config.out / run_id, decision, served, deployment, time.monotonic() - started)


class StepFailedError(SatXceptionError):
    """A step of the pipeline failed.

    Attributes:
        exit_code: The step's own.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        """Say which step failed and why."""
        super().__init__(message)
        self.exit_code = exit_code


@contextlib.contextmanager
def _step_runner(config: RunConfig, folder: Path, arguments: dict[str, Any]) -> Iterator[Any]:
    """Yield kfp's runner, and set up what it needs; in containers, `arguments` gets the server's address."""
    from kfp import local

    failure = {TERMINATION_LOG_ENV: str(folder / _FAILURE)}
    if config.runner == "subprocess":
        os.environ.update(failure)
        yield local.SubprocessRunner(use_venv=False)
        return
    # The images that were built here, and no GPU. It must be said before the components are imported.
    os.environ |= {"IMAGE_REGISTRY": LOCAL_REGISTRY, "TRAIN_DEVICE": "cpu"}
    from pipelines.containers import check_images, step_containers
    from pipelines.training import training

    executors = training.pipeline_spec.deployment_spec["executors"].values()
    check_images({executor["container"]["image"] for executor in executors} | {image("serve")})
    model_root = config.model_root.resolve()
    read = [Path(arguments[name]) for name in _READ if Path(arguments[name]).is_absolute()]
    write = [Path(arguments[name]) for name in _WRITTEN if Path(arguments[name]).is_absolute()]
    secrets = {name: os.environ[name] for name in (_WEBHOOK_ENV, config.imagery_token_env) if name in os.environ}
    with step_containers(folder, model_root, config.name, read, write, failure | secrets) as (runner, endpoint):
        arguments |= {"deploy_model_root": str(model_root), "deploy_endpoint": endpoint}
        yield runner


def _run_pipeline(runner: Any, folder: Path, arguments: dict[str, Any]) -> None:  # noqa: ANN401 - kfp has no types
    from kfp import local

    from pipelines.resources import without_retries
    from pipelines.training import training

    failure = folder / _FAILURE
    local.init(runner, pipeline_root=str(folder))
    with (
        (folder / "run.log").open("w", encoding="utf-8") as file,
        contextlib.redirect_stdout(_RunLog(file)),
        warnings.catch_warnings(),
    ):
        # It warns, for every task, that images and resources mean nothing here.
        warnings.simplefilter("ignore")
        try:
            without_retries(training)(**arguments)
        except RuntimeError as error:
            _raise_failure(failure, folder, error)
    if failure.exists():
        _raise_failure(failure, folder, None)


def _raise_failure(failure: Path, folder: Path, error: RuntimeError | None) -> None:
    told = json.loads(failure.read_text(encoding="utf-8")) if failure.exists() else {}
    what = told.get("error") or f"the pipeline failed: {_COLOURS.sub('', str(error))}"
    step = f"step {told['step']} failed: " if told else ""
    raise StepFailedError(f"{step}{what}\n          full log: {folder}/run.log", told.get("exit_code", 1)) from None


def _found_nothing_new(outputs: Path) -> bool:
    answer = _read(outputs / "assemble" / "executor_output.json")["parameterValues"]["Output"]
    return bool(answer == NO_NEW_DATA)


def _check_steps_ran(outputs: Path, needed: tuple[str, ...]) -> None:
    # kfp's local runner skips a branch whose condition it can't evaluate, and still says SUCCESS; so does its
    # DockerRunner, now and then, of a container that failed and was removed before it was asked how it ended.
    missing = [step for step in needed if not (outputs / step / "executor_output.json").is_file()]
    if missing:
        raise StepFailedError(f"these steps didn't run: {', '.join(missing)}; full log: {outputs.parent}/run.log", 1)


def _check_path(path: Path) -> None:
    if "python3" in str(path):
        raise ConfigError(f"--out {path}: kfp's local runner rewrites 'python3' in paths; choose a folder without it")


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


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


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
add_step(app, "run", Step(RunConfig, "pipelines.local:run"))
app.callback()(lambda: None)


if __name__ == "__main__":
    # Without a handler kfp gives the root logger one, which prints every line of ours a second time.
    logging.getLogger().addHandler(logging.NullHandler())
    run_app(app, sys.argv[1:])
