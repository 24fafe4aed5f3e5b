"""What the tests of data share."""

import importlib.util
from collections.abc import Callable, Iterator

import pytest

from sat_xception.errors import ConfigError
from sat_xception.validation.findings import Findings, TfdvRequest
from sat_xception.validation.tfdv_runner import find_tfdv_python, run_tfdv
from tests.tfdv_process import running_tfdv


@pytest.fixture(scope="session")
def tfdv_process() -> Iterator[Callable[[TfdvRequest], Findings]]:
    """TFDV in this process where it is installed, else in one child for all tests; skips where there is none."""
    if importlib.util.find_spec("tensorflow_data_validation") is not None:
        yield run_tfdv
        return
    try:
        find_tfdv_python()
    except ConfigError as error:
        pytest.skip(str(error))
    with running_tfdv() as ask:
        yield ask


@pytest.fixture(scope="module")
def one_tfdv(tfdv_process: Callable[[TfdvRequest], Findings]) -> Iterator[None]:
    """Let `validate` ask the process that is there and not start its own; test_validate.py has tests of that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sat_xception.validation.validate.run_tfdv", tfdv_process)
        yield
