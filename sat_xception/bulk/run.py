"""What a run of `bulk predict` is: everything that has a say in a byte of its scores.

`run.json` holds it from the first shard on, and each shard the digest of it. A command that differs in any of it would
mix two runs in one folder, and is refused with the difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sat_xception import __version__
from sat_xception.bulk.engines import ENGINE_FOLDER
from sat_xception.bulk.plan_file import Plan
from sat_xception.bulk.score_files import RUN_FILE
from sat_xception.bulk.scorer import ScoringModel
from sat_xception.bulk.settings import BulkPredictConfig
from sat_xception.errors import ConfigError
from sat_xception.imagery import file_state
from sat_xception.settings.config import shown
from sat_xception.storage import GcsPath, facts_digest, read_json_file, write_json_file, write_stored_bytes
from sat_xception.storage.files import json_text

__all__ = ["LOCK", "begin_run", "check_place", "check_run", "run_identity"]

LOCK = ".lock"
# The flag that sets a part of the identity, where it isn't the name of that part itself.
_FLAGS = {
    "digest of tile ids": "--plan (other tiles)",
    "dataset digest": "--plan (another dataset)",
    "model": "--model",
}
_FILE = "file"
_RETRIED = "retried with file"


def run_identity(
    config: BulkPredictConfig, plan: Plan, model: ScoringModel, engine: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a run must be the same in to go on from its finished shards.

    Args:
        config: Settings.
        plan: The plan.
        model: The packaged version.
        engine: What `engine_identity` returned.
    """
    identity = plan.identity
    if state := file_state(config.imagery or str(plan.facts["imagery"]["url"])):
        identity["imagery"] = identity["imagery"] | {_FILE: state}
    return identity | {
        "model": model.facts(),
        "engine": dict(engine),
        "batch_size": config.batch_size,
        "made_by": f"sat_xception {__version__}",
    }


def check_run(out: Path, identity: Mapping[str, Any], retry: bool) -> None:
    """Compare a run with the one whose scores a folder holds, if it holds any.

    Args:
        out: Folder of the scores.
        identity: What `run_identity` returned.
        retry: Whether failed tiles are scored again, for which the imagery's file may have been mended.

    Raises:
        ConfigError: They differ.
    """
    earlier = read_json_file(out / RUN_FILE)
    if earlier is None:
        return
    before = dict(earlier.get("identity", {}))
    if not before:
        raise ConfigError(
            f"--out {out} holds scores of an earlier version of this program, which didn't record all that they are "
            "made of; name a new folder, or remove that one"
        )
    now = dict(identity)
    state = now["imagery"].get(_FILE)
    if state and (retry or state in earlier["imagery"].get(_RETRIED, ())):
        now["imagery"] = now["imagery"] | {_FILE: before["imagery"].get(_FILE)}
    if different := list(_differences(before, now)):
        raise ConfigError(
            f"--out {out} holds scores of another run: {'; '.join(different)}. Give what it was begun with to go on, "
            "or name a new folder, or remove that one"
        )


def begin_run(
    out: Path, plan: Plan, model: ScoringModel, engine: dict[str, Any], identity: dict[str, Any], retry: bool
) -> dict[str, Any]:
    """Write what a run is, or take what is recorded of it by an earlier command; return it.

    Raises:
        ConfigError: Another run has been begun in the folder meanwhile.
    """
    imagery = identity["imagery"]
    run = {
        "classes": list(model.classes),
        "positive_label": model.positive_label,
        "threshold": model.threshold,
        "model": model.facts(),
        "engine": engine,
        "planned": plan.planned,
        "shards": plan.shards,
        "digest of tile ids": plan.digest,
        "imagery": {**imagery, "attribution": plan.facts["imagery"]["attribution"]},
        "zoom": plan.facts["zoom"],
        "identity": identity,
        "run": facts_digest(identity),
    }
    write_stored_bytes(json_text(run).encode(), out / RUN_FILE, keep_earlier=True)
    recorded: dict[str, Any] = read_json_file(out / RUN_FILE) or run
    check_run(out, identity, retry)
    used, retried = imagery.get(_FILE), recorded["imagery"].get(_RETRIED, [])
    if retry and used and used not in (recorded["imagery"].get(_FILE), *retried):
        recorded["imagery"][_RETRIED] = [*retried, used]
        write_json_file(out / RUN_FILE, recorded)
    return recorded


def check_place(out: Path, retry: bool) -> None:
    """Refuse a folder of somebody else, and one without scores where some are to be scored again.

    Raises:
        ConfigError: It is one.
    """
    if read_json_file(out / RUN_FILE) is not None:
        return
    if retry:
        raise ConfigError(f"--out {out} holds no scores to retry; run `sat_xception bulk predict` first")
    if not isinstance(out, GcsPath) and out.is_dir():
        for path in sorted(out.iterdir()):
            if path.name != ENGINE_FOLDER and not path.name.startswith((LOCK, f".{RUN_FILE}-")):
                raise ConfigError(f"--out {out} holds something else ({path.name!r}); name a new folder")


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], inside: str = "") -> Iterator[str]:
    for name in sorted(before.keys() | now.keys()):
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
