"""Send requests to an endpoint as its users do, and find out which of two versions answered.

Weighted round robin isn't random: a fixed cycle of requests could send all tiles to one version. So the next request is
chosen at random, and each is sent as a new client, on a connection of its own and without cookies, so that a gateway
with session affinity distributes them too.

A status response contains the version. A prediction over TensorFlow Serving's REST interface doesn't: it is recognised
by its probabilities, if the two versions give different ones for the tile. If they are equal, half of the requests ask
for a version by number (`/versions/<n>:predict`): the server with that version answers, and the other one refuses.
"""

from __future__ import annotations

import contextlib
import math
import random
from types import TracebackType

import numpy as np
import numpy.typing as npt

from sat_xception.deploy.tally import Answer
from sat_xception.errors import ModelError, ServiceError
from sat_xception.serve.client import EndpointClient
from sat_xception.serve.protocol import Code, RequestError
from sat_xception.served_model.golden import GoldenTiles

__all__ = ["Visitor"]

# Fraction of requests for the status; and, among those with tiles that both versions score alike, of those by number.
_STATUS, _BY_NUMBER = 1 / 4, 1 / 2
# Fraction of the requests with tiles that send all golden tiles at once.
_ALL_TILES = 1 / 30


class Visitor:
    """A client of the endpoint that recognises the answers of the new and the old version."""

    def __init__(
        self,
        route: EndpointClient,
        new: EndpointClient,
        old: EndpointClient | None,
        golden: GoldenTiles,
        chance: random.Random | None = None,
    ) -> None:
        """Get the old version's scores, and each predictor's refusal of the other version.

        Args:
            route: Client of the users' address, with `as_new_client` and without retries.
            new: Client of the new predictor.
            old: Client of the old predictor; None for a first deployment.
            golden: Golden tiles of the new version.
            chance: Random generator for the choice of requests. Default: the system's.

        Raises:
            ServiceError: A predictor doesn't answer.
        """
        self.address = route.address
        self._route, self._old, self._golden = route, old, golden
        self._chance = chance or random.Random()
        self._answers = {new.version: golden.expected}
        self._by_number: dict[int, EndpointClient] = {}
        self._refusals: dict[int, str] = {}
        self._alike = np.zeros(len(golden.images), dtype=bool)
        # If both serve the same version, as after a change of the template, answers can't be distinguished.
        self.tells_versions = old is None or old.version != new.version
        if old is not None:
            answers = old.predict(golden.images)
            self._alike = _away(answers, golden.expected) <= 2 * golden.tolerance
            if self.tells_versions:
                self._answers[old.version] = answers
                for one, other in ((new, old), (old, new)):
                    self._learn_refusal(one, other)

    def __enter__(self) -> Visitor:
        """Return the visitor."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections that were opened here."""
        for client in self._by_number.values():
            client.close()

    def ask(self) -> Answer:
        """Send a random request, and return which version answered.

        Raises:
            ModelError: The answer is neither the new nor the old version's.
            ServiceError: There was no answer.
        """
        if self._chance.random() < _STATUS:
            return self.ask_version()
        first = self._chance.randrange(len(self._golden.images))
        tiles = slice(None) if self._chance.random() < _ALL_TILES else slice(first, first + 1)
        alike = bool(self._alike[tiles].all())
        if alike and self._by_number and self._chance.random() < _BY_NUMBER:
            return self._ask_by_number(tiles)
        version = self._version_of(self._route.predict(self._golden.images[tiles]), tiles)
        return Answer(version if self.tells_versions and not alike else None, tile=True)

    def ask_version(self) -> Answer:
        """Request the status, and return which version answered.

        Raises:
            ServiceError: There was no answer.
        """
        served = [status.version for status in self._route.status() if status.state == "AVAILABLE"]
        return Answer(served[0] if served and self.tells_versions else None, tile=False)

    def _ask_by_number(self, tiles: slice) -> Answer:
        """Request tiles from one of the two versions by number; the other version refuses."""
        [asked, other] = self._chance.sample([*self._by_number], 2)
        try:
            answers = self._by_number[asked].predict(self._golden.images[tiles])
        except RequestError as refused:
            # Compared with the predictor's own message, since a gateway without a route answers 404 as well.
            if refused.code == Code.NOT_FOUND and refused.said == self._refusals[asked]:
                return Answer(other, tile=True)
            raise
        self._version_of(answers, tiles)
        return Answer(asked, tile=True)

    def _version_of(self, answers: npt.NDArray[np.float32], tiles: slice) -> int | None:
        """Return the version whose scores of these golden tiles match.

        Raises:
            ModelError: Neither version's scores match.
        """
        off = {version: _away(answers, expected[tiles]).max(initial=0.0) for version, expected in self._answers.items()}
        version = min(off, key=lambda one: off[one])
        if not off[version] <= self._golden.tolerance:
            whose = "as neither the new nor the old version" if self._old else "otherwise than when it was packaged"
            raise ModelError(
                f"{self._route.address} answers golden tiles {whose}: off by {off[version]:.3g}, tolerance "
                f"{self._golden.tolerance:g}"
            )
        return version

    def _learn_refusal(self, has: EndpointClient, other: EndpointClient) -> None:
        """Store a predictor's message that refuses the other predictor's version."""
        assert has.version is not None
        with contextlib.closing(other.at_version(has.version)) as client:
            try:
                client.predict(self._golden.images[:1])
            except RequestError as refused:
                if refused.code != Code.NOT_FOUND:
                    raise
                self._refusals[has.version] = refused.said
                self._by_number[has.version] = self._route.at_version(has.version)
                return
        raise ServiceError(
            f"{other.address} serves version {other.version}, and answers as version {has.version} too, so answers of "
            "the two can't be distinguished. The predictor must serve one version alone, see its runtime's flags"
        )


def _away(answers: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return each tile's largest difference from the expected probabilities; infinity for another shape."""
    if answers.shape != expected.shape:
        return np.full(len(answers), math.inf, dtype=np.float32)
    away: npt.NDArray[np.float32] = np.abs(answers - expected).max(axis=1, initial=0.0)
    return np.where(np.isnan(away), np.float32(math.inf), away)
