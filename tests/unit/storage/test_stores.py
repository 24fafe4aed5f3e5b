"""The same promises on every kind of store: conditions, results that appear whole, faults in between, and kills."""

import json
import re
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sat_xception.errors import ConfigError, DataError, ServiceError
from sat_xception.storage import (
    atomic_folder,
    fetch_file,
    fetch_folder,
    is_committed,
    list_files,
    marked_below,
    read_stored_bytes,
    remove_committed,
    remove_files,
    stored_path,
    upload_with_marker,
    write_stored_bytes,
)
from sat_xception.storage import store as stores
from sat_xception.storage.local import LocalStore
from sat_xception.storage.probe import probe
from sat_xception.storage.store import AbsentError, ConflictError, open_store
from tests.storage_proxy import passing_on

# Google's client leaves the body of a refused download unread, and its connection to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def publish(files: dict[str, str], out: Path) -> None:
    with atomic_folder(out, record="dataset.json") as work:
        for name, text in files.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_text(text)


def read(out: Path) -> dict[str, str]:
    folder = fetch_folder(out, "dataset.json")
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def result(name: str, count: int = 2) -> dict[str, str]:
    return {"dataset.json": name, **{f"tiles/{index}.parquet": f"{name} {index}" for index in range(count)}}


# The interface


def test_an_object_is_written_under_conditions_and_read_whole_and_in_parts(backend, tmp_path):
    with open_store(backend.root) as store:
        name = store.name_of(backend.root / "a b" / "ü%.txt")
        assert store.find(name) is None and store.read_version(name) is None
        with pytest.raises(AbsentError):
            store.read(name)
        store.put(name, b"one", expected="")
        first = store.read_version(name)
        assert first is not None and first[0] == b"one"
        with pytest.raises(ConflictError):
            store.put(name, b"other", expected="")
        store.put(name, b"second", expected=first[1])
        for expected in (first[1], ""):
            with pytest.raises(ConflictError):
                store.put(name, b"third", expected=expected)
        with pytest.raises(ConflictError):
            store.put(f"{name}-none", b"x", expected=first[1])
        assert store.read(name) == b"second"
        assert [store.read_range(name, *part) for part in ((0, 3), (2, 99), (6, 5), (99, 1))] == [
            b"sec",
            b"cond",
            b"",
            b"",
        ]
        found = store.find(name)
        assert found is not None and (found.name, found.size) == (name, 6)
        assert list(store.list(store.name_of(backend.root) + "/")) == [found]
        store.download(name, tmp_path / "copy", found.version)
        assert (tmp_path / "copy").read_bytes() == b"second"
        store.put(name, b"replaced")
        if backend.name != "gs":  # Its emulator answers with the current version, whichever is asked for.
            with pytest.raises(AbsentError):
                store.download(name, tmp_path / "copy", found.version)
        store.delete(name)
        store.delete(name)
        assert store.find(name) is None
        assert store.address_of(name) == backend.root / "a b" / "ü%.txt"


def test_small_files_are_written_and_kept_and_listed_and_removed(backend):
    folder = backend.root / "c"
    assert list_files(folder) == [] and read_stored_bytes(folder / "x.json") is None
    write_stored_bytes(b"1", folder / "x.json")
    write_stored_bytes(b"2", folder / "x.json", keep_earlier=True)
    write_stored_bytes(b"", folder / "sub" / "empty", keep_earlier=True)
    assert read_stored_bytes(folder / "x.json") == b"1"
    write_stored_bytes(b"3", folder / "x.json")
    assert read_stored_bytes(folder / "x.json") == b"3"
    write_stored_bytes(b"beside", backend.root / "cc")
    assert list_files(folder) == [folder / "sub" / "empty", folder / "x.json"]
    remove_files(folder)
    assert list_files(folder) == [] and read_stored_bytes(backend.root / "cc") == b"beside"


def one_of_two_wins(backend, pairs: int) -> None:
    with open_store(backend.root) as store, ThreadPoolExecutor(2) as pool:
        name = store.name_of(backend.root / "pointer")
        version = ""
        store.prepare(store.name_of(backend.root))
        for turn in range(pairs):
            ready = threading.Barrier(2)

            def write(who: int, version=version, turn=turn, ready=ready) -> bytes | None:
                content = f"{turn} {who}".encode()
                ready.wait(30)
                try:
                    store.put(name, content, expected=version)
                except ConflictError:
                    return None
                return content

            won = [content for content in pool.map(write, range(2)) if content]
            found = store.read_version(name)
            assert found is not None and won == [found[0]], turn
            version = found[1]


