"""What the tests of submit and schedule share: an API server, the compiled pipeline, the command."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kfp import compiler

from pipelines.compile import compile_pipelines
from sat_xception.cli import main
from tests.conftest import MadeOnce
from tests.kfp_server import KfpServer
from tests.pipelines.small_pipeline import small

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server() -> Iterator[KfpServer]:
    """An empty API server."""
    running = KfpServer().start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def compiled_files(made_once: MadeOnce) -> list[Path]:
    """The files of `compile_pipelines` in its order, compiled once; tests only read them."""
    folder = made_once("compiled-pipelines", compile_pipelines)
    pipelines = ("training", "bulk-inference")
    return [folder / f"{name}{kind}.yaml" for name in pipelines for kind in ("", "-pipeline")]


@pytest.fixture(scope="session")
def small_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small pipeline with parameters of every type, compiled."""
    path = tmp_path_factory.mktemp("compiled") / "small.yaml"
    compiler.Compiler().compile(small, str(path))
    return path


@pytest.fixture
def closed_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@pytest.fixture
def environment(server: KfpServer, tmp_path: Path) -> dict[str, str]:
    """What a shell has that works with the server: the command on its path, the address, a home of its own."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("KFP_", "KF_PIPELINES_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"
    return {**own, "PATH": path, "KFP_ENDPOINT": server.url, "HOME": str(tmp_path), "COLUMNS": "200"}


@pytest.fixture
def command(environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs `sat_xception` in this process, as `process` does in one of its own."""

    def run(*arguments: object, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
        line, code = [*map(str, arguments)], 0
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(cwd)
            for name in os.environ.keys() - environment.keys():
                patch.delenv(name)
            for name, value in {**environment, **variables}.items():
                patch.setenv(name, value)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    main(line)
                except SystemExit as ended:
                    code = int(ended.code or 0)
        return subprocess.CompletedProcess(line, code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def process(environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs `sat_xception` as a person does."""

    def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "sat_xception", *map(str, arguments)]
        env = {**environment, **variables}
        return subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)

    return run
