"""The table of a preflight: each check with what was found, or the problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from sat_xception.deploy.gateway_address import EndpointAddress
from sat_xception.deploy.settings import RolloutConfig
from sat_xception.errors import ConfigError, SatXceptionError, ServiceError

__all__ = ["Preflight", "Row"]

Object = dict[str, Any]
Config = TypeVar("Config", bound=RolloutConfig)


class Row(NamedTuple):
    """One check: its subject, the problem ("" for none), and what was found."""

    subject: str
    problem: str
    found: str


@dataclass
class Preflight:
    """Results of the preflight.

    Attributes:
        strategy: Strategy of the rollout: "two-services" or "canary".
        template: The template InferenceService; {} if it doesn't exist.
        rows: The checks, in order.
        outside: Whether a problem can't be solved by a setting: no response, no permission, a rollout in progress.
        endpoint: Address of the endpoint, if the settings don't give it; None if it wasn't found.
        has_traffic: Whether the route has a predictor, which answers at the endpoint.
    """

    strategy: str = "two-services"
    template: Object = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    outside: bool = False
    endpoint: EndpointAddress | None = None
    has_traffic: bool = False

    def table(self) -> str:
        """Return the rows as text."""
        width = max(len(row.subject) for row in self.rows)
        return "\n".join(
            f"{row.subject.ljust(width)}  {'PROBLEM' if row.problem else 'ok     '}  {row.problem or row.found}"
            for row in self.rows
        )

    @property
    def problems(self) -> int:
        """Number of checks with a problem."""
        return sum(1 for row in self.rows if row.problem)

    def check(self) -> None:
        """Raise an error if a check found a problem.

        Raises:
            ConfigError: A problem that a setting or a manifest can solve.
            ServiceError: The cluster doesn't answer, a permission is missing, or a rollout is in progress.
        """
        if self.problems:
            error = ServiceError if self.outside else ConfigError
            raise error(
                f"the cluster isn't ready for a rollout, nothing was changed: {self.problems} to put right\n"
                f"{self.table()}"
            )

    @property
    def problem_text(self) -> str:
        """The problems, in one line; "" without one."""
        return "; ".join(f"{row.subject}: {row.problem}" for row in self.rows if row.problem)

    def complete(self, config: Config) -> Config:
        """Return the settings of a rollout with the endpoint that was found, if they don't give one."""
        if self.endpoint is None:
            return config
        host = config.endpoint_host or self.endpoint.host
        return config.model_copy(update={"endpoint": self.endpoint.address, "endpoint_host": host})

    def look(self, what: str, look: Callable[[], str]) -> bool:
        """Add a row: the finding that `look` returns, or the problem that it raises; return whether there is none."""
        try:
            self.rows.append(Row(what, "", look()))
        except SatXceptionError as error:
            self.outside = self.outside or isinstance(error, ServiceError)
            self.rows.append(Row(what, str(error), ""))
            return False
        return True
