"""What a person sees while a step works."""

import itertools
import logging
import os
import pty
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest

from sat_xception import log


def run_python(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (8.44, "8.4 s"),
        (59.94, "59.9 s"),
        (59.96, "1 m 00 s"),
        (60, "1 m 00 s"),
        (242, "4 m 02 s"),
        (3599.4, "59 m 59 s"),
        (3599.6, "1 h 00 m"),
        (3600, "1 h 00 m"),
        (3900, "1 h 05 m"),
        (90_000, "25 h 00 m"),
    ],
)
def test_durations_read_as_people_write_them(seconds, text):
    assert log.duration(seconds) == text


def test_loggers_are_below_the_packages_own():
    assert log.get_logger("sat_xception.dataset.split").name == "sat_xception.dataset.split"
    assert log.get_logger("progress").name == "sat_xception.progress"


def test_the_log_is_plain_lines_on_stderr_once_however_often_it_is_set_up():
    code = """
        from sat_xception.log import get_logger, set_up_logging
        set_up_logging()
        set_up_logging()
        get_logger("x").info("wrote     %s", "here")
        get_logger("x").debug("nobody needs this")
    """
    finished = run_python(code)
    assert (finished.stdout, finished.stderr) == ("", "wrote     here\n")


def test_lines_follow_a_stderr_that_is_replaced():
    code = """
        import io, sys
        from sat_xception.log import get_logger, set_up_logging
        sys.stderr = first = io.StringIO()
        set_up_logging()
        first.close()
        sys.stderr = sys.__stderr__
        get_logger("x").info("still shown")
    """
    assert run_python(code).stderr == "still shown\n"


def test_a_line_comes_once_where_the_root_logger_prints_too():
    # kfp's executor runs components so.
    code = """
        import logging, sys
        logging.basicConfig(stream=sys.stdout, format="[KFP Executor] %(message)s", level=logging.INFO)
        from sat_xception.log import get_logger, set_up_logging
        set_up_logging()
        get_logger("x").info("once")
        logging.info("theirs")
    """
    finished = run_python(code)
    assert (finished.stdout, finished.stderr) == ("[KFP Executor] theirs\n", "once\n")


def test_what_native_libraries_print_during_imports_is_held_back():
    code = """
        import os, sys
        from sat_xception.log import quiet_imports
        with quiet_imports():
            os.write(2, b"chatter\\n")
            print("more chatter", file=sys.stderr)
            print("a result")
        print("heard", file=sys.stderr)
    """
    finished = run_python(code)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "a result\n", "heard\n")


def test_holding_back_leaves_no_file_open():
    with log.quiet_imports():
        pass
    before = len(os.listdir("/dev/fd"))
    for _ in range(3):
        with log.quiet_imports():
            pass
    assert len(os.listdir("/dev/fd")) == before


def test_tensorflows_chatter_is_off_unless_somebody_wants_it():
    code = """
        import os
        from sat_xception.log import set_up_logging
        set_up_logging()
        print(os.environ["TF_CPP_MIN_LOG_LEVEL"])
    """
    unset = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    assert run_python(code, env=unset).stdout == "3\n"
    assert run_python(code, env={**unset, "TF_CPP_MIN_LOG_LEVEL": "0"}).stdout == "0\n"
    verbose = code.replace("set_up_logging()", "set_up_logging(verbose=True)")
    assert run_python(verbose, env=unset).stdout == "0\n"


def test_imports_are_loud_for_those_who_ask():
    code = """
        import os
        from sat_xception.log import quiet_imports, set_up_logging
        set_up_logging(verbose=True)
        with quiet_imports():
            os.write(2, b"chatter\\n")
    """
    assert run_python(code).stderr == "chatter\n"


def test_an_import_that_ends_the_process_tells_why():
    code = """
        import os, sys
        from sat_xception.log import quiet_imports
        from sat_xception.native_log import filtered
        with filtered(), quiet_imports():
            print("chatter of Python", file=sys.stderr)
            os.write(2, b"the processor has no AVX\\n")
            os.abort()
    """
    finished = run_python(code)
    assert (finished.returncode, finished.stderr) == (-6, "the processor has no AVX\n")


@pytest.mark.parametrize("block", ["quiet_imports()", "filtered(), quiet_imports()"])
def test_what_was_held_back_is_shown_when_the_import_fails(block):
    code = f"""
        import os
        from sat_xception.log import quiet_imports
        from sat_xception.native_log import filtered
        with {block}:
            os.write(2, b"libcuda is missing\\n")
            import no_such_module
    """
    finished = run_python(code)
    assert finished.returncode == 1
    assert finished.stderr.startswith("libcuda is missing\n")
    assert finished.stderr.endswith("ModuleNotFoundError: No module named 'no_such_module'\n")


class Clock:
    """A clock that ticks once a look and started long ago."""

    def __init__(self, tick_s: float) -> None:
        self._times = itertools.count(1_000.0, tick_s)

    def __call__(self) -> float:
        return next(self._times)


