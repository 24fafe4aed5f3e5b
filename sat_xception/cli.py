"""The `sat_xception` command: one verb per step, with flags made from the step's settings class.

Results go to files, one summary to stdout, progress and logs to stderr. Exit codes: 0 done, 2 usage or configuration,
3 bad input data, 4 an outside service failed, 5 a gate said no, 75 preempted (run the same again), 130 stopped with
Ctrl-C.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from sat_xception import __version__
from sat_xception.errors import ConfigError, SatXceptionError
from sat_xception.log import get_logger, set_up_logging
from sat_xception.native_log import filtered
from sat_xception.process import ending_well, flush_stdout, ignore_signals
from sat_xception.settings.config import POSITIONAL, SECOND_NAME
from sat_xception.settings.step import Step
from sat_xception.steps import (
    BULK_PIPELINE_VERBS,
    BULK_VERBS,
    DATASET_VERBS,
    MODELS_VERBS,
    PIPELINE_VERBS,
    SCHEDULE_VERBS,
    STEPS,
)
from sat_xception.storage import reporting_disk_errors

__all__ = ["add_step", "app", "console", "main", "run_app"]

_log = get_logger(__name__)
_CONFIG_HELP = "YAML file of settings; flags override it."
_VERBOSE = "--verbose"
_VERBOSE_HELP = "Show debug messages, and what libraries log in C++."
# The original's spelling of `train`: one dash, folders of classes instead of examples.
_ORIGINAL_FLAGS = ("-model", "-train", "-valid", "-weights", "-alpha", "-input-size", "-seed")
_ORIGINAL_TRAIN = "train-folders"

app = typer.Typer(
    name="sat_xception",
    help="Find things in satellite imagery with transfer learning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def console() -> None:
    """Run the command line as this process's only work: SIGTERM at exit doesn't change the exit code."""
    arguments = sys.argv[1:]
    try:
        with contextlib.nullcontext() if _VERBOSE in arguments else _quiet_libraries():
            main(arguments)
    finally:
        ignore_signals(signal.SIGTERM)


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # they are for developers
    with filtered(until_exit=True):
        yield


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. Signal handlers are restored afterwards."""
    run_app(app, _modern_arguments(sys.argv[1:] if arguments is None else arguments), _refuse_moved_flags)


def run_app(
    application: typer.Typer, arguments: list[str], check: Callable[[list[str]], None] = lambda arguments: None
) -> None:
    """Run a command line made of steps; errors that a user can act on are printed without a traceback.

    Args:
        application: The command line.
        arguments: Its arguments.
        check: Raises an error for arguments that the command line would reject with a worse message.
    """
    set_up_logging(verbose=_VERBOSE in arguments)
    # Neither file names nor the terminal need be UTF-8.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with ending_well():
            check(arguments)
            application(args=arguments, prog_name="sat_xception")
    except SatXceptionError as error:
        _log.error("error     %s", error)
        flush_stdout()
        sys.exit(error.exit_code)


def _modern_arguments(arguments: list[str]) -> list[str]:
    """Turn the original's `train -model=xception -train=train -valid=test` into today's spelling."""
    if arguments[:1] != ["train"] or not any(argument.split("=")[0] in _ORIGINAL_FLAGS for argument in arguments):
        return arguments
    spelled = [f"-{argument}" if argument.split("=")[0] in _ORIGINAL_FLAGS else argument for argument in arguments[1:]]
    return [_ORIGINAL_TRAIN, *spelled]


def _refuse_moved_flags(arguments: list[str]) -> None:
    """Reject flags of earlier versions, naming the address of their setting.

    Raises:
        ConfigError: A flag became a setting in a file.
    """
    verbs, rest = (BULK_PIPELINE_VERBS, arguments[1:]) if arguments[:1] == ["bulk"] else (PIPELINE_VERBS, arguments)
    step = verbs.get(rest[0]) if rest else None
    for flag in (argument.partition("=")[0] for argument in rest[1:] if step and argument.startswith("--")):
        setting = flag.removeprefix("--").removeprefix("no-").replace("-", "_")
        if step and (moved := step.config.moved(setting)):
            raise ConfigError(f"{flag} is no flag of this command any more: {moved}")


