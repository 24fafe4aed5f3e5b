"""Score with a server: TensorFlow Serving, KServe or `sat_xception serve`. Tiles keep their original encoding."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from sat_xception.bulk.score_files import Row
from sat_xception.bulk.tiles import LoadedTile, Pixels
from sat_xception.errors import ServiceError
from sat_xception.http_clients import retry
from sat_xception.log import get_logger
from sat_xception.serve.access import Access
from sat_xception.serve.client import EndpointClient
from sat_xception.serve.protocol import Code, RequestError

__all__ = ["EndpointScorer"]

_log = get_logger(__name__)
# Codes of a server that is slow or overloaded. The client itself retries after UNAVAILABLE.
_MAY_PASS = (Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE)
# With the client's own retries about a minute in total: long enough for a pod to be replaced.
_RETRY_DELAYS_S = (1.0, 4.0, 16.0)
# Formats that the served model decodes; others are sent as PNGs with the same pixels.
_SERVED = ("jpeg", "png")


class EndpointScorer:
    """A server with the right version of the model; see `Scorer`."""

    def __init__(self, address: str, name: str, version: int, in_flight: int, timeout_s: float) -> None:
        """Create the client; nothing is sent yet.

        Args:
            address: `grpc://host:port`, `http://host:port` or `https://host:port`.
            name: Name of the model.
            version: Pinned version.
            in_flight: Number of concurrent requests.
            timeout_s: Deadline of a request, in seconds.

        Raises:
            ConfigError: The address has another form.
        """
        self.at_once = in_flight
        self.client = EndpointClient(address, name, version, timeout_s, Access.find())

    def fit(self, pixels: Pixels) -> Pixels:
        """Return a tile unchanged, since the server gets it encoded."""
        return pixels

    def score(self, tiles: Sequence[LoadedTile]) -> list[Row]:
        """Return the server's results; a batch that it refuses is halved until the bad tile is isolated.

        Raises:
            RequestError: The server can't be reached, is too slow, or has another model.
        """
        images = [_servable(tile) for tile in tiles]
        try:
            return list(self._asked(images))
        except RequestError as error:
            if error.code not in (Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED):
                raise
            if len(tiles) == 1:
                if error.code is Code.RESOURCE_EXHAUSTED:
                    raise
                return [f"the server refuses it: {error}"]
            middle = len(tiles) // 2
            return self.score(tiles[:middle]) + self.score(tiles[middle:])

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    def _asked(self, images: Sequence[bytes]) -> Sequence[Row]:
        try:
            return retry(
                lambda: list(self.client.predict(images)),
                _RETRY_DELAYS_S,
                lambda error: 0.0 if isinstance(error, RequestError) and error.code in _MAY_PASS else None,
                before_wait=lambda error, wait_s: _log.info("endpoint  %s; again in %.0f s", error, wait_s),
            )
        except RequestError as error:
            if error.code is Code.RESOURCE_EXHAUSTED or error.code not in _MAY_PASS:
                raise
            raise ServiceError(
                f"{error}. Asked {len(_RETRY_DELAYS_S) + 1} times. Finished shards are kept: run the same command "
                "again when the server is back"
            ) from None


def _servable(tile: LoadedTile) -> bytes:
    if tile.format in _SERVED:
        return tile.data
    content = io.BytesIO()
    Image.fromarray(tile.pixels).save(content, "PNG", compress_level=1)
    return content.getvalue()
