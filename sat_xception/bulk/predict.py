"""Score a plan shard by shard, with a model in each process or with a server, and close the ledger."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sat_xception import errors
from sat_xception.bulk.engines import ENGINE_FOLDER, engine_id, prepare_engine
from sat_xception.bulk.ledger import close_ledger
from sat_xception.bulk.plan_document import identity_digest
from sat_xception.bulk.plan_file import Plan, read_plan
from sat_xception.bulk.run import LOCK, begin_run, check_place, check_run, run_identity
from sat_xception.bulk.run_document import BulkRun, BulkScores, EngineId, PreparedEngine
from sat_xception.bulk.score_files import count_unscored, shard_facts, shard_name
from sat_xception.bulk.scorer import ScoringModel, choose_engine
from sat_xception.bulk.settings import BulkPredictConfig
from sat_xception.bulk.tiles import open_tiles
from sat_xception.bulk.worker import (
    FAILED,
    STOPPED,
    ScoringJob,
    ShardFailure,
    close_scorer,
    is_finished,
    progress,
    score_shard,
)
from sat_xception.errors import ConfigError, DataError, ServiceError
from sat_xception.examples.beam import pipeline_options, run_all
from sat_xception.log import duration, get_logger, track
from sat_xception.process import usable_cores
from sat_xception.served_model.model_root import check_digests, has_version, resolve_version
from sat_xception.storage import (
    file_lock,
    is_remote,
    list_files,
    read_stored_bytes,
    remove_files,
    write_error,
    write_stored_bytes,
)

__all__ = ["BulkPredictResult", "predict_tiles", "retry_failed"]

_log = get_logger(__name__)
# Poll interval for finished shards, in a folder and in a bucket, in seconds.
_LOOK_EVERY_S = {False: 0.5, True: 10.0}


@dataclass(frozen=True)
class BulkPredictResult:
    """Result of a run: planned = scored + failed.

    Attributes:
        folder: Of the scores.
        scores: Content of `scores.json`; of a part, the counts of its shards.
        tiles: Number of tiles that this run scored; others were scored before.
        seconds: Duration of scoring, with loading the model but without converting it.
    """

    folder: Path
    scores: BulkScores
    tiles: int
    seconds: float

    def markdown(self) -> str:
        """Return the summary as Markdown, for the Kubeflow UI."""
        return f"# Scores\n\n```\n{self.summary()}\n```\n"

    def summary(self) -> str:
        """Return the counts and the path of the scores."""
        scores = self.scores
        rate = f"{self.tiles / max(self.seconds, 1e-9):,.1f} tiles/s" if self.tiles else "all were there"
        lines = [
            f"predict   {scores.planned:,} planned = {scores.scored:,} scored + {scores.failed:,} failed | "
            f"{rate} | {duration(self.seconds)} | {scores.engine.name}"
        ]
        for reason, number in sorted(scores.reasons.items(), key=lambda item: -item[1])[:3]:
            lines.append(f"failed    {number:,} x {reason}")
        return "\n".join([*lines, f"wrote     {self.folder}"])


def predict_tiles(config: BulkPredictConfig) -> BulkPredictResult:
    """Score every tile of a plan; finished shards of an earlier run of the same command are kept.

    Raises:
        ConfigError: A setting is wrong, or the folder holds scores of another run; see `run_identity`.
        DataError: The plan or the model is damaged, or no tile could be scored.
        ServiceError: The imagery or the server failed for too long. Finished shards are kept.

    Example:
        result = predict_tiles(BulkPredictConfig(plan="plan", model="models/serving", out="scores"))
        print(result.summary())
    """
    return _run(config, retry=False)


def retry_failed(config: BulkPredictConfig) -> BulkPredictResult:
    """Score the failed tiles of a finished run again.

    Raises:
        ConfigError: The folder holds no finished run, or another one.
        SatXceptionError: See `predict_tiles`.
    """
    return _run(config, retry=True)


def _run(config: BulkPredictConfig, retry: bool) -> BulkPredictResult:
    options = pipeline_options(config.runner, config.beam_options) if config.runner else None
    plan = read_plan(config.plan)
    source = open_tiles(plan, config.imagery, config.workers, config.rate_per_s)
    version = resolve_version(config.model, config.name)
    check_digests(version)
    model = ScoringModel.read(version)
    check_place(config.out, retry)
    with _locked(config.out, config.part):
        name = "" if config.endpoint else choose_engine(config.engine)
        identity = run_identity(config, plan, model, _engine_id(config, name))
        # Before an engine is prepared, which would replace the existing one.
        check_run(config.out, identity, retry)
        run = begin_run(config.out, plan, model, _prepare_engine(config, model, name), identity, retry)
        remove_files(config.out / STOPPED)
        found = _todo(config.out, plan, model, retry, run.run)
        todo = [(shard, number) for shard, number in found if config.has_shard(shard)]
        tiles = sum(number for _, number in todo)
        asked = sum(map(config.has_shard, range(plan.shards)))
        if len(todo) < asked and not retry:
            _log.info("resumed   %s of %s shards were there", f"{asked - len(todo):,}", f"{asked:,}")
        job = ScoringJob(
            plan=config.plan,
            digest=identity_digest(plan.document.identity),
            run=run.run,
            out=config.out,
            version=_address_of(model, config) if config.runner else version,
            source=source,
            engine=run.engine,
            batch_size=config.batch_size,
            endpoint=config.endpoint,
            in_flight=config.in_flight,
            timeout_s=config.timeout_s,
            threads=max(1, usable_cores() // config.processes) if config.processes > 1 else 0,
            retry=retry,
        )
        started = time.monotonic()
        if todo:
            _score_all(config, plan, todo, options, job)
        seconds = time.monotonic() - started
        if config.part:
            return BulkPredictResult(config.out, _scores_of_part(config, plan, run), tiles, seconds)
        scores = close_ledger(config.out, run)
    # After earlier runs, the remaining tiles of an area may be just those that can't be scored.
    if plan.planned and not scores.scored and not plan.document.left_out:
        reason = next(iter(scores.reasons))
        raise DataError(f"none of {plan.planned:,} tiles could be scored; most common: {reason}")
    return BulkPredictResult(config.out, scores, tiles, seconds)


def _scores_of_part(config: BulkPredictConfig, plan: Plan, run: BulkRun) -> BulkScores:
    """Return the counts of a part from its shards; the tiles are checked when the ledger is closed."""
    shards = [shard for shard in range(plan.shards) if config.has_shard(shard)]
    found = [facts for shard in shards if (facts := shard_facts(config.out / shard_name(shard, plan.shards)))]
    return BulkScores(
        **(dict(run) | {"planned": sum(map(plan.count, shards))}),
        scored=sum(facts.scored for facts in found),
        failed=sum(facts.failed for facts in found),
        reasons={},
    )


def _score_all(
    config: BulkPredictConfig,
    plan: Plan,
    todo: Sequence[tuple[int, int]],
    options: Any,  # noqa: ANN401 - Beam has no types
    job: ScoringJob,
) -> None:
    """Score shards while showing progress; a failure in any process is raised here."""
    processes = min(config.processes, len(todo))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_all, score_shard, [shard for shard, _ in todo], options, processes, job=job)
        running.add_done_callback(lambda _: close_scorer())
        _follow(running, config.out, plan, todo, sum(number for _, number in todo))
    _raise_failure(config, running)


_SERVED = PreparedEngine(name="endpoint", precision="the server's")


def _engine_id(config: BulkPredictConfig, engine: str) -> EngineId:
    if not engine:
        return EngineId(name=_SERVED.name, precision=_SERVED.precision)
    if config.precision != "fp32" and engine != "openvino":
        raise ConfigError(f"--precision {config.precision} is of --engine openvino, which auto didn't choose")
    return engine_id(engine, config.precision, config.calibrate)


def _prepare_engine(config: BulkPredictConfig, model: ScoringModel, engine: str) -> PreparedEngine:
    if engine:
        return prepare_engine(model, engine, config.precision, config.calibrate, config.out / ENGINE_FOLDER)
    from sat_xception.bulk.endpoint import EndpointScorer
    from sat_xception.served_model.golden import check_golden

    scorer = EndpointScorer(config.endpoint, config.name, model.version, config.in_flight, config.timeout_s)
    with contextlib.closing(scorer):
        check_golden(model.folder, scorer.client)
    return _SERVED


def _todo(out: Path, plan: Plan, model: ScoringModel, retry: bool, run: str) -> list[tuple[int, int]]:
    """Return the shards to score, each with its number of tiles."""
    if not retry:
        return [(shard, plan.count(shard)) for shard in range(plan.shards) if not is_finished(out, plan, shard, run)]
    found = []
    for shard in range(plan.shards):
        facts = shard_facts(out / shard_name(shard, plan.shards))
        if facts is None or facts.run != run:
            raise ConfigError(
                f"{out / shard_name(shard, plan.shards)} is missing; run `sat_xception bulk predict` first"
            )
        unscored = count_unscored(out / shard_name(shard, plan.shards), model.classes)
        if unscored:
            found.append((shard, unscored))
    return found


@contextlib.contextmanager
def _locked(out: Path, part: str) -> Iterator[None]:
    """Lock a part of a local folder against other writers; folders in a bucket can't be locked."""
    if is_remote(out):
        yield
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(error, f"--out {out}") from None
    held = f"another run is writing {out}; wait for it, or name another --out"
    with file_lock(out / f"{LOCK}{part.replace('/', '-of-')}", held, f"--out {out}"):
        yield


