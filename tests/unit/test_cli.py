"""The command line as people use it: help, flags, exit codes, the original's spelling, Ctrl-C."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner

from sat_xception import __version__, errors
from sat_xception.cli import add_step, main
from sat_xception.model.backbones import backbone_names
from sat_xception.settings.config import POSITIONAL, StepConfig, second_name
from sat_xception.steps import STEPS, Step

COMMAND = [sys.executable, "-W", "error", "-m", "sat_xception"]
VISIBLE = sorted({*STEPS, "bulk", "dataset", "models", "run", "schedule", "settings", "submit"} - {"train-folders"})
# What a help text has no use for.
HEAVY = (
    "tensorflow",
    "keras",
    "kfp",
    "numpy",
    "PIL",
    "pyarrow",
    "httpx",
    "aiohttp",
    "google.cloud.storage",
    "matplotlib",
)


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys, monkeypatch):
    """Return a function that runs the command in this process."""
    # Typer reads the first when its help is imported, which an earlier test may have done; rich reads the other.
    for variable in ("TERMINAL_WIDTH", "COLUMNS"):
        monkeypatch.setenv(variable, "200")

    def run(*arguments: object) -> Ended:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return Ended(int(caught.value.code or 0), shown.out, shown.err)

    return run


# Help


def test_help_of_everything_is_there_without_importing_anything_heavy():
    code = f"""
import sys
from sat_xception.cli import main
for arguments in [["--help"], ["--version"]] + [[verb, "--help"] for verb in {sorted(STEPS)}]:
    try:
        main(arguments)
    except SystemExit as stop:
        assert stop.code == 0, (arguments, stop.code)
    else:
        raise AssertionError(arguments)
print("HEAVY", *[name for name in {HEAVY} if name in sys.modules])
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines()[-1] == "HEAVY"
    assert finished.stderr == ""


def test_help_lists_every_verb_but_the_originals(run):
    shown = run("--help")
    assert shown.code == 0
    assert sorted(re.findall(r"^. ([a-z][a-z-]*) ", shown.out, flags=re.MULTILINE)) == VISIBLE


@pytest.mark.parametrize("verb", STEPS)
def test_help_of_a_verb_names_every_setting_and_the_configuration_file(run, verb):
    shown = run(verb, "--help")
    assert shown.code == 0
    flags = set(re.findall(r"--[a-z-]+", shown.out))
    for name, field in STEPS[verb].config.model_fields.items():
        if field.json_schema_extra == POSITIONAL:
            assert name.upper() in shown.out
        else:
            assert f"--{name.replace('_', '-')}" in flags
    assert {"--config", "--help"} <= flags


def test_help_shows_defaults_and_what_is_required(run):
    shown = " ".join(re.sub(r"[│\n]", " ", run("assemble", "--help").out).split())
    assert "[default: (0.7 0.15 0.15)]" in shown
    assert "Folder to write the dataset to. Required." in shown


def test_the_version_is_the_packages(run):
    shown = run("--version")
    assert (shown.code, shown.out) == (0, f"sat_xception {__version__}\n")


def test_without_arguments_the_help_is_shown(run):
    shown = run()
    assert shown.code == 2
    assert "assemble" in shown.out + shown.err


# Exit codes


def command(*arguments: object, **options: object) -> Ended:
    finished = subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False, **options
    )
    return Ended(finished.returncode, finished.stdout, finished.stderr)


def test_a_step_that_is_done_ends_with_0_and_its_summary_on_stdout(run, monkeypatch):
    monkeypatch.delenv("SAT_XCEPTION_WEBHOOK", raising=False)
    ended = run("notify", "--pipeline", "p", "--state", "SUCCEEDED")
    assert (ended.code, ended.out, ended.err) == (0, "notify    p: SUCCEEDED\n", "")


def test_bad_data_ends_with_3_and_one_line(tmp_path):
    ended = command("assemble", "--data", tmp_path / "none", "--out", tmp_path / "out")
    assert (ended.code, ended.out) == (3, "")
    assert ended.err == f"error     no folder at {tmp_path}/none (seen from {Path.cwd()})\n"


