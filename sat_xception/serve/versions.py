"""Poll a model's folder: serve its newest version, and swap to a newer one without a failed request.

The rules are TensorFlow Serving's defaults (the latest version is served, and a new one is loaded before the old one is
unloaded), with three differences that favour availability: if the newest version doesn't load, the next older one is
served; a version that failed to load is tried again when its files change; and if the folder becomes empty, the loaded
version stays.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sat_xception.errors import ConfigError, ModelError, SatXceptionError
from sat_xception.log import get_logger
from sat_xception.serve.models import SavedModelSession
from sat_xception.serve.protocol import Code, RequestError, VersionStatus
from sat_xception.serve.warmup import warm_up
from sat_xception.served_model.model_root import find_versions, here

__all__ = ["ModelVersions", "ServedVersion"]

_log = get_logger(__name__)
_Fingerprint = tuple[tuple[str, int, int], ...]


@dataclass
class ServedVersion:
    """A loaded version.

    Attributes:
        number: Number of the version.
        model: The loaded model.
        users: Number of requests that are running on it.
    """

    number: int
    model: SavedModelSession
    users: int = 0


class ModelVersions:
    """The versions of one model. `poll` is called by one thread, everything else by any.

    A replaced version is unloaded at the first poll after its last request.
    """

    def __init__(self, model_root: Path, name: str) -> None:
        """Create the object; nothing is loaded before `start`.

        Args:
            model_root: Local folder or address in a bucket that holds `<name>/<version>/`.
            name: Name of the model.
        """
        self.name = name
        self.folder = model_root / name
        self._lock = threading.Lock()
        self._current: ServedVersion | None = None
        self._retired: list[ServedVersion] = []
        self._statuses: dict[int, VersionStatus] = {}
        self._failed: dict[int, _Fingerprint] = {}

    def start(self, wait: bool = False) -> int | None:
        """Load the newest version that loads.

        Args:
            wait: Whether a missing or empty folder is accepted; `poll` then loads the first version.

        Returns:
            Number of the version; None if there is none yet.

        Raises:
            ConfigError: There is no version in the folder, or no such bucket.
            ModelError: There are versions, but none loads.
            ServiceError: The bucket can't be read.
        """
        try:
            found = find_versions(self.folder)
        except OSError:
            found = {}
        if not found and wait:
            return None
        if not found:
            raise ConfigError(
                f"no version of {self.name!r} to serve in {self.folder}: --model-root {self.folder.parent} must be the "
                f"parent of <name>/<version>/saved_model.pb, with a whole number as <version>; --name is {self.name}"
            )
        self.poll()
        if self._current is None:
            errors = "; ".join(status.error_message for status in self.statuses(self.name))
            raise ModelError(f"none of the {len(found)} versions in {self.folder} loads: {errors}")
        return self._current.number

    def poll(self) -> None:
        """Look at the folder once: unload replaced versions, load a newer one, and forget removed ones."""
        self._unload_retired()
        try:
            found = find_versions(self.folder)
        except (OSError, SatXceptionError) as error:
            # Before the first version appears, the folder may not exist.
            if self._current is not None or not isinstance(error, FileNotFoundError):
                _log.warning("serve     can't list %s, still serving what is loaded: %s", self.folder, error)
            return
        self._forget_missing(found)
        for number in sorted(found, reverse=True):
            if self._current is not None and number == self._current.number:
                return
            try:
                path = here(found[number])
            except SatXceptionError as error:
                _log.warning("serve     version %d can't be fetched; again at the next look: %s", number, error)
                self._set(VersionStatus(number, "END", Code.UNAVAILABLE.name, str(error)))
                continue
            fingerprint = _fingerprint(path)
            if self._failed.get(number) == fingerprint:
                continue
            model = self._load(number, path)
            if model is not None:
                self._swap(ServedVersion(number, model))
                return
            self._failed[number] = fingerprint

    def stop(self) -> None:
        """Unload the models. Requests must have ended."""
        self._unload_retired()
        with self._lock:
            if self._current is not None:
                self._current.model.close()
                self._current = None

    @contextmanager
    def lease(self, name: str, version: int | None = None) -> Iterator[ServedVersion]:
        """Keep a version loaded while a request runs on it.

        Args:
            name: Requested model.
            version: Pinned version. Default: the one that is served.

        Raises:
            RequestError: NOT_FOUND: another model, or a version that isn't loaded.
        """
        with self._lock:
            served = self._current
            if served is None or name != self.name or version not in (None, served.number):
                asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
                loaded = "none" if served is None else f"{self.name} version {served.number}"
                raise RequestError(Code.NOT_FOUND, f"Servable not found for request: {asked}; loaded: {loaded}")
            served.users += 1
        try:
            yield served
        finally:
            with self._lock:
                served.users -= 1

    @contextmanager
    def hold(self, served: ServedVersion) -> Iterator[None]:
        """Keep a leased version loaded beyond its lease."""
        with self._lock:
            served.users += 1
        try:
            yield
        finally:
            with self._lock:
                served.users -= 1

    def loaded(self) -> int | None:
        """Return the number of the version that answers, or None."""
        with self._lock:
            return self._current.number if self._current else None

    def statuses(self, name: str, version: int | None = None) -> list[VersionStatus]:
        """Return the state of one version, or of all known versions, the highest first.

        Args:
            name: Requested model.
            version: Requested version. Default: all.

        Raises:
            RequestError: NOT_FOUND: another model, or an unknown version.
        """
        with self._lock:
            numbers = [number for number in sorted(self._statuses, reverse=True) if version in (None, number)]
            if numbers and name == self.name:
                return [self._statuses[number] for number in numbers]
        missing = "any versions" if version is None else f"version {version}"
        raise RequestError(Code.NOT_FOUND, f"Could not find {missing} of model {name}; this server has {self.name!r}")

    def _load(self, number: int, path: Path) -> SavedModelSession | None:
        self._set(VersionStatus(number, "LOADING"))
        model: SavedModelSession | None = None
        try:
            model = SavedModelSession(path)
            requests = warm_up(model)
        except ModelError as error:
            if model is not None:
                model.close()
            _log.error("serve     version %d is not served: %s", number, error)
            self._set(VersionStatus(number, "END", Code.INTERNAL.name, str(error)))
            return None
        _log.info("serve     version %d is loaded (%d warm-up requests)", number, requests)
        return model

    def _swap(self, new: ServedVersion) -> None:
        with self._lock:
            old, self._current = self._current, new
            self._failed.pop(new.number, None)
            self._statuses[new.number] = VersionStatus(new.number, "AVAILABLE")
            if old is None:
                return
            self._statuses[old.number] = VersionStatus(old.number, "UNLOADING")
            self._retired.append(old)
        self._unload_retired()

    def _unload_retired(self) -> None:
        """Unload replaced versions without users. Not done by requests, since closing a session takes long."""
        with self._lock:
            idle = [served for served in self._retired if not served.users]
            self._retired = [served for served in self._retired if served.users]
        for served in idle:
            served.model.close()
            with self._lock:
                if served.number in self._statuses:
                    self._statuses[served.number] = VersionStatus(served.number, "END")
            _log.info("serve     version %d is unloaded", served.number)

    def _set(self, status: VersionStatus) -> None:
        if status.version is not None:
            with self._lock:
                self._statuses[status.version] = status

    def _forget_missing(self, found: dict[int, Path]) -> None:
        current = self._current.number if self._current else None
        with self._lock:
            for number in [n for n in self._statuses if n not in found and n != current]:
                del self._statuses[number]
                self._failed.pop(number, None)


def _fingerprint(path: Path) -> _Fingerprint:
    """Return names, sizes and modification times of a version's files, to detect changes."""
    files = []
    for file in sorted(path.rglob("*")):
        try:
            facts = file.stat()
        except FileNotFoundError:  # the version is being moved or removed
            continue
        files.append((file.relative_to(path).as_posix(), facts.st_size, facts.st_mtime_ns))
    return tuple(files)
