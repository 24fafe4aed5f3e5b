"""Wait until an endpoint serves a version."""

from __future__ import annotations

import time

from sat_xception.errors import ModelError, ServiceError
from sat_xception.serve.client import EndpointClient

__all__ = ["wait_until_available"]

_POLL_S = 0.5


def wait_until_available(client: EndpointClient, version: int, timeout_s: float) -> None:
    """Wait until a version answers at an endpoint.

    Raises:
        ModelError: The version doesn't load.
        ServiceError: The version doesn't answer in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            found = next((status for status in client.status() if status.version == version), None)
            state = found.state if found else "unknown to the endpoint"
        except ServiceError as error:
            found, state = None, str(error)
        if found and found.state == "AVAILABLE":
            return
        if found and found.error_message:
            raise ModelError(f"version {version} doesn't load at {client.address}: {found.error_message}")
        if time.monotonic() > deadline:
            raise ServiceError(
                f"version {version} doesn't answer at {client.address} after {timeout_s:g} s ({state}). "
                "Does that server follow the model root given as --model-root?"
            )
        time.sleep(_POLL_S)
