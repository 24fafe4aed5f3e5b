"""SIGTERM ends every verb with 75, and a full standard output with 4."""

import os
import signal
import subprocess
import sys

import pytest

from sat_xception.bulk.run_document import BulkRun
from sat_xception.errors import PreemptedError, ServiceError
from sat_xception.process import ending_well
from tests.scores import describe_scores

# A verb that takes its time, as `sat_xception <verb>` runs it.
VERB = """
import time, typer
from sat_xception.cli import run_app
app = typer.Typer()

@app.command()
def work():
    print("ready", flush=True)
    try:
        time.sleep(300)
    except Exception:
        print("swallowed")

run_app(app, [])
"""


def test_sigterm_ends_a_verb_with_75_and_what_to_do():
    process = subprocess.Popen([sys.executable, "-c", VERB], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (75, "")
    assert err == "error     stopped by SIGTERM; run the same command again: what was finished is kept\n"


def test_nothing_takes_sigterm_for_a_failure_and_the_handler_is_as_before():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(PreemptedError) as caught, ending_well():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception:
            pytest.fail("it was taken for a failure")
    assert caught.value.exit_code == 75
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_step_that_heeds_sigterm_itself_does_so():
    from sat_xception.model.stop_request import stop_on_sigterm

    with ending_well(), stop_on_sigterm() as notice:
        os.kill(os.getpid(), signal.SIGTERM)
        assert notice.given


def test_a_disk_that_is_full_is_an_error_of_ours():
    with pytest.raises(ServiceError, match="no space left while writing a file"), ending_well():
        raise OSError(28, os.strerror(28))


def test_a_full_standard_output_ends_with_4(tmp_path):
    BulkRun(**describe_scores(("school",), 0, 0, 18), shards=0).write(tmp_path)
    command = [sys.executable, "-m", "sat_xception", "bulk", "status", str(tmp_path)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert done.returncode == 4, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error     no space left while writing standard output")
    assert "Traceback" not in done.stderr


def test_sigterm_after_the_work_is_done_doesnt_change_the_exit_code():
    code = """
import atexit, os, signal, sys
sys.argv = ["sat_xception", "--version"]
atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))
from sat_xception.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
