"""Check each traffic step of a rollout: the split, correctness, latency and failures of responses.

It sends its own requests, with golden tiles and with given tiles; users' requests can't be observed from here.
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
# Minimum number of rounds per step: enough for a 95th percentile that isn't the largest value.
_MIN_ROUNDS = 60
# Minimum number of requests with tiles that the new version must answer at each step: a failure of every fifth request
# is detected with a probability of 1 - 0.8^20 = 99 %. At 10 % of the traffic it takes some 270 requests, and twice as
# many if versions are distinguished by number.
_MIN_TILES = 20
# Maximum time that a step may take beyond --step-minutes to reach that number.
_PATIENCE_S = 600.0
# For a first deployment: consecutive answers after which all of the gateway's proxies are assumed to have the route.
_SETTLED = 20
_SETTLE_PAUSE_S = 0.02
_PAUSE_S = 0.5
# Differences in latency below this aren't compared: they are due to the network.
_NOISE_S = 0.05
_LINE_EVERY_S = 15.0


class _Step:
    """State of a traffic step.

    Attributes:
        figures: Measurements.
        tally: Answers by version, since the gateway has split the traffic.
        split: Whether the gateway splits the traffic, as far as can be observed.
        rounds: Number of rounds of requests since then.
    """

    def __init__(self, new: int, percent: int, minutes: float, split: bool) -> None:
        self.figures, self._new, self._minutes = StepFigures(percent), new, minutes
        self.told = time.monotonic()
        self.begin(split)

    def begin(self, split: bool) -> None:
        """Restart the counts."""
        self.tally, self.split, self.rounds = Tally(self._new, self.figures.percent), split, 0

    @property
    def until(self) -> float:
        """End of the configured duration, on the monotonic clock."""
        return self.tally.began + self._minutes * 60

    @property
    def watched(self) -> bool:
        """Whether the configured duration has passed, with the minimum number of rounds."""
        return self.rounds >= _MIN_ROUNDS and time.monotonic() >= self.until


class Probe:
    """Checks of the traffic steps: through the users' address, and directly to the new and the old predictor."""

    def __init__(
        self,
        config: RolloutConfig,
        visitor: Visitor,
        new: EndpointClient,
        old: EndpointClient | None,
        golden: GoldenTiles,
        still_ours: Callable[[], None],
    ) -> None:
        """Take the clients; `old` is None for a first deployment."""
        assert new.version is not None
        self._config, self._visitor, self._new, self._old = config, visitor, new, old
        self._version, self._golden, self._still_ours = new.version, golden, still_ours

    def watch(self, percent: int, minutes: float) -> StepFigures:
        """Watch a traffic step, from when the gateway splits the traffic until enough tiles were scored.

        Raises:
            ModelError: The new version gives wrong results, or is much slower than the old one.
            ServiceError: Requests fail, the traffic isn't split as configured, or the new version gets too few tiles.
        """
        # Proxies use new weights later than the route's condition reports: up to 15 s were observed.
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
        """Return whether a step is complete; restart the counts when the gateway starts to split the traffic."""
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
        """Send a request as users do, without retries; return None if it failed."""
        figures.requests += 1
        try:
            return self._visitor.ask()
        except ServiceError as error:
            figures.fail(error)
            return None

    def _await_first_answers(self, figures: StepFigures) -> None:
        """Wait until a gateway's proxies have a new route; failures don't count yet, as there are no users."""
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
        """Measure the duration of a direct request with a tile to each predictor."""
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
    """Return at most 200 image files of a folder, evenly spaced; none without a folder.

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
    """Return the fraction of images that get the same class from two versions.

    Raises:
        ModelError: The fraction is below `at_least`, or the numbers of classes differ.
        ServiceError: A version doesn't answer.
    """
    answers = [np.concatenate([client.predict(batch) for batch in _batches(images)]) for client in (new, old)]
    if answers[0].shape != answers[1].shape:
        raise ModelError(
            f"version {new.version} answers with {answers[0].shape[1]} classes, the present version {old.version} with "
            f"{answers[1].shape[1]}: its users would read it wrongly. If they know, use --min-agreement 0"
        )
    same = answers[0].argmax(axis=1) == answers[1].argmax(axis=1)
    known = np.isfinite(answers).all(axis=(0, 2))  # argmax of NaN would be 0
    share = float((same & known).mean())
    if not share >= at_least:  # also if share is NaN, without tiles
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
