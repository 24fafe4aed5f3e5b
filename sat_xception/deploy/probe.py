"""Ask old and new while traffic moves: who answers, rightly, how fast, and how often they agree.

Requests are the rollout's own, of golden tiles and of tiles that were given; those of users aren't seen from here.
"""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sat_xception.errors import DataError, ModelError, ServiceError
from sat_xception.log import duration, get_logger
from sat_xception.serve.client import EndpointClient
from sat_xception.steps import RolloutConfig
from sat_xception.storage import read_json

__all__ = ["Golden", "Probe", "StepFigures", "agreement", "read_golden", "read_tiles"]

_log = get_logger(__name__)
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
_MOST_TILES = 200
# Rounds that a step has at least, however short it is: enough for a 95th percentile that isn't the largest value.
_LEAST_ROUNDS = 60
# Answers in a row of the new version that say that nobody else answers any more.
_SETTLED = 20
_SETTLE_PAUSE_S = 0.02
_PAUSE_S = 0.5
# A new version may be that much slower without a comparison: such differences are the network's.
_NOISE_S = 0.05
_LINE_EVERY_S = 15.0
# How far a share of answers may be from the weight that was asked for, in standard deviations of that many requests.
_DEVIATIONS = 5.0


@dataclass(frozen=True)
class Golden:
    """The golden tiles of a version: images, the answers that were recorded, and how near others must come."""

    images: list[bytes]
    expected: npt.NDArray[np.float32]
    tolerance: float


@dataclass
class StepFigures:
    """What was measured while the new version had a share of the traffic.

    Attributes:
        percent: The share that it was given.
        requests: Requests through the address that users use.
        failed: Those that weren't answered.
        by_new: Share of them that the new version answered; None where versions can't be told apart.
        new_s: Seconds of each request to the new predictor itself.
        old_s: The same of the old one.
        problems: What the failed ones said.
    """

    percent: int
    requests: int = 0
    failed: int = 0
    by_new: float | None = None
    new_s: list[float] = field(default_factory=list)
    old_s: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """Return what a record keeps."""
        return {
            "percent": self.percent,
            "requests": self.requests,
            "failed": self.failed,
            "answered_by_new": None if self.by_new is None else round(self.by_new, 3),
            "p95_new_ms": _p95_ms(self.new_s),
            "p95_old_ms": _p95_ms(self.old_s),
        }

    def __str__(self) -> str:
        """Return the figures on one line."""
        facts = self.facts()
        shares = "" if self.by_new is None else f" | new answered {self.by_new:.0%}"
        old = "" if facts["p95_old_ms"] is None else f", old {facts['p95_old_ms']:g} ms"
        return f"{self.requests:,} requests, {self.failed:,} failed{shares} | p95 {facts['p95_new_ms']:g} ms{old}"


