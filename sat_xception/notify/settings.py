"""Settings of notify."""

from __future__ import annotations

from pydantic import Field

from sat_xception.settings.config import StepConfig
from sat_xception.settings.types import ResultOrNone

__all__ = ["NotifyConfig"]


class NotifyConfig(StepConfig):
    """Say how a run ended: in the log, and to a webhook when one is given."""

    pipeline: str = Field(description="Name of the run.")
    state: str = Field(description="How it ended, as Kubeflow reports it: SUCCEEDED or COMPLETE, FAILED, CANCELED.")
    message: str = Field("", description="Why, when it failed.")
    baseline: ResultOrNone = Field(None, description="Folder whose last-run.json may say more of how it ended.")
    run: str = Field("", description="What Kubeflow calls the run, to know it there.")
    webhook_env: str = Field(
        "SAT_XCEPTION_WEBHOOK", description="Environment variable that holds the webhook's address."
    )
    timeout_s: float = Field(10.0, gt=0, description="Deadline of the call, in seconds.")
