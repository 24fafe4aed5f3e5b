"""Search for settings of train: Optuna guesses, heads are tried on features that are computed once.

Trials are judged on the validation split only. They are stored, so the same command resumes the search.
"""

from __future__ import annotations

import hashlib
import json
import math
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from sat_xception.errors import ConfigError, DataError, DivergedError, PreemptedError
from sat_xception.examples.index import ExamplesIndex
from sat_xception.log import duration
from sat_xception.model.backbones import get_backbone
from sat_xception.model.session import check_examples, class_weights, versions
from sat_xception.model.weights import WeightsOrigin, find_weights
from sat_xception.process import stop_on_signals
from sat_xception.search.page import search_page
from sat_xception.search.record import BestTrial, SearchCounts, SearchedSpace, SearchRecord, TrialRecord
from sat_xception.search.settings import SearchConfig
from sat_xception.search.space import Space, read_space
from sat_xception.search.study import (
    Job,
    closed,
    diverged,
    loss_of,
    mend_journal,
    merit,
    open_study,
    own_folder,
    reason_of,
    state_of,
)
from sat_xception.search.trial import TrialData, prepare_features
from sat_xception.search.workers import run_trials
from sat_xception.storage import atomic_folder, is_remote

__all__ = ["SHARED", "SearchResult", "search"]

_STOPPING = "stopping  with what there is; the same command goes on"
# Settings that search has from train, and that a training with the best settings must have, too.
SHARED = (
    "backbone",
    "weights",
    "input_size",
    "alpha",
    "batch_size",
    "head_epochs",
    "patience",
    "class_weights",
    "views",
)


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        folder: Result folder: `search.json`, `best.yaml`, `search.html`.
        counts: Numbers of trials.
        tried: Settings that the best trial had and others hadn't.
        best: The same with those that all trials had, as train takes them.
        valid_accuracy: Validation accuracy of the best trial.
        seconds: Time of this run.
    """

    folder: Path
    counts: SearchCounts
    tried: dict[str, Any]
    best: dict[str, Any]
    valid_accuracy: float
    seconds: float

    def summary(self) -> str:
        """Return the best accuracy, the counts, and what to do next."""
        counts = self.counts
        left = f", {counts.left} left: the same command goes on" if counts.left else ""
        return (
            f"search    {counts.complete} complete  {counts.pruned} pruned  {counts.failed} failed{left} | "
            f"best validation accuracy {self.valid_accuracy:.4f} | {duration(self.seconds)}\n"
            f"wrote     {self.folder}/best.yaml   page: {self.folder}/search.html\n"
            f"next      sat_xception train --config {self.folder}/best.yaml --examples EXAMPLES --out MODEL"
        )


def search(config: SearchConfig) -> SearchResult:
    """Search hyper-parameters; write `search.json`, `best.yaml` and `search.html`.

    Ctrl-C and SIGTERM end the search with the results so far; SIGTERM before the last trial is an error.

    Raises:
        ConfigError: The search space is invalid, or another search uses the study's folder.
        DataError: No usable examples, or every trial failed.
        DivergedError: Every trial failed, and each because its loss wasn't finite.
        PreemptedError: The search was stopped before any trial was complete, or by SIGTERM before all were.
        ModelError: The weights file doesn't fit the backbone.
        ServiceError: The ImageNet weights can't be downloaded.

    Example:
        result = search(SearchConfig(examples="examples", out="search", trials=20))
        print(result.valid_accuracy, result.tried)
    """
    started = time.monotonic()
    space, folder = read_space(config.space), _study_folder(config)
    examples = ExamplesIndex.read(config.examples)
    check_examples(examples)
    weights = find_weights(config.weights, config.backbone, config.alpha)
    with (
        atomic_folder(config.out, record=SearchRecord.file_name) as work,
        own_folder(folder),
        stop_on_signals(signal.SIGINT, signal.SIGTERM, second_ends=True, announce=_STOPPING) as stop,
    ):
        job = _plan(config, space, examples, weights, folder)
        mend_journal(job.journal)
        prepare_features(job.data, job.config({}))
        run_trials(job, config.workers, config.minutes, lambda: stop.given)
        study = open_study(job)
        trials = closed(study)
        best = _best(trials, config)
        place = trials.index(best) + 1
        counts = _counts(trials, config.trials)
        given = {name: config.resolved()[name] for name in SHARED}
        found = {**given, **_tuning(job.base, space, config), **best.params, "seed": config.seed}
        seconds = time.monotonic() - started
        record = SearchRecord(
            space=SearchedSpace.model_validate({"name": space.name, "settings": space.describe()}),
            counts=counts,
            best=BestTrial(**dict(_trial_record(place, best)), settings=found),
            trials=tuple(_trial_record(number, trial) for number, trial in enumerate(trials, start=1)),
            importance=_importance(study),
            dataset_digest=examples.dataset_digest,
            synthetic=examples.synthetic,
            weights=weights.record(),
            seconds=round(seconds, 3),
            config=config.resolved(),
        )
        record.write(work)
        (work / "best.yaml").write_text(_best_yaml(found, place, best), encoding="utf-8")
        (work / "search.html").write_text(search_page(record), encoding="utf-8")
    if stop.signal_number == signal.SIGTERM and (counts.left or not config.trials):
        raise PreemptedError(
            f"stopped by SIGTERM with {counts.left} trials left; run the same command again to go on. What there is "
            f"by now is in {config.out}"
        )
    return SearchResult(config.out, counts, best.params, found, float(best.value or 0.0), seconds)


def _plan(config: SearchConfig, space: Space, examples: ExamplesIndex, weights: WeightsOrigin, folder: Path) -> Job:
    fine_tunes = config.fine_tune or space.fine_tunes
    base = {
        **{name: getattr(config, name) for name in SHARED},
        "examples": config.examples,
        "out": config.out,
        "fine_tune_epochs": config.fine_tune_epochs if fine_tunes else 0,
        "seed": config.seed,
    }
    origin = weights.record().content()
    size = config.input_size or get_backbone(config.backbone).input_size
    data = [list(examples.classes), examples.shard_digests()]
    seen = [data, config.backbone, config.alpha, size, config.views, config.seed, origin, versions()]
    tried = [
        space.describe(),
        config.pruner,
        {name: value for name, value in base.items() if name not in ("examples", "out", "weights")},
    ]
    return Job(
        journal=folder / "journal.log",
        name=_digest([seen, tried]),
        space=space,
        base=base,
        data=TrialData(
            features=folder / f"features-{_digest(seen)}",
            weights=weights,
            input_size=size,
            classes=list(examples.classes),
            class_weight=class_weights(examples),
        ),
        trials=config.trials,
        pruner=config.pruner,
        seed=config.seed,
    )


def _digest(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _tuning(base: dict[str, Any], space: Space, config: SearchConfig) -> dict[str, Any]:
    """Return how long train is to fine-tune: as the trials did, or, where they didn't, as it does by itself."""
    return {"fine_tune_epochs": base["fine_tune_epochs"]} if config.fine_tune or space.fine_tunes else {}


