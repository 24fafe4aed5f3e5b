"""Images are built in good time on slow machines."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", [*sorted(ROOT.glob("components/*/Dockerfile")), ROOT / "Makefile"], ids=str)
def test_slow_machines_have_time_to_compile_bytecode(path):
    joined = path.read_text().replace("\\\n", " ")
    commands = [command for command in re.split(r"&&|\n", joined) if " --compile-bytecode" in command]
    assert commands
    for command in commands:
        given = re.search(r"UV_COMPILE_BYTECODE_TIMEOUT=(\d+) +\S*uv ", command)
        assert given, f"{path} leaves uv its 60 s: {command}"
        assert int(given[1]) >= 300


def test_the_locked_uv_reads_that_time_out(tmp_path):
    wheel = tmp_path / "tiny-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "")
        archive.writestr("tiny-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1\n")
        archive.writestr("tiny-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny-1.dist-info/RECORD", "")
    uv = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--reinstall", "--no-index", "--no-cache"]
    command = [*uv, "--compile-bytecode", "--python", sys.executable, "--target", str(tmp_path / "target"), str(wheel)]

    def install(timeout):
        environment = {**os.environ, "UV_COMPILE_BYTECODE_TIMEOUT": timeout}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert install("600").returncode == 0
    assert "invalid value from environment for UV_COMPILE_BYTECODE_TIMEOUT" in install("long").stderr
