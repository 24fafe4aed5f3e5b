"""Say how a run ended."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass

import httpx

from sat_xception.errors import ConfigError, SatXceptionError, ServiceError
from sat_xception.last_run import outcome_of
from sat_xception.log import get_logger
from sat_xception.steps import NotifyConfig

__all__ = ["NotifyResult", "notify"]

_log = get_logger(__name__)
_TRIES = 3
_PAUSE_S = 1.0
# These log every address whole, httpx at the level INFO, which kfp's executor shows of every library.
for _library in ("httpx", "httpcore"):
    logging.getLogger(_library).setLevel(logging.WARNING)


@dataclass(frozen=True)
class NotifyResult:
    """What was told.

    Attributes:
        text: The message.
        told: Host of the webhook; "" when there is none.
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
    message = config.message or _outcome(config)
    text = f"{config.pipeline}: {config.state}" + (f": {message}" if message else "")
    address = os.environ.get(config.webhook_env, "")
    if not address:
        return NotifyResult(text, "")
    host = _host(address)
    if not host:
        raise ConfigError(f"${config.webhook_env} doesn't hold an http(s) address")
    body = {"text": text, "pipeline": config.pipeline, "state": config.state, "message": message}
    problem = ""
    for attempt in range(1, _TRIES + 1):
        try:
            answer = httpx.post(address, json=body, timeout=config.timeout_s)
            if answer.is_success:
                return NotifyResult(text, host)
            problem = f"HTTP {answer.status_code}"
        except httpx.HTTPError as error:
            problem = type(error).__name__
        _log.warning("notify    try %d of %d: %s", attempt, _TRIES, problem)
        if attempt < _TRIES:
            time.sleep(_PAUSE_S)
    raise ServiceError(f"the webhook at {host} didn't take the message ({problem}); check ${config.webhook_env}")


def _outcome(config: NotifyConfig) -> str:
    """Return how the run ended, where the baseline says it; without that, the rest is told."""
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
