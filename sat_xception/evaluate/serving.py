"""Score the serving model: the one that answers at an endpoint, or the newest version of a model root."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sat_xception.errors import ServiceError
from sat_xception.evaluate.evaluation import ServingStatus
from sat_xception.evaluate.settings import EvaluateConfig
from sat_xception.examples.index import ExamplesIndex
from sat_xception.log import get_logger, track
from sat_xception.model.input import encoded_examples
from sat_xception.serve.access import Access
from sat_xception.serve.client import EndpointClient
from sat_xception.serve.models import SavedModelSession
from sat_xception.serve.probabilities import find_flaws
from sat_xception.serve.protocol import Code, RequestError, VersionStatus
from sat_xception.served_model.model_root import has_version, here, known_versions
from sat_xception.served_model.packaged_model import PackagedModel

__all__ = ["Serving", "score_serving"]

_log = get_logger(__name__)
_Predict = Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]]


class _OtherClassesError(Exception):
    """The model has other classes than the examples; the message names them."""


@dataclass(frozen=True)
class Serving:
    """The serving model, and the result of scoring it.

    Attributes:
        state: "scored"; "nothing" if no version is served; "other classes" if they differ from the examples'; "no
            probabilities" if it returned valid probabilities for no tile.
        reason: Why it wasn't scored, or "".
        place: Endpoint or model root.
        name: Name of the served model.
        version: Version; None if nothing is serving or the endpoint doesn't report it.
        probabilities: `float32 [n, classes]` of the split's tiles in stored order; None if it wasn't scored.
        packaged: Its description; None if the model root doesn't hold the version.
    """

    state: Literal["scored", "nothing", "other classes", "no probabilities"]
    reason: str
    place: str
    name: str
    version: int | None = None
    probabilities: npt.NDArray[np.float32] | None = None
    packaged: PackagedModel | None = None

    def status(self) -> ServingStatus:
        """Return the status for `evaluation.json`."""
        return ServingStatus(
            state=self.state, reason=self.reason, place=self.place, name=self.name, version=self.version
        )


def score_serving(config: EvaluateConfig, examples: ExamplesIndex) -> Serving:
    """Score the split with the endpoint's model if an endpoint is given, else with the model root's.

    Raises:
        ModelError: The newest version of the model root can't be loaded.
        ServiceError: The endpoint doesn't answer, or is loading its model; the model root's bucket can't be read.
    """
    place = config.endpoint or str(config.model_root)
    folder = None if config.endpoint else _newest_version(config)
    served = _answering(config) if config.endpoint else folder and VersionStatus(int(folder.name), "AVAILABLE")
    if not served:
        reason = f"no version of {config.name} is served at {place}"
        _log.info("serving   nothing: %s", reason)
        return Serving("nothing", reason, place, config.name)
    version = here(folder) if folder else None
    known = version or _packaged(config, served.version)
    packaged = PackagedModel.read(known) if known else None
    try:
        with _saved_model(version, examples) if version else _endpoint(config, served.version, examples) as ask:
            probabilities = _score(ask, config, examples)
    except _OtherClassesError as error:
        reason = f"{config.name} at {place} {error}"
        _log.warning("serving   not compared: %s", reason)
        return Serving("other classes", reason, place, config.name, served.version, None, packaged)
    if reason := _no_probabilities(probabilities):
        reason = f"{config.name} at {place} {reason}"
        _log.warning("serving   not compared: %s", reason)
        return Serving("no probabilities", reason, place, config.name, served.version, None, packaged)
    return Serving("scored", "", place, config.name, served.version, probabilities, packaged)


def _no_probabilities(answers: npt.NDArray[np.float32]) -> str:
    """Return why no tile has a score; "" if one has."""
    flaws = find_flaws(answers)
    if not flaws or not all(flaws):
        return ""
    reason, count = Counter(flaws).most_common(1)[0]
    return f"answers none of {len(flaws):,} tiles with probabilities, {count:,} of them: {reason}"


def _score(ask: _Predict, config: EvaluateConfig, examples: ExamplesIndex) -> npt.NDArray[np.float32]:
    batches = encoded_examples(config.examples, config.split).batch(config.batch_size).as_numpy_iterator()
    total = -(-examples.count(config.split) // config.batch_size)
    return np.concatenate([ask(data) for _, data, _ in track(batches, "serving", total)])


def _packaged(config: EvaluateConfig, number: int | None) -> Path | None:
    """Return the package of the version that an endpoint serves, if the model root has it."""
    if config.model_root is None or number is None:
        return None
    # `deploy --target kserve` gives each version a folder of its own.
    below = (config.name, f"{config.name}-releases/{number}")
    found = (config.model_root / folder / str(number) for folder in below)
    return next((here(folder) for folder in found if has_version(folder)), None)


def _newest_version(config: EvaluateConfig) -> Path | None:
    folder = (config.model_root or Path()) / config.name
    versions = known_versions(folder)
    return versions[max(versions)] if versions else None


def _answering(config: EvaluateConfig) -> VersionStatus | None:
    """Return the version that answers at the endpoint; its number is None if the endpoint doesn't report it."""
    with EndpointClient(config.endpoint, config.name, access=Access.find(host=config.endpoint_host)) as client:
        try:
            states = client.status()
        except RequestError as error:
            if error.code is Code.NOT_FOUND:
                return None
            raise
    available = [each for each in states if each.state == "AVAILABLE"]
    if not available and any(each.state in ("START", "LOADING") for each in states):
        raise ServiceError(f"{config.name} at {config.endpoint} is being loaded; run the step again when it answers")
    return max(available, key=lambda each: each.version or 0, default=None)


@contextmanager
def _saved_model(version: Path, examples: ExamplesIndex) -> Iterator[_Predict]:
    classes = list(PackagedModel.read(version).classes)
    if classes != list(examples.classes):
        raise _OtherClassesError(f"knows {classes}, the examples hold {list(examples.classes)}")
    with SavedModelSession(version) as session:
        yield session.probabilities


@contextmanager
def _endpoint(config: EvaluateConfig, version: int | None, examples: ExamplesIndex) -> Iterator[_Predict]:
    """Yield a function that scores tiles at an endpoint.

    An endpoint doesn't list its classes, so they are checked by the label that it returns for each tile.
    """
    classes = list(examples.classes)

    def ask(data: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        answer = client.classify(data.tolist())
        number = answer.probabilities.shape[1]
        if number != len(classes):
            raise _OtherClassesError(f"knows {number} classes, the examples hold {classes}")
        named = [classes[place] for place in answer.probabilities.argmax(axis=1)]
        flaws = find_flaws(answer.probabilities)  # the label of a row without valid probabilities means nothing
        if any(own != name and not flaw for own, name, flaw in zip(answer.labels, named, flaws, strict=True)):
            raise _OtherClassesError(f"answers with {sorted(set(answer.labels))}, the examples hold {classes}")
        return answer.probabilities

    with EndpointClient(
        config.endpoint, config.name, version=version, access=Access.find(host=config.endpoint_host)
    ) as client:
        yield ask
