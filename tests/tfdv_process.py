"""A process with the real TFDV that answers many requests: its import alone takes eight seconds.

The half that answers runs in the environment that has TFDV, which has no pytest.
"""

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


@contextmanager
def running_tfdv() -> Iterator[Callable[[TfdvRequest], Findings]]:
    """Start the process and yield what stands in for `run_tfdv`: the same question and answer, errors too."""
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

            def ask(request: TfdvRequest) -> Findings:
                process.stdin.write(request.model_dump_json() + "\n")
                process.stdin.flush()
                answer = process.stdout.readline()
                assert answer, "the process with TFDV died; its output is above"
                error, content = json.loads(answer)
                if error:
                    raise getattr(errors, error)(content)
                return Findings.model_validate(content)

            yield ask
            process.stdin.close()


def _answer_all() -> None:
    """Answer a line of JSON with a line of JSON: the error's class or "", and its message or the findings."""
    with os.fdopen(os.dup(1), "w") as answers:
        # Nothing that a library prints is an answer.
        os.dup2(2, 1)
        for line in sys.stdin:
            try:
                answer = ["", run_tfdv(TfdvRequest.model_validate_json(line)).model_dump(mode="json")]
            except errors.SatXceptionError as error:
                answer = [type(error).__name__, str(error)]
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    _answer_all()
