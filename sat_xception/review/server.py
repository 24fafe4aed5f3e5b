"""Serve the review page on this machine, and save every decision immediately.

A decision names the version that it replaces. If that isn't the current one, because another tab or person was faster,
the decision is refused with status 409 and the current decisions.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sat_xception.errors import ServiceError
from sat_xception.log import get_logger
from sat_xception.process import stop_event
from sat_xception.review.data import ReviewData
from sat_xception.review.lock import review_lock
from sat_xception.review.page import read_data
from sat_xception.review.record import RECORD, ReviewDecision, ReviewRecord
from sat_xception.review.settings import ReviewConfig
from sat_xception.serve.addresses import bound_socket, port_error

__all__ = ["ReviewResult", "ReviewServer", "review"]

_log = get_logger(__name__)
_HOST = "127.0.0.1"
# Maximum request size: a page sends at most 200 decisions at once, each with a note of at most 2,000 characters.
_MAX_BYTES = 4 * 2**20
_MAX_DECISIONS = 200
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-cache",
}


class _Change(ReviewDecision):
    """A decision, and the version of the one that it replaces."""

    base: str = Field(max_length=16)

    def decision(self) -> ReviewDecision:
        return ReviewDecision(**self.model_dump(exclude={"base"}))


class _Changes(BaseModel):
    model_config = ConfigDict(extra="forbid")

    decisions: list[_Change] = Field(max_length=_MAX_DECISIONS)


@dataclass(frozen=True)
class ReviewResult:
    """Result of a review.

    Attributes:
        path: Path of the record.
        candidates: Number of candidates on the page.
        counts: Number of candidates by verdict.
    """

    path: Path
    candidates: int
    counts: dict[str, int]

    def summary(self) -> str:
        """Return the counts and the path of the record."""
        done = sum(self.counts.values())
        verdicts = "  ".join(f"{verdict} {number:,}" for verdict, number in self.counts.items())
        where = f"wrote     {self.path}" if done else "wrote     nothing: no decision was made"
        after = f"\nnext      sat_xception assemble … --negatives-review {self.path}" if done else ""
        return f"reviewed  {done:,} of {self.candidates:,} candidates | {verdicts}\n{where}{after}"


def review(config: ReviewConfig) -> ReviewResult:
    """Serve the page until SIGINT or SIGTERM.

    Raises:
        ConfigError: The port isn't available, or the folder is being reviewed already.
        DataError: The folder wasn't written by publish, or its review is damaged.
    """
    data = read_data(config.out)
    with review_lock(config.out):
        server = ReviewServer(config.out, data)
        asyncio.run(_serve_until_signal(server, config))
        return ReviewResult(server.record.path, len(data.x), server.record.counts())


async def _serve_until_signal(server: ReviewServer, config: ReviewConfig) -> None:
    with stop_event() as stopped:
        address = await server.start(config.port)
        _log.info("review    %s", address)
        _log.info("saves to  %s   (stop with Ctrl+C)", server.record.path)
        try:
            if config.browser:
                # A browser of the terminal, such as lynx, doesn't come back before it ends.
                threading.Thread(target=_open_browser, args=(address,), daemon=True).start()
            await stopped.wait()
        finally:
            await server.stop()


def _open_browser(address: str) -> None:
    if not webbrowser.open(address):
        _log.warning("review    no browser could be opened; open the address above yourself")


class ReviewServer:
    """Server of the page and its decisions, on this machine only.

    Attributes:
        record: Record of the decisions.
    """

    def __init__(self, out: Path, data: ReviewData) -> None:
        """Read the record.

        Raises:
            DataError: The record is damaged.
        """
        self._folder = out / "review"
        self.record = ReviewRecord(out / RECORD, data)
        if self.record.others:
            _log.info("review    %s decisions on tiles that aren't candidates now are kept", f"{self.record.others:,}")
        self._writing = asyncio.Lock()
        self._changes = self._saved = 0
        self._hosts: frozenset[str] = frozenset()
        self._runner: web.AppRunner | None = None

    async def start(self, port: int) -> str:
        """Listen, and return the page's address.

        Raises:
            ConfigError: The port isn't available.
        """
        listening: socket.socket = bound_socket(_HOST, port, "--port", "")
        port = listening.getsockname()[1]
        self._hosts = frozenset({f"{_HOST}:{port}", f"localhost:{port}"})
        app = web.Application(client_max_size=_MAX_BYTES, middlewares=[self._guard])
        app.router.add_get("/", self._page)
        app.router.add_get("/server.js", self._server_script)
        app.router.add_get("/api/decisions", self._read)
        app.router.add_post("/api/decisions", self._write)
        app.router.add_static("/", self._folder, follow_symlinks=False)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
        await self._runner.setup()
        try:
            await web.SockSite(self._runner, listening).start()
        except OSError as error:
            raise port_error(_HOST, port, "--port", error, "") from None
        return f"http://{_HOST}:{port}/"

    async def stop(self) -> None:
        """Finish the requests in progress."""
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:  # noqa: ANN401 - aiohttp's own type
        """Refuse requests from other sites' pages, by their Host and Origin headers."""
        origin = request.headers.get("Origin")
        foreign = request.host not in self._hosts or (
            request.method == "POST" and origin not in {f"http://{host}" for host in self._hosts}
        )
        if foreign:
            response: web.StreamResponse = _refusal(403, "only the review page of this machine may ask")
        else:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = _refusal(error.status, error.reason)
        response.headers.update(_HEADERS)
        return response

    async def _page(self, _: web.Request) -> web.FileResponse:
        return web.FileResponse(self._folder / "index.html")

    async def _server_script(self, _: web.Request) -> web.Response:
        return web.Response(text="window.REVIEW_SERVER = true;\n", content_type="text/javascript")

    async def _read(self, _: web.Request) -> web.Response:
        return web.json_response({"decisions": [self._present(site) for site in self.record.decisions]})

    def _present(self, site: str) -> dict[str, str]:
        decision = self.record.decisions.get(site) or ReviewDecision(site=site, verdict="")
        return {**decision.model_dump(), "version": decision.version()}

    async def _write(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            return _refusal(415, "send application/json")
        try:
            changes = _Changes.model_validate_json(await request.read()).decisions
        except (ValidationError, json.JSONDecodeError) as error:
            return _refusal(400, f"not decisions: {error}")
        if unknown := [change.site for change in changes if not self.record.knows(change.site)]:
            return _refusal(409, f"{unknown[0]} is no candidate of this page; load it again")
        saved, conflicts = [], []
        for change in changes:
            # If the response to the same change was lost, the decision is stored already.
            new, present = change.decision(), self.record.version(change.site)
            if present not in (change.base, new.version()):
                conflicts.append(self._present(change.site))
                continue
            self.record.put(new)
            self._changes += 1
            saved.append({"site": change.site, "version": new.version()})
        try:
            await self._save()
        except ServiceError as error:
            _log.error("error     %s; decisions are kept in the page", error)
            return _refusal(507, str(error))
        return web.json_response({"saved": saved, "conflicts": conflicts})

    async def _save(self) -> None:
        """Write all changes so far; changes that arrive during a write go into the next one."""
        wanted = self._changes
        async with self._writing:
            if self._saved >= wanted:
                return
            including = self._changes
            await asyncio.to_thread(self.record.save, self.record.text())
            self._saved = including


def _refusal(status: int, reason: str) -> web.Response:
    return web.json_response({"error": reason}, status=status)
