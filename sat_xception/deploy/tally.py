"""Count the responses of each version during a traffic step, and test whether they fit the share."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from sat_xception.deploy.rollout_record import TrafficStep

__all__ = ["Answer", "StepFigures", "Tally"]

# Maximum probability, per test, that a correct split is rejected. A rollout has up to 99 shares below 100 %, and at
# most a dozen tests at each, since each test needs twice as many answers as the one before (60 x 2^12 answers are a day
# of watching): less than 99 x 12 x 8e-10 < 1e-6 in a whole rollout.
_FALSE_ALARM = 8e-10
_FIRST_LOOK = 60


@dataclass(frozen=True)
class Answer:
    """A response through the gateway.

    Attributes:
        version: Version that answered; None if unknown.
        tile: Whether the request had tiles.
    """

    version: int | None
    tile: bool


class Tally:
    """Number of answers by version, since the gateway has split the traffic.

    Attributes:
        began: Start of counting, on the monotonic clock.
        tiles: Number of requests with tiles that the new version answered.
    """

    def __init__(self, new: int, percent: int) -> None:
        """Start to count.

        Args:
            new: The new version.
            percent: Share of the traffic of the new version.
        """
        self.began, self.tiles = time.monotonic(), 0
        self._new, self._wanted = new, percent / 100
        self._by: Counter[int] = Counter()
        self._next_look = _FIRST_LOOK

    def add(self, answer: Answer) -> None:
        """Count an answer, unless its version is unknown."""
        if answer.version is not None:
            self._by[answer.version] += 1
            self.tiles += answer.tile and answer.version == self._new

    @property
    def by_new(self) -> int:
        """Number of answers of the new version."""
        return self._by[self._new]

    @property
    def total(self) -> int:
        """Number of answers."""
        return self._by.total()

    @property
    def share(self) -> float | None:
        """Share of the new version in the answers; None without answers."""
        return self.by_new / self.total if self.total else None

    def contradicts(self, last: bool = False) -> bool:
        """Return whether the number of answers of the new version is almost impossible with its share.

        If the gateway chooses at random, the number of answers of the new version is binomial. The probability of k or
        a more extreme number is at most exp(-n D), where D is the relative entropy of k/n to the share (Chernoff
        bound). A round-robin gateway stays closer to the share than that. With 100 % of the traffic, a single answer of
        another version is a contradiction.

        Args:
            last: Test even if there aren't twice as many answers as at the last test.
        """
        if not self.total or not (last or self.total >= self._next_look or self._wanted == 1):
            return False
        while self._next_look <= self.total:
            self._next_look *= 2
        return 2 * math.exp(-self.total * _relative_entropy(self.by_new / self.total, self._wanted)) < _FALSE_ALARM

    def __str__(self) -> str:
        """Return the number of answers by version."""
        return ", ".join(f"{count:,} by version {version}" for version, count in sorted(self._by.items())) or "nobody"


@dataclass
class StepFigures:
    """Measurements of one traffic step.

    Attributes:
        percent: Share of the traffic of the new version, in %.
        requests: Number of requests through the users' address.
        failed: Number of requests that weren't answered.
        by_new: Share of the new version in the answers; None if the versions can't be distinguished.
        tiles_by_new: Number of requests with tiles that the new version answered; None like `by_new`.
        new_s: Duration of each direct request to the new predictor, in seconds.
        old_s: Duration of each direct request to the old predictor, in seconds.
        problems: Messages of the failed requests.
    """

    percent: int
    requests: int = 0
    failed: int = 0
    by_new: float | None = None
    tiles_by_new: int | None = None
    new_s: list[float] = field(default_factory=list)
    old_s: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def fail(self, problem: Exception) -> None:
        """Count a request that wasn't answered."""
        self.failed += 1
        self.problems.append(str(problem))

    def record(self) -> TrafficStep:
        """Return the figures for the rollout's record."""
        return TrafficStep(
            percent=self.percent,
            requests=self.requests,
            failed=self.failed,
            answered_by_new=None if self.by_new is None else round(self.by_new, 3),
            tiles_answered_by_new=self.tiles_by_new,
            p95_new_ms=_p95_ms(self.new_s),
            p95_old_ms=_p95_ms(self.old_s),
        )

    def __str__(self) -> str:
        """Return the figures on one line."""
        record = self.record()
        shares = "" if self.by_new is None else f" | new answered {self.by_new:.0%}, {self.tiles_by_new:,} with tiles"
        new, old = ("" if p95 is None else f"{p95:g} ms" for p95 in (record.p95_new_ms, record.p95_old_ms))
        times = f" | p95 {new}{f', old {old}' if old else ''}" if new else ""
        return f"{self.requests:,} requests, {self.failed:,} failed{shares}{times}"


def _relative_entropy(one: float, other: float) -> float:
    """Return the relative entropy of two Bernoulli distributions, in nats; infinite if `other` excludes `one`."""
    entropy = 0.0
    for p, q in ((one, other), (1 - one, 1 - other)):
        if p > 0:
            entropy += p * math.log(p / q) if q > 0 else math.inf
    return entropy


def _p95_ms(seconds: list[float]) -> float | None:
    return round(float(np.percentile(seconds, 95)) * 1000, 1) if seconds else None
