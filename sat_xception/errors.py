"""Every error that a user can cause or must act on, in one tree. Each carries the exit code of the command line.

A message contains what was wrong, with the value, where it came from, and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ConfigError",
    "DataError",
    "DivergedError",
    "GateRefusedError",
    "ModelError",
    "PreemptedError",
    "SatXceptionError",
    "ServiceError",
    "did_you_mean",
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
