"""The lock of an endpoint's rollouts: a Lease that its holder renews, and that others take over if it isn't renewed.

Whether the holder is alive is decided by watching for renewals, as client-go's leader election does, and not by
comparing its clock with ours.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from sat_xception.clock import utc_now
from sat_xception.deploy.k8s_client import KubernetesClient
from sat_xception.deploy.k8s_errors import ConflictError
from sat_xception.deploy.k8s_kinds import LEASE
from sat_xception.deploy.k8s_objects import Lease
from sat_xception.errors import SatXceptionError, ServiceError
from sat_xception.log import get_logger

__all__ = ["LEASE_S", "Lock", "holder_of", "rollout_lock"]

_log = get_logger(__name__)
Object = dict[str, Any]

# Seconds after which a lock that isn't renewed can be taken over; it is renewed three times as often.
LEASE_S = 30
_POLL_S = 0.5


class Lock:
    """A lock that this process holds."""

    def __init__(self, cluster: KubernetesClient, lease: Object, seconds: int) -> None:
        """Start to renew a Lease that this process holds."""
        self._cluster, self._lease, self._seconds = cluster, lease, seconds
        self.holder = holder_of(lease)
        self._renewed = time.monotonic()
        self._lost = ""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_stopped, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Check that the lock is still held.

        Raises:
            ServiceError: The lock was taken over, or couldn't be renewed in time.
        """
        if not self._lost and time.monotonic() - self._renewed > self._seconds:
            self._lost = "it couldn't be renewed in time"
        if self._lost:
            raise ServiceError(
                f"the lock of the rollout is lost: {self._lost}. Another rollout may have begun; see `sat_xception "
                "deployments`, and deploy again when none is in progress"
            )

    def release(self) -> None:
        """Release the lock, if it is still held."""
        self._stopped.set()
        self._thread.join()
        if self._lost:
            return
        with contextlib.suppress(SatXceptionError):  # it expires by itself
            self._cluster.replace(LEASE, _with_spec(self._lease, holderIdentity="", renewTime=_now()))

    def _renew_until_stopped(self) -> None:
        while not self._stopped.wait(self._seconds / 3) and not self._lost:
            try:
                self._lease = self._cluster.replace(LEASE, _with_spec(self._lease, renewTime=_now()))
                self._renewed = time.monotonic()
            except ConflictError:
                found = self._cluster.get(LEASE, Lease.of(self._lease).metadata.name)
                if found is None or holder_of(found) != self.holder:
                    self._lost = f"{holder_of(found) or 'nobody'} has it now"
                else:
                    self._lease = found
            except SatXceptionError as error:
                _log.warning("lock      can't be renewed: %s", error)


@contextlib.contextmanager
def rollout_lock(cluster: KubernetesClient, name: str, seconds: int = 0) -> Iterator[Lock]:
    """Hold the lock of an endpoint's rollouts while the block runs.

    The lock of a holder that doesn't renew it for the duration in the Lease is taken over.

    Raises:
        ServiceError: Another rollout is in progress.
    """
    seconds = seconds or LEASE_S
    lock = Lock(cluster, _acquire(cluster, f"{name}-deploy", seconds), seconds)
    try:
        yield lock
    finally:
        lock.release()


def holder_of(lease: Object | None) -> str:
    """Return the holder of a Lease; "" if it isn't held."""
    return Lease.of(lease or {}).spec.holder_identity


def _acquire(cluster: KubernetesClient, name: str, seconds: int) -> Object:
    holder = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    ours: dict[str, str | int] = {"holderIdentity": holder, "leaseDurationSeconds": seconds}
    ours |= {"acquireTime": _now(), "renewTime": _now()}
    metadata = {"name": name, "namespace": cluster.namespace}
    seen: Object | None = None
    since = time.monotonic()
    while True:
        found = cluster.get(LEASE, name)
        try:
            if found is None:
                return cluster.create(LEASE, {"metadata": metadata, "spec": ours})
            if seen is None and holder_of(found):
                _log.info(
                    "lock      held by %s; watching for up to %d s whether it is alive", holder_of(found), seconds
                )
            if seen is not None and Lease.of(found).spec != Lease.of(seen).spec and holder_of(found):
                raise ServiceError(
                    f"a rollout by {holder_of(found)} is in progress. See it with `sat_xception deployments`, and "
                    "deploy again when it has ended"
                )
            silent_s = time.monotonic() - since
            if not holder_of(found) or silent_s > (Lease.of(found).spec.lease_duration_seconds or seconds):
                if holder_of(found):
                    _log.warning("lock      taken over from %s, which is gone", holder_of(found))
                return cluster.replace(LEASE, _with_spec(found, **ours))
            seen = seen or found
        except ConflictError:  # another process was faster
            seen, since = None, time.monotonic()
        time.sleep(_POLL_S)


def _with_spec(lease: Object, **changes: str | int) -> Object:
    return {**lease, "spec": {**Lease.of(lease).spec.manifest(), **changes}}


def _now() -> str:
    """Return the time in the form of Kubernetes's MicroTime."""
    return f"{utc_now():%Y-%m-%dT%H:%M:%S.%f}Z"
