"""A process with the real TFDV that answers many requests: its import alone takes eight seconds.

The half that answers runs in the environment that has TFDV, which has no pytest.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sat_xception
from sat_xception import errors
from sat_xception.validation.findings import Findings, TfdvRequest
from sat_xception.validation.tfdv_runner import find_tfdv_python, run_tfdv


class Tfdv:
    """TFDV in this process, or in another one if `ask` is given, which sends a question there."""

    def __init__(self, ask: Callable[[str, str], object] | None = None) -> None:
        self._ask = ask or answer

    def run(self, request: TfdvRequest) -> Findings:
        """Do what `run_tfdv` does: the same question and answer, errors too."""
        return Findings.model_validate(self._ask("run", request.model_dump_json()))

    def read(self, file: Path) -> int:
        """Read a file as `run_tfdv` reads each one, and return the number of examples in it."""
        return int(self._ask("read", str(file)))


def answer(question: str, argument: str) -> object:
    """Answer a question of `Tfdv` in the environment that has TFDV."""
    if question == "run":
        return run_tfdv(TfdvRequest.model_validate_json(argument)).model_dump(mode="json")
    from sat_xception.validation.statistics import read_batches

    return sum(batch.num_rows for batch in read_batches(argument))


@contextmanager
def running_tfdv() -> Iterator[Tfdv]:
    """Yield TFDV in this process where it is installed, else start one."""
    if importlib.util.find_spec("tensorflow_data_validation") is not None:
        yield Tfdv()
        return
    with tempfile.TemporaryDirectory() as folder:
        # Only the package: this environment's libraries are the wrong versions there.
        (Path(folder) / "sat_xception").symlink_to(Path(sat_xception.__file__).parent)
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        with subprocess.Popen(
            [find_tfdv_python(), __file__],
            env={name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
            | quiet
            | {"PYTHONPATH": folder},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:

            def ask(question: str, argument: str) -> object:
                process.stdin.write(json.dumps([question, argument]) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
                assert line, "the process with TFDV died; its output is above"
                error, content = json.loads(line)
                if error:
                    raise getattr(errors, error)(content)
                return content

            yield Tfdv(ask)
            process.stdin.close()


def _answer_all() -> None:
    """Answer a line of JSON with a line of JSON: the error's class or "", and its message or the findings."""
    with os.fdopen(os.dup(1), "w") as answers:
        # Nothing that a library prints is an answer.
        os.dup2(2, 1)
        for line in sys.stdin:
            try:
                answered = ["", answer(*json.loads(line))]
            except errors.SatXceptionError as error:
                answered = [type(error).__name__, str(error)]
            answers.write(json.dumps(answered) + "\n")
            answers.flush()


if __name__ == "__main__":
    _answer_all()
