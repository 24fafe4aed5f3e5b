"""Find out whether a store compares and swaps in one step, before work relies on it.

Some stores that speak S3's language ignore `If-Match` and `If-None-Match`, refuse them, or compare first and write
later (SeaweedFS before 4.34), so that of two writers at once both win.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from threading import Lock

from sat_xception.log import get_logger
from sat_xception.storage.parallel import in_parallel
from sat_xception.storage.store import ConflictError, Store

__all__ = ["Put", "probe", "swaps"]

_log = get_logger(__name__)
# Name, content and expected version, as in `Store.put`.
Put = Callable[[str, bytes, str], str]
_WRITERS = 4
_ROUNDS = 2
# What a store answers to a header that it doesn't know.
_REFUSED = (400, 405, 501)
_known: dict[tuple[str, str], bool] = {}
_lock = Lock()


def swaps(store: Store, place: str, below: str, put: Put) -> bool:
    """Return whether a bucket compares and swaps; it is tried once per process, and a warning logged if it can't.

    Args:
        store: The store.
        place: What names the service, as its address.
        below: Name of a folder that may be written to.
        put: Writes an object if its version is the expected one.
    """
    with _lock:
        key = (place, str(store.bucket_address()))
        if key not in _known:
            _known[key] = probe(store, f"{below}/0-{'0' * 16}/check-{uuid.uuid4().hex}", put)
            if not _known[key]:
                _log.warning(
                    "%s at %s can't compare and swap: of two runs that write to one address at once, one would be "
                    "lost without a word. Let only one run write to an address at a time; see docs/storage.md",
                    store.bucket_address(),
                    place,
                )
        return _known[key]


def probe(store: Store, name: str, put: Put) -> bool:
    """Return whether writes under a condition are refused when they must be, also of several writers at once.

    Args:
        store: The store.
        name: Name of an object that isn't there; it and some more are written and removed.
        put: As for `swaps`.
    """
    names = [name, *(f"{name}-{index}" for index in range(_ROUNDS))]
    try:
        first = put(name, _unique(), "")
        second = put(name, _unique(), first)
        if any(_wins(put, name, expected) for expected in ("", first)):
            return False
        races = [(other, "") for other in names[1:]] + [(name, second)]
        return all(_winners(put, *race) == 1 for race in races)
    except ConflictError:
        return False
    except Exception as error:
        failure = store.failure(error)
        if failure is None or failure.status not in _REFUSED:
            raise
        return False
    finally:
        for other in names:
            store.delete(other)


def _winners(put: Put, name: str, expected: str) -> int:
    return sum(in_parallel(lambda _: _wins(put, name, expected), range(_WRITERS)))


def _wins(put: Put, name: str, expected: str) -> bool:
    try:
        put(name, _unique(), expected)
    except ConflictError:
        return False
    return True


def _unique() -> bytes:
    return uuid.uuid4().bytes
