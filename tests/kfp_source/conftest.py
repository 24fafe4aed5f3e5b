"""The walk through KFP's code, built once, and the compiled pipelines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.compile import compile_pipelines
from tests.kfp_source.kfp_walk import Walk, build


@pytest.fixture(scope="session")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """The walk; skipped without $KFP_SOURCE."""
    source = os.environ.get("KFP_SOURCE", "")
    if not source:
        pytest.skip("KFP_SOURCE names no checkout of kubeflow/pipelines: see CONTRIBUTING.md")
    return Walk(build(Path(source), tmp_path_factory.mktemp("walk")))


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pipelines, compiled, by the names of their files."""
    paths = compile_pipelines(tmp_path_factory.mktemp("compiled"))
    return {path.stem: path for path in paths if not path.stem.endswith("-pipeline")}
