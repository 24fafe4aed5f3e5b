"""SIGTERM ends every verb with 75, and a full standard output with 4."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from sat_xception.bulk.run_document import BulkRun
from sat_xception.cli import main
from sat_xception.errors import PreemptedError, ServiceError
from sat_xception.process import ending_well, stop_event, stop_on_signals, undisturbed
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
    with ending_well(), stop_on_signals(signal.SIGTERM) as request:
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.given


def test_a_second_sigterm_leaves_the_cleaning_up_alone_whatever_blocks_it_is_in():
    cleaned = []
    with pytest.raises(PreemptedError), ending_well():
        try:
            with ending_well():
                os.kill(os.getpid(), signal.SIGTERM)
        finally:
            with ending_well():
                os.kill(os.getpid(), signal.SIGTERM)
                cleaned.append(True)
    assert cleaned


def test_a_second_signal_ends_what_a_request_to_stop_would_not():
    with pytest.raises(KeyboardInterrupt), stop_on_signals(signal.SIGINT, second_ends=True) as request:
        os.kill(os.getpid(), signal.SIGINT)
        assert request.signal_number == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("block", ["ending_well()", "stop_on_signals(signal.SIGTERM)", "undisturbed()"])
def test_a_child_by_fork_ends_by_sigterm_in_every_block(block):
    code = f"""
import os, signal, time
from sat_xception.process import ending_well, stop_on_signals, undisturbed
with {block}:
    ready, begun = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(begun, b"1")
        time.sleep(30)
        os._exit(1)
    os.read(ready, 1)  # a signal that comes sooner is lost in fork
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "143\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_hears_of_a_signal_and_the_handler_is_as_before(number):
    before = signal.getsignal(number)

    async def serve():
        during = signal.getsignal(number)
        with stop_event() as stopped:
            os.kill(os.getpid(), number)
            await asyncio.wait_for(stopped.wait(), 30)
        assert signal.getsignal(number) is during

    asyncio.run(serve())
    assert signal.getsignal(number) is before


def test_signals_are_ignored_while_something_is_put_right_and_not_by_the_programs_it_starts():
    with undisturbed():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        child = subprocess.Popen(["sleep", "30"])
        child.terminate()
        assert child.wait(30) == -signal.SIGTERM


@pytest.mark.parametrize("arguments", [["--version"], ["no-such-verb"], ["gate", "--no-such-flag"]])
def test_the_command_line_in_a_process_of_others_leaves_its_handlers_alone(arguments, monkeypatch, capsys):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(sys, "argv", ["sat_xception", *arguments])
    for given in (None, arguments):
        with pytest.raises(SystemExit):
            main(given)
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


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
from sat_xception.cli import console
console()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
