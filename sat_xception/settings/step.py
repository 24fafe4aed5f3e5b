"""A verb of the command line: its settings, its function, and the exit code of its errors."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sat_xception.errors import ConfigError, SatXceptionError
from sat_xception.log import get_logger, quiet_imports, set_up_logging
from sat_xception.native_log import filtered
from sat_xception.process import ending_well
from sat_xception.settings.config import StepConfig, load_config
from sat_xception.storage import write_json

__all__ = ["TERMINATION_LOG_ENV", "Step", "StepResult", "reporting_errors"]

_log = get_logger(__name__)

# Path of the file that gets the reason when a component's step fails. Default: Kubernetes's own, if it is writable.
TERMINATION_LOG_ENV = "SAT_XCEPTION_TERMINATION_LOG"


class StepResult(Protocol):
    """What a step's function returns."""

    def summary(self) -> str:
        """Return a summary for stdout, in a few lines: the counts and the path of the result."""


@dataclass(frozen=True)
class Step:
    """A verb of the command line.

    Attributes:
        config: Class of its configuration.
        function: `module:function` that takes the configuration and returns a `StepResult`.
        image: Name of the container image that has the step's libraries; "" if no image is made for the step.
    """

    config: type[StepConfig]
    function: str
    image: str = ""

    def run(self, settings: Mapping[str, object], file: Path | None = None) -> Any:  # noqa: ANN401 - each step has its own result
        """Run the step with settings that override those of a YAML file; return its result.

        Raises:
            SatXceptionError: The settings or the data are invalid, or an outside service failed.
        """
        config = load_config(self.config, file, settings)
        _log.debug("settings  %s", config.resolved())
        function = self.load()
        # Some libraries are imported only where there is work for them.
        with self._reporting_missing_libraries():
            return function(config.localized())

    def load(self) -> Callable[[Any], StepResult]:
        """Import the module and return the function.

        Raises:
            ConfigError: A required package isn't installed.
        """
        module, name = self.function.split(":")
        with self._reporting_missing_libraries(), quiet_imports():
            function: Callable[[Any], StepResult] = getattr(importlib.import_module(module), name)
        return function

    @contextlib.contextmanager
    def _reporting_missing_libraries(self) -> Iterator[None]:
        try:
            yield
        except ModuleNotFoundError as error:
            where = f"; in a container, use the image `{self.image}`" if self.image else ""
            raise ConfigError(
                f"this step needs {error.name}, which isn't installed: pip install 'sat-xception[all]'{where}"
            ) from error


@contextlib.contextmanager
def reporting_errors(verb: str) -> Iterator[None]:
    """Exit with the error's exit code when a step raises a `SatXceptionError`.

    The error is the last line of the log, and the container's termination message, which Kubernetes shows in the
    pod's status.
    """
    set_up_logging()
    try:
        with filtered(), ending_well():
            yield
    except SatXceptionError as error:
        _log.error("error     %s", error)
        _write_termination_message(verb, error)
        raise SystemExit(error.exit_code) from None


def _write_termination_message(verb: str, error: SatXceptionError) -> None:
    place = os.environ.get(TERMINATION_LOG_ENV, "/dev/termination-log")
    if TERMINATION_LOG_ENV in os.environ or os.access(place, os.W_OK):
        try:
            write_json(Path(place), {"step": verb, "exit_code": error.exit_code, "error": str(error)})
        except OSError as problem:
            _log.warning("can't write the reason to %s: %s", place, problem)
