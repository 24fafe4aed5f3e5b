"""Locks that end with their process."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from sat_xception.errors import ConfigError, ServiceError
from sat_xception.storage import file_lock, lock_open_file

HOLDER = """
import sys, time
from pathlib import Path
from sat_xception.storage import file_lock
with file_lock(Path(sys.argv[1]), "held"):
    print("held", flush=True)
    time.sleep(300)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path / "lock"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_lock_is_refused_with_the_message_given_and_free_once_its_holder_is_killed(holder, tmp_path):
    lock = tmp_path / "lock"
    with pytest.raises(ConfigError, match=r"^another run; wait for it$"), file_lock(lock, "another run; wait for it"):
        pytest.fail("two have it")
    with lock.open() as file:
        assert not lock_open_file(file.fileno())
    holder.kill()
    holder.wait()
    with file_lock(lock, "held"), lock.open() as file:
        assert not lock_open_file(file.fileno())
    with lock.open() as file:
        assert lock_open_file(file.fileno())


def test_who_waits_has_it_next(holder, tmp_path):
    threading.Timer(0.5, holder.kill).start()
    with file_lock(tmp_path / "lock", held=None):
        assert holder.wait() != 0


def test_it_keeps_the_locks_of_earlier_versions_out_and_what_the_file_holds(tmp_path):
    lock = tmp_path / "run"
    lock.write_text("of this run")
    with file_lock(lock, "held"):
        assert lock.read_text() == "of this run"
        with lock.open("a") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="held"), file_lock(lock, "held"):
            pytest.fail("two have it")


def test_a_folder_can_be_locked_too(tmp_path):
    one, other = (os.open(tmp_path, os.O_RDONLY) for _ in range(2))
    assert lock_open_file(one) and not lock_open_file(other)
    os.close(one)
    assert lock_open_file(other)
    os.close(other)


def test_a_file_system_without_locks_is_an_error_or_as_if_another_had_it(tmp_path, monkeypatch):
    def no_locks(descriptor, blocking):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("sat_xception.storage.lock.lock_descriptor", no_locks)
    with pytest.raises(ConfigError, match=r"can't lock .*/lock: No locks available; name a folder on a file system"):
        with file_lock(tmp_path / "lock", "held"):
            pytest.fail("nothing was locked")
    with (tmp_path / "lock").open() as file:
        assert not lock_open_file(file.fileno(), wait=True)


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (errno.ENOSPC, ServiceError, "no space left while writing --out here; tidy up"),
        (errno.EACCES, ConfigError, "can't write --out here: Permission denied; name another"),
    ],
)
def test_a_lock_file_that_cannot_be_made_is_told_as_what_it_is_for(tmp_path, monkeypatch, number, kind, message):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("sat_xception.storage.lock.os", SimpleNamespace(**vars(os) | {"open": refuse}))
    with pytest.raises(kind, match=message), file_lock(tmp_path / "lock", "held", "--out here", "tidy up"):
        pytest.fail("there is no lock")
