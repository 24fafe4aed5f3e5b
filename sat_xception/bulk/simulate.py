"""Simulate a bulk run: shards in a queue, machines that start late, scale and fail.

It models the setup that docs/bulk.md recommends, in simulated seconds. A machine takes the next shard, and needs the
time given by its rate, with a standard deviation of a tenth. If it fails, the whole shard goes back into the queue.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import simpy

from sat_xception.bulk.settings import BulkSimulateConfig
from sat_xception.bulk.sizing import read_backends
from sat_xception.errors import ConfigError
from sat_xception.log import duration
from sat_xception.storage.files import dump_json

__all__ = ["SimulationResult", "machines_for", "simulate"]

# Defaults of Kubernetes' HorizontalPodAutoscaler: every 15 seconds it doubles or adds 4, whichever is more
# (https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/).
_LOOK_EVERY_S, _ADD = 15.0, 4
# Relative standard deviation of a shard's duration: tiles differ, and machines share hardware with others.
_SPREAD = 0.1


@dataclass(frozen=True)
class SimulationResult:
    """Result of a simulation: planned = scored, in spite of failures.

    Attributes:
        tiles: Number of tiles scored.
        seconds: Time until the last shard was finished.
        tiles_per_hour: Tiles per hour over the whole run.
        most_machines: Maximum number of concurrent machines.
        machine_hours: Machine-hours that were paid for, including starting.
        failures: Number of machines that failed.
        lost_tiles: Number of tiles that were scored again, because a machine failed before their shard was finished.
        usd: Cost of the machines.
        ideal_seconds: Time if all machines were ready from the start, and none failed.
        as_json: Whether the summary is JSON.
    """

    tiles: int
    seconds: float
    tiles_per_hour: float
    most_machines: int
    machine_hours: float
    failures: int
    lost_tiles: int
    usd: float
    ideal_seconds: float
    as_json: bool = False

    def summary(self) -> str:
        """Return time, machines and cost."""
        if self.as_json:
            return dump_json({name: value for name, value in asdict(self).items() if name != "as_json"})
        return "\n".join(
            [
                f"simulate  {self.tiles:,} tiles in {duration(self.seconds)} ({duration(self.ideal_seconds)} without "
                f"starts and failures) | {self.tiles_per_hour / 1e6:,.1f} million an hour",
                f"machines  {self.most_machines:,} at most, {self.machine_hours:,.1f} hours of one | {self.failures:,} "
                f"failed, {self.lost_tiles:,} tiles scored again",
                f"money     ${self.usd:,.2f}",
            ]
        )


def machines_for(tiles_per_hour: float, tiles_per_s: float) -> int:
    """Return the number of machines that together reach a rate per hour, if all are busy all the time."""
    return math.ceil(tiles_per_hour / 3600 / tiles_per_s)


def simulate(config: BulkSimulateConfig) -> SimulationResult:
    """Simulate a run; the same seed gives the same result.

    Raises:
        ConfigError: No rate of the backbone is known for the backend.

    Example:
        result = simulate(BulkSimulateConfig(tiles=10_000_000, backend="t4", machines=20))
        print(result.seconds / 3600, result.usd)

    Example:
        result = simulate(BulkSimulateConfig(tiles=10_000_000, backend="t4", machines=20))
        print(result.seconds / 3600, result.usd)
    """
    backends = read_backends(config.prices)
    if config.backend not in backends:
        raise ConfigError(f"--backend {config.backend} isn't known; there are {', '.join(sorted(backends))}")
    backend = backends[config.backend]
    rate = config.tiles_per_s or backend.tiles_per_s.get(config.backbone, 0.0)
    if not rate:
        raise ConfigError(f"no rate of {config.backbone} is known for --backend {config.backend}; give --tiles-per-s")
    run = _Run(config, rate)
    run.play()
    hours = run.machine_seconds / 3600
    return SimulationResult(
        config.tiles,
        run.ended_s,
        config.tiles / run.ended_s * 3600,
        run.most,
        hours,
        run.failures,
        run.lost,
        hours * backend.usd_per_hour,
        config.tiles / rate / config.machines,
        config.as_json,
    )


class _Run:
    """The queue of shards, and the machines at it."""

    def __init__(self, config: BulkSimulateConfig, rate: float) -> None:
        self._config, self._rate = config, rate
        self._random = random.Random(config.seed)
        self._world = simpy.Environment()
        whole, rest = divmod(config.tiles, config.shard_tiles)
        self._waiting = [config.shard_tiles] * whole + [rest] * (rest > 0)
        self._left = len(self._waiting)
        self._done = self._world.event()
        self._machines = self._ready = 0
        self.most = self.failures = self.lost = 0
        self.machine_seconds = self.ended_s = 0.0

    def play(self) -> None:
        first = min(self._config.min_machines or self._config.machines, self._config.machines)
        self._start(first, delay_s=0.0 if self._config.prestarted else self._config.startup_s)
        self._world.process(self._autoscale())
        self._world.run(self._done)
        self.ended_s = self._world.now

    def _start(self, machines: int, delay_s: float) -> None:
        self._machines += machines
        self.most = max(self.most, self._machines)
        for _ in range(machines):
            self._world.process(self._machine(delay_s))

    def _autoscale(self) -> Iterator[Any]:
        """Start more machines while there are more shards than busy machines, as fast as Kubernetes does."""
        while self._left:
            yield self._world.timeout(_LOOK_EVERY_S)
            room = self._config.machines - self._machines
            # Starting machines are idle, so there is no load yet that would require more.
            wanted = min(max(self._ready, _ADD), room, len(self._waiting)) if self._ready else 0
            if wanted > 0:
                self._start(wanted, self._config.startup_s)

    def _machine(self, delay_s: float) -> Iterator[Any]:
        began = self._world.now
        yield self._world.timeout(delay_s)
        self._ready += 1
        per_hour = self._config.failures_per_hour
        fails_at = self._world.now + (self._random.expovariate(per_hour / 3600) if per_hour else math.inf)
        failed = False
        while self._waiting:
            shard = self._waiting.pop()
            takes = shard / self._rate * max(0.1, self._random.gauss(1.0, _SPREAD))
            if self._world.now + takes > fails_at:
                worked = max(0.0, fails_at - self._world.now)
                yield self._world.timeout(worked)
                self._waiting.append(shard)
                self.failures += 1
                self.lost += round(shard * worked / takes)
                failed = True
                break
            yield self._world.timeout(takes)
            self._left -= 1
        self._machines -= 1
        self._ready -= 1
        if failed:  # a Deployment replaces it
            self._start(1, self._config.startup_s)
        self.machine_seconds += self._world.now - began
        if not self._left and not self._done.triggered:
            self._done.succeed()
