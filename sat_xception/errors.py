"""Every error that a user can cause or must act on, in one tree. Each carries the exit code of the command line.

A message contains what was wrong, with the value, where it came from, and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = [
    "ConfigError",
    "DataError",
    "DivergedError",
    "Fault",
    "GateRefusedError",
    "ModelError",
    "PreemptedError",
    "SatXceptionError",
    "ServiceError",
    "did_you_mean",
    "faults_of",
]


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """Return the hint of an error about an unknown name: the nearest known one, or else `otherwise`.

    Examples:
        >>> did_you_mean("optimiser", ["optimizer", "patience"], "see --help")
        "did you mean 'optimizer'?"
        >>> did_you_mean("zzz", ["optimizer", "patience"], "see --help")
        'see --help'
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise


class Fault(NamedTuple):
    """A value that a pydantic model refused: where, why, and the value.

    Attributes:
        path: Names and indices down to the value; empty for a fault of several values together.
        why: Message of the check.
        value: The value; for a missing one, the mapping that lacks it.
        kind: pydantic's type of the fault, such as "missing" or "extra_forbidden".
    """

    path: tuple[str | int, ...]
    why: str
    value: object
    kind: str

    @property
    def field(self) -> str:
        """The path with dots."""
        return ".".join(map(str, self.path))

    @property
    def is_missing(self) -> bool:
        """Whether a required value is missing."""
        return self.kind == "missing"


def faults_of(error: ValidationError) -> list[Fault]:
    """Return the faults that pydantic found."""
    return [
        Fault(item["loc"], item["msg"].removeprefix("Value error, "), item["input"], item["type"])
        for item in error.errors(include_url=False)
    ]


class SatXceptionError(Exception):
    """Root of the tree; the command line prints its message without a traceback."""

    exit_code = 1


class ConfigError(SatXceptionError):
    """A flag, a configuration file or an environment variable is wrong."""

    exit_code = 2


class DataError(SatXceptionError):
    """The input data can't be used."""

    exit_code = 3


class ModelError(DataError):
    """A model or a weights file can't be loaded, or doesn't do what its description says."""


class DivergedError(ModelError):
    """A training has no epoch with a finite loss and finite weights, so there are no weights to keep.

    Attributes:
        reason: What diverged, without what to do about it. Default: the message.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        """Create the error; `message` contains what diverged and what to do next."""
        super().__init__(message)
        self.reason = reason or message


class ServiceError(SatXceptionError):
    """Something outside this process failed: a download, an endpoint, a cluster."""

    exit_code = 4


class GateRefusedError(SatXceptionError):
    """No model passed the gate, and the caller asked for that to be a failure."""

    exit_code = 5


class PreemptedError(SatXceptionError):
    """The process was stopped by SIGTERM; its progress is saved, and the same command resumes from there."""

    exit_code = 75  # EX_TEMPFAIL of BSD's sysexits.h: "try again later"
