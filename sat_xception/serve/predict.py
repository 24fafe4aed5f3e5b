"""Score image files with a packaged model or a running endpoint, into CSV or JSON.

One row per image: path, label, score, one probability per class, status, reason. With --model, the columns of
probabilities are named after the classes (`probability_school`), from its model.json. An endpoint doesn't list its
classes, so there they are numbered in class order (`probability_0`).
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from sat_xception.dataset.images import IMAGE_SUFFIXES, encode_for_tensorflow
from sat_xception.errors import ConfigError, DataError, ModelError, ServiceError
from sat_xception.log import duration, get_logger, track
from sat_xception.serve.access import Access
from sat_xception.serve.client import EndpointClient
from sat_xception.serve.probabilities import find_flaws
from sat_xception.serve.protocol import CLASSIFY_SIGNATURE, Classification, Code, RequestError
from sat_xception.serve.rows import Value, check_suffix, open_rows
from sat_xception.serve.settings import PredictConfig
from sat_xception.served_model.model_root import resolve_version
from sat_xception.served_model.packaged_model import PackagedModel
from sat_xception.storage import local_file, local_folder

__all__ = ["PredictResult", "find_images", "predict"]

_log = get_logger(__name__)
_SHOWN_FAILURES = 5
# Number of columns that aren't probabilities.
_OTHER_COLUMNS = 5


class _Scorer(Protocol):
    def classify(self, images: Sequence[bytes]) -> Classification: ...


@dataclass(frozen=True)
class _Row:
    """An image's row in the output; `probabilities` is empty if it failed."""

    path: Path
    label: str = ""
    score: float | None = None
    probabilities: tuple[float, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class PredictResult:
    """Counts of a prediction: `images` = `ok` + `failed`.

    Attributes:
        images: Number of images found.
        ok: Number of images scored.
        failed: Number of images not scored; their rows have the reason.
        seconds: Duration of scoring, without loading the model.
        out: File that was written, or None for stdout.
    """

    images: int
    ok: int
    failed: int
    seconds: float
    out: Path | None

    def counts(self) -> str:
        """Return the counts on one line."""
        rate = self.images / max(self.seconds, 1e-9)
        counts = f"{self.images:,} images | {self.ok:,} ok  {self.failed:,} failed"
        return f"predict   {counts} | {rate:,.1f} images/s | {duration(self.seconds)}"

    def summary(self) -> str:
        """Return the counts and the file; "" if the rows went to stdout."""
        return f"{self.counts()}\nwrote     {self.out}" if self.out else ""


def predict(config: PredictConfig) -> PredictResult:
    """Score images and write one row for each; an unreadable image becomes a failed row, and the others are scored.

    Raises:
        ConfigError: A path, --model, --endpoint or --out is wrong.
        DataError: There are no images, or none could be scored.
        ServiceError: The endpoint can't be reached or doesn't have this model.

    Example:
        result = predict(PredictConfig(inputs=["tiles"], model="models/serving", out="scores.csv"))
        print(result.ok, result.failed)
    """
    check_suffix(config.out)
    files = find_images(config.inputs)
    ok = 0
    failed: list[_Row] = []
    with _open_scorer(config) as (scorer, classes):
        started = time.monotonic()
        # Closed here, also after an error: collected later, it could wait for its own threads in one of them.
        scored = _scored_rows(scorer, files, config)
        columns, rows = _columns(scored, classes)
        with contextlib.closing(scored), open_rows(config.out, columns) as write:
            for row in rows:
                if row.probabilities and len(row.probabilities) != len(columns) - _OTHER_COLUMNS:
                    raise ServiceError(
                        f"{config.endpoint} answers with {len(row.probabilities)} classes for {_shown(row.path)}, and "
                        f"with {len(columns) - _OTHER_COLUMNS} before: its model was changed meanwhile. Run again"
                    )
                write(_values(row, columns))
                if row.reason:
                    failed.append(row)
                else:
                    ok += 1
    for row in failed[:_SHOWN_FAILURES]:
        _log.warning("failed    %s: %s", _shown(row.path), row.reason)
    result = PredictResult(len(files), ok, len(failed), time.monotonic() - started, config.out)
    if config.out is None:
        _log.info("%s", result.counts())
    if not ok:
        raise DataError(
            f"none of {len(files):,} images could be scored; the first, {_shown(failed[0].path)}: {failed[0].reason}"
        )
    return result


def find_images(inputs: Iterable[Path]) -> dict[Path, Path]:
    """Return the image files among paths and, sorted, below folders; without duplicates and hidden files.

    Args:
        inputs: Local files and folders, or addresses in a bucket, which are downloaded.

    Returns:
        Local files by their given path or address.

    Raises:
        ConfigError: A path doesn't exist.
        DataError: A file hasn't the suffix of an image, or there are no images.
        ServiceError: A bucket can't be read.
    """
    inputs = list(inputs)
    suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
    found: dict[Path, Path] = {}
    for path in inputs:
        place = _here(path)
        if place.is_dir():
            below = (file for file in place.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
            shown = sorted(file for file in below if not file.name.startswith("."))
            found.update({path / file.relative_to(place): file for file in shown})
        elif not place.exists():
            raise ConfigError(f"no file or folder at {path} (seen from {Path.cwd()})")
        elif path.suffix.lower() not in IMAGE_SUFFIXES:
            raise DataError(
                f"{path} doesn't look like an image: its name ends in {path.suffix!r}, expected one of {suffixes}"
            )
        else:
            found[path] = place
    if not found:
        raise DataError(f"no images in {', '.join(map(str, inputs))}: looked for files that end in {suffixes}")
    return found


def _here(path: Path) -> Path:
    return local_file(path) if path.suffix.lower() in IMAGE_SUFFIXES else local_folder(path)


class _ModelScorer:
    """Scores with a packaged version in this process, like an endpoint."""

    def __init__(self, version: Path) -> None:
        # Imported here: with an endpoint, scoring needs no TensorFlow.
        from sat_xception.serve.models import SavedModelSession

        self.classes = list(PackagedModel.read(version).classes)
        self.model = SavedModelSession(version)

    def classify(self, images: Sequence[bytes]) -> Classification:
        found = self.model.classify(images)
        if found.probabilities.shape != (len(images), len(self.classes)):
            shape = list(found.probabilities.shape)
            raise ModelError(
                f"{self.model.path} gives probabilities of shape {shape}, its model.json has {len(self.classes)} names"
            )
        return found


@contextlib.contextmanager
def _open_scorer(config: PredictConfig) -> Iterator[tuple[_Scorer, list[str] | None]]:
    """Yield a scorer, and the class names in the order of its probabilities, or None if unknown."""
    if config.model is not None:
        scorer = _ModelScorer(resolve_version(config.model, config.name))
        with scorer.model:
            yield scorer, scorer.classes
        return
    access = Access.find(config.token_file, config.ca_file, config.host_header)
    version = _served_version(config, access)
    with EndpointClient(config.endpoint, config.name, version, config.timeout_s, access) as client:
        signatures = client.metadata().get("metadata", {}).get("signature_def", {}).get("signature_def", {})
        if CLASSIFY_SIGNATURE not in signatures:
            raise ModelError(
                f"{config.name} at {config.endpoint} has signatures {sorted(signatures)}, not {CLASSIFY_SIGNATURE!r}: "
                "deploy a model that `sat_xception package` wrote"
            )
        yield _PinnedScorer(client), None


def _served_version(config: PredictConfig, access: Access) -> int | None:
    """Return the version that an endpoint serves, to score all images with it; None if it isn't reported.

    Raises:
        RequestError: The endpoint can't be reached, or has no such model.
    """
    with EndpointClient(config.endpoint, config.name, timeout_s=config.timeout_s, access=access) as client:
        states = client.status()
    version = max((state.version or 0 for state in states if state.state == "AVAILABLE"), default=0)
    if not version:
        _log.warning("endpoint  %s doesn't report which version it serves, so it can't be pinned", config.endpoint)
        return None
    _log.info("endpoint  version %d of %s", version, config.name)
    return version


class _PinnedScorer:
    """Scores with one version of an endpoint; if that is unloaded, the run fails instead of mixing two versions."""

    def __init__(self, client: EndpointClient) -> None:
        self._client = client

    def classify(self, images: Sequence[bytes]) -> Classification:
        client = self._client
        try:
            return client.classify(images)
        except RequestError as error:
            if client.version is None or error.code not in (Code.NOT_FOUND, Code.FAILED_PRECONDITION):
                raise
            raise ServiceError(
                f"version {client.version} of {client.name}, which scored the images so far, isn't served at "
                f"{client.address} any more: {error}. Run again, to score all of them by one version"
            ) from None


def _scored_rows(scorer: _Scorer, files: Mapping[Path, Path], config: PredictConfig) -> Generator[_Row]:
    """Yield the rows in the order of the files, while the next batches are read and scored."""

    def scored(batch: list[Path]) -> list[_Row]:
        reasons: dict[Path, str] = {}
        images: dict[Path, bytes] = {}
        for path in batch:
            try:
                images[path] = encode_for_tensorflow(files[path].read_bytes())[0]
            except (OSError, DataError) as error:
                reasons[path] = str(error)
        rows = {row.path: row for row in _score(scorer, list(images.items()))}
        return [rows[path] if path in rows else _Row(path, reason=reasons[path]) for path in batch]

    with ThreadPoolExecutor(config.calls, thread_name_prefix="predict") as pool:
        under_way: deque[Future[list[_Row]]] = deque()

        def done(least: int) -> Iterator[_Row]:
            while len(under_way) > least:
                yield from under_way.popleft().result()

        def rows() -> Iterator[_Row]:
            for batch in _batches(files, config.batch_size):
                under_way.append(pool.submit(scored, batch))
                yield from done(config.calls)
            yield from done(0)

        try:
            yield from track(rows(), "predict", len(files))
        finally:  # after an error, batches that haven't started are cancelled
            for future in under_way:
                future.cancel()


def _score(scorer: _Scorer, images: list[tuple[Path, bytes]]) -> list[_Row]:
    """Return one row per image; a batch that is refused is halved until the bad image is isolated."""
    if not images:
        return []
    try:
        answer = scorer.classify([data for _, data in images])
    except RequestError as error:
        # With a Retry-After the server was busy until the deadline; other errors may not occur in smaller batches.
        if error.retry_after_s is not None or error.code not in (Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED):
            raise
        if len(images) == 1:
            return [_Row(images[0][0], reason=str(error))]
        middle = len(images) // 2
        return _score(scorer, images[:middle]) + _score(scorer, images[middle:])
    flaws = find_flaws(np.column_stack([answer.probabilities, answer.scores]))
    return [
        _Row(path, reason=flaw)
        if flaw
        else _Row(path, label, _short(score), tuple(_short(value) for value in probabilities))
        for (path, _), label, score, probabilities, flaw in zip(
            images, answer.labels, answer.scores, answer.probabilities, flaws, strict=True
        )
    ]


def _columns(rows: Iterator[_Row], classes: list[str] | None) -> tuple[list[str], Iterator[_Row]]:
    """Return the columns and all rows; without class names, their number is taken from the first scored row."""
    seen = []
    names: Iterable[object] = classes or ()
    if classes is None:
        for row in rows:
            seen.append(row)
            if row.probabilities:
                names = range(len(row.probabilities))
                break
    columns = ["path", "label", "score", *(f"probability_{name}" for name in names), "status", "reason"]
    return columns, itertools.chain(seen, rows)


def _values(row: _Row, columns: list[str]) -> list[Value]:
    probabilities = row.probabilities or (None,) * (len(columns) - _OTHER_COLUMNS)
    status = "failed" if row.reason else "ok"
    return [
        _shown(row.path),
        row.label or None,
        row.score,
        *probabilities,
        status,
        " ".join(row.reason.split()) or None,
    ]


def _shown(path: Path) -> str:
    r"""Return a path as text; bytes that aren't UTF-8 are escaped: `caf\xe9.png`."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _batches(paths: Iterable[Path], size: int) -> Iterator[list[Path]]:
    paths = iter(paths)
    while batch := list(itertools.islice(paths, size)):
        yield batch


def _short(value: np.float32) -> float:
    """Return the float that prints as the shortest decimal form of a float32."""
    return float(str(value))
