"""Errors from writing files: one message and one exit code for all libraries.

A full or read-only disk is a failure outside this program: a `ServiceError`, exit code 4. A path that can't be written
to because of its permissions, or because a file is in the way, is a wrong setting: a `ConfigError`, exit code 2.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sqlite3
from collections.abc import Iterator

from sat_xception.errors import ConfigError, SatXceptionError, ServiceError

__all__ = ["disk_errno", "reporting_disk_errors", "write_error"]

_FULL = (errno.ENOSPC, errno.EDQUOT)
_OF_THE_DISK = (*_FULL, errno.EFBIG, errno.EROFS)
_SQLITE = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_READONLY: errno.EROFS}
# numpy's own words, which have no error number: https://github.com/numpy/numpy, tofile.
_CUT_SHORT = re.compile(r"\d+ requested and \d+ written")
_ADVICE = "free some, or name a folder on another disk"


def write_error(
    error: OSError, place: object, advice: str = _ADVICE, otherwise: str = "name another folder, or make this writable"
) -> SatXceptionError:
    """Return the `SatXceptionError` for a failed write.

    Args:
        error: The system's error.
        place: Path or address that was written.
        advice: Advice if the disk is full or read-only.
        otherwise: Advice if the path can't be written to.
    """
    number = disk_errno(error)
    if number is None:
        said = error.strerror or str(error)
        return ConfigError(f"can't write {place}: {said}; {otherwise}")
    return _disk_error(number, place, advice)


def disk_errno(error: BaseException) -> int | None:
    """Return the errno of a full or read-only disk, if an error or its cause is one; else None.

    Errors of TensorFlow and other libraries have no errno; they are recognised by the system's message.
    """
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        if isinstance(one, OSError) and one.errno in _OF_THE_DISK:
            return one.errno
        if isinstance(one, sqlite3.Error) and getattr(one, "sqlite_errorcode", 0) & 0xFF in _SQLITE:
            return _SQLITE[one.sqlite_errorcode & 0xFF]
        said = str(one)
        if isinstance(one, OSError) and _CUT_SHORT.search(said):
            return errno.ENOSPC
        if not isinstance(one, OSError):
            for number in _OF_THE_DISK:
                if os.strerror(number) in said:
                    return number
        one = one.__cause__ or one.__context__
    return None


@contextlib.contextmanager
def reporting_disk_errors(place: object = None, advice: str = _ADVICE) -> Iterator[None]:
    """Raise errors from a full or read-only disk, and TensorFlow's of a missing permission, as a `SatXceptionError`.

    Args:
        place: Path or address that is written. Default: the file that the error names.
        advice: Advice if the disk is full or read-only.

    Raises:
        ServiceError: The disk is full or read-only.
        ConfigError: TensorFlow may not write there.
    """
    try:
        yield
    except SatXceptionError:
        raise
    except Exception as error:
        number = disk_errno(error)
        named = place or getattr(error, "filename", None) or "a file"
        if number is not None:
            raise _disk_error(number, named, advice) from None
        if type(error).__name__ == "PermissionDeniedError" and type(error).__module__.startswith("tensorflow"):
            said = str(getattr(error, "message", error)).splitlines()[0]
            raise ConfigError(f"can't write {named}: {said}; name another folder, or make this writable") from None
        raise


def _disk_error(number: int, place: object, advice: str) -> ServiceError:
    if number in _FULL:
        return ServiceError(f"no space left while writing {place}; {advice}")
    if number == errno.EFBIG:
        return ServiceError(f"a file of {place} is larger than this system lets it be; {advice}")
    return ServiceError(f"can't write {place}: {os.strerror(number)}; {advice}")