def _best(trials: list[FrozenTrial], config: SearchConfig) -> FrozenTrial:
    complete = [trial for trial in trials if state_of(trial) is TrialState.COMPLETE]
    if complete:
        return max(complete, key=merit)
    failed = [trial for trial in trials if reason_of(trial)]
    if not failed:
        raise PreemptedError("no trial is complete yet; run the same command again to go on")
    reason, count = Counter(map(reason_of, failed)).most_common(1)[0]
    told = f"all {len(failed)} trials failed, {count} of them: {reason}"
    message = f"{told}. Change the space, or give another --study than {_study_folder(config)}"
    raise DivergedError(message, reason=told) if all(map(diverged, failed)) else DataError(message)


def _counts(trials: list[FrozenTrial], asked: int) -> SearchCounts:
    states = Counter(map(state_of, trials))
    return SearchCounts(
        asked=max(asked, len(trials)),
        complete=states[TrialState.COMPLETE],
        pruned=states[TrialState.PRUNED],
        failed=states[TrialState.FAIL],
        left=max(asked - len(trials), 0),
    )


def _trial_record(number: int, trial: FrozenTrial) -> TrialRecord:
    seconds = (trial.datetime_complete - trial.datetime_start).total_seconds()  # type: ignore[operator]
    state: Any = state_of(trial).name.lower()
    return TrialRecord(
        number=number,
        state=state,
        params=trial.params,
        valid_accuracy=trial.value if state_of(trial) is TrialState.COMPLETE else None,
        valid_loss=loss_of(trial),
        phase=trial.user_attrs.get("phase", ""),
        epochs=len(trial.intermediate_values),
        seconds=round(seconds, 3),
        reason=reason_of(trial),
    )


def _importance(study: optuna.Study) -> dict[str, float]:
    """Return each setting's share in what makes trials good (PED-ANOVA); {} where there is too little to say it by."""
    complete = [trial for trial in study.get_trials() if state_of(trial) is TrialState.COMPLETE]
    if len({trial.value for trial in complete}) < 2:
        return {}
    study = optuna.create_study(direction="maximize")
    study.add_trials(complete)
    shares = optuna.importance.get_param_importances(study)
    return {name: round(share, 4) for name, share in shares.items()} if all(map(math.isfinite, shares.values())) else {}


def _best_yaml(settings: dict[str, Any], place: int, best: FrozenTrial) -> str:
    head = (
        f"# Settings of the best trial, number {place}: validation accuracy {best.value:.4f}. For\n"
        "#   sat_xception train --config best.yaml --examples EXAMPLES --out MODEL\n"
    )
    return head + yaml.safe_dump(settings, sort_keys=False)


def _study_folder(config: SearchConfig) -> Path:
    if config.study is None and is_remote(config.out):
        raise ConfigError("--out is in a bucket: name a folder on this machine for the trials with --study")
    return config.study or config.out.with_name(f"{config.out.name}.study")
