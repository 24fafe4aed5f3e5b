"""Google Cloud Storage: client, retries, parallel transfers, and errors with advice.

The client library is imported by the functions that need it: most runs never see a bucket.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from sat_xception.errors import ConfigError, ServiceError
from sat_xception.storage.address import RemotePath

__all__ = [
    "TRANSFER_TIMEOUT_S",
    "in_parallel",
    "is_of_a_file",
    "open_bucket",
    "query_retry",
    "reporting_gcs_errors",
    "transfer_retry",
]

T = TypeVar("T")
R = TypeVar("R")
# How long a bucket is asked again: at first, when little is lost by giving up, and in the middle of a transfer.
_LOOK_S = 15
_TRANSFER_S = 120
# The mean of the first pause is half of this; each is twice the one before.
_FIRST_PAUSE_S = 1.0
# How long a transfer may stand still.
TRANSFER_TIMEOUT_S = 300
# The client keeps 10 connections; more workers than those would throw some away.
_WORKERS = 8


@contextlib.contextmanager
def open_bucket(address: RemotePath) -> Iterator[Any]:
    """Yield the bucket of an address, and close its connections at the end; no request is sent yet.

    Raises:
        ConfigError: `google-cloud-storage` isn't installed.
    """
    try:
        from google.cloud import storage

        with reporting_gcs_errors("open", address):
            client = storage.Client()
    except ImportError:
        raise ConfigError(f"{address} needs google-cloud-storage: pip install 'sat-xception[gcs]'") from None
    with contextlib.closing(client):
        yield client.bucket(address.bucket)


def query_retry() -> Any:  # noqa: ANN401 - the library has no types
    """Return the retry policy of small requests."""
    return _retry(_LOOK_S)


def transfer_retry() -> Any:  # noqa: ANN401 - the library has no types
    """Return the retry policy of transfers. Every name is written with one content only, so repeating is safe."""
    return _retry(_TRANSFER_S)


def _retry(timeout_s: float) -> Any:  # noqa: ANN401
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_delay(initial=_FIRST_PAUSE_S, maximum=30.0, multiplier=2.0).with_timeout(timeout_s)


@contextlib.contextmanager
def reporting_gcs_errors(action: str, address: RemotePath) -> Iterator[None]:
    """Turn the library's errors into ours.

    Args:
        action: What was tried, as a verb: "read" or "write".
        address: With what.

    Raises:
        ConfigError: There is no such bucket.
        ServiceError: No credentials, no permission, or no answer.
    """
    from google.api_core.exceptions import Forbidden, GoogleAPIError, NotFound, Unauthorized
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

    try:
        yield
    except GoogleAuthError as error:
        raise ServiceError(
            f"no credentials to {action} {address}: {_reason(error)}. Log in with `gcloud auth application-default "
            "login`, or on a cluster give the pod's service account an identity; see docs/storage.md"
        ) from None
    except (Forbidden, Unauthorized) as error:
        role = "roles/storage.objectViewer" if action == "read" else "roles/storage.objectUser"
        raise ServiceError(
            f"not allowed to {action} {address}: {_reason(error)}. Grant {role} on gs://{address.bucket} to the "
            "account that this runs as; see docs/storage.md"
        ) from None
    except NotFound as error:
        raise ConfigError(
            f"can't {action} {address}: {_reason(error)}. See whether the bucket is there: "
            f"gcloud storage ls gs://{address.bucket}/"
        ) from None
    except (GoogleAPIError, DataCorruption, InvalidResponse, OSError) as error:
        if is_of_a_file(error):
            raise
        raise ServiceError(
            f"can't {action} {address}: {_reason(error)}. Check the network, then run again: finished files are kept"
        ) from None


def is_of_a_file(error: Exception) -> bool:
    """Return whether an error is of local files; the network library also raises OSError."""
    of_the_network = isinstance(error, ConnectionError | TimeoutError)
    return isinstance(error, OSError) and error.errno is not None and not of_the_network


def _reason(error: Exception) -> str:
    """Return the service's message without query strings of URLs: that of an upload is a credential."""
    return re.sub(r"\?\S*", "", " ".join(str(error).split())).rstrip(".:")


def in_parallel(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield a function's results for items in order of completion, with parallel calls; the first error ends all.

    Only a few items are taken ahead of the work, so a million of them need no memory.
    """
    pool = ThreadPoolExecutor(_WORKERS)
    running: set[Future[R]] = set()
    try:
        for item in items:
            running.add(pool.submit(function, item))
            if len(running) >= 2 * _WORKERS:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    finally:
        pool.shutdown(cancel_futures=True)
