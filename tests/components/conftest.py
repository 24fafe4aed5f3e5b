"""What the tests of components share."""

import inspect

import pytest

from pipelines.training import training


@pytest.fixture(scope="session")
def pipeline_parameters():
    """Every parameter of the pipeline with its default, as the first step takes them."""
    parameters = inspect.signature(training.pipeline_func).parameters
    return {name: parameter.default for name, parameter in parameters.items()}
