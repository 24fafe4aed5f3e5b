"""Serve a model root over TensorFlow Serving's REST and gRPC interfaces, and load new versions."""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import grpc
from aiohttp import web
from grpc_health.v1.health import aio as grpc_health
from grpc_health.v1.health_pb2 import HealthCheckResponse

from sat_xception.errors import ConfigError
from sat_xception.log import get_logger
from sat_xception.process import stop_event
from sat_xception.serve.addresses import bound_socket, bracketed, is_loopback, port_error, reachable
from sat_xception.serve.dispatch import Dispatcher
from sat_xception.serve.grpc_service import grpc_server
from sat_xception.serve.metrics import Metrics
from sat_xception.serve.rest import RestService
from sat_xception.serve.settings import ServeConfig
from sat_xception.serve.versions import ModelVersions

__all__ = ["RunningServer", "ServeResult", "serve"]

_log = get_logger(__name__)


@dataclass(frozen=True)
class ServeResult:
    """Counts of a server from start to shutdown.

    Attributes:
        name: Name of the model.
        answered: Number of predictions that were answered.
        failed: Number of predictions that were refused or failed.
    """

    name: str
    answered: int
    failed: int

    def summary(self) -> str:
        """Return the counts on one line."""
        total = self.answered + self.failed
        return f"served    {self.name} | {total:,} requests | {self.answered:,} answered  {self.failed:,} failed"


def serve(config: ServeConfig) -> ServeResult:
    """Serve until SIGINT or SIGTERM; requests in progress are finished first.

    In a notebook, use `RunningServer`, which doesn't block.

    Raises:
        ConfigError: There is no version to serve, or a port isn't available.
        ModelError: No version loads.
    """
    return asyncio.run(_serve_until_signal(config))


async def _serve_until_signal(config: ServeConfig) -> ServeResult:
    with stop_event() as stopped:
        server = _Server(config)
        await server.start()
        server.announce()
        try:
            await stopped.wait()
            _log.info("serve     stopping; requests under way are finished first")
        finally:
            await server.stop()
        return server.result()


