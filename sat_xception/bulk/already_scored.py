"""Tiles that earlier runs have scored, to leave them out of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sat_xception.bulk.plan_document import ModelId
from sat_xception.bulk.run_document import BulkScores
from sat_xception.errors import DataError
from sat_xception.geo.morton import Keys, keys_of, runs_of, united
from sat_xception.log import get_logger
from sat_xception.storage import list_files, local_folder

__all__ = ["check_scored", "find_scored", "scored_ids", "scored_runs"]

_log = get_logger(__name__)
_COLUMNS = ("tile_id", "x", "y", "z", "status", "model_version")


def find_scored(root: Path, model: ModelId, imagery: Mapping[str, Any]) -> list[Path]:
    """Return the folders, below another one, of finished runs of a model on an imagery; a bucket's are downloaded.

    Args:
        root: Parent of folders that `sat_xception bulk predict` wrote.
        model: The model.
        imagery: The imagery's part of the plan's identity, and `file`, the state of its file.

    Raises:
        DataError: A `scores.json` is damaged.
        ServiceError: The bucket can't be read.
    """
    found = []
    for path in list_files(root):
        if path.name == BulkScores.file_name and path.parent.parent == root:
            scores = BulkScores.find(path.parent)
            if scores and scores.model == model and _is_of(scores, imagery):
                found.append(path.parent)
    return [local_folder(folder, BulkScores.file_name) for folder in found]


def check_scored(folders: Sequence[Path], model: ModelId, imagery: Mapping[str, Any]) -> list[Path]:
    """Return those of some folders that a model scored; log a warning for other models, and for other imagery.

    Args:
        folders: Folders that `sat_xception bulk predict` wrote.
        model: The model.
        imagery: As in `find_scored`; folders of other imagery are returned too, since they were named.

    Raises:
        DataError: A folder doesn't hold scores.
    """
    found = []
    for folder in folders:
        scores = BulkScores.read(folder)
        if scores.model != model:
            _log.warning("scored    %s: by another model, so none of its tiles is left out", folder)
            continue
        if not _is_of(scores, imagery):
            _log.warning("scored    %s: of other imagery than is planned; its tiles are left out all the same", folder)
        found.append(folder)
    return found


def _is_of(scores: BulkScores, imagery: Mapping[str, Any]) -> bool:
    """Return whether scores are of this imagery, by its address and the settings that affect its images."""
    scored = scores.imagery.content()
    return {name: scored.get(name) for name in imagery} == dict(imagery)


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