def test_wrong_settings_end_with_2_and_one_line(run, tmp_path):
    ended = run("assemble", "--data", tmp_path, "--train", tmp_path, "--out", tmp_path / "out")
    assert (ended.code, ended.out) == (2, "")
    wanted = "give either --data, or --train with --valid, or --labels with --imagery"
    assert ended.err == f"error     wrong settings from the command line: {wanted}\n"


def test_a_failed_service_ends_with_4(run, monkeypatch):
    monkeypatch.setattr("sat_xception.notify.notify._PAUSE_S", 0)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HOOK", f"http://127.0.0.1:{closed.getsockname()[1]}/")
        ended = run("notify", "--pipeline", "p", "--state", "FAILED", "--webhook-env", "HOOK")
    assert ended.code == 4
    assert "the webhook at 127.0.0.1 didn't take the message" in ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("assemble", "--bogus", "1"),
        ("assemble", "stray"),
        ("asemble",),
        ("train", "--examples", "e", "--out", "o", "--backbone", "resnet"),
        ("assemble", "--data", "d", "--out", "o", "--seed", "many"),
        ("assemble", "--data", "d", "--out", "o", "--fractions", "0.5", "0.5"),
        ("assemble", "--data", "d", "--out", "o", "--fractions", "0.5", "0.1", "0.1"),
        ("assemble", "--data", "d", "--out"),
        ("serve", "--rest-port", "70000"),
        ("assemble", "--config", "no-such-file.yaml"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_why(run, arguments):
    ended = run(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err
    assert "Traceback" not in ended.err


class Failing(StepConfig):
    """Fail as told."""

    error: str = Field(description="Class of the error.")


@pytest.fixture
def steps_module(tmp_path, monkeypatch) -> str:
    """A module with a step that fails as it is told, and one that needs what isn't installed."""
    (tmp_path / "failing_steps.py").write_text(
        "from sat_xception import errors\n"
        "def fail(config): raise getattr(errors, config.error)('it is wrong; do this')\n"
    )
    (tmp_path / "needy_steps.py").write_text("import no_such_library\ndef work(config): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "failing_steps"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("SatXceptionError", 1),
        ("ConfigError", 2),
        ("DataError", 3),
        ("ModelError", 3),
        ("DivergedError", 3),
        ("ServiceError", 4),
        ("GateRefusedError", 5),
        ("PreemptedError", 75),
    ],
)
def test_every_error_has_its_exit_code_and_its_message_without_a_traceback(steps_module, capsys, error, code):
    from sat_xception.cli import run_app

    application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    add_step(application, "fail", Step(Failing, f"{steps_module}:fail"))
    application.callback()(lambda: None)
    with pytest.raises(SystemExit) as caught:
        run_app(application, ["fail", "--error", error])
    assert caught.value.code == code
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "error     it is wrong; do this\n")


def test_every_error_is_in_the_table_above():
    (_, cases) = test_every_error_has_its_exit_code_and_its_message_without_a_traceback.pytestmark[0].args
    named = {name: getattr(errors, name) for name in errors.__all__}
    known = {name for name, one in named.items() if isinstance(one, type) and issubclass(one, Exception)}
    assert {name for name, _ in cases} == known


def test_a_library_that_is_not_installed_is_a_configuration_error_that_names_the_extra(steps_module):
    with pytest.raises(errors.ConfigError, match=r"needs no_such_library, .*pip install 'sat-xception\[all\]'$"):
        Step(Failing, "needy_steps:work").run({"error": "x"})


NOISY = """
import os, subprocess, sys, types, warnings
from sat_xception import cli
from sat_xception.log import get_logger
from sat_xception.settings.config import StepConfig
from sat_xception.steps import Step

class Noisy(StepConfig):
    "Log as TensorFlow does, here and in a child."

def work(config):
    os.write(2, b"I0000 00:00:1796063101.697692   22143 cudart_stub.cc:31] here\\n")
    code = r"import os; os.write(2, b'I0000 00:00:1796063101.697692   22143 cudart_stub.cc:31] child\\n')"
    subprocess.run([sys.executable, "-c", code])
    warnings.warn("old", FutureWarning)
    get_logger("x").info("worked")
    get_logger("x").debug("details")
    return types.SimpleNamespace(summary=lambda: "done")

sys.modules["noisy"] = sys.modules[__name__]
cli.add_step(cli.app, "noisy", Step(Noisy, "noisy:work"))
cli.console()
"""


