"""Builds the ASGI application from store, flavour, Socket.IO, REST and faults."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.routing import Router as RestRouter
from starlette.types import Receive, Scope, Send

from uploader_server.batch.lookup import Lookup
from uploader_server.bundled import Bundled, logged
from uploader_server.config import ServerConfig
from uploader_server.http.connections import cut, most_connections
from uploader_server.http.errors import Json
from uploader_server.http.memory import Memory
from uploader_server.http.middleware import Router
from uploader_server.http.proxies import Proxies
from uploader_server.http.rest import Rest
from uploader_server.http.shares import Share
from uploader_server.http.tracking import AccessLog, LoggedRequest, RequestTracker
from uploader_server.metrics import CONTENT_TYPE, Metrics
from uploader_server.openapi.document import document
from uploader_server.options import StartupError
from uploader_server.realtime.rooms import Realtime
from uploader_server.simulation.analyses import Analyses
from uploader_server.simulation.analysis_calls import AnalysisCalls
from uploader_server.simulation.faults import Faults
from uploader_server.simulation.reference import Reference
from uploader_server.simulation.rules import RuleError
from uploader_server.simulation.wrapper import FaultyApp, FaultyEvents, control_route
from uploader_server.storage.store import Store
from uploader_server.tus.calls import Tus
from uploader_server.tus.headers import described
from uploader_server.ui.page import page_routes
from uploader_server.wire import timestamp

LAST_RECORD = 0.5  # seconds that a stop waits for the last record of the time


@dataclass
class State:
    """The components of an application."""

    config: ServerConfig
    store: Store
    faults: Faults
    backend: Bundled | Reference
    realtime: Realtime
    analyses: Analyses
    metrics: Metrics
    memory: Memory


class UploadApp:
    """The ASGI application. `stop` ends running requests; `close` releases the root after the server stopped."""

    def __init__(self, state: State, *, faulty: bool) -> None:
        self.state = state
        self.started = asyncio.Event()
        self._crashed = False
        self._sweeping: asyncio.Task[None] | None = None
        self._offers: dict[str, Any] = {}
        config = state.config
        routes = [*Rest(state.backend, self._offers).routes(), *self._further_routes()]
        self.routes = [route for route in routes if route.include_in_schema]  # routes of all HTTP calls
        self._rest = RestRouter(routes, lifespan=self._lifespan)
        router = Router(config, self._rest, state.realtime, state.memory)
        control = router if config.fault_control else None
        self.tracker = RequestTracker(
            FaultyApp(router, state.faults, control) if faulty else router,
            self._keep,
            Proxies(config.behind_proxy),
            share=Share("connections", config.max_share, most=most_connections(), cap=config.max_per_address),
            jwt_secret=config.jwt_secret,
            echo=not config.reference,
        )
        try:
            self._log = AccessLog(config)
        except OSError as error:
            raise StartupError(
                f"--access-log {config.access_log}: can't write to it ({error.strerror})", "choose another file"
            ) from error

    def _further_routes(self) -> list[Route]:
        """Return the enabled routes of analyses, tus, packs and so on; describe them in `_offers`."""
        state, backend = self.state, self.state.backend
        routes = AnalysisCalls(state.config, state.store, state.analyses).routes()
        if state.config.fault_control:
            routes.append(control_route(state.faults))
        if isinstance(backend, Bundled):
            routes += [Route("/metrics", self._metrics), Route("/openapi.json", self._openapi)]
            if state.config.ui:
                routes += [*page_routes(), Route("/api/activity", self._activity)]
            if state.config.tus:
                self._offers["tus"] = described(backend.limits.max_size)
                routes += Tus(backend.tus).routes()
            if state.config.packs:
                lookup = Lookup(backend.store)
                self._offers |= {"packs": backend.packs.described(), "lookup": lookup.described()}
                routes += [*backend.packs.routes(), *lookup.routes()]
        return routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection."""
        if scope["type"] == "lifespan":
            await self._rest(scope, receive, send)
        elif self._crashed:
            cut(scope)
        else:
            await self.tracker(scope, receive, send)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: object) -> AsyncIterator[None]:
        self.state.faults.runs_on(asyncio.get_running_loop())
        self._sweeping = asyncio.create_task(self.state.backend.sweep())
        self.started.set()
        try:
            yield
        finally:
            self.stop()
            await self.state.realtime.server.shutdown()
            if isinstance(self.state.backend, Bundled):
                with logged("Recording the time"):
                    await asyncio.wait_for(self.state.backend.record_times(), LAST_RECORD)

    async def _metrics(self, _: Request) -> Response:
        return Response(self.state.metrics.text(), headers={"content-type": CONTENT_TYPE})

    def document(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        return document(self.state.config, self._offers)

    async def _openapi(self, _: Request) -> Response:
        return Json(self.document())

    async def _activity(self, _: Request) -> Response:
        """Serve `GET /api/activity`: what the page shows. With an auth token only its holders get here."""
        backend = self.state.backend
        assert isinstance(backend, Bundled)  # noqa: S101 - for the type checker
        activity = {
            "sessions": backend.newest(),
            "analyses": self.state.analyses.newest(),
            "receivedBytes": self.tracker.received(),
            "timestamp": timestamp(),
        }
        return Json(activity)

    def _keep(self, entry: LoggedRequest) -> None:
        self.state.faults.requests.append(entry)
        self.state.metrics.request(entry)
        self._log.write(entry)

    def stop(self) -> None:
        """End sweeps and running requests: they get 503, websockets are closed."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        self.state.store.reading.stop()
        self.state.analyses.stop()
        self.state.realtime.drop()
        self.tracker.stop()

    def crash(self) -> None:
        """Close the connection of every further request without a response.

        The listening socket stays open until the server stops: granian's accept loop would spin on a closed one.
        """
        self._crashed = True

    def close(self, *, keep_root: bool = False) -> None:
        """Release the root and the log after the server stopped; remove a temporary root unless `keep_root`."""
        self.state.faults.loop = None
        self._log.close()
        self.state.store.close(keep_root=keep_root)


def create_app(config: ServerConfig, *, faults: Faults | None = None, scripted: bool = True) -> UploadApp:
    """Build the application. Raises StartupError for an invalid fault, root or access log.

    Without `scripted` faults can't change at run time, and their layers are added only if the configuration has faults.
    `faults` are passed on by a restart, to keep their counts.
    """
    try:
        faults = faults or Faults(config)
    except RuleError as error:
        raise StartupError(f"--fault {error}") from None
    if config.fault_control and not config.loopback:
        hint = "use a loopback address (--host 127.0.0.1)"
        raise StartupError(f"--fault-control: not allowed on {config.host}", hint)
    store = Store(config.root, durable=config.durable)
    metrics = Metrics()
    realtime = Realtime(config, metrics)
    analyses = Analyses(faults, config.session_ttl, realtime.emit_event, metrics)
    flavour = Reference if config.reference else Bundled
    backend: Bundled | Reference = flavour(config, store, faults, realtime.emit)
    realtime.serve(backend, analyses)
    if isinstance(backend, Bundled):
        backend.watched = realtime.watched
    metrics.gauge("uploader_sessions", "Known upload sessions", "status", backend.statuses)
    metrics.gauge("uploader_analyses_running", "Running analyses", "", lambda: {"": analyses.running()})
    memory = Memory()
    metrics.gauge("uploader_held_bytes", "Memory held by requests", "", lambda: {"": memory.used})
    faulty = scripted or config.fault_control or bool(config.rules)
    if faulty:
        realtime.deliver = FaultyEvents(realtime.deliver, faults)
        faults.gates["realtime"].on_cut = realtime.drop
        faults.gates["websocket"].on_cut = lambda: realtime.drop(websockets=True)
        faults.gates["polling"].on_cut = lambda: realtime.drop(websockets=False)
    try:
        state = State(config, store, faults, backend, realtime, analyses, metrics, memory)
        return UploadApp(state, faulty=faulty)
    except StartupError:
        store.close()
        raise
