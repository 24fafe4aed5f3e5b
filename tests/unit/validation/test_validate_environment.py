"""Where TFDV is looked for, and what becomes of a child process that fails."""

import importlib.util
import sys
from pathlib import Path

import pytest

from sat_xception.errors import ConfigError, SatXceptionError
from sat_xception.validation import tfdv_runner
from sat_xception.validation.findings import TfdvRequest
from sat_xception.validation.tfdv_runner import PYTHON_VARIABLE, find_tfdv_python, run_tfdv

only_without_tfdv = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_data_validation") is not None, reason="TFDV runs in this process here"
)


@pytest.fixture
def request_for(tmp_path: Path) -> TfdvRequest:
    return TfdvRequest(files={"train": ()}, counts={}, classes=("a",), max_skew=0.3, max_drift=0.1, out=tmp_path)


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A package and a current folder without `.venv-validate`; returns the folder of both."""
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    monkeypatch.setattr(tfdv_runner, "_PACKAGE", tmp_path / "repository" / "sat_xception")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def python_in(folder: Path) -> Path:
    python = folder / ".venv-validate" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    return python


def test_without_an_environment_the_error_says_to_run_make_setup(no_environment: Path) -> None:
    with pytest.raises(ConfigError, match="Run `make setup`") as caught:
        find_tfdv_python()
    assert str(no_environment / "repository" / ".venv-validate" / "bin" / "python") in str(caught.value)
    assert str(no_environment / "here" / ".venv-validate" / "bin" / "python") in str(caught.value)


def test_the_variable_comes_before_the_repository_and_that_before_the_current_folder(
    no_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_here = python_in(no_environment / "here")
    assert find_tfdv_python() == in_here
    in_repository = python_in(no_environment / "repository")
    assert find_tfdv_python() == in_repository
    monkeypatch.setenv(PYTHON_VARIABLE, str(in_here))
    assert find_tfdv_python() == in_here


def test_a_variable_that_names_no_file_is_an_error(no_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, "/nowhere/python")
    with pytest.raises(ConfigError, match=r"\$SAT_XCEPTION_TFDV_PYTHON is /nowhere/python, which is no file"):
        find_tfdv_python()


@only_without_tfdv
def test_an_error_in_the_child_is_the_same_error_here(
    request_for: TfdvRequest, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, sys.executable)
    with pytest.raises(ConfigError, match="has no tensorflow_data_validation") as caught:
        run_tfdv(request_for)
    assert sys.executable in str(caught.value)
    assert "Traceback" not in capfd.readouterr().err


@only_without_tfdv
@pytest.mark.parametrize(
    ("script", "how"), [("exit 7", "exit code 7"), ("kill -9 $$", "signal 9"), ("echo chatter; exit 1", "exit code 1")]
)
def test_a_child_that_dies_is_an_error_and_says_nothing_on_stdout(
    script: str,
    how: str,
    request_for: TfdvRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setenv(PYTHON_VARIABLE, str(python))
    with pytest.raises(SatXceptionError, match=f"TFDV stopped with {how} in {python}"):
        run_tfdv(request_for)
    assert capfd.readouterr().out == ""


@only_without_tfdv
def test_a_python_that_does_not_start_is_an_error_of_configuration(
    request_for: TfdvRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text("no program")
    monkeypatch.setenv(PYTHON_VARIABLE, str(python))
    with pytest.raises(ConfigError, match=f"can't start {python}"):
        run_tfdv(request_for)
