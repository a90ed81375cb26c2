"""KServe's ModelServer, started before its model is loaded, and stopped without losing a request."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

import uvloop

from components.bundle.model import require_device
from components.classifier.cpu import available_cpus
from components.classifier.errors import PenstockError, UsageError, first_line, one_line
from components.classifier.metadata import UNREAD, Unread
from components.predictor import logs
from components.predictor.dispatch import Dispatcher
from components.predictor.grpc import grpc_server
from components.predictor.http.app import InferenceApp
from components.predictor.http.connections import GuardedProtocol, enforce_timeouts
from components.predictor.http.routes import add_error_handlers, add_routes
from components.predictor.loaded_model import LoadedModel
from components.predictor.logs import log
from components.predictor.metrics import Metrics
from components.predictor.model import ServingModel
from components.predictor.reviewing import ReviewWriter
from components.predictor.sdk import ModelServer, RESTServer, app
from components.predictor.settings import PredictorSettings
from components.predictor.shadow import Shadow, ShadowMetrics
from components.predictor.speed import freeze_garbage, give_memory_back, tune_interpreter

Loader = Callable[["PredictorServer"], None]
"""Loads a model in the background and calls `serve`; raises PenstockError when it cannot."""


_MAX_WORKERS = 8
_BATCHING_WORKERS = 32
"""Where requests are batched, each waits on a thread of its own: as many can share a run of the model."""
_REVIEW_SECONDS = 5.0
_BACKLOG = 2048
_ALL = "::"
"""All addresses of both families."""
_LAST_SECONDS = 1.0
"""Before the time for requests in flight ends, no work is begun any more."""


class _RestServer(RESTServer):  # type: ignore[misc]  # kserve has no types
    """KServe's REST server with our routes and error handlers, and without its middleware."""

    def __init__(self, inference: InferenceApp, server: "PredictorServer") -> None:
        settings = server.settings
        super().__init__(
            inference,
            server.dataplane,
            server.model_repository_extension,
            settings.http_port,
            grace_period=settings.grace_seconds,
            timeout_keep_alive=settings.keep_alive,
            ssl_certfile=server.ssl_certfile,
            ssl_keyfile=server.ssl_keyfile,
        )
        self._predictor = server
        self.config.http = GuardedProtocol
        self.config.ws = "none"
        self.config.lifespan = "off"
        self.config.server_header = False
        self.config.proxy_headers = False
        self.config.access_log = False
        self.config.backlog = _BACKLOG

    def create_application(self) -> None:
        add_routes(app, self._predictor.model)
        add_error_handlers(app)

    @property
    def uvicorn(self) -> Any:
        """The uvicorn server."""
        return self._server


