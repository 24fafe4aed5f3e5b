"""The dataset of a run of the training pipeline, with or without a dataset store.

With a store, the dataset is assembled first, and stored under the digest of everything that later steps read. Unchanged
data has the same address, so Kubeflow's cache skips the later steps. Without a store, the settings are passed on
together with the id of the run, and the dataset is assembled in each run. See docs/decisions/0017-unchanged-data.md.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from sat_xception.dataset.assemble import AssembleResult, assemble
from sat_xception.dataset.record import DatasetRecord
from sat_xception.dataset.settings import AssembleConfig
from sat_xception.errors import DataError
from sat_xception.log import get_logger
from sat_xception.settings.config import load_config
from sat_xception.storage import atomic_folder, has_result, local_folder, scratch_folder, stored_path
from sat_xception.storage.files import dump_json, json_text

__all__ = ["find_source", "take_dataset"]

_log = get_logger(__name__)
_RECORD = DatasetRecord.file_name


def find_source(settings: Mapping[str, object], store: str, run: str) -> str:
    """Return the source of a run's dataset, for `take_dataset`.

    Args:
        settings: Settings of the assemble step, without `out`.
        store: Folder or bucket address that stores datasets; "" for none.
        run: Id of the run.

    Returns:
        With a store the address of the dataset, which depends on the data alone; else settings and run, as JSON.

    Raises:
        SatXceptionError: The dataset can't be assembled, or the store can't be written.
    """
    if not store:
        return dump_json({"run": run, "settings": dict(settings)}, sort_keys=True)
    with scratch_folder() as folder:
        made = folder / "dataset"
        counts = _assemble({**settings, "out": made}).summary().splitlines()[:-1]
        print("\n".join(counts), flush=True)
        address = stored_path(store) / _identity(DatasetRecord.read(made))
        if has_result(address, _RECORD):
            _log.info("dataset   unchanged: %s", address)
        else:
            _copy(made, address)
            _log.info("dataset   new: %s", address)
    return str(address)


def take_dataset(source: str, out: Path) -> AssembleResult:
    """Write the dataset of a source to `out`.

    Args:
        source: What `find_source` returned.
        out: Folder to write the dataset to.

    Raises:
        SatXceptionError: The dataset isn't in the store, was changed there, or can't be assembled.
    """
    if source.startswith("{"):
        return _assemble({**json.loads(source)["settings"], "out": out})
    stored = local_folder(stored_path(source), _RECORD)
    record = DatasetRecord.read(stored)
    if _identity(record) != stored.name:
        raise DataError(f"{source} was changed after it was stored; remove it and start the run again")
    _copy(stored, out)
    return AssembleResult(out, record.counts, record.digest)


def _assemble(settings: Mapping[str, object]) -> AssembleResult:
    return assemble(load_config(AssembleConfig, None, settings).localized())


def _identity(record: DatasetRecord) -> str:
    """Return the digest of everything in a dataset that later steps read, as 64 hexadecimal digits.

    Settings of sources and fetching are left out: their effect is in the digests of the shards. So is the
    version of the document, and what its file doesn't have: a dataset that an earlier version stored keeps its digest.
    """
    content = record.model_dump(mode="json", exclude={"config"}, exclude_unset=True)
    return hashlib.sha256(json_text({**content, "config": {"block_zoom": record.block_zoom}}).encode()).hexdigest()


def _copy(dataset: Path, target: Path) -> None:
    with atomic_folder(target, record=_RECORD) as work:
        shutil.copytree(dataset, work, dirs_exist_ok=True)
