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
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import Field
from rich.console import Console
from rich.table import Table

from components.images import LOCAL_REGISTRY, image
from sat_xception.cli import add_step, run_app
from sat_xception.config import StepConfig, setting_of
from sat_xception.errors import ConfigError, SatXceptionError
from sat_xception.log import duration, get_logger
from sat_xception.model.weights import find_weights, identify_weights
from sat_xception.steps import (
    TERMINATION_LOG_ENV,
    GateConfig,
    NotifyConfig,
    PackageConfig,
    Step,
    TrainConfig,
    ValidateConfig,
)
from sat_xception.steps.kinds import Fraction
from sat_xception.storage import Stored, fetch_file

__all__ = ["RunConfig", "RunResult", "StepFailedError", "pipeline_arguments", "run"]

_log = get_logger(__name__)
# From random weights the whole network is trained. On two cores that takes minutes only with small inputs and, for
# Xception at 12 s an epoch of the sample, few epochs.
_SCRATCH_INPUT_SIZE = {"xception": 71, "mobilenetv2": 96}
_SCRATCH_EPOCHS = {"xception": 5, "mobilenetv2": 24}
# How kfp's log marks the lines that a step printed.
_STEP_STARTS = re.compile(r"Executing task '(.+)'")
_STEP_LOG_STARTS = "Streamed logs:"
_COLOURS = re.compile(r"\x1b\[\d+m")
_STEP_LOG_ENDS = re.compile(r"Task .* finished with status")
_STEPS = ("assemble", "convert", "validate", "train", "train-2", "evaluate", "evaluate-2", "gate", "notify")
_STEPS_OF_A_WINNER = ("package", "deploy")
_WEBHOOK_ENV = NotifyConfig.model_fields["webhook_env"].default
# Gets the reason when a step fails.
_FAILURE = "failure.json"


class RunConfig(StepConfig):
    """Run the whole training pipeline on this machine, without a cluster; without Docker too, unless it's asked for."""

    runner: Literal["subprocess", "docker"] = Field(
        "subprocess", description="Steps as processes, or each in its own image (after `make images`)."
    )
    data: Annotated[str, Stored("folder")] = Field(
        "sample", description="Folder of class folders, here or at gs://; 'sample' draws the synthetic sample."
    )
    weights: tuple[str, ...] = Field(
        (),
        description="Weights file to start a backbone from; which backbone is told by the file. Or BACKBONE=imagenet.",
    )
    out: Path = Field(Path("runs"), description="Folder that gets a folder for this run.")
    model_root: Path = Field(Path("models/serving"), description="Model root of the endpoint.")
    name: str = setting_of(PackageConfig, "name")
    alpha: float = Field(0.35, gt=0, description="Width multiplier of MobileNetV2, where no weights file tells it.")
    input_size: int = Field(
        0, ge=0, description="Input of both models in pixels. Default: 71 and 96 from random weights, else their own."
    )
    seed: int = setting_of(TrainConfig, "seed")
    head_epochs: int = setting_of(TrainConfig, "head_epochs")
    fine_tune_epochs: int = setting_of(TrainConfig, "fine_tune_epochs")
    scratch_epochs: int = Field(
        0, ge=0, description="Epochs from random weights. Default: 5 for xception, 24 for mobilenetv2."
    )
    positive_label: str = Field("", description="The class that is looked for. Default: see `assemble --help`.")
    accept: tuple[str, ...] = setting_of(ValidateConfig, "accept")
    min_accuracy: Fraction = Field(0.80, description="Gate: lowest validation accuracy.")
    min_recall: Fraction = setting_of(GateConfig, "min_recall")
    min_precision: Fraction = setting_of(GateConfig, "min_precision")
    max_calibration_error: Fraction = setting_of(GateConfig, "max_calibration_error")


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        folder: The run's folder: outputs of every step, `run.log`, `report.html`.
        decision: What the gate decided.
        served: `model.json` of the packaged model; None when no model passed.
        deployment: The deployment record; None when no model passed.
        seconds: Whole time.
    """

    folder: Path
    decision: dict[str, Any]
    served: dict[str, Any] | None
    deployment: dict[str, Any] | None
    seconds: float

    def summary(self) -> str:
        """Return the tables: both models, the gate's checks, the model that answers, and what to do next."""
        buffer = io.StringIO()
        console = Console(file=buffer, width=max(100, shutil.get_terminal_size().columns))
        if self.decision["synthetic"]:
            console.print("Data: synthetic sample (drawn tiles)")
        else:
            console.print(f"Data: {self.decision['source']}", highlight=False)
        console.print(_models_table(self.decision))
        console.print(_checks_table(self.decision))
        lines = [f"winner    {self.decision['winner']}"]
        if self.served and self.deployment:
            test = self.served["metrics"].get("test")
            accuracy = f", test accuracy {test['accuracy']:.4f} on {test['count']:,} tiles" if test else ""
            lines.append(f"model     {self.served['name']} version {self.served['version']}{accuracy}")
            over = "REST" if self.deployment["endpoint"] else "REST and gRPC"
            lines.append(f"answers   its golden tiles over {over} within {self.deployment['golden_difference']:.1g}")
        else:
            lines.append(f"          {self.decision['reason']}; nothing was packaged or deployed")
        lines.append(f"report    {self.folder}/report.html")
        lines.append(f"took      {duration(self.seconds)}")
        if self.deployment:
            lines.append(f"serve it  {self.deployment['serve_command']}")
        return buffer.getvalue() + "\n".join(lines)


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
    decision = _read(outputs / "gate" / "decision" / "decision.json")
    _check_steps_ran(outputs, decision["winner"] != "none")
    served = deployment = None
    report = outputs / "gate" / "decision" / "report.html"
    if decision["winner"] != "none":
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