def _follow(running: Future[None], out: Path, plan: Plan, todo: Sequence[tuple[int, int]], tiles: int) -> None:
    """Show progress until the run ends; after an interrupt, workers stop before their next shard."""
    told = track(range(tiles), "predict", tiles)
    before, seen = progress.tiles, 0
    waiting = dict(todo)
    finished = 0
    try:
        while not running.done():
            wait([running], timeout=_LOOK_EVERY_S[is_remote(out)])
            here = progress.tiles - before
            if not here:  # other processes do the work
                there = {path.name for path in (list_files(out) if is_remote(out) else out.glob("scores-*"))}
                done = [shard for shard in waiting if shard_name(shard, plan.shards) in there]
                finished += sum(waiting.pop(shard) for shard in done)
            for _ in range(min(max(here, finished), tiles) - seen):
                next(told, None)
            seen = max(here, finished, seen)
    except BaseException:
        write_stored_bytes(b"{}", out / FAILED)
        raise
    finally:
        told.close()  # type: ignore[attr-defined]


def _raise_failure(config: BulkPredictConfig, running: Future[None]) -> None:
    content = read_stored_bytes(config.out / FAILED)
    if content is not None:
        failure = ShardFailure.model_validate_json(content)
        kind: Callable[[str], Exception] = getattr(errors, failure.kind, ServiceError)
        if failure.kind == "RequestError" or not failure.kind:
            kind = ServiceError
        raise kind(failure.error)
    error = running.exception()
    if error is not None and config.runner:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ServiceError(f"{config.runner} failed: {lines[-1]}. Finished shards are kept: run again to go on")
    if error is not None:
        raise error


def _address_of(model: ScoringModel, config: BulkPredictConfig) -> Path:
    """Return the address of the version for other machines: a newer one may appear in the model root meanwhile."""
    below = (config.model / str(model.version), config.model / config.name / str(model.version))
    return next((path for path in below if has_version(path)), config.model)
