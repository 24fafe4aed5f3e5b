"""What libraries log in C++ stays off the user's terminal, unless they ask for it or the program crashes."""

import os
import pty
import subprocess
import sys
import textwrap

import pytest

from sat_xception.native_log import LibraryLog, filtered, shows_library_logs

NOTE = "I0000 00:00:1796063101.697692   22143 cudart_stub.cc:31] Could not find cuda drivers on your machine"
HIDDEN = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    NOTE,
    "E0000 00:00:1796063101.697692       7 cuda_dnn.cc:8310] Unable to register cuDNN factory",
    "W1130 18:20:20.697692  140123 chttp2_transport.cc:1182] GOAWAY received",
    "2026-11-30 18:20:20.123456: I tensorflow/core/platform/cpu_feature_guard.cc:210] TensorFlow is optimized",
    "To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow",
    "2026-11-30 18:20:20.123456: E xla/stream_executor/cuda/cuda_driver.cc:152] failed call to cuInit",
    "WARNING:tensorflow:From here: it is deprecated",
    "WARNING:absl:no schema",
    "/usr/lib/python3/site-packages/keras/src/trainers.py:33: UserWarning: Skipping variable loading",
    "<frozen importlib._bootstrap>:241: DeprecationWarning: builtin type has no __module__ attribute",
    "lib.py:1: pkg.errors.OldWarning: old",
]
SHOWN = [
    "F0000 00:00:1796063101.697692   22143 cpu.cc:9] The library was compiled to use AVX instructions",
    "2026-11-30 18:20:20.123456: F tensorflow/core/platform/cpu.cc:9] Check failed",
    "terminate called after throwing an instance of 'std::bad_alloc'",
    "Fatal Python error: Segmentation fault",
    "error     no such file: WARNING: it isn't there",
    "predict    51/121 (42 %) 10.0/s, 7.0 s left",
    '  File "x.py", line 3, in <module>',
    "",
]


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code with `log(text)`, which writes to file descriptor 2 as a library in C++ does."""
    start = "import os, subprocess, sys\nfrom sat_xception.native_log import *\n"
    start += f"NOTE = {NOTE!r}\ndef log(text): os.write(2, (text + '\\n').encode())\n"
    known = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", start + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=known | environment,
    )


@pytest.mark.parametrize("line", HIDDEN)
def test_lines_of_libraries_are_known(line):
    assert LibraryLog().has(line)


@pytest.mark.parametrize("line", SHOWN)
def test_other_lines_and_reasons_of_a_crash_are_not_taken_for_them(line):
    assert not LibraryLog().has(line)


def test_a_warning_of_python_takes_its_line_of_source_with_it():
    log = LibraryLog()
    lines = ["lib.py:1: FutureWarning: old", "  import old", "  import new", "done"]
    assert [log.has(line) for line in lines] == [True, True, False, False]


@pytest.mark.parametrize("until_exit", [False, True])
def test_the_log_of_libraries_is_hidden_and_all_else_is_shown(until_exit):
    finished = run_python(f"""
        with filtered(until_exit={until_exit}):
            log(NOTE)
            log("something else")
            subprocess.run([sys.executable, "-c", f"import os; os.write(2, b'{{NOTE}}\\\\nof a child\\\\n')"])
            print("ours", file=sys.stderr)
            print("a result")
        print("after", file=sys.stderr)
        print(os.environ["TF_CPP_MIN_LOG_LEVEL"])
    """)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "a result\n3\n"
    # What the program writes doesn't wait for the filter.
    assert sorted(finished.stderr.splitlines()) == ["after", "of a child", "ours", "something else"]


def test_a_library_that_logs_while_the_process_ends_is_hidden_too():
    finished = run_python("""
        import atexit
        atexit.register(log, NOTE)
        with filtered(until_exit=True):
            raise SystemExit(3)
    """)
    assert (finished.returncode, finished.stderr) == (3, "")


@pytest.mark.parametrize("unasked", [{}, {"TF_CPP_MIN_LOG_LEVEL": "2"}])
def test_the_level_that_a_user_set_is_kept(unasked):
    finished = run_python("with filtered(): log(NOTE)\nprint(os.environ['TF_CPP_MIN_LOG_LEVEL'])", **unasked)
    assert (finished.stdout, finished.stderr) == (unasked.get("TF_CPP_MIN_LOG_LEVEL", "3") + "\n", "")


def test_everything_is_shown_to_those_who_ask():
    assert run_python("set_library_level(verbose=True)\nwith filtered(): log(NOTE)").stderr == f"{NOTE}\n"
    assert run_python("with filtered(): log(NOTE)", TF_CPP_MIN_LOG_LEVEL="0").stderr == f"{NOTE}\n"
    child = "from sat_xception.native_log import *; print(shows_library_logs())"
    shown = run_python(f"set_library_level(verbose=True)\nsubprocess.run([sys.executable, '-c', {child!r}])")
    assert shown.stdout == "True\n"


@pytest.mark.parametrize("end", ["os.abort()", "os.kill(os.getpid(), 9)", "raise ValueError('no message of ours')"])
def test_a_crash_shows_what_was_held_back(end):
    finished = run_python(f"with filtered(): log(NOTE); {end}")
    assert finished.returncode != 0
    assert finished.stderr.startswith(f"{NOTE}\n")
    assert ("no message of ours" in finished.stderr) == ("raise" in end)


def test_a_fatal_line_of_a_child_comes_after_what_it_held_back():
    fatal = "F0000 00:00:1796063101.697692   22143 cpu.cc:9] no AVX"
    finished = run_python(f"""
        with filtered():
            code = f"import os; os.write(2, b'{{NOTE}}\\\\n{fatal}\\\\n'); os.abort()"
            child = subprocess.run([sys.executable, "-c", code])
            print(child.returncode)
    """)
    assert finished.stdout == "-6\n"
    assert finished.stderr == f"{NOTE}\n{fatal}\n"


def test_a_child_that_died_without_a_word_can_be_asked_about():
    finished = run_python("""
        with filtered():
            log(NOTE)
            show_held()
            show_held()
            log(NOTE)
    """)
    assert finished.stderr == f"{NOTE}\n"


def test_only_the_last_lines_are_kept():
    finished = run_python("with filtered():\n for n in range(1000): log(f'WARNING:absl:{n}')\n show_held()")
    assert finished.stderr.splitlines() == [f"WARNING:absl:{n}" for n in range(900, 1000)]


def test_a_child_that_goes_on_does_not_delay_the_end_of_the_block(monkeypatch):
    finished = run_python("""
        from sat_xception import native_log
        native_log._EXIT_S = 0.2
        with filtered():
            child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
        print("out")
        child.communicate(b"")
    """)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "out\n", "")


def test_blocks_inside_one_another_and_in_children_start_one_filter():
    finished = run_python("""
        with filtered():
            pipe = os.fstat(2).st_ino
            with filtered():
                assert os.fstat(2).st_ino == pipe and is_filtered()
            code = "import os; from sat_xception.native_log import *; "
            code += f"print(is_filtered(), os.fstat(2).st_ino == {pipe})"
            subprocess.run([sys.executable, "-c", code])
            other = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, stdout=subprocess.PIPE)
            print(other.stdout.decode(), flush=True)
        assert not is_filtered()
    """)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == ["True", "True", "False", "False"]


def test_a_terminal_stays_one():
    code = """
import os, sys
from sat_xception.native_log import filtered
with filtered():
    os.write(2, b"WARNING:absl:x\\n")
    print(sys.stderr.isatty(), file=sys.stderr)
"""
    ours, theirs = pty.openpty()
    child = subprocess.Popen([sys.executable, "-c", code], stderr=theirs)
    os.close(theirs)
    assert child.wait(60) == 0
    assert os.read(ours, 4096) == b"True\r\n"
    os.close(ours)


def test_a_closed_stderr_is_no_matter():
    code = "import os\nfrom sat_xception.native_log import filtered\nwith filtered(): print('out')"
    finished = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, code],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (finished.returncode, finished.stdout) == (0, "out\n")


def test_no_file_is_left_open(monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    assert not shows_library_logs()
    with filtered():
        pass
    before = len(os.listdir("/dev/fd"))
    for _ in range(3):
        with filtered():
            pass
    assert len(os.listdir("/dev/fd")) == before
