"""What predict keeps: rows are written as they come, by one version, whatever ends the run, however files are named."""

import csv
import errno
import io
import json
import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sat_xception.errors import ServiceError
from sat_xception.serve import predict as module
from sat_xception.serve.client import EndpointClient
from sat_xception.serve.predict import predict
from sat_xception.serve.protocol import Classification, Code, RequestError
from sat_xception.serve.rows import open_rows
from sat_xception.serve.settings import PredictConfig
from tests.dripping_server import KINDS, dripping_server

COUNT = 12
SOON_S = 20.0


@pytest.fixture
def tiles(tmp_path) -> Path:
    folder = tmp_path / "tiles"
    folder.mkdir()
    for number in range(COUNT):
        Image.new("RGB", (8, 8), (number * 20, 0, 0)).save(folder / f"{number:02d}.png")
    return folder


class Scorer:
    """Takes the colour for the score; fails at one call, or gives that many classes from it on."""

    def __init__(self, fails_at: int = 99, error: Exception | None = None) -> None:
        self.calls, self.fails_at, self.error = 0, fails_at, error

    def classify(self, images):
        self.calls += 1
        classes = 2
        if self.calls >= self.fails_at:
            if self.error:
                raise self.error
            classes = 3
        values = np.full((len(images), classes), 0.25, np.float32)
        return Classification(values, ["school"] * len(images), values[:, 0])


@pytest.fixture
def run(tiles, monkeypatch):
    def start(scorer: Scorer, out: Path | None = None, **settings):
        @contextmanager
        def opened(_):
            yield scorer, None

        monkeypatch.setattr(module, "_open_scorer", opened)
        given = {"inputs": (tiles,), "endpoint": "http://h:1", "out": out, "batch_size": 2, "calls": 1, **settings}
        return predict(PredictConfig(**given))

    return start


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file)) if path.suffix == ".csv" else json.load(file)


@pytest.mark.parametrize("ending", [".csv", ".json"])
def test_names_that_are_not_utf8_are_written_as_escapes(run, tiles, tmp_path, ending):
    os.rename(tiles / "03.png", os.fsencode(tiles) + b"/caf\xe9.png")
    (tiles / "04.png").rename(tiles / "café.png")
    os.rename(tiles / "05.png", os.fsencode(tiles) + b"/broken\xff.png")
    Path(os.fsdecode(os.fsencode(tiles) + b"/broken\xff.png")).write_bytes(b"no image")
    out = tmp_path / f"scores{ending}"
    result = run(Scorer(), out)
    rows = rows_of(out)
    assert (result.images, result.ok, result.failed, len(rows)) == (COUNT, COUNT - 1, 1, COUNT)
    names = {Path(row["path"]).name: row["status"] for row in rows}
    assert names["caf\\xe9.png"] == names["café.png"] == "ok"
    assert names["broken\\xff.png"] == "failed"


def test_cells_that_a_spreadsheet_runs_are_text(run, tiles, tmp_path, monkeypatch):
    (tiles / "=1+1").mkdir()
    (tiles / "00.png").rename(tiles / "=1+1" / "0.png")
    monkeypatch.chdir(tiles)
    run(Scorer(), tmp_path / "scores.csv", inputs=(Path("=1+1"), Path("01.png")))
    assert [row["path"] for row in rows_of(tmp_path / "scores.csv")] == ["'=1+1/0.png", "01.png"]


@pytest.mark.parametrize("ending", [".csv", ".json"])
def test_what_was_finished_before_an_error_is_kept_in_its_order(run, tmp_path, caplog, ending):
    out = tmp_path / f"scores{ending}"
    with pytest.raises(ServiceError, match="gone"):
        run(Scorer(4, RequestError(Code.UNAVAILABLE, "gone")), out)
    assert not out.exists()
    rows = rows_of(tmp_path / f"scores.partial{ending}")
    assert [Path(row["path"]).stem for row in rows] == [f"{number:02d}" for number in range(6)]
    assert f"6 rows that were finished, in {tmp_path}/scores.partial{ending}" in caplog.text
    run(Scorer(), out)
    assert len(rows_of(out)) == COUNT
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, "tiles"]