class PredictorServer(ModelServer):  # type: ignore[misc]  # kserve has no types
    """Listens at once; becomes ready when a loader in the background has loaded the model."""

    def __init__(self, settings: PredictorSettings, console: bool = False) -> None:
        super().__init__(
            http_port=settings.http_port,
            grpc_port=settings.grpc_port,
            workers=1,
            enable_grpc=settings.enable_grpc,
            enable_latency_logging=False,
            grace_period=settings.grace_seconds,
        )
        self.settings = settings
        logs.configure(console)
        self.metrics = Metrics()
        self._review = ReviewWriter(settings, self.metrics) if settings.review_store else None
        self._shadow = Shadow(settings, ShadowMetrics()) if settings.shadow_share else None
        threads = _BATCHING_WORKERS if settings.batch_seconds else max(2, min(available_cpus(), _MAX_WORKERS))
        dispatcher = Dispatcher(settings, threads, self._tell_unread)
        self._told_unread: set[Unread] = set()
        self.model = ServingModel(settings, dispatcher, self.metrics, self._review, self._shadow)
        self.failure: PenstockError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def serve(self, loaded: LoadedModel) -> None:
        """Answer requests with a loaded version from now on; may be called from any thread."""
        freeze_garbage()
        before = self.model.loaded
        self.metrics.serving(loaded)
        self.model.loaded = loaded
        log().info(
            "serving",
            model=loaded.name,
            version=loaded.version,
            before=before.version if before else None,
            device=loaded.classifier.device,
            cpus=available_cpus(),
            threads=loaded.threads,
        )

    def _tell_unread(self, what: Unread) -> None:
        """Count a picture that is used without a part of its metadata; the log has one line for each kind."""
        self.metrics.unread.labels(what).inc()
        if what not in self._told_unread:
            self._told_unread.add(what)
            log().warning("metadata", note=f"a picture came with {UNREAD[what]}; penstock_unread_metadata_total counts them")

    def run(self, loader: Loader, listening: Callable[[int], object] = bool) -> int:
        """Serve until a signal comes or loading fails; tells `listening` the port, and returns the process' exit code."""
        GuardedProtocol.max_connections = self.settings.max_connections
        tune_interpreter()
        try:
            require_device(self.settings.device)
            listeners = [self._listen(self.settings.http_port)]
            if self.settings.probe_port is not None:
                listeners.append(self._listen(self.settings.probe_port))
                GuardedProtocol.probe_port = listeners[1].getsockname()[1]
            listening(listeners[0].getsockname()[1])
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._run(loader, listeners))
        except UsageError as error:
            self.failure = error
        self.model.dispatcher.close()
        if self._shadow is not None:
            self._shadow.close()
        if self._review is not None:
            self._review.close(_REVIEW_SECONDS)
        if self.failure is not None:
            log().error("cannot serve", model=self.settings.model_name, error=one_line(self.failure, None))
            return self.failure.exit_code
        return 0

    def _listen(self, port: int) -> socket.socket:
        host = self.settings.host
        try:
            if host == _ALL and not socket.has_dualstack_ipv6():
                return socket.create_server(("0.0.0.0", port), backlog=_BACKLOG)
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return socket.create_server((host, port), backlog=_BACKLOG, family=family, dualstack_ipv6=host == _ALL)
        except OSError as error:
            raise UsageError(f"cannot listen on {with_port(host, port)} ({error.strerror}); choose another host or port") from error

    async def _run(self, loader: Loader, listeners: list[socket.socket]) -> None:
        self._loop = asyncio.get_running_loop()
        tasks: set[Any] = set()
        self._rest_server = _RestServer(InferenceApp(app, self.model, self.metrics, tasks), self)
        uvicorn = self._rest_server.uvicorn
        uvicorn.server_state.tasks = tasks
        for sig in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(sig, self._drain, sig)
        self._rest_server.create_application()
        uvicorn.config.load()
        beside = [
            asyncio.create_task(
                enforce_timeouts(uvicorn.server_state.connections, self.settings.header_timeout, self.settings.body_timeout)
            )
        ]
        beside.append(asyncio.create_task(give_memory_back(lambda: self.model.dispatcher.last_large)))
        if self.settings.stop_with_parent:
            beside.append(asyncio.create_task(self._stop_with_parent()))
        if self.settings.enable_grpc:
            await self._start_grpc()
        threading.Thread(target=self._load, args=(loader,), name="penstock-loader", daemon=True).start()
        log().info("listening", **dict(zip(("port", "probe_port"), (it.getsockname()[1] for it in listeners), strict=False)))
        try:
            await uvicorn._serve(listeners)  # not serve(): that handles signals itself
        finally:
            for task in beside:
                task.cancel()
            if self._grpc_server is not None:
                await self._grpc_server.stop(self.settings.grace_seconds)

    async def _stop_with_parent(self) -> None:
        parent = os.getppid()
        while os.getppid() == parent:
            await asyncio.sleep(1)
        self._exit()

    async def _start_grpc(self) -> None:
        """Start the gRPC server; raises UsageError when its port is taken."""
        port = self.settings.grpc_port
        try:
            self._grpc_server = grpc_server(self.model, self.metrics, with_port(self.settings.host, port))
        except RuntimeError as error:
            raise UsageError(f"cannot serve gRPC on port {port} ({first_line(error)}); choose another --grpc_port") from error
        await self._grpc_server.start()

    def _load(self, loader: Loader) -> None:
        try:
            loader(self)
        except PenstockError as error:
            self._fail(error)
        except Exception as error:
            self._fail(PenstockError(f"the model could not be loaded ({type(error).__name__}: {error}); see the log above"))
            raise

    def _fail(self, error: PenstockError) -> None:
        self.failure = error
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._exit)

    def _drain(self, sig: int) -> None:
        if self.model.draining:
            self._exit()  # the second signal ends it at once
            return
        self.model.draining = True
        log().info("draining", signal=signal.Signals(sig).name, seconds=self.settings.drain_seconds)
        asyncio.get_running_loop().call_later(0 if sig == signal.SIGINT else self.settings.drain_seconds, self._exit)

    def _exit(self) -> None:
        self.model.dispatcher.stop_after(self.settings.grace_seconds - _LAST_SECONDS)
        if self._rest_server is not None:
            self._rest_server.uvicorn.should_exit = True


def with_port(host: str, port: int) -> str:
    """Return host and port as addresses have them; IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