@pytest.fixture
def progress_lines(monkeypatch, caplog):
    """Return a function that works through items at some seconds each, and returns the lines logged."""
    caplog.set_level(logging.INFO, "sat_xception")

    def work(count: int, seconds_each: float) -> list[str]:
        caplog.clear()
        monkeypatch.setattr(log, "time", SimpleNamespace(monotonic=Clock(seconds_each)))
        assert list(log.track(range(count), "convert", count)) == list(range(count))
        return caplog.messages

    return work


def test_a_log_gets_a_line_every_few_seconds_with_rate_and_time_left(progress_lines):
    assert progress_lines(1_280, 1 / 64) == [
        "convert    320/1,280 (25 %) 64.0/s, 15.0 s left",
        "convert    640/1,280 (50 %) 64.0/s, 10.0 s left",
        "convert    960/1,280 (75 %) 64.0/s, 5.0 s left",
    ]


@pytest.fixture
def lines_at(monkeypatch, caplog):
    """Return a function that finishes items at some times, in seconds from the start, and returns the lines logged."""
    caplog.set_level(logging.INFO, "sat_xception")

    def work(times: list[float], total: int) -> list[str]:
        caplog.clear()
        looks = iter([0.0, *times])
        monkeypatch.setattr(log, "time", SimpleNamespace(monotonic=lambda: next(looks)))
        assert len(list(log.track(range(len(times)), "predict", total))) == len(times)
        return caplog.messages

    return work


def test_the_first_item_is_start_up_and_no_part_of_the_rate(lines_at):
    # 6 seconds until the first tile, as where a model is loaded; then 10 tiles per second.
    times = [6 + number / 10 for number in range(100)]
    assert lines_at(times, 121) == [
        "predict    1/121 (1 %)",
        "predict    51/121 (42 %) 10.0/s, 7.0 s left",
    ]


@pytest.mark.parametrize(
    ("times", "estimated"),
    [
        pytest.param([4.1, 4.2, 4.3, 4.4, 4.5, 5.05], False, id="less than a second of work"),
        pytest.param([3.9, 4.2, 4.3, 4.4, 4.5, 5.05], True, id="more than a second of work"),
        pytest.param([0.1, 20, 40], False, id="two items after the first"),
        pytest.param([0.1, 1, 2, 5.05], True, id="three items after the first"),
        pytest.param([5.0, 5.0, 5.0, 5.0], False, id="items that came together"),
    ],
)
def test_an_estimate_needs_a_second_of_work_on_a_few_items_after_the_first(lines_at, times, estimated):
    assert lines_at(times, 1_000)[-1].endswith(" left") == estimated


def test_what_comes_with_the_first_item_was_no_work_of_this_second(lines_at):
    # A shard of 500 tiles after a minute, then one every 10 s.
    times = [60.0] * 500 + [70.0] * 500 + [80.0] * 500
    lines = lines_at(times, 2_000)
    assert lines[0] == "predict    1/2,000 (0 %)"
    assert lines[-1].startswith("predict    1,001/2,000 (50 %) ")
    assert lines_at([60.0] * 500 + [70.0] * 499 + [75.0], 2_000)[-1] == (
        "predict    1,000/2,000 (50 %) 33.3/s, 30.0 s left"
    )


def test_the_bar_shows_no_time_left_before_there_was_work(monkeypatch):
    looks = iter([30.0, 30.5, 31.0, 31.5, 32.0])
    monkeypatch.setattr(log, "time", SimpleNamespace(monotonic=lambda: next(looks)))
    pace, task = log._Pace(20), SimpleNamespace(finished=False)
    column = log._TimeLeft(pace)
    shown = []
    for _ in range(5):
        pace.advance()
        shown.append(column.render(task).plain)
    assert shown == ["", "", "", "8.0 s left", "7.5 s left"]
    task.finished = True
    assert column.render(task).plain == ""


@pytest.mark.parametrize(("count", "seconds_each"), [(0, 1), (1, 60), (10, 0.1)])
def test_work_that_is_done_soon_says_nothing(progress_lines, count, seconds_each):
    assert progress_lines(count, seconds_each) == []


def test_more_items_than_planned_do_no_harm(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "sat_xception")
    monkeypatch.setattr(log, "time", SimpleNamespace(monotonic=Clock(60)))
    assert list(log.track(range(5), "convert", 2)) == [0, 1, 2, 3, 4]
    assert len(caplog.messages) == 1


def test_items_are_not_taken_before_they_are_asked_for():
    source = iter(range(10))
    tracked = log.track(source, "convert", 10)
    assert next(tracked) == 0
    assert next(source) == 1


def test_a_terminal_gets_a_bar_that_is_gone_at_the_end():
    code = "from sat_xception.log import track\nfor item in track(range(3), 'convert', 3): pass\nprint('done')"
    ours, theirs = pty.openpty()
    child = subprocess.Popen([sys.executable, "-c", code], stderr=theirs, stdout=subprocess.PIPE, text=True)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # the other side is closed
            break
    os.close(ours)
    assert child.communicate(timeout=60) == ("done\n", None)
    assert b"convert" in shown
    assert b"3/3" in shown
    assert shown.rstrip().endswith(b"\x1b[2K")