def pipeline_arguments(config: RunConfig) -> dict[str, Any]:
    """Return the pipeline's parameters for a run; each weights file goes to the backbone that it fits."""
    weights, alpha = {"xception": "none", "mobilenetv2": "none"}, config.alpha
    for given in config.weights:
        backbone, _, source = given.partition("=") if given.partition("=")[0] in weights else ("", "", given)
        if not backbone or source not in ("imagenet", "none"):
            path = fetch_file(source).resolve()
            backbone, found_alpha = identify_weights(path)
            alpha = found_alpha if backbone == "mobilenetv2" else alpha
            find_weights(str(path), backbone, alpha)
            source = str(path)
        weights[backbone] = source
    for backbone, source in weights.items():
        _log.info("weights   %s starts from %s", backbone, "random weights" if source == "none" else source)
    own = {"xception": 256, "mobilenetv2": 224}
    sizes = {
        name: config.input_size or (_SCRATCH_INPUT_SIZE[name] if weights[name] == "none" else own[name])
        for name in weights
    }
    return {
        "data": config.data if config.data == "sample" else str(Path(config.data).resolve()),
        "data_accept_anomalies": list(config.accept),
        "data_positive_label": config.positive_label,
        "data_seed": config.seed,
        "deploy_model_name": config.name,
        "deploy_model_root": str(config.model_root),
        "gate_max_calibration_error": config.max_calibration_error,
        "gate_min_accuracy": config.min_accuracy,
        "gate_min_precision": config.min_precision,
        "gate_min_recall": config.min_recall,
        "mobilenetv2_alpha": alpha,
        "mobilenetv2_input_size": sizes["mobilenetv2"],
        "mobilenetv2_scratch_epochs": config.scratch_epochs or _SCRATCH_EPOCHS["mobilenetv2"],
        "mobilenetv2_weights": weights["mobilenetv2"],
        "train_fine_tune_epochs": config.fine_tune_epochs,
        "train_head_epochs": config.head_epochs,
        "xception_input_size": sizes["xception"],
        "xception_scratch_epochs": config.scratch_epochs or _SCRATCH_EPOCHS["xception"],
        "xception_weights": weights["xception"],
    }


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
    given = (arguments["data"], arguments["xception_weights"], arguments["mobilenetv2_weights"])
    read = [Path(value) for value in given if Path(value).is_absolute()]
    webhook = {name: os.environ[name] for name in [_WEBHOOK_ENV] if name in os.environ}
    with step_containers(folder, model_root, config.name, read, failure | webhook) as (runner, endpoint):
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


def _check_steps_ran(outputs: Path, won: bool) -> None:
    # kfp's local runner skips a branch whose condition it can't evaluate, and still says SUCCESS; so does its
    # DockerRunner, now and then, of a container that failed and was removed before it was asked how it ended.
    needed = _STEPS + (_STEPS_OF_A_WINNER if won else ())
    missing = [step for step in needed if not (outputs / step / "executor_output.json").is_file() and step != "notify"]
    if missing:
        raise StepFailedError(f"these steps didn't run: {', '.join(missing)}; full log: {outputs.parent}/run.log", 1)


def _check_path(path: Path) -> None:
    if "python3" in str(path):
        raise ConfigError(f"--out {path}: kfp's local runner rewrites 'python3' in paths; choose a folder without it")


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _models_table(decision: dict[str, Any]) -> Table:
    table = Table("model", "started from", "input", "validation accuracy", "weights of phase", "training")
    for candidate in decision["candidates"]:
        training = candidate["training"]
        table.add_row(
            candidate["backbone"],
            training["weights"]["description"],
            f"{training['input_size']} px",
            f"{candidate['metrics']['accuracy']:.4f}",
            training["kept_phase"],
            duration(training["seconds"]["all"]),
        )
    return table


def _checks_table(decision: dict[str, Any]) -> Table:
    table = Table("gate", "check", "figure", "limit", "passed")
    for candidate in decision["candidates"]:
        for row in candidate["checks"]:
            limit = f"{row['rule']} {row['limit']:g}"
            table.add_row(
                candidate["backbone"], row["name"], f"{row['value']:.4f}", limit, "yes" if row["passed"] else "NO"
            )
    return table


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