def test_of_two_writers_at_once_one_wins(backend):
    one_of_two_wins(backend, 10)


@pytest.mark.slow
def test_of_two_writers_at_once_one_wins_200_times(backend):
    one_of_two_wins(backend, 200)


# Results


def test_a_result_is_replaced_whole_and_the_same_one_isnt_uploaded_again(bucket_of_any_kind):
    out, proxy = bucket_of_any_kind.root / "dataset", bucket_of_any_kind.proxy
    publish(result("one"), out)
    assert read(out) == result("one")
    seen = []
    proxy.fail(bucket_of_any_kind.writes(r"published\.json"), lambda: seen.append(read(out)))
    publish(result("two"), out)
    assert seen == [result("one")] and read(out) == result("two")
    assert fetch_file(f"{out}/tiles/1.parquet").read_text() == "two 1"
    assert len(list_files(out)) == 4
    writes = proxy.count(bucket_of_any_kind.writes(r"parquet"))
    publish(result("two"), out)
    assert proxy.count(bucket_of_any_kind.writes(r"parquet")) == writes
    ids = json.loads(read_stored_bytes(out / "published.json"))["id"]
    assert re.fullmatch("[0-9a-f]{32}", ids)


def test_a_result_outlasts_a_store_that_stumbles(bucket_of_any_kind):
    out, proxy = bucket_of_any_kind.root / "dataset", bucket_of_any_kind.proxy
    publish(result("0"), out)
    for action in (429, 500, 503, "reset", "lost", "slow"):
        for name in (r"parquet", r"published\.json"):
            proxy.fail(bucket_of_any_kind.writes(name), action, times=1 if action == "slow" else 2)
        publish(result(f"{action}"), out)
        assert not any(fault.times for fault in proxy.faults), action
        for name in (r"parquet", r"published\.json"):
            way = "cut" if action == "lost" else action
            proxy.fail(bucket_of_any_kind.reads(name), way, times=1 if action == "slow" else 2)
        assert read(out) == result(f"{action}")
        assert len(list_files(out)) == 4
    assert not any(fault.times for fault in proxy.faults)


