"""What the tests of validation share."""

import importlib.util
from collections.abc import Iterator

import pytest

from sat_xception.errors import ConfigError
from sat_xception.validation.tfdv_runner import find_tfdv_python
from tests.tfdv_process import Tfdv, running_tfdv


@pytest.fixture(scope="session")
def has_tfdv() -> None:
    """Skip where TFDV is installed nowhere."""
    if importlib.util.find_spec("tensorflow_data_validation") is None:
        try:
            find_tfdv_python()
        except ConfigError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="session")
def tfdv(has_tfdv: None) -> Iterator[Tfdv]:
    """TFDV in this process where it is installed, else in one child for all tests."""
    with running_tfdv() as process:
        yield process


@pytest.fixture(scope="module")
def one_tfdv(tfdv: Tfdv) -> Iterator[None]:
    """Let `validate` ask the process that is there and not start its own; test_validate.py has tests of that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sat_xception.validation.validate.run_tfdv", tfdv.run)
        yield
