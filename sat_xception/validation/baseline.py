"""The baseline: statistics and schema of the last accepted run, in a local folder or a bucket.

    schema.pbtxt         written by the first accepted run; afterwards only changed by hand
    statistics-train.pb  TFDV's statistics of train, replaced by every accepted run
    baseline.json        the dataset that the statistics describe

Each file is replaced atomically, and only the statistics affect the result, so a baseline can't be half written. Other
files in the folder are left alone.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from sat_xception.clock import utc_now
from sat_xception.errors import ConfigError
from sat_xception.log import get_logger
from sat_xception.storage import local_folder, write_json_file, write_stored_bytes

__all__ = ["Baseline", "publish_baseline", "read_baseline"]

_log = get_logger(__name__)
_SCHEMA, _STATISTICS, _FACTS = "schema.pbtxt", "statistics-train.pb", "baseline.json"
# Also allowed in the folder: what the pipeline keeps of its last run.
_OURS = {_SCHEMA, _STATISTICS, _FACTS, "last-run.json"}


class Baseline(BaseModel):
    """The files of a baseline; None for those that aren't there yet."""

    model_config = ConfigDict(frozen=True)

    schema_file: Path | None = None
    statistics: Path | None = None


def read_baseline(folder: Path) -> Baseline:
    """Return the files of the baseline; all None before the first accepted run.

    Args:
        folder: Folder or address in a bucket.

    Raises:
        ConfigError: `folder` is a file, or a folder with other content.
        ServiceError: The bucket can't be read.
    """
    here = local_folder(folder, may_be_absent=True)
    if here.exists() and not here.is_dir():
        raise ConfigError(f"--baseline {folder} is a file; name a folder")
    found = {path.name for path in here.iterdir()} if here.is_dir() else set()
    if found and not found & _OURS:
        raise ConfigError(
            f"--baseline {folder} is no baseline: it holds {min(found)!r}, none of {', '.join(sorted(_OURS))}. "
            "Name its folder, or a new one"
        )
    if _STATISTICS not in found and _FACTS in found:
        _log.warning(
            "validate  %s is missing from %s, although an accepted run wrote it: this run isn't checked for drift, and "
            "becomes the baseline of the next one",
            _STATISTICS,
            folder,
        )
    elif _STATISTICS not in found:
        _log.info("validate  no accepted run in %s yet: nothing to compare train with", folder)
    return Baseline(
        schema_file=here / _SCHEMA if _SCHEMA in found else None,
        statistics=here / _STATISTICS if _STATISTICS in found else None,
    )


def publish_baseline(folder: Path, validation: Path, facts: dict[str, object]) -> None:
    """Make an accepted run the baseline; an existing schema is kept.

    Args:
        folder: Folder or address in a bucket; created if missing.
        validation: Local folder with the schema and the statistics.
        facts: Content of `baseline.json`, without the time.

    Raises:
        ConfigError: The folder can't be written.
        ServiceError: The bucket can't be written.
    """
    described = {**facts, "accepted": utc_now().isoformat(timespec="seconds")}
    write_stored_bytes((validation / _SCHEMA).read_bytes(), folder / _SCHEMA, keep_earlier=True)
    write_stored_bytes((validation / _STATISTICS).read_bytes(), folder / _STATISTICS)
    write_json_file(folder / _FACTS, described)
