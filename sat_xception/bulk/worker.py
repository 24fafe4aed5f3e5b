"""Score one shard of a plan atomically, in any process with access to plan, model and the folder of scores.

A shard is finished when its file exists, so a run that was killed continues with the missing ones.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sat_xception.bulk.engines import ENGINE_FOLDER, open_engine
from sat_xception.bulk.plan_document import identity_digest
from sat_xception.bulk.plan_file import Plan, read_plan
from sat_xception.bulk.run_document import EngineId
from sat_xception.bulk.score_files import Row, probabilities_of, read_shard, shard_facts, shard_name, write_shard
from sat_xception.bulk.scorer import Engine, Scorer, ScoringModel, score_here
from sat_xception.bulk.tiles import LoadedBatch, LoadedTile, TileSource, load_batches
from sat_xception.errors import DataError, ModelError, SatXceptionError
from sat_xception.serve.probabilities import find_flaws
from sat_xception.served_model.model_root import here
from sat_xception.storage import is_remote, read_stored_bytes, write_stored_bytes
from sat_xception.storage.document import Part
from sat_xception.storage.files import json_text

__all__ = ["FAILED", "STOPPED", "ScoringJob", "ShardFailure", "close_scorer", "is_finished", "progress", "score_shard"]

# Folder, in that of the scores, for the reason why the run stopped. A folder, since buckets can remove one as a whole.
STOPPED = "stopped"
FAILED = f"{STOPPED}/failed.json"


@dataclass(frozen=True)
class ScoringJob:
    """Settings that all shards of a run share.

    Attributes:
        plan: Folder of the plan, local or in a bucket.
        digest: Digest of the plan's identity; see `PlannedTiles.identity`.
        run: Digest of the run's identity, which is stored in each shard.
        out: Folder of the scores, local or in a bucket.
        version: Folder of the model's version, local or in a bucket.
        source: Source of the images.
        engine: The engine, or the one named "endpoint".
        batch_size: Maximum number of tiles per batch.
        endpoint: Address of a server; "" scores in this process.
        in_flight: Number of concurrent requests to the server.
        timeout_s: Deadline of a request, in seconds.
        threads: Number of cores for a model in this process; 0 uses all.
        retry: Whether only failed tiles are scored, again.
    """

    plan: Path
    digest: str
    run: str
    out: Path
    version: Path
    source: TileSource
    engine: EngineId
    batch_size: int
    endpoint: str = ""
    in_flight: int = 4
    timeout_s: float = 60.0
    threads: int = 0
    retry: bool = False


class ShardFailure(Part):
    """A failure that stopped a run, as `score_shard` left it.

    Attributes:
        kind: Name of the class of our exception; "" for others, and where the run was interrupted.
        error: Its message.
    """

    kind: str = ""
    error: str = ""


class Progress:
    """Number of tiles finished in this process, for progress within a shard."""

    def __init__(self) -> None:
        """Start at zero."""
        self._lock = threading.Lock()
        self.tiles = 0

    def add(self, tiles: int) -> None:
        """Count tiles."""
        with self._lock:
            self.tiles += tiles


progress = Progress()


def score_shard(shard: int, job: ScoringJob) -> None:
    """Score a shard and write its file, unless it exists already or the run has failed in another process.

    Errors that a user can act on are written to the run's folder, where the main process reads them: Beam doesn't
    preserve exceptions.
    """
    if read_stored_bytes(job.out / FAILED) is not None:
        return
    try:
        plan = _plan(job.plan, job.digest)
        if job.retry or not is_finished(job.out, plan, shard, job.run):
            _score(shard, plan, job)
    except (SatXceptionError, OSError) as error:
        kind = type(error).__name__ if isinstance(error, SatXceptionError) else ""
        message = f"{error} (on {socket.gethostname()})" if isinstance(error, OSError) else str(error)
        failure = ShardFailure(kind=kind, error=message)
        write_stored_bytes(json_text(failure.content()).encode(), job.out / FAILED, keep_earlier=True)


def is_finished(out: Path, plan: Plan, shard: int, run: str) -> bool:
    """Return whether a shard's file exists, matches its metadata, and belongs to a run."""
    facts = shard_facts(out / shard_name(shard, plan.shards))
    return (
        facts is not None
        and (facts.run, facts.plan) == (run, plan.digest)
        and facts.scored + facts.failed == plan.count(shard)
    )