class Probe:
    """The clients of the old and the new predictor and of the address that users use, and the limits."""

    def __init__(
        self,
        config: RolloutConfig,
        route: EndpointClient,
        new: EndpointClient,
        old: EndpointClient | None,
        golden: Golden,
        still_ours: Callable[[], None],
    ) -> None:
        """Take the clients; `old` is None when nothing has answered before."""
        self._config, self._route, self._new, self._old = config, route, new, old
        self._golden, self._still_ours = golden, still_ours
        self._count = len(golden.images)
        self._old_answers = old.predict(golden.images) if old else None
        # Where both serve one version, as after a change of the template alone, no answer tells who gave it.
        self._distinct = old is None or old.version != new.version

    def watch(self, percent: int, minutes: float) -> StepFigures:
        """Watch a share of the traffic for a while, once the gateway splits it.

        Raises:
            ModelError: The new version answers wrongly, or is much slower than the old.
            ServiceError: Requests fail, or the traffic isn't split as it was asked for.
        """
        figures = StepFigures(percent)
        self._settle(figures)
        answered_by: list[int | None] = []
        told = time.monotonic()
        deadline = told + minutes * 60
        rounds = 0
        while rounds < _LEAST_ROUNDS or time.monotonic() < deadline:
            self._still_ours()
            # All golden tiles now and then, one of them each time.
            some = slice(None) if rounds % _LEAST_ROUNDS == 0 else slice(rounds % self._count, rounds % self._count + 1)
            self._ask_version(figures, answered_by)
            self._ask_route(figures, some, answered_by)
            figures.new_s.append(_timed(self._new, self._golden.images[:1]))
            if self._old and percent < 100:
                figures.old_s.append(_timed(self._old, self._golden.images[:1]))
            self._check_errors(figures, final=False)
            rounds += 1
            if time.monotonic() - told >= _LINE_EVERY_S:
                told = time.monotonic()
                _log.info("watch     %d %%: %s, %s left", percent, figures, duration(max(0.0, deadline - told)))
            if rounds >= _LEAST_ROUNDS and time.monotonic() < deadline:
                time.sleep(_PAUSE_S)
        if self._distinct and answered_by and None not in answered_by:
            figures.by_new = answered_by.count(self._new.version) / len(answered_by)
            self._check_split(figures, len(answered_by))
        self._check_errors(figures, final=True)
        self._check_latency(figures)
        return figures

    def _settle(self, figures: StepFigures) -> None:
        """Wait until a gateway's proxies have the new split: with all the traffic, until nobody else answers."""
        wanted, in_a_row = (_SETTLED if figures.percent == 100 else 1), 0
        deadline = time.monotonic() + self._config.timeout_s
        while (self._distinct or self._old is None) and in_a_row < wanted:
            self._still_ours()
            # Where nothing has answered before, what isn't answered yet is nobody's loss.
            counted = figures if self._old else StepFigures(figures.percent)
            answered_by: list[int | None] = []
            self._ask_version(counted, answered_by)
            self._check_errors(figures, final=False)
            if None in answered_by:
                return  # a server that doesn't tell its version
            answers = self._new.version in answered_by
            in_a_row = in_a_row + 1 if answers else 0
            if time.monotonic() > deadline:
                seen = f"hasn't answered {wanted} requests in a row" if wanted > 1 else "has answered no request"
                raise self._not_split(figures, f"{seen} ({counted.problems[-1]})" if counted.problems else seen)
            if not answers:
                time.sleep(_SETTLE_PAUSE_S)

    def _ask_route(self, figures: StepFigures, some: slice, answered_by: list[int | None]) -> None:
        """Ask golden tiles as users do, without a second try, and check that the new or the old version answers."""
        figures.requests += 1
        try:
            answers = self._route.predict(self._golden.images[some])
        except ServiceError as error:
            figures.failed += 1
            figures.problems.append(str(error))
            return
        away = _distance(answers, self._golden.expected[some])
        off = math.inf if self._old_answers is None else _distance(answers, self._old_answers[some])
        if min(away, off if figures.percent < 100 else math.inf) > self._golden.tolerance:
            whose = (
                "otherwise than when it was packaged" if math.isinf(off) else "as neither the new nor the old version"
            )
            raise ModelError(
                f"{self._route.address} answers golden tiles {whose}, with {figures.percent} % of the traffic at "
                f"version {self._new.version}: off by {away:.3g}, tolerance {self._golden.tolerance:g}"
            )
        if max(away, off) > self._golden.tolerance:  # else the two can't be told apart by their answers
            one = self._new if away <= self._golden.tolerance or self._old is None else self._old
            answered_by.append(one.version)

    def _ask_version(self, figures: StepFigures, answered_by: list[int | None]) -> None:
        figures.requests += 1
        try:
            served = [status.version for status in self._route.status() if status.state == "AVAILABLE"]
        except ServiceError as error:
            figures.failed += 1
            figures.problems.append(str(error))
        else:
            answered_by.extend(served[:1])

    def _check_errors(self, figures: StepFigures, final: bool) -> None:
        allowed = self._config.max_errors * (figures.requests if final else max(figures.requests, _LEAST_ROUNDS))
        if figures.failed > allowed:
            raise ServiceError(
                f"{figures.failed:,} of {figures.requests:,} requests to {self._route.address} failed at "
                f"{figures.percent} % (--max-errors {self._config.max_errors:g}); the last: {figures.problems[-1]}"
            )

    def _check_split(self, figures: StepFigures, seen: int) -> None:
        share = figures.percent / 100
        if abs((figures.by_new or 0.0) - share) > _DEVIATIONS * math.sqrt(share * (1 - share) / seen):
            raise self._not_split(figures, f"answered {figures.by_new:.0%} of {seen:,} requests")

    def _not_split(self, figures: StepFigures, seen: str) -> ServiceError:
        return ServiceError(
            f"version {self._new.version} {seen} to {self._route.address}, expected {figures.percent} %: the gateway "
            "doesn't split as the HTTPRoute says. Is --endpoint behind that route, and does nothing in front of it "
            "keep a client at one backend? If KServe made the route, use --strategy two-services"
        )

    def _check_latency(self, figures: StepFigures) -> None:
        limit = self._config.max_slowdown
        if not limit or not figures.old_s:
            return
        new_s, old_s = (float(np.percentile(seconds, 95)) for seconds in (figures.new_s, figures.old_s))
        if new_s > max(limit * old_s, old_s + _NOISE_S):
            raise ModelError(
                f"the new version takes {new_s * 1000:.0f} ms for a tile at the 95th percentile, the old one "
                f"{old_s * 1000:.0f} ms (--max-slowdown {limit:g}). If a larger model is meant, raise it, and give the "
                "template the replicas that it needs"
            )