@pytest.mark.parametrize("arguments", [["noisy"], ["noisy", "--verbose"], ["--verbose", "noisy"]])
def test_logs_of_libraries_are_shown_with_verbose_only(arguments):
    unset = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-c", NOISY, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=unset)
    assert (ended.returncode, ended.stdout) == (0, "done\n")
    if "--verbose" not in arguments:
        assert ended.stderr == "worked\n"
    else:
        for line in ("] here\n", "] child\n", "FutureWarning: old\n", "worked\n", "details\n"):
            assert line in ended.stderr


def test_a_library_that_the_image_of_another_step_lacks_is_in_the_image_that_is_named(steps_module):
    with pytest.raises(
        errors.ConfigError, match=r"needs no_such_library, .*\[all\]'; in a container, use the image `score`$"
    ):
        Step(Failing, "needy_steps:work", "score").run({"error": "x"})


@pytest.mark.parametrize("verb", STEPS)
def test_every_verb_has_its_function(verb):
    module, function = STEPS[verb].function.split(":")
    source = Path(__file__).parents[2].joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8")
    assert f"\ndef {function}(config: {STEPS[verb].config.__name__})" in source


# Flags


class Everything(StepConfig):
    """One setting of each kind."""

    inputs: tuple[Path, ...] = Field((), description="Files.", json_schema_extra=POSITIONAL)
    accept: tuple[str, ...] = Field((), description="Repeats.")
    fractions: tuple[float, float, float] = Field((0.7, 0.2, 0.1), description="Three.")
    weigh: bool = Field(True, description="Yes or no.")
    strict: bool = Field(False, description="No or yes.")
    ratio: float | None = Field(None, description="May be absent.")
    folder_name: Path = Field(Path("here"), description="A path.", json_schema_extra=second_name("-d"))


