"""The identity of a run of `bulk predict`: everything that a byte of its scores depends on.

`run.json` holds it from the first shard on, and each shard holds its digest. A command with another identity would mix
two runs in one folder, and is refused with the difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sat_xception import __version__
from sat_xception.bulk.engines import ENGINE_FOLDER
from sat_xception.bulk.plan_document import identity_digest
from sat_xception.bulk.plan_file import Plan
from sat_xception.bulk.run_document import BulkRun, EngineId, PreparedEngine, ScoredImagery
from sat_xception.bulk.scorer import ScoringModel, model_id
from sat_xception.bulk.settings import BulkPredictConfig
from sat_xception.errors import ConfigError
from sat_xception.imagery.open import file_state
from sat_xception.settings.config import shown
from sat_xception.storage import is_remote, write_stored_bytes

__all__ = ["LOCK", "begin_run", "check_place", "check_run", "run_identity"]

LOCK = ".lock"
# Flags of parts of the identity with another name.
_FLAGS = {
    "tile_ids_digest": "--plan (other tiles)",
    "dataset_digest": "--plan (another dataset)",
    "model": "--model",
}
_IMAGERY, _FILE = "imagery", "file"


def run_identity(config: BulkPredictConfig, plan: Plan, model: ScoringModel, engine: EngineId) -> dict[str, Any]:
    """Return what a run must be the same in to go on from its finished shards, as JSON types.

    Args:
        config: Settings.
        plan: Plan of the run.
        model: The packaged version.
        engine: The engine.
    """
    identity = plan.document.identity
    if state := file_state(config.imagery or plan.document.imagery.url):
        identity[_IMAGERY] = identity[_IMAGERY] | {_FILE: state}
    return identity | {
        "model": model_id(model).content(),
        "engine": engine.content(),
        "batch_size": config.batch_size,
        "made_by": f"sat_xception {__version__}",
    }


def check_run(out: Path, identity: Mapping[str, Any], retry: bool) -> None:
    """Compare the identity of a run with that in a folder of scores, if the folder has one.

    Args:
        out: Folder of the scores.
        identity: Identity of the run; see `run_identity`.
        retry: Whether failed tiles are scored again; the imagery file may have been repaired for that.

    Raises:
        ConfigError: The identities differ.
    """
    earlier = BulkRun.find(out)
    if earlier is None:
        return
    before = earlier.identity
    if not before:
        raise ConfigError(
            f"--out {out} holds scores of an earlier version of this program, which didn't record everything that they "
            "depend on; name a new folder, or remove that one"
        )
    now = dict(identity)
    state = now[_IMAGERY].get(_FILE)
    if state and (retry or state in earlier.imagery.retried_with_file):
        now[_IMAGERY] = now[_IMAGERY] | {_FILE: before[_IMAGERY].get(_FILE)}
    if different := list(_differences(before, now)):
        raise ConfigError(
            f"--out {out} holds scores of another run: {'; '.join(different)}. Give the settings that it was started "
            "with to continue, or name a new folder, or remove that one"
        )


def begin_run(
    out: Path, plan: Plan, model: ScoringModel, engine: PreparedEngine, identity: dict[str, Any], retry: bool
) -> BulkRun:
    """Write `run.json`, or read the one of an earlier command; return it.

    Raises:
        ConfigError: Another run has been started in the folder meanwhile.
    """
    imagery = ScoredImagery(**identity[_IMAGERY], attribution=plan.document.imagery.attribution)
    run = BulkRun(
        classes=model.classes,
        positive_label=model.positive_label or None,
        threshold=model.threshold,
        model=model_id(model),
        engine=engine,
        planned=plan.planned,
        shards=plan.shards,
        tile_ids_digest=plan.digest,
        imagery=imagery,
        zoom=plan.document.zoom,
        identity=identity,
        run=identity_digest(identity),
    )
    write_stored_bytes(run.to_json().encode(), out / BulkRun.file_name, keep_earlier=True)
    recorded = BulkRun.find(out) or run
    check_run(out, identity, retry)
    used, retried = imagery.file, recorded.imagery.retried_with_file
    if retry and used and used not in (recorded.imagery.file, *retried):
        retried_imagery = recorded.imagery.model_copy(update={"retried_with_file": (*retried, used)})
        recorded = recorded.model_copy(update={"imagery": retried_imagery})
        recorded.replace(out)
    return recorded


def check_place(out: Path, retry: bool) -> None:
    """Check that a folder is empty or holds scores, and with `retry` that it holds scores.

    Raises:
        ConfigError: The folder has other content, or no scores to retry.
    """
    if BulkRun.find(out) is not None:
        return
    if retry:
        raise ConfigError(f"--out {out} holds no scores to retry; run `sat_xception bulk predict` first")
    if not is_remote(out) and out.is_dir():
        for path in sorted(out.iterdir()):
            if path.name != ENGINE_FOLDER and not path.name.startswith((LOCK, f".{BulkRun.file_name}-")):
                raise ConfigError(f"--out {out} holds something else ({path.name!r}); name a new folder")


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], inside: str = "") -> Iterator[str]:
    # Parts that a flag sets come first.
    for name in sorted(before.keys() | now.keys(), key=lambda name: (name not in _FLAGS, name)):
        one, other = before.get(name), now.get(name)
        if one == other:
            continue
        called = f"{inside}{name}"
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _differences(one, other, f"{_FLAGS.get(name, name)} ")
        else:
            yield f"{_FLAGS.get(called, called)} was {_told(one)}, is {_told(other)}"


def _told(value: object) -> str:
    if value is None:
        return "not recorded"
    text = shown(str(value))
    return f"{text[:12]}…" if len(text) == 64 and " " not in text else text or '""'