def test_rows_are_in_the_file_as_they_come(tmp_path):
    with open_rows(tmp_path / "scores.csv", ["a", "b"]) as write:
        write(["x", 1.5])
        (partial,) = tmp_path.iterdir()
        assert partial.name.startswith(".scores.csv.") and partial.read_text() == "a,b\nx,1.5\n"
    assert (tmp_path / "scores.csv").read_text() == "a,b\nx,1.5\n"


@pytest.mark.parametrize("ending", [".csv", ".json"])
def test_a_disk_that_is_full_ends_the_run_with_what_fitted(run, tmp_path, ending):
    before = set(threading.enumerate())  # a server of another test may run in this process
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, limit[1]))
    try:
        with pytest.raises(ServiceError, match=r"--out .*scores\.\w+ is larger than") as caught:
            run(Scorer(), tmp_path / f"scores{ending}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert caught.value.exit_code == 4
    assert not [thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("predict")]
    rows = rows_of(tmp_path / f"scores.partial{ending}")
    assert 0 < len(rows) < COUNT and all(row["status"] == "ok" for row in rows)


def test_a_full_standard_output_is_told(run, monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("sys.stdout", Full())
    with pytest.raises(ServiceError, match="no space left while writing standard output"):
        run(Scorer())


def test_another_number_of_classes_in_the_middle_ends_the_run(run, tmp_path):
    with pytest.raises(ServiceError, match=r"answers with 3 classes for .*04\.png, and with 2 before"):
        run(Scorer(3), tmp_path / "scores.csv")
    assert len(rows_of(tmp_path / "scores.partial.csv")) == 4


@contextmanager
def changing_server(answers: int, tells_version: bool = True) -> Iterator[tuple[str, list[str]]]:
    """Serve version 3 for so many calls, then version 4, as TensorFlow Serving does; yield what was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            version = {"model_version_status": [{"version": "3", "state": "AVAILABLE", "status": {}}]}
            if self.path.endswith("/metadata"):
                self._say(200, {"metadata": {"signature_def": {"signature_def": {"classify": {}}}}})
            else:
                self._say(200, version if tells_version else {"ready": True})

        def do_POST(self):
            asked.append(self.path)
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if len(asked) > answers and "/versions/3:" in self.path:
                self._say(404, {"error": "Servable not found for request: Specific(m, 3)"})
                return
            row = {"probabilities": [0.5, 0.5], "label": "a", "score": 0.5}
            self._say(200, {"predictions": [row] * len(request["instances"])})

        def _say(self, status, content):
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def asking(tiles, url, out):
    return PredictConfig(inputs=(tiles,), endpoint=url, name="m", out=out, batch_size=2, calls=1, timeout_s=10.0)


def test_all_images_are_scored_by_the_version_that_was_served_at_the_start(tiles, tmp_path, caplog):
    with changing_server(answers=COUNT) as (url, asked):
        assert predict(asking(tiles, url, tmp_path / "scores.csv")).ok == COUNT
    assert set(asked) == {"/v1/models/m/versions/3:predict"}


def test_a_version_that_goes_in_the_middle_ends_the_run_with_what_it_scored(tiles, tmp_path):
    with changing_server(answers=3) as (url, _):
        told = r"version 3 of m, which scored the images so far, isn't served at .* any more: .*Servable not found"
        with pytest.raises(ServiceError, match=told) as caught:
            predict(asking(tiles, url, tmp_path / "scores.csv"))
    assert caught.value.exit_code == 4
    assert len(rows_of(tmp_path / "scores.partial.csv")) == 6


def test_an_endpoint_that_tells_no_version_is_asked_all_the_same_and_it_is_logged(tiles, tmp_path, caplog):
    with changing_server(answers=COUNT, tells_version=False) as (url, asked):
        assert predict(asking(tiles, url, tmp_path / "scores.csv")).ok == COUNT
    assert set(asked) == {"/v1/models/m:predict"}
    assert "doesn't report which version it serves" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_ends_at_its_deadline_whoever_drips(kind):
    with dripping_server(kind) as url, EndpointClient(url, "m", timeout_s=0.2) as client:
        started = time.monotonic()
        with pytest.raises(RequestError) as caught:
            client.predict([b"image"])
        assert time.monotonic() - started < SOON_S
    assert caught.value.code in (Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE)
    assert caught.value.exit_code == 4
