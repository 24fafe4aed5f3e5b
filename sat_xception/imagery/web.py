"""Tiles of a server, by URL template: XYZ or TMS, with subdomains and a token."""

from __future__ import annotations

import asyncio
import os
import re
from urllib.parse import quote

import httpx

from sat_xception import __version__
from sat_xception.errors import ConfigError
from sat_xception.http_clients import quiet_http_clients, retry_after_s
from sat_xception.imagery.settings import ImageryConfig
from sat_xception.imagery.source import TileFailure

__all__ = ["TRANSIENT", "WebSource", "user_agent"]

_MAX_REDIRECTS = 5
# Connections of one client: httpx looks at all of them, for each of them, at every request (httpcore's pool), which for
# 32 took more time than fetching.
_CONNECTIONS = 8
_SUBDOMAINS = "abc"
# Everyone's wait after a "too many requests" that doesn't say for how long.
_PATIENCE_S = 1.0
_PLACES = re.compile(r"\{([^{}]*)\}")
# Servers that ask for patience or stumble; every other status means the same the next time.
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


class WebSource:
    """A tile server. `{z}`, `{x}`, `{y}` or `{-y}`, `{s}` or `{a-c}`, and `{token}` are filled in."""

    def __init__(self, template: str, config: ImageryConfig) -> None:
        """Check the template and create the client; no request is sent yet.

        Raises:
            ConfigError: A place of the template is unknown or missing, or the token isn't in the environment.
        """
        places = set(_PLACES.findall(template))
        self._ranges = {place for place in places if re.fullmatch(r"[a-z]-[a-z]|\d-\d", place)}
        unknown = places - self._ranges - {"z", "x", "y", "-y", "s", "token"}
        if unknown or not {"z", "x"} <= places or not {"y", "-y"} & places:
            wrong = f"doesn't know {{{min(unknown)}}}" if unknown else "needs {z}, {x} and {y} (or {-y})"
            raise ConfigError(f"the URL template of --imagery {wrong}; for instance https://host/{{z}}/{{x}}/{{y}}.jpg")
        self._template = template
        self._host = template.partition("://")[2].partition("/")[0]
        self._config = config
        self._token = _token(config.token_env) if "token" in places else ""
        self.attribution = config.attribution
        quiet_http_clients()
        self._clients = [_client(config) for _ in range(-(-config.connections // _CONNECTIONS))]
        self._in_flight = [0] * len(self._clients)

    def bounds(self) -> tuple[float, float, float, float] | None:
        """Return None: the bounds aren't known."""
        return None

    def url(self, x: int, y: int, z: int) -> str:
        """Return a tile's address, with the token. The subdomain depends on the tile only, so caches work."""
        return self._filled(self._template, x, y, z)

    def _filled(self, template: str, x: int, y: int, z: int) -> str:
        south = (1 << z) - 1 - y
        places = {
            "z": z,
            "x": x,
            "y": south if self._config.tms else y,
            "-y": south,
            "token": quote(self._token, safe=""),
        }
        places["s"] = _SUBDOMAINS[(x + y) % len(_SUBDOMAINS)]
        for place in self._ranges:
            first, last = ord(place[0]), ord(place[2])
            places[place] = chr(first + (x + y) % (last - first + 1))
        return _PLACES.sub(lambda match: str(places[match[1]]), template)

    def host(self, x: int, y: int, z: int) -> str:
        """Return the server of a tile, from its address."""
        return self._filled(self._host, x, y, z) if "{" in self._host else self._host

    async def read(self, x: int, y: int, z: int) -> bytes:
        """Return the body of the response, if its type is an image and it is complete."""
        try:
            async with asyncio.timeout(self._config.timeout_s):
                return await self._get(self.url(x, y, z))
        except TimeoutError as error:
            raise TileFailure(f"no whole answer in {self._config.timeout_s:g} s", transient=True) from error
        except httpx.TooManyRedirects as error:
            raise TileFailure(f"more than {_MAX_REDIRECTS} redirects") from error
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise TileFailure("redirected to an address that isn't http") from error
        except httpx.HTTPError as error:
            # The message may hold the address; the class of the error is enough.
            raise TileFailure(f"connection failed: {type(error).__name__}", transient=True, unreachable=True) from error

    async def _get(self, url: str) -> bytes:
        # The one that has least to do.
        place = self._in_flight.index(min(self._in_flight))
        self._in_flight[place] += 1
        try:
            return await self._read_answer(self._clients[place], url)
        finally:
            self._in_flight[place] -= 1

    async def _read_answer(self, client: httpx.AsyncClient, url: str) -> bytes:
        async with client.stream("GET", url) as response:
            if response.status_code != 200:
                wait = retry_after_s(response.headers.get("Retry-After", ""))
                if wait is None and response.status_code == 429:
                    wait = _PATIENCE_S
                transient = response.status_code in TRANSIENT
                raise TileFailure(f"HTTP {response.status_code}", transient=transient, retry_after_s=wait)
            kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            if (
                kind
                and not kind.startswith("image/")
                and kind not in ("application/octet-stream", "binary/octet-stream")
            ):
                raise TileFailure(f"HTTP 200 with {kind[:40]}, not an image")
            data = bytearray()
            async for part in response.aiter_bytes():
                data += part
                if len(data) > self._config.max_bytes:
                    raise TileFailure(f"more than {self._config.max_bytes:,} bytes")
            return bytes(data)

    async def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            await client.aclose()


def _client(config: ImageryConfig) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        http2=True,
        follow_redirects=True,
        max_redirects=_MAX_REDIRECTS,
        timeout=config.timeout_s,
        limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS),
        headers={"User-Agent": user_agent(config), "Accept": "image/*"},
    )


def user_agent(config: ImageryConfig) -> str:
    """Return the User-Agent header."""
    return f"sat-xception/{__version__}" + (f" ({config.contact})" if config.contact else "")


def _token(variable: str) -> str:
    if not variable:
        raise ConfigError("the URL template has {token}, but no variable is named: give --imagery-token-env NAME")
    token = os.environ.get(variable, "")
    if not token:
        raise ConfigError(
            f"the URL template has {{token}}, but ${variable} is empty: export {variable}=… and run again"
        )
    return token
