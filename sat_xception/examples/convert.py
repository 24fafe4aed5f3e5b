"""Turn a dataset into TFRecord files of `tf.train.Example`, with the feature names that TensorFlow's own tools use.

The files are planned first, then written one by one, in this process or on Beam, into a folder beside the result. That
folder outlives a run that is killed; the same command goes on from the files in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from sat_xception import __version__
from sat_xception.dataset.manifest import check_shard
from sat_xception.dataset.record import DatasetRecord
from sat_xception.errors import ConfigError, DataError, ServiceError
from sat_xception.examples.beam import pipeline_options, run_all
from sat_xception.examples.index import ExamplesIndex, Shard, SplitIndex
from sat_xception.examples.settings import ConvertConfig
from sat_xception.examples.shard_plan import PlannedShard, open_shard, plan_shards
from sat_xception.examples.shard_writer import (
    FAILED,
    NOTE,
    PART,
    RUN,
    ShardFailure,
    ShardJob,
    ShardNote,
    finished_shard,
    write_shard,
)
from sat_xception.log import get_logger, track
from sat_xception.process import usable_cores
from sat_xception.storage import atomic_folder, file_lock, is_remote, read_json

__all__ = ["ConvertResult", "convert"]

_log = get_logger(__name__)
# Starting processes takes seconds, so smaller datasets stay in one; see docs/decisions/0012-convert-on-beam.md.
_WORTH_PROCESSES_BYTES = 4 * 10**9
# Settings that don't change the result, and aren't told in it: its bytes are the same with any of them.
_HOW_NOT_WHAT = ("processes", "runner", "beam_options")


@dataclass(frozen=True)
class ConvertResult:
    """Result of convert.

    Attributes:
        folder: The examples.
        counts: Number of examples by split.
    """

    folder: Path
    counts: dict[str, int]

    def summary(self) -> str:
        """Return the counts and the path of the examples."""
        counts = "  ".join(f"{split} {number:,}" for split, number in self.counts.items())
        return f"convert   {sum(self.counts.values()):,} examples | {counts}\nwrote     {self.folder}"


def convert(config: ConvertConfig) -> ConvertResult:
    """Write `<split>/examples-00000-of-000NN.tfrecord` and `examples.json`.

    The files hold the dataset's image bytes unchanged. The same dataset always gives the same files, with any number of
    processes and after any number of interruptions.

    Raises:
        ConfigError: The Beam options are wrong, or the runner's machines can't reach the data.
        DataError: The dataset is missing or damaged, or doesn't hold the tiles that it lists.
        ServiceError: The disk is full, or the runner failed.

    Example:
        result = convert(ConvertConfig(dataset="dataset", out="examples"))
        print(result.summary())
    """
    if config.runner:
        _check_reachable(config)
    dataset = DatasetRecord.read(config.dataset)
    planned = {split: sum(by_class.values()) for split, by_class in dataset.counts.by_split.items()}
    files = [config.dataset / name for name in sorted(dataset.shards)]
    with ThreadPoolExecutor(usable_cores()) as pool:
        for _ in pool.map(check_shard, files, (dataset.shards[file.name] for file in files)):
            pass
    plan = plan_shards(files, sorted(planned), dataset.classes, config.shard_mb * 10**6)
    found = {split: sum(shard.count for shard in plan if shard.split == split) for split in sorted(planned)}
    if found != planned:
        raise DataError(f"{config.dataset} holds {found} tiles, its dataset.json says {planned}; run assemble again")
    with (
        atomic_folder(config.out, record=ExamplesIndex.file_name) as work,
        _run_folder(config, dataset) as (folder, run),
    ):
        notes = _write_all(config, plan, _job(files, dataset.classes, folder, run))
        splits = {split: _describe([shard for shard in plan if shard.split == split], notes) for split in found}
        for split in splits:
            (work / split).mkdir()
        for shard in plan:
            _place(folder / shard.path, work / shard.path)
        index = ExamplesIndex(
            classes=dataset.classes,
            positive_label=dataset.positive_label,
            dataset_digest=dataset.digest,
            source=dataset.name,
            synthetic=dataset.synthetic,
            slices=_slices(files),
            block_zoom=dataset.block_zoom,
            splits=splits,
            config={name: value for name, value in config.resolved().items() if name not in _HOW_NOT_WHAT},
        )
        index.write(work)
    return ConvertResult(config.out, found)


def _check_reachable(config: ConvertConfig) -> None:
    given = config.resolved()
    for name in ("dataset", "out"):
        if str(given[name]).startswith("gs:"):
            raise ConfigError(
                f"{config.runner} writes from other machines, which take --{name} from a folder that all of them "
                f"mount; got {given[name]}. Mount the bucket, or leave out --runner: see docs/convert.md"
            )


def _job(files: Sequence[Path], classes: tuple[str, ...], folder: Path, run: str) -> ShardJob:
    sizes = []
    for file in files:
        with open_shard(file, ()) as parquet:
            sizes.append((file.resolve(), parquet.metadata.num_rows))
    return ShardJob(tuple(sizes), classes, folder, run)


def _slices(files: Sequence[Path]) -> tuple[str, ...]:
    for file in files[:1]:
        with open_shard(file, ()) as parquet:
            names = parquet.schema_arrow.names
        return tuple(name.removeprefix("slice/") for name in names if name.startswith("slice/"))
    return ()


@contextlib.contextmanager
def _run_folder(config: ConvertConfig, dataset: DatasetRecord) -> Iterator[tuple[Path, str]]:
    """Yield the work folder for this dataset and settings, and the run's id; a stopped run keeps the folder."""
    # With the version: another one may write other features.
    facts = {"dataset": dataset.digest, "shards": dataset.shards, "shard_mb": config.shard_mb, "by": __version__}
    key = hashlib.sha256(repr((sorted(facts.items()), str(config.out))).encode()).hexdigest()[:16]
    place = Path(tempfile.gettempdir()) if is_remote(config.out) else config.out.resolve().parent
    folder = place / f".{config.out.name}-convert-{key}"
    folder.mkdir(exist_ok=True)
    with file_lock(folder / RUN, f"another convert is writing {config.out}; wait for it, or name another --out"):
        # First: workers of a run that was killed live on for seconds, and fail when their files are taken away below.
        run = uuid.uuid4().hex
        (folder / RUN).write_text(run, encoding="utf-8")
        for left in (*folder.rglob(f"*{PART}"), folder / FAILED):
            left.unlink(missing_ok=True)
        for split in dataset.counts.by_split:
            (folder / split).mkdir(exist_ok=True)
        try:
            yield folder, run
        except BaseException:
            if not any(folder.rglob(f"*{NOTE}")):
                shutil.rmtree(folder, ignore_errors=True)
            else:
                _log.info("kept      finished files in %s; the same command goes on from them", folder)
            raise
        # Also those of earlier datasets and settings, which can't be resumed any more.
        for other in place.glob(f".{config.out.name}-convert-*"):
            shutil.rmtree(other, ignore_errors=True)


