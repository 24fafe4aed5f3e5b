"""Run work in this process, or on Apache Beam: in several on this machine, or on the machines of another runner."""

from __future__ import annotations

import contextlib
import io
import logging
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sat_xception.errors import ConfigError
from sat_xception.log import quiet_imports

__all__ = ["pipeline_options", "run_all"]

T = TypeVar("T")
# Its in-memory runner under its own name: DirectRunner may fetch another runner's program from the network.
_LOCAL_RUNNER = "FnApiRunner"
# What another process on this machine runs: Beam's own worker, without the diary that it keeps on stderr before it has
# read any option. Errors are still told.
_QUIET_WORKER = (
    "import logging, sys; logging.disable(logging.WARNING); "
    "from apache_beam.runners.worker.sdk_worker_main import main; main(sys.argv)"
)


def pipeline_options(runner: str, options: Sequence[str]) -> Any:  # noqa: ANN401 - Beam has no types
    """Return Beam's `PipelineOptions`, for `run_all`.

    Args:
        runner: Beam's name of a runner; "" for processes on this machine.
        options: Its options, each as `--name=value` or `--name`, handed on unchanged.

    Raises:
        ConfigError: No option of Beam has such a name, or its value is wrong.
    """
    root = logging.getLogger()
    if not root.handlers:
        # Else Beam's first message gives the root logger a handler, and every line of ours comes twice.
        root.addHandler(logging.NullHandler())
    with quiet_imports():
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    complaint = io.StringIO()
    try:
        # Beam's parser writes what is wrong to stderr, below all of its options, and exits.
        with contextlib.redirect_stderr(complaint):
            parsed = PipelineOptions([f"--runner={runner or _LOCAL_RUNNER}", *options])
            given = parsed.get_all_options(retain_unknown_options=True)
            known = PipelineOptions([]).get_all_options()
    except (SystemExit, Exception) as error:
        reason = complaint.getvalue().rpartition("error: ")[2].strip() or error
        raise ConfigError(f"Beam {beam.__version__} doesn't take {' '.join(options)}: {reason}") from None
    unknown = given.keys() - known.keys()
    for flag in (option.partition("=")[0] for option in options):
        if flag.lstrip("-").replace("-", "_") in unknown:
            raise ConfigError(
                f"no option of Beam {beam.__version__} is called {flag!r}; see docs/convert.md for the options of each "
                "runner"
            )
    return parsed


def run_all(
    work: Callable[..., None],
    items: Sequence[T],
    options: Any = None,  # noqa: ANN401 - Beam has no types
    processes: int = 1,
    **common: object,
) -> None:
    """Call a function for each item (more than once only after failures), and wait for the end.

    One process on this machine doesn't use Beam, whose import and start take seconds.

    Args:
        work: Function of a module, for workers to import it.
        items: What it is called with.
        options: Those of a runner, from `pipeline_options`; None runs on this machine.
        processes: Processes on this machine; 1 is this one. With a runner it is 1.
        common: Arguments that each call has.
    """
    if options is None and processes == 1:
        for item in items:
            work(item, **common)
        return
    options = options or pipeline_options("", ())
    import apache_beam as beam
    from apache_beam.options.pipeline_options import DirectOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    # Beam logs each worker that starts, and each option that a worker doesn't know.
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    runner = None
    if processes > 1:
        command = shlex.join([sys.executable, "-c", _QUIET_WORKER])
        runner = FnApiRunner(SubprocessSDKEnvironment.from_command_string(command))
        options.view_as(DirectOptions).direct_num_workers = processes
    with beam.Pipeline(runner, options=options) as pipeline:
        _ = pipeline | beam.Create(list(items)) | beam.Reshuffle() | beam.Map(work, **common)