def test_a_run_that_is_lost_at_any_write_leaves_the_earlier_result(bucket_of_any_kind, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    out, proxy = bucket_of_any_kind.root / "dataset", bucket_of_any_kind.proxy
    publish(result("one"), out)
    monkeypatch.setattr(stores, "_TRANSFER_S", 0)
    monkeypatch.setattr(stores, "_LOOK_S", 0)
    done, index = False, 0
    while not done:
        # Whatever this process asks for after a number of requests doesn't reach the store.
        proxy.fail(r"^(PUT|POST|DELETE) ", "reset", times=10_000, skip=index)
        try:
            publish(result("two"), out)
            done = True
        except (ServiceError, ConfigError):
            index += 1
        proxy.faults.clear()
        assert read(out) in ([result("two")] if done else [result("one"), result("two")]), index
        if read(out) == result("two"):
            break
    assert index >= 4
    publish(result("three"), out)
    assert read(out) == result("three") and len(list_files(out)) == 4


PUBLISH = """
import sys
from sat_xception.storage import atomic_folder, stored_path
with atomic_folder(stored_path(sys.argv[1]), record="dataset.json") as work:
    (work / "dataset.json").write_text("two")
    for index in range(40):
        (work / f"{index:03d}.parquet").write_text(f"two {index}")
"""


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_where_it_ended(bucket_of_any_kind):
    out, proxy = bucket_of_any_kind.root / "dataset", bucket_of_any_kind.proxy
    publish(result("one"), out)
    uploaded = threading.Event()
    pattern = bucket_of_any_kind.writes("parquet")
    proxy.fail(pattern, uploaded.set, skip=20)
    with subprocess.Popen([sys.executable, "-c", PUBLISH, str(out)], stderr=subprocess.DEVNULL) as child:
        assert uploaded.wait(120)
        child.kill()
    assert read(out) == result("one")
    before = proxy.count(pattern)
    subprocess.run([sys.executable, "-c", PUBLISH, str(out)], check=True, stderr=subprocess.DEVNULL)
    assert proxy.count(pattern) - before <= 25
    assert len(read(out)) == 41 and len(list_files(out)) == 42


def test_the_second_of_two_runs_is_told_and_a_refusal_from_nowhere_is_no_success(bucket_of_any_kind, tmp_path):
    out, proxy = bucket_of_any_kind.root / "dataset", bucket_of_any_kind.proxy
    publish(result("one"), out)
    proxy.fail(bucket_of_any_kind.writes(r"published\.json"), lambda: publish(result("theirs"), out))
    with pytest.raises(ServiceError, match=rf"^somebody else published to {out} while this ran"):
        publish(result("ours"), out)
    assert read(out) == result("theirs")
    proxy.fail(bucket_of_any_kind.writes(r"published\.json"), 412)
    with pytest.raises(ServiceError, match="somebody else published"):
        publish(result("ours"), out)
    assert read(out) == result("theirs") and len(list_files(out)) == 4


def test_a_file_that_isnt_what_was_published_is_refused(bucket_of_any_kind):
    out = bucket_of_any_kind.root / "dataset"
    publish(result("one"), out)
    name = next(path for path in list_files(out) if path.name == "1.parquet")
    write_stored_bytes(b"one X", name)
    with pytest.raises(DataError, match=r"1\.parquet isn't what was published"):
        read(out)


def test_a_folder_that_was_copied_into_a_bucket_is_read_as_it_is(bucket_of_any_kind):
    out = bucket_of_any_kind.root / "dataset"
    files = {name: name for name in ("dataset.json", "school/1.jpg", "not school/ü.jpg")}
    for name in files:
        write_stored_bytes(name.encode(), out / name)
    # Consoles make an object with a slash at the end of its name to show an empty folder.
    if bucket_of_any_kind.name == "gs":
        with open_store(out) as store:
            store.put(f"{out.object}/empty/", b"")
    else:
        write_stored_bytes(b"", out / "empty")  # the library can't write the slash
        bucket_of_any_kind.proxy.rewrite = (b"runs/dataset/empty<", b"runs/dataset/empty/<")
        bucket_of_any_kind.proxy.fail("HEAD .*dataset/empty", 404, times=2)
    write_stored_bytes(b"", out / "school" / "empty.txt")
    files["school/empty.txt"] = ""
    assert read(out) == files
    bucket_of_any_kind.proxy.rewrite = (b"", b"")
    write_stored_bytes(b"changed", out / "school" / "1.jpg")
    assert read(out) == files | {"school/1.jpg": "changed"}


def test_a_version_counts_once_its_marker_is_there(bucket_of_any_kind, tmp_path):
    root, proxy = bucket_of_any_kind.root / "models", bucket_of_any_kind.proxy
    for name in ("variables", "saved_model.pb", "digests.json"):
        (tmp_path / "version").mkdir(exist_ok=True)
        (tmp_path / "version" / name).write_text(name)
    last = ("saved_model.pb", "digests.json")
    seen = []
    proxy.fail(bucket_of_any_kind.writes("digests.json"), lambda: seen.append(is_committed(root / "1", last[-1])))
    proxy.fail(bucket_of_any_kind.writes("digests.json"), "lost")
    upload_with_marker(tmp_path / "version", root / "1", last)
    assert seen == [False] and is_committed(root / "1", last[-1])
    assert marked_below(root, last[-1]) == [root / "1"]
    with pytest.raises(ConfigError, match="is there already, and never changes"):
        upload_with_marker(tmp_path / "version", root / "1", last)
    remove_committed(root / "1", last[-1])
    assert list_files(root) == []


# Errors, with advice


def test_a_refusal_and_an_absent_bucket_and_a_gone_store_are_told(bucket_of_any_kind, monkeypatch):
    monkeypatch.setattr(stores, "_TRANSFER_S", 0)
    monkeypatch.setattr(stores, "_LOOK_S", 0)
    out, proxy = bucket_of_any_kind.root / "dataset", bucket_of_any_kind.proxy
    publish(result("one"), out)
    with open_store(out) as store:
        reading, writing = store.advice.reading, store.advice.writing
    for pattern, act, permission in (("GET", read, reading), ("^(PUT|POST)", lambda out: publish({}, out), writing)):
        proxy.fail(pattern, 403, times=99)
        with pytest.raises(ServiceError, match=rf"^not allowed to \w+ {out}.*Grant {permission} on {out.scheme}"):
            act(out)
        proxy.faults.clear()
    absent = stored_path(f"{out.scheme}no-such-bucket/a")
    with pytest.raises(ConfigError, match=r"See whether the bucket is there: .*no-such-bucket"):
        publish({}, absent)
    assert read_stored_bytes(absent / "x") is None
    with pytest.raises(ConfigError, match=rf"^no object at {out}/none; list what is there with: "):
        fetch_file(f"{out}/none")
    proxy.fail("", "reset", times=1000)
    with pytest.raises(ServiceError, match=r"Check the network, then run again") as caught:
        read(out)
    assert "?" not in str(caught.value), "a query may hold a secret"


@pytest.mark.parametrize("scheme", ["s3", "az"])
def test_without_the_client_library_the_extra_is_named(monkeypatch, scheme):
    monkeypatch.setitem(sys.modules, "obstore", None)
    extra = {"s3": "s3", "az": "azure"}[scheme]
    with pytest.raises(ConfigError, match=rf"needs obstore: pip install 'sat-xception\[{extra}\]'"):
        read_stored_bytes(stored_path(f"{scheme}://bucket/a"))


def test_settings_that_are_wrong_are_told(monkeypatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", "/none.pem")
    with pytest.raises(ConfigError, match=r"can't read \$AWS_CA_BUNDLE /none\.pem: No such file"):
        read_stored_bytes(stored_path("s3://bucket/a"))
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r"can't open az://bucket/a: .*[Aa]ccount.*Set AZURE_STORAGE_ACCOUNT_NAME"):
        read_stored_bytes(stored_path("az://bucket/a"))


def test_a_store_with_a_certificate_of_an_own_authority_is_trusted_by_its_bundle(s3, monkeypatch, tmp_path):
    trustme = pytest.importorskip("trustme")
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with passing_on(f"http://{s3.proxy.emulator}", tls) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://localhost:{proxy.server_port}")
        monkeypatch.setattr(stores, "_LOOK_S", 0)
        with pytest.raises(ServiceError, match="Check the network"):
            read_stored_bytes(s3.root / "x")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
        write_stored_bytes(b"1", s3.root / "x")
        assert read_stored_bytes(s3.root / "x") == b"1"


# A store that can't compare and swap


@pytest.mark.parametrize("answer", ["ignores", "refuses"])
def test_a_store_that_cant_swap_is_found_out_and_used_with_a_warning(s3, caplog, answer, monkeypatch):
    monkeypatch.setattr(stores, "_LOOK_S", 2)
    out = s3.root / "dataset"
    if answer == "ignores":
        s3.proxy.without = ("if-match", "if-none-match")
    else:
        s3.proxy.conditions = 501
    seen = []
    with atomic_folder(out) as work:
        seen += [message for message in caplog.messages if "can't compare and swap" in message]
        for name, text in result("one").items():
            (work / name).parent.mkdir(exist_ok=True)
            (work / name).write_text(text)
    assert len(seen) == 1 and "Let only one run write to an address at a time" in seen[0]
    assert read(out) == result("one")
    publish(result("two"), out)
    assert read(out) == result("two") and len(list_files(out)) == 4
    write_stored_bytes(b"1", out / "x", keep_earlier=True)
    write_stored_bytes(b"2", out / "x", keep_earlier=True)
    assert read_stored_bytes(out / "x") == b"1"
    # A writer that finished long before the end is still found.
    s3.proxy.fail(s3.writes("dataset.json"), lambda: publish(result("theirs"), out))
    with pytest.raises(ServiceError, match="somebody else published"):
        publish(result("ours"), out)
    assert len([message for message in caplog.messages if "can't compare and swap" in message]) == 1


def test_a_store_that_can_swap_is_used_without_a_word(s3, caplog):
    publish(result("one"), s3.root / "dataset")
    write_stored_bytes(b"1", s3.root / "x", keep_earlier=True)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(list_files(s3.root)) == 5, "the probe leaves nothing"


class ComparesFirst(LocalStore):
    """A store that compares, and writes a little later."""

    def put(self, name, content, expected=None, patient=True) -> str:
        found = self.find(name)
        if expected is not None and (found.version if found else "") != expected:
            raise ConflictError(name)
        threading.Event().wait(0.1)
        return super().put(name, content)


@pytest.mark.parametrize(("kind", "can"), [(LocalStore, True), (ComparesFirst, False)])
def test_a_store_that_compares_first_and_writes_later_is_found_out(tmp_path, kind, can):
    store = kind(tmp_path)
    put: Callable[[str, bytes, str], str] = store.put
    assert probe(store, str(tmp_path / "check"), put) is can
    assert list_files(tmp_path) == []
