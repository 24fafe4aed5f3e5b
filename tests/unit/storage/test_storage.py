"""Results that appear whole or not at all, and files fetched from a bucket: an emulator's, and one with faults."""

import base64
import hashlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from sat_xception.errors import ConfigError, DataError, ServiceError
from sat_xception.storage import (
    atomic_folder,
    fetch_file,
    file_digest,
    folder_digests,
    read_json,
    write_json,
    write_json_file,
)
from sat_xception.storage import store as stores
from sat_xception.storage.files import dump_json
from tests.storage_proxy import bucket_of, free_port, running_emulator


def be_impatient(monkeypatch: pytest.MonkeyPatch, seconds: float = 1) -> None:
    monkeypatch.setattr(stores, "_LOOK_S", seconds)
    monkeypatch.setattr(stores, "_TRANSFER_S", seconds)


def contents(folder: Path) -> dict[str, str]:
    """Return every file below a folder, hidden ones as well, with its text."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def earlier(tmp_path) -> Path:
    """An earlier result of assemble."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "dataset.json").write_text("earlier")
    (out / "tiles.parquet").write_text("old tiles")
    return out


# A folder appears whole


def test_the_folder_appears_when_the_block_ends_with_its_parents(tmp_path):
    out = tmp_path / "a" / "b" / "out"
    with atomic_folder(out) as work:
        (work / "part").mkdir()
        (work / "part" / "file").write_text("x")
        assert not out.exists()
    assert contents(tmp_path) == {"a/b/out/part/file": "x"}
    assert stat.S_IMODE(out.stat().st_mode) == 0o755


@pytest.mark.parametrize("error", [DataError("damaged"), KeyboardInterrupt(), SystemExit(3), OSError("odd")])
def test_nothing_is_left_when_the_block_fails(tmp_path, error):
    with pytest.raises(type(error)) as caught, atomic_folder(tmp_path / "out") as work:
        (work / "half").write_text("x")
        raise error
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_result_is_there_until_the_new_one_replaces_it_whole(tmp_path, earlier):
    with atomic_folder(earlier) as work:
        (work / "dataset.json").write_text("new")
        assert contents(earlier) == {"dataset.json": "earlier", "tiles.parquet": "old tiles"}
    assert contents(tmp_path) == {"out/dataset.json": "new"}


def test_an_earlier_result_stays_when_the_block_fails(tmp_path, earlier):
    with pytest.raises(DataError), atomic_folder(earlier) as work:
        (work / "dataset.json").write_text("new")
        raise DataError("damaged")
    assert contents(tmp_path) == {"out/dataset.json": "earlier", "out/tiles.parquet": "old tiles"}


def test_an_earlier_result_comes_back_when_the_new_one_cannot_take_its_place(tmp_path, earlier):
    with pytest.raises(FileNotFoundError), atomic_folder(earlier) as work:
        work.rmdir()
    assert contents(tmp_path) == {"out/dataset.json": "earlier", "out/tiles.parquet": "old tiles"}


def test_an_empty_folder_is_as_good_as_none(tmp_path):
    (tmp_path / "out").mkdir()
    with atomic_folder(tmp_path / "out") as work:
        (work / "file").write_text("x")
    assert contents(tmp_path) == {"out/file": "x"}


def test_a_link_to_a_folder_stays_a_link(tmp_path, earlier):
    disk = tmp_path / "disk"
    disk.mkdir()
    earlier.rename(disk / "result")
    earlier.symlink_to(disk / "result")
    with atomic_folder(earlier) as work:
        assert work.parent == disk
        (work / "dataset.json").write_text("new")
    assert earlier.is_symlink()
    assert contents(disk) == {"result/dataset.json": "new"}


def test_a_process_that_is_killed_leaves_no_half_result_and_can_run_again(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from sat_xception.storage import atomic_folder\n"
        "with atomic_folder(Path(sys.argv[1])) as work:\n"
        "    (work / 'half').write_text('x'); print('half', flush=True); time.sleep(60)\n"
    )
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"half\n"
        child.send_signal(signal.SIGKILL)
    assert not out.exists()
    with atomic_folder(out) as work:
        (work / "whole").write_text("x")
    assert contents(out) == {"whole": "x"}


# What is in the way


def refused(out: Path, **settings: str) -> str:
    ran = False
    with pytest.raises(ConfigError) as caught, atomic_folder(out, **settings):
        ran = True
    assert not ran, "the work was done before the refusal"
    return str(caught.value)


def test_a_file_in_the_way_is_refused_before_the_work(tmp_path):
    (tmp_path / "out").write_text("mine")
    assert refused(tmp_path / "out") == f"--out {tmp_path / 'out'} is a file; name a folder"
    assert contents(tmp_path) == {"out": "mine"}