@pytest.fixture
def parsed(tmp_path, monkeypatch):
    """Return a function that parses flags and returns the settings a step would get."""
    (tmp_path / "showing_steps.py").write_text(
        "import json\n"
        "class Shown:\n"
        "    def __init__(self, config): self.config = config\n"
        "    def summary(self): return json.dumps(self.config.resolved())\n"
        "def show(config): return Shown(config)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    add_step(application, "show", Step(Everything, "showing_steps:show"))
    application.callback()(lambda: None)

    def parse(*arguments: str) -> dict[str, object]:
        result = CliRunner().invoke(application, ["show", *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return parse


def test_flags_that_are_not_given_leave_every_default(parsed):
    assert parsed() == Everything().resolved()


def test_flags_that_repeat_are_kept_in_order(parsed):
    assert parsed("--accept", "b:*:*", "--accept", "a:*:*")["accept"] == ["b:*:*", "a:*:*"]


def test_a_flag_of_three_takes_three(parsed):
    assert parsed("--fractions", "0.6", "0.2", "0.2")["fractions"] == [0.6, 0.2, 0.2]


def test_a_switch_can_be_turned_on_and_off(parsed):
    assert parsed("--no-weigh", "--strict")["weigh"] is False
    assert parsed("--no-weigh", "--strict")["strict"] is True
    assert parsed("--weigh", "--no-strict")["strict"] is False


def test_files_are_given_without_a_flag_among_the_flags(parsed):
    assert parsed("b.jpg", "--ratio", "0.5", "a b.jpg")["inputs"] == ["b.jpg", "a b.jpg"]
    assert parsed("--", "-odd.jpg")["inputs"] == ["-odd.jpg"]


def test_a_flag_may_have_a_second_name(parsed):
    assert parsed("-d", "there") == parsed("--folder-name", "there") == {**parsed(), "folder_name": "there"}


def test_flags_override_the_file(parsed, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("folder-name: there\nratio: 0.25\naccept: [x, y]\nweigh: false\ninputs: [z.jpg]\n")
    given = parsed("--config", str(file), "--ratio", "0.75", "--weigh", "--accept", "w")
    assert (given["folder_name"], given["ratio"], given["accept"]) == ("there", 0.75, ["w"])
    assert (given["weigh"], given["inputs"]) == (True, ["z.jpg"])


def test_zero_and_the_empty_text_are_given_values(parsed, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("ratio: 0.25\n")
    assert parsed("--config", str(file), "--ratio", "0")["ratio"] == 0


def test_predict_takes_its_files_without_a_flag(run):
    ended = run("predict", "--model", "m")
    assert "INPUTS is required (or 'inputs' in the file given as --config)" in ended.err
    assert "give either --model or --endpoint" in run("predict", "a.jpg", "b.jpg").err


def test_evaluations_of_the_gate_repeat(run, tmp_path):
    ended = run("gate", "--evaluations", tmp_path / "a", "--evaluations", tmp_path / "b", "--out", tmp_path / "out")
    assert ended.code == 3
    assert f"{tmp_path}/a/evaluation.json is missing" in ended.err


# The original's spelling


@pytest.mark.parametrize(
    "arguments",
    [
        ("-model=xception", "-train=TRAIN", "-valid=VALID"),
        ("-model", "xception", "-train", "TRAIN", "-valid", "VALID"),
        ("--model=mobilenetv2", "-train=TRAIN", "--valid=VALID", "-weights=none", "-alpha=0.35", "-seed=3"),
    ],
)
def test_the_originals_spelling_of_train_works_on_folders(run, tmp_path, arguments):
    places = {"TRAIN": f"{tmp_path}/train", "VALID": f"{tmp_path}/valid"}
    spelled = [re.sub("TRAIN|VALID", lambda found: places[found[0]], argument) for argument in arguments]
    ended = run("train", *spelled)
    assert ended.code == 3
    assert ended.err.endswith(f"error     no folder at {tmp_path}/train (seen from {Path.cwd()})\n")


def test_an_unknown_backbone_in_the_originals_spelling_is_refused(run):
    ended = run("train", "-model=resnet", "-train=t", "-valid=v")
    assert ended.code == 2
    assert f"--model: expected {backbone_names()}; got 'resnet'" in ended.err


def test_the_originals_spelling_can_be_mistyped(run):
    ended = run("train", "-model=xception", "-trian=t", "-valid=v")
    assert ended.code == 2


def test_todays_spelling_is_left_alone(run, tmp_path):
    ended = run("train", "--examples", tmp_path / "none", "--out", tmp_path / "out", "--seed", "3", "--alpha=0.5")
    assert ended.code == 3
    assert f"{tmp_path}/none/examples.json is missing" in ended.err


def test_the_originals_flags_mean_nothing_to_other_verbs(run):
    ended = run("evaluate", "-model=x")
    assert ended.code == 2
    assert "No such option" in ended.err


# Ctrl-C


def test_ctrl_c_ends_with_130_and_says_how_to_go_on():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = {**os.environ, "HOOK": f"http://127.0.0.1:{silent.getsockname()[1]}/"}
        flags = ["--pipeline", "p", "--state", "FAILED", "--webhook-env", "HOOK", "--timeout-s", "60"]
        child = subprocess.Popen([*COMMAND, "notify", *flags], stderr=subprocess.PIPE, text=True, env=env)
        silent.settimeout(60)
        connection, _ = silent.accept()
        with connection:
            connection.recv(10)
            child.send_signal(signal.SIGINT)
            _, shown = child.communicate(timeout=60)
    assert child.returncode == 130
    assert shown == "stopped   by the keyboard; run the same command again to go on\n"


# The whole pipeline


@pytest.mark.parametrize("verb", [["run"], ["submit"], ["schedule", "apply"], ["schedule", "list"]])
def test_a_verb_of_the_pipelines_takes_its_own_flags_and_ends_with_its_code(run, verb):
    ended = run(*verb, "--bogus")
    assert ended.code == 2
    assert "No such option" in ended.err
    shown = run(*verb, "--help")
    assert shown.code == 0
    assert f"Usage: sat_xception {' '.join(verb)}" in shown.out
