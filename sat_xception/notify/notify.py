"""Post a run's outcome to a webhook."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass

import httpx

from sat_xception.errors import ConfigError, SatXceptionError, ServiceError
from sat_xception.http_clients import quiet_http_clients, retry, retry_after_s
from sat_xception.log import get_logger
from sat_xception.notify.last_run import outcome_of
from sat_xception.notify.settings import NotifyConfig

__all__ = ["NotifyResult", "notify"]

_log = get_logger(__name__)
_TRIES = 3
_PAUSE_S = 1.0
_MAX_RETRY_AFTER_S = 30.0
# Kubeflow's driver fills a final status in from ML Metadata (backend/src/v2/driver/resolve.go), whose states these are;
# kfp's local runners have SUCCEEDED and FAILED.
_STATES = {"COMPLETE": "SUCCEEDED", "CACHED": "SUCCEEDED", "CANCELED": "CANCELLED"}
_KNOWN_STATES = ("SUCCEEDED", "FAILED", "CANCELLED")
_NOT_REPORTED = "Kubeflow doesn't report how; see the run"
# kfp's executor shows what every library logs at the level INFO.
quiet_http_clients()


@dataclass(frozen=True)
class NotifyResult:
    """The message that was sent.

    Attributes:
        text: The message.
        told: Host of the webhook; "" if there is none.
    """

    text: str
    told: str

    def summary(self) -> str:
        """Return the message."""
        return f"notify    {self.text}" + (f" | told {self.told}" if self.told else "")


def notify(config: NotifyConfig) -> NotifyResult:
    """Post `{"text", "pipeline", "state", "message"}` to the webhook, if the environment names one.

    `text` is what Slack, Mattermost, Google Chat and Teams show. The address is a secret: it is never logged.

    Raises:
        ConfigError: The address is no http(s) address.
        ServiceError: The webhook didn't take the message, three times.
    """
    state, message = _ending(config)
    text = f"{config.pipeline}: {state}" + (f": {message}" if message else "")
    address = os.environ.get(config.webhook_env, "")
    if not address:
        return NotifyResult(text, "")
    host = _host(address)
    if not host:
        raise ConfigError(f"${config.webhook_env} doesn't hold an http(s) address")
    body = {"text": text, "pipeline": config.pipeline, "state": state, "message": message}
    tries = itertools.count(1)

    def post() -> None:
        number = next(tries)
        try:
            answer = httpx.post(address, json=body, timeout=config.timeout_s)
            if answer.is_success:
                return
            refusal = _NotTakenError(f"HTTP {answer.status_code}")
            refusal.asked_s = min(retry_after_s(answer.headers.get("Retry-After", "")) or 0.0, _MAX_RETRY_AFTER_S)
        except httpx.HTTPError as error:
            refusal = _NotTakenError(type(error).__name__)
        _log.warning("notify    try %d of %d: %s", number, _TRIES, refusal)
        raise refusal

    try:
        retry(post, (_PAUSE_S,) * (_TRIES - 1), lambda error: getattr(error, "asked_s", None), jitter=(1.0, 1.0))
    except _NotTakenError as error:
        raise ServiceError(
            f"the webhook at {host} didn't take the message ({error}); check ${config.webhook_env}"
        ) from None
    return NotifyResult(text, host)


class _NotTakenError(Exception):
    """The webhook didn't take the message.

    Attributes:
        asked_s: Seconds of its Retry-After; 0 without one.
    """

    asked_s = 0.0


def _ending(config: NotifyConfig) -> tuple[str, str]:
    """Return the state of the run and the message about it.

    The state of a group of tasks stays RUNNING in ML Metadata when its last task was skipped, cached or never started:
    only the launcher of a task that ran updates it. Then the record of the run shows whether it finished.
    """
    state = _STATES.get(config.state, config.state)
    message = config.message or _outcome(config)
    if state in _KNOWN_STATES:
        return state, message
    return ("SUCCEEDED", message) if message else ("ENDED", _NOT_REPORTED)


def _outcome(config: NotifyConfig) -> str:
    """Return how the run ended, where its record in the baseline can be read; else ""."""
    try:
        return outcome_of(config.baseline, config.run) if config.baseline else ""
    except SatXceptionError as error:
        _log.warning("notify    can't tell how the run ended: %s", error)
        return ""


def _host(address: str) -> str:
    """Return the host of an http(s) address; "" when it is none."""
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        return ""
    return url.host if url.scheme in ("http", "https") else ""
