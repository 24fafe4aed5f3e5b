"""The optional search over head settings before a training."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

from sat_xception.errors import DivergedError, PreemptedError
from sat_xception.log import get_logger
from sat_xception.model.settings import TrainConfig
from sat_xception.search.search import SHARED, SearchResult, search
from sat_xception.search.settings import SearchConfig
from sat_xception.storage import is_remote, scratch_folder

__all__ = ["searched"]

_log = get_logger(__name__)


@contextlib.contextmanager
def searched(config: TrainConfig) -> Iterator[tuple[TrainConfig, SearchResult]]:
    """Search, and yield the settings to train with and the result of the search.

    Trials and features are kept in `OUT.search` until the block ends without an error, so that the same command
    resumes. A bucket can't hold them: if `--out` is there, a stopped search starts again.

    Raises:
        DataError: No trial could be completed.
        DivergedError: Every trial failed because its loss wasn't finite.
        PreemptedError: The search was stopped before all its trials.
    """
    with scratch_folder() as scratch:
        remote = is_remote(config.out)
        place = scratch / "search" if remote else config.out.with_name(f"{config.out.name}.search")
        shared = {name: getattr(config, name) for name in (*SHARED, "examples", "seed")}
        _log.info("search    %s trials of heads, before the training itself", config.search_trials)
        try:
            found = search(
                SearchConfig(out=place / "found", study=place / "study", trials=config.search_trials, **shared)
            )
        except DivergedError:
            if config.record_divergence:  # then the failure is the result, and the trials aren't needed any more
                shutil.rmtree(place, ignore_errors=True)
            raise
        if found.counts.left:
            raise PreemptedError(f"stopped with {found.counts.left} trials left; run the same command again to go on")
        _log.info("search    best validation accuracy %.4f; it is trained with %s", found.valid_accuracy, found.tried)
        yield config.model_copy(update=found.best), found
        shutil.rmtree(place, ignore_errors=True)
