"""What killed runs leave in folders and files is removed by the next run; that of runs that go on is never touched."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from sat_xception.storage import atomic_folder, partial_file, scratch_folder, write_stored_bytes
from sat_xception.storage.scratch import new_folder, sweep

WORKS = """
import sys, time, pathlib
from sat_xception.storage import atomic_folder, partial_file, write_stored_bytes, scratch_folder
place = pathlib.Path(sys.argv[1])
with scratch_folder(parent=place) as scratch, atomic_folder(place / "result") as work:
    (scratch / "half").write_text("a")
    (work / "half").write_text("b")
    print("ready", flush=True)
    time.sleep(300)
"""


@pytest.fixture
def working(tmp_path):
    """A process that works in temporary folders."""
    process = subprocess.Popen([sys.executable, "-c", WORKS, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_folders_of_a_run_that_goes_on_stay_and_those_of_a_killed_one_go(tmp_path, working):
    before = names(tmp_path)
    assert len(before) == 2
    with scratch_folder(parent=tmp_path), atomic_folder(tmp_path / "other"):
        pass
    assert names(tmp_path) == sorted([*before, "other"])
    working.kill()
    working.wait()
    assert names(tmp_path) == sorted([*before, "other"])
    with scratch_folder(parent=tmp_path), atomic_folder(tmp_path / "result") as work:
        (work / "dataset.json").write_text("{}")
    assert names(tmp_path) == ["other", "result"]


def test_what_only_looks_like_one_stays(tmp_path):
    kept = [
        ".result-backup01",
        ".result-abcdef-notes",
        "sat-xception-abcdef-12345678-evaluation",
        ".result-convert-0123",
    ]
    for name in kept:
        (tmp_path / name).mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    link = new_folder("sat-xception-", tmp_path)
    link.rmdir()
    link.symlink_to(outside)
    for prefix in ("sat-xception-", ".result-"):
        sweep(tmp_path, prefix)
    assert names(tmp_path) == sorted([*kept, "outside", link.name])


def test_folders_of_other_machines_stay_for_a_day(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    folder = new_folder("sat-xception-", tmp_path)
    (folder / "file").touch()
    monkeypatch.undo()
    sweep(tmp_path, "sat-xception-")
    assert folder.exists()
    yesterday = time.time() - 25 * 3600
    os.utime(folder, (yesterday, yesterday))
    sweep(tmp_path, "sat-xception-")
    assert folder.exists()  # a file in it is younger
    os.utime(folder / "file", (yesterday, yesterday))
    sweep(tmp_path, "sat-xception-")
    assert not folder.exists()


def test_a_result_that_was_out_of_the_way_at_a_kill_is_put_back(tmp_path):
    moved = new_folder(".result-old-", tmp_path)
    (moved / "dataset.json").write_text("earlier")
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "result"):
        raise ZeroDivisionError
    assert names(tmp_path) == ["result"] and (tmp_path / "result" / "dataset.json").read_text() == "earlier"
    new_folder(".result-old-", tmp_path)  # of a run that was killed after it had replaced it
    with atomic_folder(tmp_path / "result") as work:
        (work / "dataset.json").write_text("later")
    assert names(tmp_path) == ["result"] and (tmp_path / "result" / "dataset.json").read_text() == "later"


def test_a_folder_that_an_error_leaves_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ZeroDivisionError), scratch_folder() as folder:
        assert folder.parent == tmp_path
        raise ZeroDivisionError
    assert names(tmp_path) == []


def test_sigterm_leaves_nothing(tmp_path):
    code = WORKS.replace("place =", "from sat_xception.process import ending_well\nplace =").replace(
        "with scratch", "with ending_well(), scratch"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert "PreemptedError: stopped by SIGTERM" in err
    assert names(tmp_path) == []


WRITES = """
import pathlib, sys, time
from sat_xception.storage import partial_file
with partial_file(pathlib.Path(sys.argv[1]) / "run.json") as file:
    file.write(b"half")
    file.flush()
    print("ready", flush=True)
    time.sleep(300)
"""


def test_files_of_a_run_that_goes_on_stay_and_those_of_a_killed_one_go(tmp_path):
    folder = tmp_path / "scores"
    folder.mkdir()
    kept = [".run.json-abcdef-notes.part", ".run.json.17.part", "tiles-00000.part"]
    for name in kept:
        (folder / name).touch()
    process = subprocess.Popen([sys.executable, "-c", WRITES, folder], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    partial = next(path.name for path in folder.iterdir() if path.read_bytes() == b"half")
    again = (
        "import pathlib, sys; from sat_xception.storage import write_stored_bytes as write; "
        "write(b'x', pathlib.Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", again, folder / "other.json"], check=True, timeout=60)
    assert names(folder) == sorted([*kept, partial, "other.json"])
    process.kill()
    process.wait()
    process.stdout.close()
    # The next run writes another file of the same folder.
    write_stored_bytes(b"whole", folder / "scores.json")
    assert names(folder) == sorted([*kept, "other.json", "scores.json"])


def test_a_file_that_an_error_leaves_is_gone_and_the_earlier_one_stays(tmp_path):
    write_stored_bytes(b"earlier", tmp_path / "a.json")
    with pytest.raises(ZeroDivisionError), partial_file(tmp_path / "a.json") as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert names(tmp_path) == ["a.json"] and (tmp_path / "a.json").read_bytes() == b"earlier"
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o644
