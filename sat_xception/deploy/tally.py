"""Who answered while the new version had a share of the traffic, and whether that fits the share."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from sat_xception.deploy.rollout_record import TrafficStep

__all__ = ["Answer", "StepFigures", "Tally"]

# A split that is right is taken for a wrong one with less than this probability at each look. A rollout has up to 99
# shares below 100 %, and at each a dozen looks at most, since each comes after twice as many answers as the one before
# (60 x 2^12 answers are a day of watching): less than 99 x 12 x 8e-10 < 1e-6 in a whole rollout.
_FALSE_ALARM = 8e-10
_FIRST_LOOK = 60


@dataclass(frozen=True)
class Answer:
    """An answer that came through the gateway.

    Attributes:
        version: The version that gave it; None where that can't be told.
        tile: Whether tiles were asked for.
    """

    version: int | None
    tile: bool


class Tally:
    """Answers since the gateway splits the traffic, by the version that gave them.

    Attributes:
        began: When it began, on the monotonic clock.
        tiles: Requests with tiles that the new version answered.
    """

    def __init__(self, new: int, percent: int) -> None:
        """Begin to count.

        Args:
            new: The new version.
            percent: Its share of the traffic.
        """
        self.began, self.tiles = time.monotonic(), 0
        self._new, self._wanted = new, percent / 100
        self._by: Counter[int] = Counter()
        self._next_look = _FIRST_LOOK

    def add(self, answer: Answer) -> None:
        """Count an answer, unless nobody knows who gave it."""
        if answer.version is not None:
            self._by[answer.version] += 1
            self.tiles += answer.tile and answer.version == self._new

    @property
    def by_new(self) -> int:
        """How many answers the new version gave."""
        return self._by[self._new]

    @property
    def total(self) -> int:
        """How many answers there are."""
        return self._by.total()

    @property
    def share(self) -> float | None:
        """Share of the answers that the new version gave; None without answers."""
        return self.by_new / self.total if self.total else None

    def contradicts(self, last: bool = False) -> bool:
        """Return whether so many answers of the new version, or so few, are next to impossible with its share.

        A gateway that chooses at random gives the new version a binomial number of n answers. That it is k or further
        away on k's side has a probability of at most exp(-n D), where D is the relative entropy of k/n to the share
        (Chernoff's bound). A gateway that takes turns is nearer to the share than that. With all the traffic, one
        answer of another version is one too many.

        Args:
            last: Look even if there aren't twice as many answers as at the last look.
        """
        if not self.total or not (last or self.total >= self._next_look or self._wanted == 1):
            return False
        while self._next_look <= self.total:
            self._next_look *= 2
        return 2 * math.exp(-self.total * _relative_entropy(self.by_new / self.total, self._wanted)) < _FALSE_ALARM

    def __str__(self) -> str:
        """Return who answered how often."""
        return ", ".join(f"{count:,} by version {version}" for version, count in sorted(self._by.items())) or "nobody"


@dataclass
class StepFigures:
    """What was measured while the new version had a share of the traffic.

    Attributes:
        percent: The share that it was given.
        requests: Requests through the address that users use.
        failed: Those that weren't answered.
        by_new: Share of them that the new version answered; None where versions can't be told apart.
        tiles_by_new: Requests with tiles that the new version answered; None as above.
        new_s: Seconds of each request to the new predictor itself.
        old_s: The same of the old one.
        problems: What the failed ones said.
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
    """Return the relative entropy of a coin to another, in nats; infinite where the other never falls as the first."""
    entropy = 0.0
    for p, q in ((one, other), (1 - one, 1 - other)):
        if p > 0:
            entropy += p * math.log(p / q) if q > 0 else math.inf
    return entropy


def _p95_ms(seconds: list[float]) -> float | None:
    return round(float(np.percentile(seconds, 95)) * 1000, 1) if seconds else None