def test_somebodys_folder_is_never_replaced(tmp_path, monkeypatch):
    (tmp_path / "photos" / "school").mkdir(parents=True)
    (tmp_path / "photos" / "school" / "1.jpg").write_text("mine")
    monkeypatch.chdir(tmp_path / "photos")
    for out in (tmp_path / "photos", tmp_path, Path("."), Path(""), Path("../photos")):
        assert "would be replaced; name a new folder" in refused(out)
    assert refused(tmp_path).startswith(f"--out {tmp_path} isn't an earlier result of this step (it holds 'photos')")
    assert contents(tmp_path) == {"photos/school/1.jpg": "mine"}


def test_the_result_of_another_step_is_not_replaced(tmp_path, earlier):
    assert "(it holds 'dataset.json')" in refused(earlier, record="examples.json")
    assert contents(earlier) == {"dataset.json": "earlier", "tiles.parquet": "old tiles"}
    with atomic_folder(earlier, record="dataset.json") as work:
        (work / "dataset.json").write_text("new")
    assert contents(tmp_path) == {"out/dataset.json": "new"}


def test_a_mount_point_is_refused_before_the_work():
    assert refused(Path("/")) == "--out / is a mount point, which can't be replaced; name a folder inside it"


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    message = refused(tmp_path / "file" / "out")
    assert message.startswith(f"can't write to {tmp_path / 'file'}: ")
    assert message.endswith("; name another --out")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_told_as_such_and_leaves_nothing(tmp_path):
    with (
        pytest.raises(ServiceError, match=r"no space left while writing .*; free some"),
        atomic_folder(tmp_path / "out"),
    ):
        with Path("/dev/full").open("w") as file:
            file.write("x")
            file.flush()
    assert list(tmp_path.iterdir()) == []


# Digests and JSON


def test_a_digest_is_the_sha256_of_the_bytes(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"\0\1" * 500_000)
    assert file_digest(path) == hashlib.sha256(b"\0\1" * 500_000).hexdigest()


def test_digests_of_a_folder_are_by_relative_path_and_sorted(tmp_path):
    for folder in (tmp_path / "one", tmp_path / "two"):
        (folder / "b").mkdir(parents=True)
        for name in ("z", "b/inner", "a", ".hidden") if folder.name == "one" else (".hidden", "a", "b/inner", "z"):
            (folder / name).write_text(name)
    digests = folder_digests(tmp_path / "one")
    assert list(digests) == [".hidden", "a", "b/inner", "z"]
    assert digests["b/inner"] == hashlib.sha256(b"b/inner").hexdigest()
    assert folder_digests(tmp_path / "two") == digests


def test_json_is_written_sorted_and_readable_and_comes_back(tmp_path):
    write_json(tmp_path / "x.json", {"b": [1, 2.5], "a": "café"})
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == (
        '{\n  "a": "café",\n  "b": [\n    1,\n    2.5\n  ]\n}\n'
    )
    assert read_json(tmp_path / "x.json", made_by="assemble") == {"b": [1, 2.5], "a": "café"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.float64("nan")])
@pytest.mark.parametrize(
    ("content", "key"),
    [
        (
            lambda value: {"a": 1, "metrics": {"slices": [{"recall": 0.5}, {"recall": value}]}},
            "metrics.slices[1].recall",
        ),
        (lambda value: [0.5, (1.0, value)], "[1][1]"),
        (lambda value: value, "the content"),
    ],
)
def test_a_number_that_json_cant_hold_is_refused_by_its_key(tmp_path, value, content, key):
    with pytest.raises(DataError, match=rf"^{re.escape(key)} is -?(nan|inf), which JSON can't hold"):
        write_json(tmp_path / "a.json", content(value))
    assert not (tmp_path / "a.json").exists()
    with pytest.raises(DataError, match="which JSON can't hold"):
        write_json_file(tmp_path / "b.json", {"content": content(value)})
    with pytest.raises(DataError, match="which JSON can't hold"):
        dump_json(content(value))


def test_json_that_refers_to_itself_is_a_fault_of_ours():
    content = {}
    content["content"] = content
    with pytest.raises((ValueError, RecursionError)):
        dump_json(content)


