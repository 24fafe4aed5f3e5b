"""Watch the traffic move: who answers, rightly, how fast, how often not at all, and to how many tiles.

Requests are the rollout's own, of golden tiles and of tiles that were given; those of users aren't seen from here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sat_xception.deploy.settings import RolloutConfig
from sat_xception.deploy.tally import Answer, StepFigures, Tally
from sat_xception.deploy.visitor import Visitor
from sat_xception.errors import DataError, ModelError, ServiceError
from sat_xception.log import duration, get_logger
from sat_xception.serve.client import EndpointClient
from sat_xception.served_model.golden import GoldenTiles

__all__ = ["Probe", "agreement", "read_tiles"]

_log = get_logger(__name__)
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
_MAX_TILES = 200
# Rounds that a step has at least, however short it is: enough for a 95th percentile that isn't the largest value.
_MIN_ROUNDS = 60
# Requests with tiles that the new version must have answered at each step: what goes wrong with every fifth of them is
# seen with a probability of 1 - 0.8^20 = 99 %. At 10 % of the traffic it takes some 270 requests, twice as many where
# versions are told apart by number.
_MIN_TILES = 20
# How much longer than --step-minutes a step may take until it has that many.
_PATIENCE_S = 600.0
# Where nothing has answered before: answers in a row that say that all of the gateway's proxies have the route.
_SETTLED = 20
_SETTLE_PAUSE_S = 0.02
_PAUSE_S = 0.5
# A new version may be that much slower without a comparison: such differences are the network's.
_NOISE_S = 0.05
_LINE_EVERY_S = 15.0


class _Step:
    """One share of the traffic while it is watched.

    Attributes:
        figures: What was measured.
        tally: Who answered since the gateway splits the traffic.
        split: Whether it splits it, as far as can be seen.
        rounds: Rounds of requests since then.
    """

    def __init__(self, new: int, percent: int, minutes: float, split: bool) -> None:
        self.figures, self._new, self._minutes = StepFigures(percent), new, minutes
        self.told = time.monotonic()
        self.begin(split)

    def begin(self, split: bool) -> None:
        """Count from now on."""
        self.tally, self.split, self.rounds = Tally(self._new, self.figures.percent), split, 0

    @property
    def until(self) -> float:
        """When it has been watched for as long as it was asked for, on the monotonic clock."""
        return self.tally.began + self._minutes * 60

    @property
    def watched(self) -> bool:
        """Whether it has been watched for that long, and often enough."""
        return self.rounds >= _MIN_ROUNDS and time.monotonic() >= self.until


class Probe:
    """The visitor of the address that users use, the clients of the new and the old predictor, and the limits."""

    def __init__(
        self,
        config: RolloutConfig,
        visitor: Visitor,
        new: EndpointClient,
        old: EndpointClient | None,
        golden: GoldenTiles,
        still_ours: Callable[[], None],
    ) -> None:
        """Take the clients; `old` is None when nothing has answered before."""
        assert new.version is not None
        self._config, self._visitor, self._new, self._old = config, visitor, new, old
        self._version, self._golden, self._still_ours = new.version, golden, still_ours

    def watch(self, percent: int, minutes: float) -> StepFigures:
        """Watch a share of the traffic, from when the gateway splits it, and until enough tiles were asked for.

        Raises:
            ModelError: The new version answers wrongly, or is much slower than the old.
            ServiceError: Requests fail, the traffic isn't split as it was asked for, or too few tiles come to the new
                version.
        """
        # Proxies take new weights later than the route's condition says: up to 15 s were seen.
        taken_by = time.monotonic() + self._config.timeout_s
        step = _Step(self._version, percent, minutes, split=self._old is None)
        figures = step.figures
        if self._old is None:
            self._await_first_answers(figures)
        while not self._is_passed(step, taken_by):
            self._still_ours()
            for _ in range(2):
                if (answer := self._ask(figures)) is not None:
                    step.tally.add(answer)
            if not step.watched:
                self._time_predictors(figures)
            self._check_errors(figures, final=False)
            step.rounds += 1
            self._log_progress(step)
            if step.rounds >= _MIN_ROUNDS and time.monotonic() < step.until:
                time.sleep(_PAUSE_S)
        if self._visitor.tells_versions:
            figures.by_new, figures.tiles_by_new = step.tally.share, step.tally.tiles
        self._check_errors(figures, final=True)
        self._check_latency(figures)
        return figures

    def _is_passed(self, step: _Step, taken_by: float) -> bool:
        """Return whether a step has been watched enough; begin to count when the gateway splits the traffic."""
        tally = step.tally
        if not self._visitor.tells_versions:
            return step.watched
        if not step.split and tally.by_new:
            step.begin(split=True)
            return False
        enough = step.watched and tally.tiles >= _MIN_TILES
        if tally.contradicts(last=enough):
            if tally.began > taken_by:
                raise self._not_split(step)
            step.begin(split=False)
            time.sleep(_SETTLE_PAUSE_S)
            return False
        if not enough and time.monotonic() > step.until + _PATIENCE_S:
            raise self._too_few_tiles(step)
        return enough

    def _ask(self, figures: StepFigures) -> Answer | None:
        """Ask as users do, without a second try; return None where there was no answer."""
        figures.requests += 1
        try:
            return self._visitor.ask()
        except ServiceError as error:
            figures.fail(error)
            return None

    def _await_first_answers(self, figures: StepFigures) -> None:
        """Wait until a gateway's proxies have a route that is the first: what isn't answered yet is nobody's loss."""
        in_a_row, problem = 0, ""
        deadline = time.monotonic() + self._config.timeout_s
        while in_a_row < _SETTLED:
            self._still_ours()
            try:
                version = self._visitor.ask_version().version
                in_a_row = in_a_row + 1 if version == self._version else 0
                problem = "" if in_a_row else f"version {version} answers"
            except ServiceError as error:
                in_a_row, problem = 0, str(error)
            if in_a_row:
                continue
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"version {self._version} hasn't answered {_SETTLED} requests in a row to {self._visitor.address} "
                    f"after {self._config.timeout_s:g} s: {problem}. Is --endpoint behind the HTTPRoute?"
                )
            time.sleep(_SETTLE_PAUSE_S)

    def _time_predictors(self, figures: StepFigures) -> None:
        """Ask each predictor itself for a tile, and measure how long it takes."""
        figures.new_s.append(_timed(self._new, self._golden.images[:1]))
        if self._old and figures.percent < 100:
            figures.old_s.append(_timed(self._old, self._golden.images[:1]))

    def _log_progress(self, step: _Step) -> None:
        if time.monotonic() - step.told < _LINE_EVERY_S:
            return
        step.told = time.monotonic()
        if not step.split and self._visitor.tells_versions:
            waits = "waiting until the gateway splits the traffic"
        elif step.watched:
            waits = f"{step.tally.tiles} of {_MIN_TILES} requests with tiles answered by the new version"
        else:
            waits = f"{duration(max(0.0, step.until - step.told))} left"
        _log.info("watch     %d %%: %s, %s", step.figures.percent, step.figures, waits)

    def _check_errors(self, figures: StepFigures, final: bool) -> None:
        allowed = self._config.max_errors * (figures.requests if final else max(figures.requests, _MIN_ROUNDS))
        if figures.failed > allowed:
            raise ServiceError(
                f"{figures.failed:,} of {figures.requests:,} requests to {self._visitor.address} failed at "
                f"{figures.percent} % (--max-errors {self._config.max_errors:g}); the last: {figures.problems[-1]}"
            )

    def _not_split(self, step: _Step) -> ServiceError:
        tally = step.tally
        return ServiceError(
            f"version {self._version} answered {tally.by_new:,} of {tally.total:,} requests to "
            f"{self._visitor.address}, expected {step.figures.percent} % (answered: {tally}): the gateway doesn't "
            f"split as the HTTPRoute says, {self._config.timeout_s:g} s after it was changed. Is --endpoint behind "
            "that route? Where something keeps clients at one backend by their address, no split can be seen from "
            "one machine: turn that session affinity off, or give all the traffic at once with --traffic-steps 100. "
            "If KServe made the route, use --strategy two-services"
        )

    def _too_few_tiles(self, step: _Step) -> ServiceError:
        return ServiceError(
            f"version {self._version} answered {step.tally.tiles} requests with tiles in "
            f"{duration(time.monotonic() - step.tally.began)}, with {step.figures.percent} % of the traffic (answered: "
            f"{step.tally}); a step needs {_MIN_TILES}. Begin with a larger share in --traffic-steps, or see why "
            f"{self._visitor.address} is slow"
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
    return [path.read_bytes() for path in paths[:: math.ceil(len(paths) / _MAX_TILES)]]


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
    same = answers[0].argmax(axis=1) == answers[1].argmax(axis=1)
    known = np.isfinite(answers).all(axis=(0, 2))  # of NaN, too, there is a largest: the first
    share = float((same & known).mean())
    if not share >= at_least:  # of no tiles there is no share
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
