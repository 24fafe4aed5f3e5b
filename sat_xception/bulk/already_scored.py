"""What earlier runs have scored already, to leave it out of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sat_xception.bulk.score_files import SCORES_FILE
from sat_xception.errors import DataError
from sat_xception.geo.morton import Keys, keys_of, runs_of, united
from sat_xception.log import get_logger
from sat_xception.storage import GcsPath, fetch_folder, list_files, read_json_file

__all__ = ["earlier_scores", "scored_ids", "scored_runs", "scores_of"]

_log = get_logger(__name__)
_COLUMNS = ("tile_id", "x", "y", "z", "status", "model_version")


def earlier_scores(root: Path, model: Mapping[str, Any], imagery: Mapping[str, Any]) -> list[Path]:
    """Return the folders of finished runs below a folder in which a model scored an imagery; here, even of a bucket.

    Args:
        root: Folder of folders that `sat_xception bulk predict` wrote.
        model: Name, version and digest of the model.
        imagery: Address of the imagery and how it is read, as the plan's identity has them.

    Raises:
        ServiceError: The bucket can't be read.
    """
    found = []
    for path in list_files(root):
        if path.name == SCORES_FILE and path.parent.parent == root:
            facts = read_json_file(path) or {}
            if facts.get("model") == model and _is_of(facts, imagery):
                found.append(path.parent)
    return [fetch_folder(place, SCORES_FILE) if isinstance(place, GcsPath) else place for place in found]


def scores_of(folders: Sequence[Path], model: Mapping[str, Any], imagery: Mapping[str, Any]) -> list[Path]:
    """Return those of some folders in which a model scored tiles; tell of other models', and of other imagery.

    Args:
        folders: What `sat_xception bulk predict` wrote.
        model: Name, version and digest of the model.
        imagery: As in `earlier_scores`; tiles of other imagery are left out all the same, as whoever names it wants.
    """
    found = []
    for folder in folders:
        facts = read_json_file(folder / SCORES_FILE) or {}
        if facts.get("model") != model:
            _log.warning("scored    %s: by another model, so none of its tiles is left out", folder)
            continue
        if not _is_of(facts, imagery):
            _log.warning("scored    %s: of other imagery than is planned; its tiles are left out all the same", folder)
        found.append(folder)
    return found


def _is_of(facts: Mapping[str, Any], imagery: Mapping[str, Any]) -> bool:
    """Return whether scores are of an imagery: its address and all that changes what is read there."""
    seen = facts.get("imagery") or {}
    return {name: seen.get(name) for name in imagery} == dict(imagery)


def scored_runs(folders: Sequence[Path], version: str, zoom: int) -> tuple[Keys, Keys]:
    """Return the tiles of a zoom that a model version has scored, as runs of keys, ascending.

    Raises:
        DataError: A folder doesn't hold scores.
    """
    firsts, counts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for rows in _scored(folders, version):
        rows = rows.filter(pc.equal(rows["z"], zoom))
        if len(rows):
            keys = np.unique(
                keys_of(rows["x"].to_numpy(zero_copy_only=False), rows["y"].to_numpy(zero_copy_only=False))
            )
            first, count = runs_of(keys)
            firsts.append(first)
            counts.append(count)
    first, count = np.concatenate(firsts), np.concatenate(counts)
    order = np.argsort(first, kind="stable")
    return united(first[order], count[order])


def scored_ids(folders: Sequence[Path], version: str) -> set[str]:
    """Return the ids of all tiles that a model version has scored.

    Raises:
        DataError: A folder doesn't hold scores.
    """
    return {name for rows in _scored(folders, version) for name in rows["tile_id"].to_pylist()}


def _scored(folders: Sequence[Path], version: str) -> Iterator[pa.RecordBatch]:
    for folder in folders:
        files = sorted(folder.glob("scores-*.parquet"))
        if not files:
            raise DataError(f"{folder} holds no scores-*.parquet; give a folder that `sat_xception bulk predict` wrote")
        for path in files:
            try:
                with pq.ParquetFile(path) as file:
                    for rows in file.iter_batches(2**16, columns=list(_COLUMNS)):
                        usable = pc.and_(pc.equal(rows["status"], "scored"), pc.equal(rows["model_version"], version))
                        yield rows.filter(usable)
            except (pa.ArrowInvalid, KeyError) as error:
                raise DataError(f"{path} isn't what `sat_xception bulk predict` writes: {error}") from None