def test_missing_json_names_the_step_that_writes_it(tmp_path):
    with pytest.raises(DataError) as caught:
        read_json(tmp_path / "x.json", made_by="convert")
    assert str(caught.value) == (
        f"{tmp_path}/x.json is missing: is {tmp_path} a folder that `sat_xception convert` wrote?"
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", r"x\.json can't be read: .*Run `sat_xception convert` again"),
        (b'{"a": 1', r"x\.json can't be read"),
        (b"\xff\xfe", r"x\.json can't be read"),
        (b"[1]", r"x\.json holds a list, expected an object"),
        (b"null", r"x\.json holds a NoneType"),
    ],
)
def test_damaged_json_is_told(tmp_path, content, told):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match=told):
        read_json(tmp_path / "x.json", made_by="convert")


def test_a_folder_where_json_should_be_is_told(tmp_path):
    with pytest.raises(DataError, match="can't be read"):
        read_json(tmp_path, made_by="convert")


# Files from here


def test_a_local_file_is_its_own_path(tmp_path, monkeypatch):
    (tmp_path / "w.h5").write_text("x")
    assert fetch_file(str(tmp_path / "w.h5")) == tmp_path / "w.h5"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch_file("~/w.h5") == tmp_path / "w.h5"


def test_a_local_file_that_is_missing_or_a_folder_is_a_configuration_error(tmp_path):
    for uri in (str(tmp_path / "w.h5"), str(tmp_path), ""):
        with pytest.raises(ConfigError, match=rf"no file at {re.escape(uri)} \(seen from "):
            fetch_file(uri)


# Files from a bucket


@pytest.fixture(scope="module")
def emulator() -> Iterator[str]:
    """The address of a running emulator of Google Cloud Storage, with the bucket `models`."""
    with running_emulator("models") as address:
        yield address


@pytest.fixture
def bucket(emulator, monkeypatch):
    """The bucket, as the real client sees it."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)
    return bucket_of("models")


def upload(bucket, name: str, data: bytes) -> None:
    bucket.blob(name).upload_from_string(data)


def test_an_object_is_downloaded_and_used_again(bucket, tmp_path, caplog):
    caplog.set_level("INFO", "sat_xception")
    upload(bucket, "xception/weights 1.h5", b"w" * 2_000_000)
    path = fetch_file("gs://models/xception/weights 1.h5", tmp_path)
    assert path.name == "weights 1.h5"
    assert path.read_bytes() == b"w" * 2_000_000
    assert caplog.messages == ["fetching  gs://models/xception/weights 1.h5 (2.0 MB)"]
    caplog.clear()
    written = path.stat().st_mtime_ns
    assert fetch_file("gs://models/xception/weights 1.h5", tmp_path) == path
    assert path.stat().st_mtime_ns == written
    assert caplog.messages == []
    assert list(contents(tmp_path)) == [str(path.relative_to(tmp_path))]


def test_an_object_that_changed_is_downloaded_again(bucket, tmp_path):
    upload(bucket, "changing.h5", b"first")
    first = fetch_file("gs://models/changing.h5", tmp_path)
    upload(bucket, "changing.h5", b"second")
    assert fetch_file("gs://models/changing.h5", tmp_path).read_bytes() == b"second"
    assert first.read_bytes() == b"first"


@pytest.mark.parametrize("xdg", [None, "", "elsewhere"])
def test_downloads_are_kept_in_the_users_cache(bucket, tmp_path, monkeypatch, xdg):
    upload(bucket, "kept.h5", b"x")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if xdg is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", xdg and str(tmp_path / xdg))
    path = fetch_file("gs://models/kept.h5")
    assert path.is_relative_to(tmp_path / (xdg or "home/.cache") / "sat-xception" / "models")


@pytest.mark.parametrize("uri", ["gs://models/none.h5", "gs://models/none/w.h5", "gs://no-such-bucket/w.h5"])
def test_an_object_that_is_not_there_is_a_configuration_error(bucket, tmp_path, uri):
    with pytest.raises(ConfigError, match=f"^no object at {uri}; list what is there with: gcloud storage ls gs://"):
        fetch_file(uri, tmp_path)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("uri", ["gs://", "gs://models", "gs://models/", "gs:///w.h5", "gs://models/a/"])
def test_an_address_without_a_bucket_or_an_object_is_a_configuration_error(tmp_path, uri):
    with pytest.raises(ConfigError, match=f"^{uri} names no object; expected gs://bucket/path/to/file$"):
        fetch_file(uri, tmp_path)


def test_a_cache_that_cannot_be_written_is_a_configuration_error(bucket, tmp_path):
    upload(bucket, "w.h5", b"x")
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ConfigError, match=r"can't keep gs://models/w\.h5 in .*set \$XDG_CACHE_HOME"):
        fetch_file("gs://models/w.h5", tmp_path / "cache")


def test_a_user_without_a_home_is_told_where_to_put_downloads(monkeypatch):
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(ConfigError, match=r"there is no home folder .*set \$XDG_CACHE_HOME"):
        fetch_file("gs://models/w.h5")


def test_without_the_client_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.api_core.exceptions", None)
    with pytest.raises(ConfigError, match=r"needs google-cloud-storage: pip install 'sat-xception\[gcs\]'"):
        fetch_file("gs://models/w.h5")


def test_without_credentials_the_login_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    with pytest.raises(ServiceError, match="gcloud auth application-default login"):
        fetch_file("gs://models/w.h5", tmp_path)


# A bucket with faults: the two calls of the JSON API that a download needs


class FaultyBucket(ThreadingHTTPServer):
    """Serves any object, each of generation 1, in the way that `fault` says."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.asked = 0
        super().__init__(("127.0.0.1", 0), _FaultyHandler)


