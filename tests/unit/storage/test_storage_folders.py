"""Folders in a bucket: published whole, replaced safely, fetched once; on an emulator, with faults in between."""

import contextlib
import gc
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from sat_xception.errors import ConfigError, DataError, ServiceError
from sat_xception.storage import (
    GcsPath,
    atomic_folder,
    fetch_file,
    fetch_folder,
    has_result,
    local_file,
    local_folder,
    read_json_file,
    write_json_file,
)
from sat_xception.storage import store as stores
from tests.storage_proxy import Action, StorageProxy, bucket_of, running_emulator, running_proxy

# The client library leaves the body of a refused download unread, and its connection to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
OUT = GcsPath("gs://results/runs/dataset")
POINTER = r"POST /upload/.*published\.json"
FILE = r"POST /upload/.* runs/dataset/\d+-(?!0{16})[0-9a-f]{16}/"


@pytest.fixture(scope="module")
def emulator() -> Iterator[str]:
    with running_emulator("results") as address:
        yield address


@pytest.fixture
def proxy(emulator, monkeypatch, tmp_path) -> Iterator[StorageProxy]:
    """The emulator's empty bucket `results` behind a proxy, and a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(stores, "FIRST_PAUSE_S", 0.05)
    gc.freeze()  # what is there needs no look below
    with running_proxy(emulator, monkeypatch) as proxy:
        assert proxy.ask("GET", "/wipe?keep-buckets=1", b"", {})[0] == 200
        yield proxy
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    gc.unfreeze()


def bucket(name: str = "results"):
    return bucket_of(name)


def objects(below: str = "") -> list[str]:
    return sorted(blob.name for blob in bucket().list_blobs(prefix=below))


def publish(files: dict[str, str], out: GcsPath = OUT) -> None:
    with atomic_folder(out, record="dataset.json") as work:
        for name, text in files.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_text(text)


def read(out: GcsPath = OUT, record: str = "dataset.json") -> dict[str, str]:
    folder = fetch_folder(out, record)
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def result(name: str, count: int = 5) -> dict[str, str]:
    return {"dataset.json": name, **{f"tiles/{index}.parquet": f"{name} {index}" for index in range(count)}}


# A result appears whole


def test_what_was_published_comes_back(proxy):
    publish(result("one"))
    assert read() == result("one")
    assert fetch_folder(OUT, "dataset.json").name == "dataset"


def test_published_json_is_written_after_every_file(proxy):
    publish(result("one"))
    uploads = [request for request in proxy.requests if re.search(FILE, request) or re.search(POINTER, request)]
    assert len(uploads) == 7
    assert re.search(POINTER, uploads[-1])
    assert "ifGenerationMatch=0" in uploads[-1]


def test_nothing_is_to_be_seen_before_the_work_is_done_or_when_it_fails(proxy):
    with pytest.raises(DataError, match="bad"), atomic_folder(OUT) as work:
        (work / "dataset.json").write_text("half")
        assert objects() == []
        raise DataError("bad")
    assert objects() == []
    assert not work.exists()


def test_an_earlier_result_is_readable_until_the_new_one_is_whole_and_then_gone(proxy):
    publish(result("one"))
    seen = []
    proxy.fail(POINTER, lambda: seen.append(read()))
    publish(result("two"))
    assert seen == [result("one")]
    assert read() == result("two")
    assert len(objects()) == 7


def test_the_same_result_is_not_uploaded_again(proxy):
    publish(result("one"))
    before = proxy.count(FILE)
    publish(result("one"))
    assert proxy.count(FILE) == before
    assert proxy.count(POINTER) == 1


PUBLISH = """
import sys
from sat_xception.storage import GcsPath, atomic_folder
with atomic_folder(GcsPath(sys.argv[1]), record="dataset.json") as work:
    (work / "dataset.json").write_text("two")
    for index in range(60):
        (work / f"{index:03d}").write_text(f"two {index}")
