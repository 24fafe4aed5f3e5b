"""The ledger: planned = scored + failed, with each planned tile exactly once, checked by a digest of the tile ids."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from sat_xception.bulk.plan_file import IdDigest
from sat_xception.bulk.run_document import BulkRun, BulkScores
from sat_xception.bulk.score_files import count_values, facts_of, read_shard, shard_facts, shard_name
from sat_xception.bulk.settings import BulkStatusConfig
from sat_xception.errors import ConfigError, DataError
from sat_xception.log import track
from sat_xception.storage.files import dump_json

__all__ = ["BulkStatus", "close_ledger", "has_tiles", "report_status"]

# Reasons to fail that are kept, and that are shown.
_REASONS, _SHOWN = 20, 5


@dataclass(frozen=True)
class BulkStatus:
    """Progress of a run: planned = scored + failed + waiting.

    Attributes:
        folder: Folder of the scores.
        planned: Number of tiles in the plan.
        scored: Number of tiles with a score.
        failed: Number of tiles in finished shards that couldn't be scored.
        shards: Number of shards in the plan.
        finished: Number of shards whose file exists.
        closed: Whether the ledger is closed, so that all tiles are accounted for.
        reasons: The most common reasons of failures with their counts, if the ledger is closed.
        as_json: Whether the summary is JSON.
    """

    folder: Path
    planned: int
    scored: int
    failed: int
    shards: int
    finished: int
    closed: bool
    reasons: dict[str, int]
    as_json: bool

    @property
    def waiting(self) -> int:
        """Number of tiles in unfinished shards."""
        return self.planned - self.scored - self.failed

    def summary(self) -> str:
        """Return the counts."""
        if self.as_json:
            names = ("planned", "scored", "failed", "waiting", "shards", "finished", "closed", "reasons")
            return dump_json({name: getattr(self, name) for name in names})
        lines = [
            f"status    {self.planned:,} planned = {self.scored:,} scored + {self.failed:,} failed + {self.waiting:,} "
            f"waiting | {self.finished:,} of {self.shards:,} shards | "
            + ("every tile is accounted for" if self.closed else "not closed: run `sat_xception bulk predict` again")
        ]
        lines += [f"failed    {number:,} x {reason}" for reason, number in self.reasons.items()]
        return "\n".join(lines)


def close_ledger(out: Path, run: BulkRun) -> BulkScores:
    """Read every shard, check that it has each planned tile exactly once, and write `scores.json`.

    Args:
        out: Folder of the scores.
        run: The run.

    Raises:
        DataError: A shard is missing or damaged, or the tiles aren't those of the plan.
    """
    digest, counts, reasons = IdDigest(), Counter[str](), Counter[str]()
    versions: set[str] = set()
    for shard in track(range(run.shards), "ledger", run.shards):
        path = out / shard_name(shard, run.shards)
        try:
            rows = read_shard(path, ("tile_id", "status", "reason", "model_version"))
        except (pa.ArrowInvalid, pa.ArrowKeyError, TypeError, OSError):
            raise DataError(
                f"{path} is missing or damaged; run `sat_xception bulk predict` again: it scores that shard alone"
            ) from None
        facts = facts_of(rows.schema.metadata)
        if facts is None or facts.run != run.run:
            raise DataError(
                f"{path} is of another run than {BulkRun.file_name}; remove it, and run `bulk predict` again"
            )
        for chunk in rows["tile_id"].chunks:
            digest.add(chunk)
        counts.update(count_values(rows["status"]))
        reasons.update(count_values(rows["reason"].drop_null()))
        versions.update(rows["model_version"].unique().to_pylist())
    planned, scored, failed = run.planned, counts["scored"], counts["failed"]
    if counts.total() != planned or scored + failed != planned:
        raise DataError(f"{out} has {counts.total():,} tiles, {planned:,} were planned; remove it and predict again")
    if digest.hexdigest() != run.tile_ids_digest:
        raise DataError(f"{out} has other tiles than were planned, or some twice; remove it and predict again")
    if planned and versions != {str(run.model.version)}:
        raise DataError(f"{out} was scored by versions {sorted(versions)}; remove it and predict again")
    scores = BulkScores(**dict(run), scored=scored, failed=failed, reasons=dict(reasons.most_common(_REASONS)))
    scores.replace(out)
    return scores


def has_tiles(scores: str) -> bool:
    """Return whether the plan of a folder of scores, local or in a bucket, had any tiles."""
    run = BulkRun.find(BulkStatusConfig.model_validate({"scores": scores}).scores)
    return bool(run and run.planned)


def report_status(config: BulkStatusConfig) -> BulkStatus:
    """Return how far a run is, from the metadata of its finished shards.

    Raises:
        ConfigError: The folder holds no run.

    Example:
        status = report_status(BulkStatusConfig(scores="scores"))
        print(status.scored, status.failed, status.waiting)
    """
    run = BulkRun.find(config.scores)
    if run is None:
        raise ConfigError(
            f"{config.scores} holds no {BulkRun.file_name}: name a folder that `sat_xception bulk predict` writes"
        )
    finished = scored = failed = 0
    for shard in range(run.shards):
        facts = shard_facts(config.scores / shard_name(shard, run.shards))
        if facts is not None and (facts.run, facts.plan) == (run.run, run.tile_ids_digest):
            finished, scored, failed = finished + 1, scored + facts.scored, failed + facts.failed
    closed = BulkScores.find(config.scores)
    reasons = closed.reasons if closed else {}
    return BulkStatus(
        config.scores,
        run.planned,
        scored,
        failed,
        run.shards,
        finished,
        closed is not None and closed.scored == scored and finished == run.shards,
        dict(sorted(reasons.items(), key=lambda item: -item[1])[:_SHOWN]),
        config.as_json,
    )