def object_content(name: str) -> bytes:
    return b"weights " * 1_000 + name.encode()


class _FaultyHandler(BaseHTTPRequestHandler):
    server: FaultyBucket

    @property
    def content(self) -> bytes:
        return object_content(unquote(urlsplit(self.path).path.rpartition("/o/")[2]))

    def do_GET(self) -> None:
        self.server.asked += 1
        if self.server.fault.isdigit():
            self._answer(int(self.server.fault), b"{}")
        elif not self.path.startswith("/download/"):
            facts = {"name": "w.h5", "bucket": "models", "generation": "1", "size": str(len(self.content))}
            self._answer(200, json.dumps(facts).encode(), "application/json")
        elif self.server.fault == "cut":
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.content)))
            self.end_headers()
            self.wfile.write(self.content[:100])
            self.close_connection = True
        else:
            sent = b"W" + self.content[1:] if self.server.fault == "corrupt" else self.content
            self._answer(200, sent, "application/octet-stream")

    def _answer(self, code: int, body: bytes, kind: str = "text/plain") -> None:
        import google_crc32c

        checksum = base64.b64encode(google_crc32c.Checksum(self.content).digest()).decode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Goog-Hash", f"crc32c={checksum}")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def faulty(request, monkeypatch) -> Iterator[FaultyBucket]:
    pytest.importorskip("google.cloud.storage")
    be_impatient(monkeypatch)
    with FaultyBucket(request.param) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("faulty", ["none"], indirect=True)
def test_objects_that_share_generation_and_last_name_are_kept_apart(faulty, tmp_path):
    for name in ("a/w.h5", "b/w.h5", "w.h5"):
        assert fetch_file(f"gs://models/{name}", tmp_path).read_bytes() == object_content(name)


@pytest.mark.parametrize(
    ("faulty", "told"),
    [
        ("corrupt", r"^can't read gs://models/w\.h5: .*Check the network, then run again"),
        ("cut", r"^can't read gs://models/w\.h5: .*Check the network, then run again"),
        ("503", r"^can't read gs://models/w\.h5: .*Check the network, then run again"),
        ("429", r"^can't read gs://models/w\.h5: .*Check the network, then run again"),
        ("403", r"^not allowed to read gs://models/w\.h5: .*Grant roles/storage\.objectViewer on gs://models to"),
        ("401", r"^no credentials to read gs://models/w\.h5: .*gcloud auth application-default login"),
    ],
    indirect=["faulty"],
)
def test_a_download_that_fails_is_a_failure_of_a_service_and_leaves_nothing(faulty, told, tmp_path):
    started = time.monotonic()
    with pytest.raises(ServiceError, match=told) as caught:
        fetch_file("gs://models/w.h5", tmp_path)
    assert "?" not in str(caught.value), "a query may hold a secret"
    assert time.monotonic() - started < 10
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("faulty", ["503"], indirect=True)
def test_a_bucket_that_stumbles_is_asked_again(faulty, tmp_path, monkeypatch):
    be_impatient(monkeypatch, 15)
    threading.Timer(0.5, setattr, (faulty, "fault", "none")).start()
    assert fetch_file("gs://models/w.h5", tmp_path).read_bytes() == object_content("w.h5")
    assert faulty.asked > 2


def test_a_server_that_is_down_is_given_up_soon(tmp_path, monkeypatch):
    pytest.importorskip("google.cloud.storage")
    assert stores._LOOK_S <= 30
    be_impatient(monkeypatch)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{free_port()}")
    started = time.monotonic()
    with pytest.raises(ServiceError):
        fetch_file("gs://models/w.h5", tmp_path)
    assert time.monotonic() - started < 10


def test_nothing_here_needs_the_cloud_library_until_a_bucket_is_named():
    code = "import sys, sat_xception.storage; sys.exit('google.cloud.storage' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, env=os.environ).returncode == 0
