"""A disk that is full or read-only is told in one way, with exit code 4, whichever library writes."""

import errno
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sat_xception.errors import ConfigError, DataError, ServiceError
from sat_xception.storage import atomic_folder, reporting_disk_errors, write_error, write_json_file, write_stored_bytes
from sat_xception.storage.writing import disk_errno

UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]
OF_THE_DISK = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG]
OF_THE_PLACE = [errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR]


def system_error(number: int) -> OSError:
    return OSError(number, os.strerror(number), "scores/run.json")


@pytest.mark.parametrize("number", OF_THE_DISK)
def test_the_disk_is_exit_code_4(number):
    assert write_error(system_error(number), "scores").exit_code == 4
    with pytest.raises(ServiceError, match=r"scores/run\.json.*free some"), reporting_disk_errors():
        raise system_error(number)


@pytest.mark.parametrize("number", OF_THE_PLACE)
def test_a_place_that_cannot_be_written_is_exit_code_2(number):
    error = write_error(system_error(number), "scores")
    assert error.exit_code == 2 and "name another folder" in str(error)
    with pytest.raises(OSError, match=r"scores/run\.json"), reporting_disk_errors():  # it may be one that was read
        raise system_error(number)


def test_what_led_to_an_error_is_looked_at():
    with pytest.raises(ServiceError, match="no space left while writing model"), reporting_disk_errors("model"):
        try:
            raise system_error(errno.ENOSPC)
        except OSError:
            raise ValueError("Can't close the ZIP file while there is an open writing handle on it") from None
    assert disk_errno(RuntimeError("OOM when allocating tensor")) is None


def test_other_errors_and_ours_pass():
    for error in (DataError("3"), ValueError("x"), KeyError("y")):
        with pytest.raises(type(error)), reporting_disk_errors():
            raise error


def limited(size: int):
    """Let no file of this process become larger, for the length of a block."""

    class Limit:
        def __enter__(self):
            self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, self.before[1]))

        def __exit__(self, *_):
            resource.setrlimit(resource.RLIMIT_FSIZE, self.before)

    return Limit()


def test_small_files_and_folders_are_told_alike_and_nothing_is_left(tmp_path):
    with limited(1000):
        with pytest.raises(ServiceError):
            write_stored_bytes(b"x" * 5000, tmp_path / "a" / "shard.parquet")
        with pytest.raises(ServiceError):
            write_json_file(tmp_path / "b" / "run.json", {"x": "y" * 5000})
        with pytest.raises(ServiceError), atomic_folder(tmp_path / "c") as work:
            (work / "model.keras").write_bytes(b"x" * 5000)
        with pytest.raises(ServiceError), atomic_folder(tmp_path / "d") as work:
            np.save(work / "features.npy", np.zeros(5000))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError):
        write_stored_bytes(b"", tmp_path / "file" / "below")


def test_sqlite_is_told_alike(tmp_path):
    with limited(10_000), pytest.raises(ServiceError, match="bench"), reporting_disk_errors("bench"):
        database = sqlite3.connect(tmp_path / "x.sqlite")
        try:
            database.execute("PRAGMA max_page_count = 3")
            database.execute("CREATE TABLE t (a BLOB)")
            database.execute("INSERT INTO t VALUES (zeroblob(100000))")
        finally:
            database.close()


def test_tensorflow_is_told_alike(tmp_path):
    import tensorflow as tf

    from sat_xception.model.parts import Epoch
    from sat_xception.model.tensorboard import TensorBoardWriter

    model = tf.Module()
    model.weights = tf.Variable(tf.random.uniform([30_000]))
    told = rf"^a file of {tmp_path}/package is larger than this system lets it be"
    with limited(50_000), pytest.raises(ServiceError, match=told), atomic_folder(tmp_path / "package") as work:
        tf.saved_model.save(model, str(work / "export"))
    assert not list(tmp_path.iterdir())
    row = {"loss": 0.5, "accuracy": 0.5, "learning_rate": 0.1, "val_loss": 0.5, "val_accuracy": 0.5}
    events = tmp_path / "events"
    with limited(2000), pytest.raises(ServiceError, match=rf"^a file of {events}/train is larger"):
        with reporting_disk_errors(events), TensorBoardWriter(events) as board:
            for epoch in range(1, 1000):
                board.add(Epoch(phase="head", epoch=epoch, **row))


TENSORFLOW = """
import sys, pathlib
import tensorflow as tf
from sat_xception.errors import SatXceptionError
from sat_xception.model.parts import Epoch
from sat_xception.model.tensorboard import TensorBoardWriter
from sat_xception.storage import atomic_folder, reporting_disk_errors
full, read_only = map(pathlib.Path, sys.argv[1:])

class Model(tf.Module):
    def __init__(self):
        self.weights = tf.Variable(tf.random.uniform([300_000]))

def package():
    with atomic_folder(full / "package") as work:
        tf.saved_model.save(Model(), str(work / "export"))

def fill():
    try:
        with open(full / "fill", "wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
    except OSError:
        pass

def board(folder):
    with reporting_disk_errors(folder), TensorBoardWriter(folder) as board:
        board.on_step()

def fill_midway():
    with open(full / "fill", "r+b") as file:
        file.truncate(file.seek(0, 2) - 12 * 1024)
    row = {"loss": 0.5, "accuracy": 0.5, "learning_rate": 0.1, "val_loss": 0.5, "val_accuracy": 0.5}
    with reporting_disk_errors(full), TensorBoardWriter(full / "midway") as board:
        for epoch in range(1, 1000):
            board.add(Epoch(phase="head", epoch=epoch, **row))

for work in (package, lambda: (fill(), board(full / "events")), fill_midway, lambda: board(read_only / "events")):
    try:
        work()
        print("no error")
    except SatXceptionError as error:
        print(error.exit_code, error)
"""


@pytest.mark.slow
def test_tensorflow_tells_of_disks_that_are_full_and_read_only(tmp_path):
    for name in ("full", "read-only"):
        (tmp_path / name).mkdir()
    mounted = 'mount -t tmpfs -o size=200k tmpfs "$1" && mount -t tmpfs -o ro tmpfs "$2"'
    probe = [*UNSHARE, "sh", "-c", mounted, "sh", tmp_path / "full", tmp_path / "read-only"]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this system doesn't let us mount a file system of our own")
    script = tmp_path / "writes.py"
    script.write_text(TENSORFLOW)
    command = [*UNSHARE, "sh", "-c", f'{mounted} && shift 0 && exec "$0" "$3" "$1" "$2"', sys.executable]
    command += [tmp_path / "full", tmp_path / "read-only", script]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, env=environment)
    package, full, midway, read_only = done.stdout.splitlines()[-4:]
    assert package.startswith(f"4 no space left while writing {tmp_path}/full/package; free some"), done.stdout
    assert full.startswith(f"4 no space left while writing {tmp_path}/full/events"), done.stdout
    assert midway.startswith(f"4 no space left while writing {tmp_path}/full/midway"), done.stdout
    assert read_only.startswith(f"4 can't write {tmp_path}/read-only/events/train: Read-only file system"), done.stdout
