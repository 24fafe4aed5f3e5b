"""Say how a run ended."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from sat_xception.errors import ConfigError, ServiceError
from sat_xception.log import get_logger
from sat_xception.steps import NotifyConfig

__all__ = ["NotifyResult", "notify"]

_log = get_logger(__name__)
_TRIES = 3


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
    text = f"{config.pipeline}: {config.state}" + (f": {config.message}" if config.message else "")
    address = os.environ.get(config.webhook_env, "")
    if not address:
        return NotifyResult(text, "")
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"${config.webhook_env} doesn't hold an http(s) address")
    body = {"text": text, "pipeline": config.pipeline, "state": config.state, "message": config.message}
    problem = ""
    for attempt in range(1, _TRIES + 1):
        try:
            answer = httpx.post(address, json=body, timeout=config.timeout_s)
            if answer.is_success:
                return NotifyResult(text, parts.hostname)
            problem = f"HTTP {answer.status_code}"
        except httpx.HTTPError as error:
            problem = type(error).__name__
        _log.warning("notify    try %d of %d: %s", attempt, _TRIES, problem)
    raise ServiceError(f"the webhook at {parts.hostname} didn't take the message ({problem}); check ${config.webhook_env}")
