"""Checkpoints of a training: after a kill, the same command resumes from them.

    <folder>/<fingerprint>/features-train-00000.npz, …   rows of frozen features, in parts
    <folder>/<fingerprint>/head-0.npz, head-1.npz, …     state of each phase: the last two, written alternately

The fingerprint is a digest of everything that affects the result, so a training with other settings, data or weights
uses another folder. Each file begins with the SHA-256 of its content.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sat_xception.errors import SatXceptionError, ServiceError
from sat_xception.log import get_logger
from sat_xception.storage import list_files, read_stored_bytes, remove_empty_folder, remove_files, write_stored_bytes

__all__ = ["Checkpoints", "NoCheckpoints", "State", "fingerprint"]

_log = get_logger(__name__)
_FACTS = "facts"
_DIGITS = 64
# At the end of an epoch a checkpoint is written without waiting for the interval, unless writing would then take more
# than a twentieth of the time, by the age and duration of the last one.
_MIN_S, _SHARE = 5.0, 20


@dataclass
class State:
    """Content of one checkpoint file.

    Attributes:
        facts: Values of JSON types.
        arrays: Lists of arrays by name.
    """

    facts: dict[str, Any]
    arrays: Mapping[str, Sequence[npt.NDArray[Any]]] = field(default_factory=dict)


def fingerprint(facts: Mapping[str, object]) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of JSON values; they name the folder of a training's checkpoints."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


class Checkpoints:
    """The checkpoints of one training.

    Args:
        place: Folder or address in a bucket.
        name: Fingerprint of this training.
        every_s: Maximum seconds between two checkpoints.
        shared: Whether other trainings use the same parent folder.
    """

    def __init__(self, place: Path, name: str, every_s: float, shared: bool = True) -> None:
        """Look for checkpoints of this training."""
        self.folder = place / name
        self._place = place
        self._removable = self.folder if shared else place
        self._every_s = every_s
        self._numbers: dict[str, int] = {}
        self._written = time.monotonic()
        self._cost_s = 0.0
        found = list_files(place)
        if any(path.parent == self.folder for path in found):
            _log.info("resume    from the checkpoints in %s", self.folder)
        elif found:
            _log.info("resume    %s holds checkpoints of other settings, data or weights; they aren't used", place)

    def due(self, at_rest: bool = False) -> bool:
        """Return whether it is time to write a checkpoint.

        Args:
            at_rest: True at the end of an epoch, where a checkpoint may be written before the interval is over.
        """
        wait = min(self._every_s, max(_MIN_S, _SHARE * self._cost_s)) if at_rest else self._every_s
        return time.monotonic() - self._written >= wait

    def save(self, name: str, state: State) -> None:
        """Write the state of a phase, and replace the older one of its two files.

        Raises:
            ConfigError: The file can't be written.
            ServiceError: The bucket can't be written.
        """
        number = self._numbers.get(name, -1) + 1
        self._numbers[name] = number
        self.save_part(f"{name}-{number % 2}", State({**state.facts, "number": number}, state.arrays))

    def save_part(self, name: str, state: State) -> None:
        """Write a state under exactly this name.

        Raises:
            ConfigError: The file can't be written.
            ServiceError: The bucket can't be written.
        """
        started = time.monotonic()
        write_stored_bytes(_packed(state), self.folder / f"{name}.npz")
        self._written = time.monotonic()
        self._cost_s = self._written - started

    def load(self, name: str) -> State | None:
        """Return the last undamaged state of a phase, or None.

        Raises:
            ConfigError: A file can't be read.
            ServiceError: The bucket can't be read.
        """
        states = [state for turn in (0, 1) if (state := self.load_part(f"{name}-{turn}")) is not None]
        if not states:
            return None
        last = max(states, key=lambda state: int(state.facts["number"]))
        self._numbers[name] = int(last.facts["number"])
        return last

    def load_part(self, name: str) -> State | None:
        """Return the state saved under exactly this name, or None if it is missing or damaged.

        Raises:
            ConfigError: The file can't be read.
            ServiceError: The bucket can't be read.
        """
        path = self.folder / f"{name}.npz"
        content = read_stored_bytes(path)
        state = _unpacked(content) if content is not None else None
        if content is not None and state is None:
            _log.warning("resume    %s is damaged and isn't used; training goes on from what was written before", path)
        return state

    @contextlib.contextmanager
    def naming_what_is_kept(self) -> Iterator[None]:
        """Add the folder of the checkpoints to the message of a ServiceError, such as a full disk.

        Raises:
            ServiceError: The original error, with the folder if it holds checkpoints.
        """
        try:
            yield
        except ServiceError as error:
            try:
                kept = list_files(self.folder)
            except SatXceptionError:
                kept = []
            if not kept:
                raise
            told = f"{error}. What was learnt before is kept in {self.folder}: the same command goes on from there"
            raise ServiceError(told) from None

    def remove(self) -> None:
        """Remove every file of this training; a file that can't be removed is logged as a warning."""
        remove_files(self._removable)
        remove_empty_folder(self._place)  # it may hold checkpoints of other trainings


class NoCheckpoints(Checkpoints):
    """Null object: stores no checkpoints."""

    def __init__(self) -> None:
        """Take no folder."""
        self.folder = Path()

    def due(self, at_rest: bool = False) -> bool:
        """Return False."""
        return False

    def save_part(self, name: str, state: State) -> None:
        """Do nothing."""

    def save(self, name: str, state: State) -> None:
        """Do nothing."""

    def load(self, name: str) -> None:
        """Return None."""

    def load_part(self, name: str) -> None:
        """Return None."""


def _packed(state: State) -> bytes:
    arrays = {f"{name}/{index}": array for name, some in state.arrays.items() for index, array in enumerate(some)}
    arrays[_FACTS] = np.frombuffer(json.dumps(state.facts).encode(), np.uint8)
    buffer = io.BytesIO(b"0" * _DIGITS)
    buffer.seek(_DIGITS)
    np.savez(buffer, allow_pickle=False, **arrays)
    digest = hashlib.sha256(buffer.getbuffer()[_DIGITS:]).hexdigest()
    buffer.getbuffer()[:_DIGITS] = digest.encode()
    return buffer.getvalue()


def _unpacked(content: bytes) -> State | None:
    body = memoryview(content)[_DIGITS:]
    if hashlib.sha256(body).hexdigest().encode() != content[:_DIGITS]:
        return None
    arrays: dict[str, list[npt.NDArray[Any]]] = {}
    with np.load(io.BytesIO(body), allow_pickle=False) as stored:
        facts = json.loads(stored[_FACTS].tobytes())
        for key in stored.files:  # in the order in which they were written
            if key != _FACTS:
                arrays.setdefault(key.rpartition("/")[0], []).append(stored[key])
    return State(facts, arrays)
