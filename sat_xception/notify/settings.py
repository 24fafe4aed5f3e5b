"""Settings of notify."""

from __future__ import annotations

from pydantic import Field

from sat_xception.settings.config import StepConfig
from sat_xception.settings.types import ResultOrNone

__all__ = ["NotifyConfig"]


class NotifyConfig(StepConfig):
    """Report the outcome of a run: in the log, and to a webhook if one is given."""

    pipeline: str = Field(description="Name of the run.")
    state: str = Field(description="Final state, as Kubeflow reports it: SUCCEEDED or COMPLETE, FAILED, CANCELED.")
    message: str = Field("", description="Reason of a failure.")
    baseline: ResultOrNone = Field(None, description="Folder whose last-run.json may hold more details of the outcome.")
    run: str = Field("", description="Kubeflow's id of the run.")
    webhook_env: str = Field(
        "SAT_XCEPTION_WEBHOOK", description="Environment variable that holds the webhook's address."
    )
    timeout_s: float = Field(10.0, gt=0, description="Timeout of the webhook call, in seconds.")
