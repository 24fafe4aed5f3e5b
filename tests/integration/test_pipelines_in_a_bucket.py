"""Both pipelines as they are typed, with every input and result in a bucket of S3 or Azure, and a training killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from sat_xception.bulk.ledger import report_status
from sat_xception.bulk.settings import BulkStatusConfig
from sat_xception.serve.client import EndpointClient
from sat_xception.serve.server import RunningServer
from sat_xception.serve.settings import ServeConfig
from sat_xception.storage import list_files, write_stored_bytes
from tests.conftest import draw_tile, encode
from tests.storage_backends import Backend, running_backend
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
SMALL_BACKBONES = ROOT / "tests" / "pipelines" / "small_backbones"
NAME, ZOOM = "school-classifier", 16
ANY_MODEL = [flag for limit in ("accuracy", "recall", "precision") for flag in (f"--min-{limit}", "0")]


@pytest.fixture(params=["s3", "az"])
def backend(request, monkeypatch, tmp_path) -> Iterator[Backend]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (SMALL_BACKBONES, ROOT))))
    with running_backend(request.param, tmp_path, monkeypatch) as backend:
        yield backend


def command_line(*words) -> list[str]:
    return [sys.executable, "-m", "sat_xception", *map(str, words)]


def names_below(address: Path) -> set[str]:
    return {"/".join(path.parts[len(address.parts) :]) for path in list_files(address)}


def run_until(command: list[str], address: Path, part: str = "") -> None:
    """Run a command in a session of its own, and kill all of it once a file below an address has a part in its name."""
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:
        deadline = time.monotonic() + 600
        while not any(part in name for name in names_below(address)):
            assert run.poll() is None, run.stderr.read().decode()
            assert time.monotonic() < deadline, "nothing was written there"
            time.sleep(0.05)
        os.killpg(run.pid, signal.SIGKILL)


def test_from_tiles_to_scores(backend, class_folders, tmp_path):
    root = backend.root
    tiles = [path for path in sorted(class_folders.rglob("*")) if path.is_file()]
    for path in tiles:
        write_stored_bytes(path.read_bytes(), root / "tiles" / path.relative_to(class_folders))
    settings = {
        "validate": {"accept": ["*:*:*"]},
        "gate": {"min_gain": -1},
        "train": {"checkpoints": f"{root}/checkpoints", "checkpoint_minutes": 0},
        **{name: {"tensorboard": f"{root}/logs/{name}"} for name in ("xception", "mobilenetv2")},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    places = {"data": "tiles", "store": "datasets", "baseline": "baseline", "model-root": "serving"}
    flags = [flag for name, place in places.items() for flag in (f"--{name}", f"{root}/{place}")]
    flags += ["--out", tmp_path / "runs", "--settings", tmp_path / "run.yaml", "--input-size", 71]
    command = command_line("run", *flags, "--scratch-epochs", 3, *ANY_MODEL)
    run_until(command, root / "checkpoints")
    killed = set((tmp_path / "runs").iterdir())
    waiting = ServeConfig(model_root=root / "serving", name=NAME, rest_port=0, grpc_port=0, wait=True)
    with RunningServer(waiting) as running, EndpointClient(running.rest_url, NAME) as client:
        subprocess.run(command, check=True, timeout=900)
        wait_until(lambda: [one.state for one in client.status()] == ["AVAILABLE"], 60)
    (folder,) = {path for path in (tmp_path / "runs").iterdir() if path.is_dir()} - killed
    assert f"resume    from the checkpoints in {root}/checkpoints" in (folder / "run.log").read_text()
    assert not names_below(root / "checkpoints")
    assert len(names_below(root / "datasets")) > 1
    assert {"last-run.json", "statistics-train.pb"} <= names_below(root / "baseline")
    logs = names_below(root / "logs")
    assert {name.split("/")[0] for name in logs} == {"xception", "mobilenetv2"}

    places = []
    for x in range(6):
        data = encode(draw_tile("school" if x % 2 else "not-school", x)) if x else b"no image"
        write_stored_bytes(data, root / "imagery" / str(ZOOM) / str(x) / "7.jpg")
        places.append(f"{ZOOM}/{x}/7")
    write_stored_bytes("\n".join(places).encode(), root / "tiles.txt")
    flags = ["--imagery", f"{root}/imagery", "--tiles", f"{root}/tiles.txt", "--model-root", f"{root}/serving"]
    command = command_line("bulk", "run", *flags, "--scores", f"{root}/scores", "--out", tmp_path / "bulk-runs")
    # The engine is prepared when the first tiles are about to be scored.
    run_until(command, root / "scores", "engine/")
    subprocess.run(command, check=True, timeout=600)
    (run,) = {name.split("/")[0] for name in names_below(root / "scores")}
    status = report_status(BulkStatusConfig(scores=f"{root}/scores/{run}"))
    assert status.closed and (status.scored, status.failed) == (5, 1)