def _score(shard: int, plan: Plan, job: ScoringJob) -> None:
    model, scorer = _held.get(job)
    path = job.out / shard_name(shard, plan.shards)
    keys = plan.keys(shard)
    rows: list[Row] = [""] * len(keys)
    wanted = np.arange(len(keys))
    if job.retry:
        rows, wanted = _earlier(path, model.classes)
        if not len(wanted):
            return
    batches = load_batches(job.source, plan, keys[wanted], job.batch_size, scorer.fit)
    for batch, found in _score_batches(batches, scorer, len(model.classes)):
        if not is_remote(job.out) and (job.out / FAILED).exists():
            return  # the main process has been stopped, or another worker has failed
        for place, row in zip(wanted[batch.begin :][: len(found)].tolist(), found, strict=True):
            rows[place] = row
        progress.add(len(found))
    write_shard(path, plan.rows(keys), rows, model.classes, job.run, plan.digest, str(model.version))


def _score_batches(
    batches: Iterator[LoadedBatch], scorer: Scorer, classes: int
) -> Iterator[tuple[LoadedBatch, list[Row]]]:
    """Yield each batch with the results of its tiles, with at most `scorer.at_once` calls at a time."""
    under_way: dict[Future[list[Row]], LoadedBatch] = {}
    with ThreadPoolExecutor(scorer.at_once) as pool:
        try:
            for batch in batches:
                under_way[pool.submit(_rows, batch.tiles, scorer, classes)] = batch
                if len(under_way) >= scorer.at_once:
                    done, _ = wait(under_way, return_when=FIRST_COMPLETED)
                    yield from ((under_way.pop(future), future.result()) for future in done)
            while under_way:
                done, _ = wait(under_way, return_when=FIRST_COMPLETED)
                yield from ((under_way.pop(future), future.result()) for future in done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _rows(tiles: Sequence[LoadedTile], scorer: Scorer, classes: int) -> list[Row]:
    """Return the result of each tile; a result that isn't a row of probabilities counts as a failure.

    Raises:
        ModelError: The number of probabilities differs from that of the classes, so another model answers.
    """
    sound = [tile for tile in tiles if not tile.reason]
    found = iter([_checked(row, classes) for row in scorer.score(sound)] if sound else [])
    return [tile.reason or next(found) for tile in tiles]


def _checked(row: Row, classes: int) -> Row:
    if isinstance(row, str):
        return row
    if row.shape != (classes,):
        raise ModelError(
            f"a tile was answered with {row.size} probabilities, and the model has {classes} classes: another model "
            "answers now. Finished shards are kept; check what is served, and run the same command again"
        )
    return find_flaws(row[np.newaxis])[0] or row


def _earlier(path: Path, classes: Sequence[str]) -> tuple[list[Row], Any]:
    """Return the results in a finished shard, and the indexes of the failed tiles."""
    table = read_shard(path)
    reasons = table["reason"].to_pylist()
    values = probabilities_of(table, classes)
    # Earlier versions didn't check results, and stored some as scored that aren't probabilities.
    told = [flaw if reason is None else reason for reason, flaw in zip(reasons, find_flaws(values), strict=True)]
    rows: list[Row] = [reason or values[index] for index, reason in enumerate(told)]
    return rows, np.flatnonzero([bool(reason) for reason in told])


@lru_cache(2)
def _plan(place: Path, digest: str) -> Plan:
    plan = read_plan(place)
    if identity_digest(plan.document.identity) != digest:
        raise DataError(f"the plan in {place} was replaced while it was carried out; run the command again")
    return plan


class _ModelCache:
    """The one scorer of this process, shared by its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._job: tuple[object, ...] = ()
        self._opened: tuple[ScoringModel, Scorer] | None = None

    def get(self, job: ScoringJob) -> tuple[ScoringModel, Scorer]:
        wanted = (job.version, job.engine, job.out, job.endpoint, job.in_flight, job.timeout_s, job.threads)
        with self._lock:
            if self._opened is None or self._job != wanted:
                self._close()
                self._opened, self._job = _open(job), wanted
            return self._opened

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._opened is not None:
            self._opened[1].close()
        self._opened = None


_held = _ModelCache()


def close_scorer() -> None:
    """Release the model or the connection of this process; no shard may be in progress."""
    _held.close()


def _open(job: ScoringJob) -> tuple[ScoringModel, Scorer]:
    model = ScoringModel.read(here(job.version))
    if job.endpoint:
        from sat_xception.bulk.endpoint import EndpointScorer

        return model, EndpointScorer(job.endpoint, model.name, model.version, job.in_flight, job.timeout_s)
    return model, _ScorerHere(open_engine(model, job.engine, job.out / ENGINE_FOLDER, job.threads))


class _ScorerHere:
    """A model in this process; see `Scorer`."""

    def __init__(self, engine: Engine) -> None:
        self.at_once = engine.at_once
        self._engine = engine
        self.fit = engine.fit

    def score(self, tiles: Sequence[LoadedTile]) -> list[Row]:
        return score_here(self._engine, tiles)

    def close(self) -> None:
        self._engine.close()