class RunningServer:
    """A server in a thread of this process, for notebooks, deployment checks and tests.

    Attributes:
        rest_url: Address of the REST interface, as `http://127.0.0.1:8501`.
        grpc_address: Address of the gRPC interface, as `127.0.0.1:8500`.

    Example:
        with RunningServer(ServeConfig(model_root=root, rest_port=0, grpc_port=0)) as server:
            EndpointClient(server.rest_url, "school-classifier").predict([jpeg])
    """

    rest_url: str
    grpc_address: str

    def __init__(self, config: ServeConfig) -> None:
        """Start the server and wait until it answers.

        Raises:
            ConfigError: There is no version to serve, or a port isn't available.
            ModelError: No version loads.
        """
        self._config = config
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._result: ServeResult | None = None
        self._thread = threading.Thread(target=self._run, name="serve", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> RunningServer:
        """Return the running server."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()

    def stop(self) -> ServeResult | None:
        """Finish the requests in progress, stop, and return the counts."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join()
        return self._result

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # raised again by the thread that waits in __init__
            self._failure = error
            self._started.set()

    async def _serve(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        server = _Server(self._config)
        await server.start()
        self.rest_url, self.grpc_address = server.rest_url, server.grpc_address
        self._started.set()
        try:
            await self._stopped.wait()
        finally:
            await server.stop()
        self._result = server.result()


class _Server:
    """Both interfaces, the model behind them and the polling for new versions, in one event loop."""

    def __init__(self, config: ServeConfig) -> None:
        self._config = config
        self._versions = ModelVersions(config.model_root, config.name)
        self._metrics = Metrics(config.name, self._versions.loaded)
        self._dispatcher = Dispatcher(self._versions, self._metrics, config)
        self._health = grpc_health.HealthServicer() if config.enable_grpc_healthcheck_service else None
        # Loading has its own thread, so that it doesn't queue behind requests.
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._rest_socket: socket.socket | None = None
        self._grpc: grpc.aio.Server | None = None
        self._rest: RestService | None = None
        self._runner: web.ServerRunner | None = None
        self._watch: asyncio.Task[None] | None = None
        self._version: int | None = None
        self.rest_url = self.grpc_address = ""

    async def start(self) -> None:
        """Bind the ports, load the model, then listen, so that a client that can connect gets an answer."""
        config, loop = self._config, asyncio.get_running_loop()
        try:
            self._rest_socket = bound_socket(config.host, config.rest_port, "--rest-port")
            self._grpc, grpc_port = self._bind_grpc()
            self._version = await loop.run_in_executor(self._loader, self._versions.start, config.wait)
            await self._grpc.start()
            await self._tell_health()
            self._rest = RestService(self._dispatcher, config)
            self._runner = web.ServerRunner(self._rest.connections, shutdown_timeout=0.1)
            await self._runner.setup()
            try:
                await web.SockSite(self._runner, self._rest_socket).start()
            except OSError as error:  # another program started to listen while the model was loading
                raise port_error(config.host, config.rest_port, "--rest-port", error) from None
        except BaseException:
            await self.stop()
            raise
        self._watch = asyncio.create_task(self._follow())
        self.rest_url = f"http://{reachable(config.host)}:{self._rest_socket.getsockname()[1]}"
        self.grpc_address = f"{reachable(config.host)}:{grpc_port}"
        if not is_loopback(config.host):
            _log.warning(
                "warning   listening on %s without authentication: everyone who reaches these ports may use the model. "
                "Keep it inside a private network, or behind a gateway that checks who asks",
                config.host,
            )

    async def stop(self) -> None:
        """Stop accepting requests, finish those in progress, unload the model."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if self._health is not None:
            await self._health.enter_graceful_shutdown()
        await asyncio.gather(self._stop_rest(), self._stop_grpc())
        if self._rest_socket is not None:
            self._rest_socket.close()
        await self._dispatcher.stop()
        await asyncio.to_thread(self._loader.shutdown)
        self._versions.stop()

    async def _stop_rest(self) -> None:
        if self._runner is None or self._rest is None:
            return
        for site in list(self._runner.sites):
            await site.stop()
        await self._rest.drain(self._config.grace_s)
        await self._runner.cleanup()

    async def _stop_grpc(self) -> None:
        if self._grpc is not None:
            await self._grpc.stop(self._config.grace_s)

    def result(self) -> ServeResult:
        """Return the counts so far."""
        return ServeResult(self._config.name, self._metrics.answered, self._metrics.failed)

    async def _tell_health(self) -> None:
        """Set the states of grpc.health.v1: the server's (with the name "") and the model's."""
        if self._health is not None:
            loaded = self._versions.loaded() is not None  # 0 is a valid version
            serving = HealthCheckResponse.SERVING if loaded else HealthCheckResponse.NOT_SERVING
            for service in ("", self._config.name):
                await self._health.set(service, serving)

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._config.poll_s)
            try:
                await loop.run_in_executor(self._loader, self._versions.poll)
                await self._tell_health()
            except Exception:  # a temporary disk error must not end the polling
                _log.exception("serve     looking for new versions failed; again in %g s", self._config.poll_s)

    def _bind_grpc(self) -> tuple[grpc.aio.Server, int]:
        config = self._config
        # gRPC doesn't report why it can't bind a port; a plain socket does.
        bound_socket(config.host, config.grpc_port, "--grpc-port").close()
        server = grpc_server(self._dispatcher, config, self._health)
        try:
            return server, int(server.add_insecure_port(f"{bracketed(config.host)}:{config.grpc_port}"))
        except RuntimeError as error:
            raise ConfigError(
                f"gRPC can't listen on {config.host} port {config.grpc_port}: {error}. Change --grpc-port"
            ) from None

    def announce(self) -> None:
        """Log the addresses, with an example request."""
        config = self._config
        url = f"{self.rest_url}/v1/models/{config.name}:predict"
        number = self._version
        version = "no version yet, waiting for the first," if number is None else f"version {number}"
        _log.info("serve     %s %s from %s", config.name, version, self._versions.folder)
        _log.info("REST      %s", url)
        _log.info("gRPC      %s", self.grpc_address)
        _log.info("try       %s", _curl_line(url))


def _curl_line(url: str) -> str:
    body = """printf '{"instances": [{"image_bytes": {"b64": "%s"}}]}' "$(base64 < tile.jpg | tr -d '\\n')\""""
    return f"{body} | curl -s --data-binary @- {url}"