def _write_all(config: ConvertConfig, plan: Sequence[PlannedShard], job: ShardJob) -> dict[str, ShardNote]:
    """Write the files that are missing; return every file's note by its path below the job's folder."""
    there = sum((job.folder / f"{shard.path}{NOTE}").is_file() for shard in plan)
    if there:
        _log.info("resumed   %d of %d files were there", there, len(plan))
    if plan:
        options = pipeline_options(config.runner, config.beam_options) if config.runner else None
        processes = 1 if config.runner else _choose_processes(config, plan, job)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(run_all, write_shard, plan, options, processes, job=job)
            try:
                for _ in track(_progress(running, job.folder), "convert", len(plan)):
                    pass
            except BaseException:
                # Workers look for this file, and stop.
                (job.folder / FAILED).touch()
                raise
        _raise_failure(config, job, running)
    found = {shard.path: finished_shard(job.folder / shard.path) for shard in plan}
    notes = {path: note for path, note in found.items() if note}
    lost = sorted(found.keys() - notes.keys())
    if lost:
        raise ServiceError(f"{len(lost)} files, such as {lost[0]}, weren't written; run the command again")
    return notes


def _choose_processes(config: ConvertConfig, plan: Sequence[PlannedShard], job: ShardJob) -> int:
    size = sum(file.stat().st_size for file, _ in job.files)
    wanted = config.processes or (usable_cores() if size >= _WORTH_PROCESSES_BYTES else 1)
    return min(wanted, len(plan))


def _progress(running: Future[None], folder: Path) -> Iterator[None]:
    """Yield once per finished file, until the end."""
    seen = 0
    while not running.done():
        wait([running], timeout=0.2)
        done = sum(1 for _ in folder.glob(f"*/*{NOTE}"))
        yield from (None for _ in range(done - seen))
        seen = max(seen, done)


def _raise_failure(config: ConvertConfig, job: ShardJob, running: Future[None]) -> None:
    if (job.folder / FAILED).is_file():
        failure = ShardFailure.model_validate(read_json(job.folder / FAILED, made_by="convert"))
        if failure.errno is not None:
            raise OSError(failure.errno, failure.error)
        raise DataError(failure.error)
    error = running.exception()
    if error is not None and config.runner:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ServiceError(f"{config.runner} failed: {lines[-1]}. Finished files are kept: run again to go on")
    if error is not None:
        raise error


def _describe(shards: Sequence[PlannedShard], notes: dict[str, ShardNote]) -> SplitIndex:
    by_class: Counter[str] = Counter()
    for shard in shards:
        by_class.update(shard.by_class)
    written = [notes[shard.path] for shard in shards]
    return SplitIndex(
        count=by_class.total(),
        by_class=dict(sorted(by_class.items())),
        shards=tuple(Shard(file=note.file, count=note.count, sha256=note.sha256) for note in written),
    )


def _place(made: Path, target: Path) -> None:
    """Link a finished file into the result; the original is kept in case the result isn't published."""
    try:
        os.link(made, target)
    except OSError:
        shutil.copyfile(made, target)
