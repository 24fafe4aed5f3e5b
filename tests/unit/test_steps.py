"""Steps as components run them: settings in, result or exit code and reason out."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from sat_xception.dataset.settings import AssembleConfig, LabelsConfig
from sat_xception.errors import ConfigError
from sat_xception.settings.config import load_config
from sat_xception.steps import TERMINATION_LOG_ENV, run_step


@pytest.fixture(autouse=True)
def log_of_this_test() -> Iterator[None]:
    """Let the package's log be set up anew, so that it goes to this test's stderr."""
    log = logging.getLogger("sat_xception")
    before = log.level, log.propagate, log.handlers[:]
    log.handlers.clear()
    yield
    log.level, log.propagate, log.handlers[:] = before


@pytest.fixture
def termination_log(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "termination-log"
    monkeypatch.setenv(TERMINATION_LOG_ENV, str(path))
    return path


def fail(tmp_path: Path) -> tuple[int, str]:
    """Run assemble on a folder that isn't there; return the exit code and the message it must tell."""
    with pytest.raises(SystemExit) as caught:
        run_step("assemble", data=str(tmp_path / "none"), out=tmp_path / "out")
    return caught.value.code, f"no folder at {tmp_path}/none (seen from {Path.cwd()})"


def test_a_step_returns_its_result_and_prints_its_summary(monkeypatch, termination_log, capsys):
    monkeypatch.delenv("SAT_XCEPTION_WEBHOOK", raising=False)
    result = run_step("notify", pipeline="p", state="SUCCEEDED", message="")
    assert result.text == "p: SUCCEEDED"
    assert capsys.readouterr().out == "notify    p: SUCCEEDED\n"
    assert not termination_log.exists()


def test_a_failure_ends_the_process_with_its_code_and_tells_log_and_termination_message(
    tmp_path, termination_log, capsys
):
    code, message = fail(tmp_path)
    assert code == 3
    assert json.loads(termination_log.read_text()) == {"step": "assemble", "exit_code": 3, "error": message}
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", f"error     {message}\n")


def test_wrong_settings_are_a_failure_of_the_step(tmp_path, termination_log):
    with pytest.raises(SystemExit) as caught:
        run_step("assemble", data="d", outt=tmp_path)
    assert caught.value.code == 2
    assert "did you mean 'out'?" in json.loads(termination_log.read_text())["error"]


def test_a_termination_log_that_cannot_be_written_hides_neither_code_nor_reason(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(TERMINATION_LOG_ENV, str(tmp_path / "missing" / "log"))
    code, message = fail(tmp_path)
    assert code == 3
    shown = capsys.readouterr().err.splitlines()
    assert shown[0] == f"error     {message}"
    assert shown[1].startswith(f"can't write the reason to {tmp_path}/missing/log: ")


def test_a_setting_that_is_none_is_one_that_was_not_given(tmp_path, termination_log):
    with pytest.raises(SystemExit):
        run_step("assemble", data=None, out=tmp_path / "out")
    assert "give either --data, or --train with --valid" in json.loads(termination_log.read_text())["error"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "give either --data, or --train with --valid"),
        ({"data": ""}, "give either --data, or --train with --valid"),
        ({"data": "d", "train": "t"}, "give either --data, or --train with --valid"),
        ({"data": "d", "valid": "v"}, "--valid and --test go with --train"),
        ({"data": "d", "test": "v"}, "--valid and --test go with --train"),
        ({"data": "d", "fractions": (0.7, 0.2, 0.2)}, "--fractions: fractions sum to 1.1, expected 1"),
        (
            {"data": "d", "fractions": (1.2, -0.1, -0.1)},
            "--fractions: Input should be less than or equal to 1; got 1.2",
        ),
        ({"data": "d", "fractions": (0.7, 0.3)}, "--fractions: "),
        ({"data": "d", "max_failed": 5}, "--max-failed: Input should be less than or equal to 1; got 5"),
        ({"data": "d", "zoom": 17}, "--zoom goes with --labels, which isn't given"),
        ({"train": "d", "label": "a", "imagery_tms": True}, "--imagery-tms, --label go with --labels"),
        ({"data": "d", "imagery": "u"}, "--labels and --imagery go together"),
        ({"data": "d", "labels": "l", "imagery": "u"}, "give either --data, or --train with --valid, or --labels"),
        ({"data": "d", "max_pixels": 0}, "--max-pixels: Input should be greater than 0; got 0"),
        ({"data": "d", "max_pixels": 10**9}, "--max-pixels: Input should be less than or equal to 178956970"),
    ],
)
def test_what_assemble_cannot_do_is_refused(settings, told):
    with pytest.raises(ConfigError) as caught:
        load_config(AssembleConfig, None, {"out": "o", **settings})
    assert told in str(caught.value)


def test_settings_of_labels_at_their_defaults_go_with_folders_and_empty_texts_are_none():
    given = {name: field.default for name, field in LabelsConfig.model_fields.items()}
    texts = {name: "" for name, value in given.items() if value is None}
    config = load_config(AssembleConfig, None, {**given, **texts, "data": "d", "out": "o"})
    assert config == AssembleConfig(data="d", out="o")
    assert {getattr(config, name) for name in texts} == {None}
    assert "labels" in texts and "tile_cache" in texts


def test_the_largest_limit_of_pixels_is_the_one_of_the_decoder():
    from PIL import Image

    limit = next(fact.le for fact in AssembleConfig.model_fields["max_pixels"].metadata if hasattr(fact, "le"))
    assert limit == 2 * Image.MAX_IMAGE_PIXELS


def test_settings_of_a_task_are_json_that_other_settings_override(capsys):
    text = json.dumps({"pipeline": "p", "state": "FAILED", "message": "m"})
    run_step("notify", text, state="SUCCEEDED")
    assert "p: SUCCEEDED" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{", "[1]", "none", "3"])
def test_settings_that_are_no_json_object_end_the_task_as_a_configuration_error(text, termination_log):
    with pytest.raises(SystemExit) as ended:
        run_step("notify", text)
    assert ended.value.code == 2
    reason = json.loads(termination_log.read_text())["error"]
    assert reason.startswith("the task's settings must be a JSON object") and repr(text) in reason