"""


def test_an_upload_that_is_killed_leaves_the_earlier_result_and_the_next_run_goes_on(proxy):
    publish(result("one"))
    uploaded, killed = threading.Event(), threading.Event()

    def hold():
        uploaded.set()
        killed.wait(60)
        raise ConnectionError

    proxy.fail(FILE, hold, times=1000, skip=30)
    with subprocess.Popen([sys.executable, "-c", PUBLISH, str(OUT)], stderr=subprocess.DEVNULL) as child:
        assert uploaded.wait(60)
        child.send_signal(signal.SIGKILL)
    proxy.faults.clear()
    killed.set()
    assert read() == result("one")
    before = proxy.count(FILE)
    subprocess.run([sys.executable, "-c", PUBLISH, str(OUT)], check=True, stderr=subprocess.DEVNULL)
    assert proxy.count(FILE) - before <= 61 - 20
    assert read() == {"dataset.json": "two", **{f"{index:03d}": f"two {index}" for index in range(60)}}
    assert len(objects()) == 62


def test_what_a_killed_upload_left_is_removed_by_the_next_result(proxy):
    proxy.fail(POINTER, 403)
    with pytest.raises(ServiceError, match="not allowed to write"):
        publish(result("one"))
    assert len(objects()) == 6
    publish(result("two"))
    assert read() == result("two")
    assert len(objects()) == 7


# Faults of the service


def faults(patterns: tuple[str, ...], actions: tuple[Action, ...], quick: tuple[tuple[int, Action], ...]) -> list:
    """Return each action for each pattern; all but the quick ones, which name a pattern by its number, are slow."""
    return [
        pytest.param(pattern, action, marks=() if (number, action) in quick else pytest.mark.slow)
        for number, pattern in enumerate(patterns)
        for action in actions
    ]


@pytest.mark.parametrize(
    ("pattern", "action"),
    faults(
        (FILE, POINTER, r"GET .*\?.*prefix="),
        (503, 429, "reset", "lost", "slow"),
        quick=((0, 503), (0, "lost"), (1, "reset"), (1, "lost"), (2, 429), (2, "slow")),
    ),
)
def test_an_upload_outlasts_a_service_that_stumbles(proxy, pattern, action):
    publish(result("one"))
    proxy.fail(pattern, action, times=2)
    publish(result("two"))
    assert read() == result("two")
    assert len(objects()) == 7


@pytest.mark.parametrize(
    ("pattern", "action"),
    faults(
        (r"GET /download/", r"GET .*published\.json\?"),
        (503, 429, "reset", "cut", "slow"),
        quick=((0, 429), (0, "reset"), (0, "cut"), (1, 503), (1, "slow")),
    ),
)
def test_a_download_outlasts_a_service_that_stumbles(proxy, pattern, action):
    publish(result("one"))
    proxy.fail(pattern, action, times=2)
    assert read() == result("one")


def test_a_service_that_is_gone_ends_the_upload_and_what_was_made_is_kept(proxy, monkeypatch):
    monkeypatch.setattr(stores, "_TRANSFER_S", 2)
    publish(result("one"))
    proxy.fail(FILE, 503, times=1000)
    with pytest.raises(ServiceError) as caught:
        publish(result("two"))
    told = re.fullmatch(
        r"can't write gs://results/runs/dataset: (.*)\. Check the network, then run again: finished files are kept\. "
        r"What was made is kept in (\S+)",
        str(caught.value),
    )
    assert told, caught.value
    assert "uploadType" not in told[1], "an address of an upload is as good as a password"
    assert (Path(told[2]) / "dataset.json").read_text() == "two"
    assert read() == result("one")


def test_whoever_is_second_is_told_and_the_first_result_stays(proxy, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    publish(result("one"))
    proxy.fail(POINTER, lambda: publish(result("theirs")))
    with pytest.raises(ServiceError, match=r"^somebody else published to gs://results/runs/dataset while this ran"):
        publish(result("ours"))
    assert read() == result("theirs")
    assert len(objects()) == 7, "ours are left in the bucket"


def test_a_412_from_nowhere_is_no_success(proxy):
    proxy.fail(POINTER, 412)
    with pytest.raises(ServiceError, match="somebody else published"):
        publish(result("ours"))
    assert objects() == []


# What is in the way is told before the work


def refused(out: GcsPath, error: type[Exception] = ConfigError) -> str:
    ran = False
    with pytest.raises(error) as caught, atomic_folder(out, record="dataset.json"):
        ran = True
    assert not ran, "the work was done before the refusal"
    return str(caught.value)


def test_a_bucket_that_is_not_there_is_refused(proxy):
    told = refused(GcsPath("gs://no-such-bucket/x"))
    assert told.endswith("See whether the bucket is there: gcloud storage ls gs://no-such-bucket/")


def test_a_bucket_that_may_not_be_written_is_refused(proxy):
    proxy.fail(r"POST /upload/", 403, times=9)
    told = refused(OUT, ServiceError)
    assert told.startswith("not allowed to write gs://results/runs/dataset: ")
    assert "Grant roles/storage.objectUser on gs://results" in told


def test_somebodys_folder_in_a_bucket_is_left_alone(proxy):
    bucket().blob("runs/dataset/photo.jpg").upload_from_string(b"mine")
    assert "(it holds 'photo.jpg'); name a new folder" in refused(OUT)
    assert objects() == ["runs/dataset/photo.jpg"]


def test_the_result_of_another_step_in_a_bucket_is_left_alone(proxy):
    publish({"examples.json": "x"})
    assert "(it holds 'examples.json')" in refused(OUT)


def test_files_that_somebody_put_beside_a_result_are_left_alone(proxy):
    publish(result("one"))
    bucket().blob("runs/dataset/NOTES.md").upload_from_string(b"mine")
    bucket().blob("runs/dataset-2/x").upload_from_string(b"mine")
    publish(result("two"))
    assert {"runs/dataset/NOTES.md", "runs/dataset-2/x"} < set(objects())
    assert read() == result("two")


# Reading


def test_a_folder_that_was_copied_into_a_bucket_is_read_as_it_is(proxy):
    for name in ("dataset.json", "school/1.jpg", "not school/ü.jpg", "empty/"):
        bucket().blob(f"runs/dataset/{name}").upload_from_string(b"" if name.endswith("/") else name.encode())
    assert read() == {name: name for name in ("dataset.json", "school/1.jpg", "not school/ü.jpg")}


def test_what_is_here_is_not_fetched_again_until_it_changes(proxy):
    publish(result("one"))
    read()
    before = proxy.count("GET /download/.*parquet")
    assert before == 5
    assert read() == result("one")
    assert proxy.count("GET /download/.*parquet") == before
    publish(result("two"))
    assert read() == result("two")


def test_downloads_that_nobody_asked_for_in_a_month_are_removed(proxy, tmp_path):
    publish(result("old"))
    old = fetch_folder(OUT)
    publish({"dataset.json": "other"}, GcsPath("gs://results/runs/other"))
    kept = fetch_folder(GcsPath("gs://results/runs/other"))
    for folder, days in ((old, 31), (kept, 29)):
        os.utime(folder.parent, (0, time.time() - days * 86_400))
    publish(result("new"))
    new = fetch_folder(OUT)
    assert [folder.exists() for folder in (old, kept, new)] == [False, True, True]


def test_a_download_goes_on_where_an_earlier_one_failed(proxy, monkeypatch):
    monkeypatch.setattr(stores, "_TRANSFER_S", 1)
    publish(result("one", 30))
    proxy.fail(r"GET /download/.*parquet", 503, times=1000, skip=20)
    with pytest.raises(ServiceError, match="can't read gs://results/runs/dataset"):
        read()
    proxy.faults.clear()
    proxy.requests.clear()
    assert read() == result("one", 30)
    assert 0 < proxy.count(r"GET /download/.*parquet") <= 10


def test_a_result_that_is_replaced_while_it_is_read_is_read_again(proxy):
    publish(result("one", 30))
    proxy.fail(r"GET /download/.*parquet", lambda: publish(result("two", 30)), skip=10)
    assert read() == result("two", 30)


def test_a_result_whose_files_are_gone_is_not_asked_for_forever(proxy):
    publish(result("one"))
    for name in objects():
        if name.endswith(".parquet"):
            bucket().blob(name).delete()
    with pytest.raises(ServiceError, match="changed while it was read, 3 times"):
        read()


def test_a_file_that_is_not_what_was_published_is_refused(proxy):
    publish(result("one"))
    name = next(name for name in objects() if name.endswith("2.parquet"))
    bucket().blob(name).upload_from_string(b"one X")
    with pytest.raises(DataError, match=r"2\.parquet isn't what was published; run the step that wrote it again"):
        read()


def test_a_folder_without_its_record_is_refused(proxy):
    publish(result("one"))
    with pytest.raises(DataError, match=r"gs://results/runs/dataset/examples\.json is missing; give the folder"):
        read(record="examples.json")


def test_nothing_at_an_address_is_told(proxy):
    with pytest.raises(ConfigError, match=r"^nothing at gs://results/nowhere; list what is there with: gcloud storage"):
        read(GcsPath("gs://results/nowhere"))


@pytest.mark.parametrize("name", ["../../evil", "a/../../evil", "/etc/evil"])
def test_a_name_that_leads_out_of_the_folder_is_refused(proxy, tmp_path, name):
    # The emulator refuses such names, Google doesn't: the listing is another object's with the name in it.
    bucket().blob("runs/dataset/harmless").upload_from_string(b"evil")
    proxy.rewrite = (b"runs/dataset/harmless", f"runs/dataset/{name}".encode())
    with pytest.raises(DataError, match="would be written outside its folder"):
        read(record="")
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        json.dumps({"folder": "../x", "files": {}}).encode(),
        json.dumps({"folder": "0-" + "a" * 16, "files": {"../evil": {"size": 1, "sha256": "0"}}}).encode(),
        json.dumps({"folder": "0-" + "a" * 16, "files": {"a": {"size": "1"}}}).encode(),
    ],
)
def test_a_damaged_published_json_is_told(proxy, content):
    bucket().blob("runs/dataset/published.json").upload_from_string(content)
    with pytest.raises(DataError, match=r"dataset/published\.json is damaged; remove it, and run the step"):
        read()


def test_one_file_of_a_published_result_is_fetched_by_its_name_in_the_result(proxy):
    publish(result("one"))
    assert fetch_file(f"{OUT}/tiles/3.parquet").read_text() == "one 3"
    publish(result("two"))
    path = fetch_file(f"{OUT}/tiles/3.parquet")
    assert (path.name, path.read_text()) == ("3.parquet", "two 3")
    with pytest.raises(ConfigError, match="no object at"):
        fetch_file(f"{OUT}/tiles/9.parquet")


# Disks that are full


def test_a_full_disk_while_a_result_is_made_names_the_temporary_folder(proxy):
    told = r"^no space left while writing gs://results/runs/dataset; free some in \S+, or set \$TMPDIR"
    with pytest.raises(ServiceError, match=told), atomic_folder(OUT), Path("/dev/full").open("w") as file:
        file.write("x")
        file.flush()
    assert objects() == []


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_while_a_folder_is_fetched_names_the_cache_and_leaves_no_half_file(proxy, tmp_path, monkeypatch):
    publish({"dataset.json": "x", "large": "y" * 3_000_000})
    with small_disk(tmp_path / "small", "1m"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "small"))
        told = (
            r"^can't keep gs://results/runs/dataset in .*: No space left on device; free some, or set \$XDG_CACHE_HOME"
        )
        with pytest.raises(ServiceError, match=told):
            read()
        assert {path.name for path in (tmp_path / "small").rglob("*") if path.is_file()} <= {"dataset.json"}


# Many at once


def test_files_are_uploaded_and_downloaded_side_by_side(proxy):
    met = [threading.Barrier(4, timeout=60) for _ in range(2)]
    proxy.fail(FILE, met[0].wait, times=4)
    publish(result("one", 23))
    proxy.fail(r"GET .*runs%2Fdataset%2F\d+-.*alt=media", met[1].wait, times=4)
    assert read() == result("one", 23)
    assert not any(fault.times for fault in proxy.faults)
    assert not any(barrier.broken for barrier in met)


# A record of its own


def test_a_record_in_a_bucket_is_replaced_in_one_step_and_leaves_results_alone(proxy):
    record = OUT / "last-run.json"
    assert read_json_file(record) is None
    publish(result("one"))
    write_json_file(record, {"run": 1})
    write_json_file(record, {"run": 2})
    assert read_json_file(record) == {"run": 2}
    publish(result("two"))
    assert read_json_file(record) == {"run": 2}
    assert read() == result("two")


def test_a_record_is_written_through_faults_and_told_of_when_it_cannot_be(proxy):
    proxy.fail(r"POST /upload/.*last-run", 503, times=2)
    write_json_file(OUT / "last-run.json", {"run": 1})
    assert read_json_file(OUT / "last-run.json") == {"run": 1}
    proxy.fail(r"POST /upload/.*last-run", 403, times=99)
    with pytest.raises(ServiceError, match=r"not allowed to write gs://results/runs/dataset/last-run\.json"):
        write_json_file(OUT / "last-run.json", {"run": 2})
    proxy.fail(r"GET .*last-run", 403, times=99)
    with pytest.raises(ServiceError, match="not allowed to read"):
        read_json_file(OUT / "last-run.json")


def test_a_damaged_record_is_told(proxy):
    bucket().blob("runs/dataset/last-run.json").upload_from_string(b"{")
    with pytest.raises(DataError, match=r"last-run\.json is damaged"):
        read_json_file(OUT / "last-run.json")


def test_a_result_in_a_bucket_is_had_by_the_same_functions_as_one_here(proxy):
    assert not has_result(OUT, "dataset.json")
    assert not any(local_folder(OUT, may_be_absent=True).iterdir())
    publish({"dataset.json": "{}", "a.txt": "a"})
    assert has_result(OUT, "dataset.json")
    assert (local_folder(OUT, "dataset.json") / "a.txt").read_text() == "a"
    assert local_file(OUT / "a.txt").read_text() == "a"
    with pytest.raises(DataError, match=r"other\.json"):
        local_folder(OUT, "other.json")