def add_step(application: typer.Typer, verb: str, step: Step, hidden: bool = False) -> None:
    """Add a verb whose flags are the settings of a step's configuration."""

    def command(**flags: object) -> None:
        file = flags.pop("config")
        del flags["verbose"]  # read before the arguments were parsed
        given = {key: value for key, value in flags.items() if value is not None and value != []}
        try:
            summary = step.run(given, file if isinstance(file, Path) else None).summary()
        except KeyboardInterrupt:
            _log.error("stopped   by the keyboard; run the same command again to go on")
            raise typer.Exit(130) from None
        if summary:
            with reporting_disk_errors("standard output", "send it elsewhere; what the step wrote is whole"):
                typer.echo(summary)

    # A step's own settings come before those that it shares with others.
    own = sorted(step.config.model_fields.items(), key=lambda item: item[0] not in step.config.__annotations__)
    parameters = [_flag(name, field) for name, field in own]
    option = typer.Option("--config", help=_CONFIG_HELP, show_default=False)
    parameters.append(_parameter("config", Annotated[Path | None, option]))
    parameters.append(_parameter("verbose", Annotated[bool, typer.Option(_VERBOSE, help=_VERBOSE_HELP)], False))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    application.command(verb, help=inspect.getdoc(step.config), hidden=hidden)(command)


def _flag(name: str, field: FieldInfo) -> inspect.Parameter:
    """Return the typer parameter of a setting. Its default is None: a flag that isn't given overrides nothing."""
    shown: Any = False
    if field.default not in (PydanticUndefined, None, "", (), 0):
        default = field.default
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    annotation = _flag_type(field.annotation)
    names = [f"--{name.replace('_', '-')}"]
    if isinstance(field.json_schema_extra, dict) and SECOND_NAME in field.json_schema_extra:
        names.append(str(field.json_schema_extra[SECOND_NAME]))
    elif annotation is bool:
        names = [f"{names[0]}/--no-{names[0][2:]}"]
    text = f"{field.description} Required." if field.is_required() else field.description
    if field.json_schema_extra == POSITIONAL:
        return _parameter(
            name, Annotated[annotation | None, typer.Argument(help=text, metavar=name.upper(), show_default=False)]
        )
    return _parameter(name, Annotated[annotation | None, typer.Option(*names, help=text, show_default=shown)])


def _flag_type(annotation: Any) -> Any:  # noqa: ANN401 - a type of any form goes in and out
    """Return a setting's type for typer: `tuple[X, ...]` becomes a repeatable flag, `X | None` becomes X."""
    if get_origin(annotation) is Annotated:
        return _flag_type(get_args(annotation)[0])
    if get_origin(annotation) is tuple:
        inner = get_args(annotation)
        if inner[-1] is Ellipsis:
            return list[_flag_type(inner[0])]  # type: ignore[misc]
        return tuple[tuple(_flag_type(item) for item in inner)]  # type: ignore[misc]
    if get_origin(annotation) is Literal:
        return annotation
    options = [item for item in get_args(annotation) if item is not type(None)]
    return _flag_type(options[0]) if options else annotation


def _parameter(name: str, annotation: object, default: object = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


for _verb, _step in STEPS.items():
    add_step(app, _verb, _step, hidden=_verb == _ORIGINAL_TRAIN)

_dataset = typer.Typer(help="Build and compare datasets.", no_args_is_help=True)
app.add_typer(_dataset, name="dataset")
for _verb, _step in DATASET_VERBS.items():
    add_step(_dataset, _verb, _step)

_bulk = typer.Typer(help="Score all tiles of an area, and publish the candidates.", no_args_is_help=True)
app.add_typer(_bulk, name="bulk")
for _verb, _step in BULK_VERBS.items():
    add_step(_bulk, _verb, _step)

_models = typer.Typer(help="Look after a model root: list, show, verify and remove versions.", no_args_is_help=True)
app.add_typer(_models, name="models")
for _verb, _step in MODELS_VERBS.items():
    add_step(_models, _verb, _step)

for _verb, _step in PIPELINE_VERBS.items():
    add_step(app, _verb, _step)
for _verb, _step in BULK_PIPELINE_VERBS.items():
    add_step(_bulk, _verb, _step)

_schedule = typer.Typer(help="Manage recurring runs on Kubeflow from a file.", no_args_is_help=True)
app.add_typer(_schedule, name="schedule")
for _verb, _step in SCHEDULE_VERBS.items():
    add_step(_schedule, _verb, _step)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False,
    verbose: Annotated[bool, typer.Option(_VERBOSE, help=_VERBOSE_HELP)] = False,  # read by `run_app`
) -> None:
    if version:
        typer.echo(f"sat_xception {__version__}")
        raise typer.Exit