def read_golden(version: Path) -> Golden:
    """Return the golden tiles of a packaged version.

    Raises:
        DataError: There are none.
    """
    content = read_json(version / "golden.json", made_by="package")
    tiles = content["tiles"]
    images = [base64.b64decode(tile["image_bytes"]["b64"]) for tile in tiles]
    expected = np.array([tile["probabilities"] for tile in tiles], dtype=np.float32)
    return Golden(images, expected, float(content["tolerance"]))


def read_tiles(folder: Path | None) -> list[bytes]:
    """Return image files of a folder, at most 200 of them, spread over it; none when there is no folder.

    Raises:
        DataError: The folder holds no images.
    """
    if folder is None:
        return []
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    if not paths:
        raise DataError(f"--tiles {folder} holds no images ({', '.join(_SUFFIXES)})")
    return [path.read_bytes() for path in paths[:: math.ceil(len(paths) / _MOST_TILES)]]


def agreement(new: EndpointClient, old: EndpointClient, images: Sequence[bytes], at_least: float) -> float:
    """Return the share of images that two versions give the same class.

    Raises:
        ModelError: It is below `at_least`, or they have other numbers of classes.
        ServiceError: One of them doesn't answer.
    """
    answers = [np.concatenate([client.predict(batch) for batch in _batches(images)]) for client in (new, old)]
    if answers[0].shape != answers[1].shape:
        raise ModelError(
            f"version {new.version} answers with {answers[0].shape[1]} classes, the present version {old.version} with "
            f"{answers[1].shape[1]}: its users would read it wrongly. If they know, use --min-agreement 0"
        )
    share = float((answers[0].argmax(axis=1) == answers[1].argmax(axis=1)).mean())
    if share < at_least:
        raise ModelError(
            f"versions {new.version} and {old.version} give {share:.0%} of {len(images):,} tiles the same class "
            f"(--min-agreement {at_least:g}). Look at some tiles with `sat_xception predict`; if the change is meant, "
            "lower it"
        )
    return share


def _batches(images: Sequence[bytes]) -> list[Sequence[bytes]]:
    return [images[start : start + 32] for start in range(0, len(images), 32)]


def _timed(client: EndpointClient, images: Sequence[bytes]) -> float:
    started = time.monotonic()
    client.predict(images)
    return time.monotonic() - started


def _distance(answers: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    if answers.shape != expected.shape:
        return math.inf
    worst = float(np.abs(answers - expected).max())
    return math.inf if math.isnan(worst) else worst


def _p95_ms(seconds: list[float]) -> float | None:
    return round(float(np.percentile(seconds, 95)) * 1000, 1) if seconds else None
