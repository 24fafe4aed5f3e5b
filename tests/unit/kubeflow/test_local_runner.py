"""What a person sees of the steps of a local run."""

import io

import pytest

from sat_xception.kubeflow.local_runner import _RunLog

KFP_LOG = """\
12:00:00.000 - INFO - Executing task 'train'
12:00:00.000 - INFO - Streamed logs:

    [KFP Executor 2026-11-30 12:00:00,000 INFO]: Looking for component
    WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
    I0000 00:00:1796063101.697692   22143 cudart_stub.cc:31] Could not find cuda drivers on your machine
    /venv/keras/trainers.py:33: UserWarning: Skipping variable loading
      saveable.load()
    backbone  mobilenetv2, 96 px, from random weights
    F0000 00:00:1796063101.697692   22143 cpu.cc:9] the processor has no AVX
12:00:09.000 - INFO - Task 'train' finished with status SUCCESS
"""


@pytest.mark.parametrize("level", ["3", "0"])
def test_the_steps_lines_are_shown_and_those_of_libraries_if_asked_for(monkeypatch, capsys, level):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    file = io.StringIO()
    _RunLog(file).write(KFP_LOG)
    assert file.getvalue() == KFP_LOG
    *shown, took = capsys.readouterr().err.splitlines()
    assert took.startswith("step      train took ")
    lines = [line.removeprefix("    ") for line in KFP_LOG.splitlines()[4:-1]]
    assert shown == (lines[4:] if level == "3" else lines)
