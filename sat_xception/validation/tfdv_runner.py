"""Run TensorFlow Data Validation in this process, or in a child process with an environment of its own.

The TFDV version that matches the main environment's TensorFlow has no wheel for Linux with an older C library. There,
`make setup` creates a second environment with an older TFDV, and the same code runs in it as a child process. Request
and response are JSON files.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

from pydantic import BaseModel

from sat_xception import errors
from sat_xception.errors import ConfigError, SatXceptionError
from sat_xception.log import get_logger, set_up_logging
from sat_xception.native_log import show_held
from sat_xception.process import ignore_signals
from sat_xception.storage import scratch_folder
from sat_xception.validation.findings import Findings, TfdvRequest

__all__ = ["PYTHON_VARIABLE", "find_tfdv_python", "run_tfdv"]

_log = get_logger(__name__)
PYTHON_VARIABLE = "SAT_XCEPTION_TFDV_PYTHON"
_ENVIRONMENT = Path(".venv-validate")
_PACKAGE = Path(__file__).resolve().parents[1]


class _Answer(BaseModel):
    """The child's response: findings, or class and message of an error that a user can act on."""

    findings: Findings | None = None
    error: str = ""
    message: str = ""


def run_tfdv(request: TfdvRequest) -> Findings:
    """Return TFDV's findings, computed in this process if TFDV is installed, else in the second environment.

    Raises:
        ConfigError: TFDV is installed in neither, or the given schema can't be read.
        DataError: An examples file can't be read.
        SatXceptionError: The child process died.
    """
    if importlib.util.find_spec("tensorflow_data_validation") is not None:
        from sat_xception.validation.tfdv import find

        return find(request)
    return _run_child(find_tfdv_python(), request)


def find_tfdv_python() -> Path:
    """Return the interpreter of the environment that has TFDV.

    Raises:
        ConfigError: No environment with TFDV was found.
    """
    named = os.environ.get(PYTHON_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise ConfigError(
                f"${PYTHON_VARIABLE} is {named}, which is no file; unset it, or name a Python that has TFDV"
            )
        return Path(named).absolute()
    candidates = list(
        dict.fromkeys(folder / _ENVIRONMENT / "bin" / "python" for folder in (_PACKAGE.parent, Path.cwd()))
    )
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise ConfigError(
        f"TensorFlow Data Validation isn't installed in {sys.executable}, and there is no "
        f"{' or '.join(map(str, candidates))}. Run `make setup`, or set ${PYTHON_VARIABLE} to a Python that has it"
    )


def _run_child(python: Path, request: TfdvRequest) -> Findings:
    with scratch_folder() as work:
        question, answer = work / "request.json", work / "answer.json"
        question.write_text(request.model_dump_json(), encoding="utf-8")
        # Only the package itself is on the child's path: this environment's libraries have the wrong versions for it.
        (work / _PACKAGE.name).symlink_to(_PACKAGE, target_is_directory=True)
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("PYTHONHOME", "VIRTUAL_ENV", "PYTHONWARNINGS")
        }
        environment |= {
            "PYTHONPATH": str(work),
            "PYTHONNOUSERSITE": "1",
            "CUDA_VISIBLE_DEVICES": "-1",
        }
        command = [str(python), "-m", "sat_xception.validation.tfdv_runner", str(question), str(answer)]
        _log.info("validate  with TFDV of %s", python)
        try:
            # stdout is reserved for the summary of the step.
            finished = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=2, check=False)
        except OSError as error:
            raise ConfigError(
                f"can't start {python}: {error}. Run `make setup` again, or set ${PYTHON_VARIABLE}"
            ) from None
        if not answer.is_file():
            show_held()
            how = f"signal {-finished.returncode}" if finished.returncode < 0 else f"exit code {finished.returncode}"
            raise SatXceptionError(
                f"TFDV stopped with {how} in {python}; its output is above. If a module is missing there, run "
                "`make setup` again; signal 9 is most often a lack of memory"
            )
        outcome = _Answer.model_validate_json(answer.read_bytes())
    if outcome.findings is None:
        raise getattr(errors, outcome.error)(outcome.message)
    return outcome.findings


def _answer(question: Path, answer: Path) -> None:
    """Do the child's work; an unexpected error ends it with a traceback and no response."""
    # Ctrl-C reaches parent and child; the parent ends both and logs it once.
    ignore_signals(signal.SIGINT)
    # If the root logger has no handler, Beam adds one, which prints each of our lines a second time.
    logging.getLogger().addHandler(logging.NullHandler())
    set_up_logging()
    try:
        if importlib.util.find_spec("tensorflow_data_validation") is None:
            raise ConfigError(f"{sys.executable} has no tensorflow_data_validation. Run `make setup` again")
        from sat_xception.validation.tfdv import find

        outcome = _Answer(findings=find(TfdvRequest.model_validate_json(question.read_bytes())))
    except SatXceptionError as error:
        outcome = _Answer(error=type(error).__name__, message=str(error))
    answer.write_text(outcome.model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    _answer(Path(sys.argv[1]), Path(sys.argv[2]))
