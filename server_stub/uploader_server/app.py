"""Builds the ASGI application from store, flavour, Socket.IO, REST and, if there are any, faults."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from uploader_server.analyses import Analyses
from uploader_server.backend import Backend
from uploader_server.bundled import Bundled, logged
from uploader_server.config import ServerConfig
from uploader_server.counts import Counts
from uploader_server.feature import provided
from uploader_server.http.connections import cut, most_connections
from uploader_server.http.errors import ApiError, Json
from uploader_server.http.memory import Memory
from uploader_server.http.middleware import Gateway
from uploader_server.http.proxies import Proxies
from uploader_server.http.rest import Rest
from uploader_server.http.tracking import AccessLog, LoggedRequest, RequestTracker, TrackedApp
from uploader_server.options import StartupError
from uploader_server.realtime.joins import Joins
from uploader_server.realtime.rooms import Deliver, Realtime
from uploader_server.sessions import Sessions
from uploader_server.shares import Share
from uploader_server.storage.store import Store, damaged

if TYPE_CHECKING:  # imported only if they are used
    from uploader_server.simulation.analysis import AnalysisCalls
    from uploader_server.simulation.state import Faults

LAST_RECORD = 0.5  # seconds that a stop waits for the last record of the time
ANALYSIS_CALLS = (
    ("/api/ai/analyze/content", "content", "POST"),
    ("/api/ai/analyze/fusion", "fusion", "POST"),
    ("/api/ai/generate/music-prompt", "music", "POST"),
    ("/api/ai/analysis/{id}/status", "status", "GET"),
)
"""Path, handler in `simulation.analysis.AnalysisCalls`, and method."""


@dataclass
class State:
    """The components of an application; `faults` is None if it can have none."""

    config: ServerConfig
    store: Store
    faults: Faults | None
    backend: Backend
    realtime: Realtime
    joins: Joins
    analyses: Analyses
    counts: Counts
    memory: Memory


class UploadApp:
    """The ASGI application. `stop` ends running requests; `close` releases the root after the server stopped."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.started = asyncio.Event()
        self._crashed = False
        self._sweeping: asyncio.Task[None] | None = None
        config = state.config
        try:
            self.log = AccessLog(config)
        except OSError as error:
            raise StartupError(
                f"--access-log {config.access_log}: can't write to it ({error.strerror})", "choose another file"
            ) from error
        self.keep: list[Callable[[LoggedRequest], None]] = [self.log.write]  # what each finished request is passed to
        self.parts = {} if config.reference else {name: made(self) for name, made in provided("part").items()}
        """The parts of features, by their names."""
        optional = state.backend.calls()
        self.offers = {name: calls.described() for name, calls in optional.items()}
        routes = [
            *Rest(state.backend, self.offers).routes(),
            *(route for calls in optional.values() for route in calls.routes()),
            *self._further_routes(),
        ]
        self.routes = [route for route in routes if route.include_in_schema]  # routes of all HTTP calls
        # A redirect to a path without a slash would name the scheme between proxy and server.
        self._router = Router(routes, redirect_slashes=False, lifespan=self._lifespan)
        gateway = Gateway(config, self._router, state.realtime.app, state.memory, state.backend.words)
        self.tracker = RequestTracker(
            gateway if state.faults is None else _faulty(gateway, state.faults, config),
            self._keep,
            Proxies(config.behind_proxy),
            share=Share("connections", config.max_share, most=most_connections(), cap=config.max_per_address),
            jwt_secret=config.jwt_secret,
            echo=not config.reference,
        )

    def _further_routes(self) -> list[Route]:
        config = self.state.config
        routes = [
            Route(path, functools.partial(self._analysis, handler), methods=[method])
            for path, handler, method in ANALYSIS_CALLS
        ]
        if config.fault_control and self.state.faults is not None:
            from uploader_server.simulation.wrapper import control_route

            routes.append(control_route(self.state.faults))
        if not config.reference:
            routes.append(Route("/openapi.json", self._openapi))
            routes += [route for part in self.parts.values() for route in part.routes()]
        return routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._router(scope, receive, send)
        elif self._crashed:
            cut(scope)
        else:
            await self.tracker(scope, receive, send)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: object) -> AsyncIterator[None]:
        if self.state.faults is not None:
            self.state.faults.runs_on(asyncio.get_running_loop(), self.state.realtime.drop)
        self._sweeping = asyncio.create_task(self.state.backend.sweep())
        self.started.set()
        try:
            yield
        finally:
            self.stop()
            await self.state.realtime.server.shutdown()
            with logged("Recording the time"):
                await asyncio.wait_for(self.state.backend.record_times(), LAST_RECORD)

    def document(self) -> dict[str, Any]:
        from uploader_server.openapi.document import document

        return document(self.state.config, self.offers)

    async def _openapi(self, _: Request) -> Response:
        return Json(self.document())

    async def _analysis(self, handler: str, request: Request) -> Response:
        if not self.state.config.has_analyses:
            raise ApiError(404, "ANALYSES_OFF", "This server answers no analyses: start it with --analyses")
        return cast("Response", await getattr(self._analysis_calls, handler)(request))

    @functools.cached_property
    def _analysis_calls(self) -> AnalysisCalls:
        from uploader_server.simulation.analysis import AnalysisCalls

        return AnalysisCalls(self.state.config, self.state.store, self.state.analyses, self.state.faults)

    def _keep(self, entry: LoggedRequest) -> None:
        """Record a request. No error of a record changes its answer."""
        if self.state.faults is not None:
            self.state.faults.keep(entry)
        with logged("Recording a request"):
            for keep in self.keep:
                keep(entry)

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
        if self.state.faults is not None:
            self.state.faults.loop = None
        self.log.close()
        self.state.store.close(keep_root=keep_root)


def create_app(config: ServerConfig, *, faults: Faults | None = None, scripted: bool = True) -> UploadApp:
    """Build the application. Raises StartupError for an invalid fault, root or access log.

    Without `scripted` faults can't change at run time, and their layers are added only if the configuration has faults.
    `faults` are passed on by a restart, to keep their counts.
    """
    if faults is None and (scripted or config.fault_control or config.rules):
        faults = _configured_faults(config)
    if config.fault_control and not config.loopback:
        hint = "use a loopback address (--host 127.0.0.1)"
        raise StartupError(f"--fault-control: not allowed on {config.host}", hint)
    store = Store(config.root, durable=config.durable)
    try:
        return _app(config, store, faults)
    except sqlite3.Error as error:
        store.close()
        raise damaged(store.root, error) from error
    except StartupError:
        store.close()
        raise


def _app(config: ServerConfig, store: Store, faults: Faults | None) -> UploadApp:
    counts = Counts()
    realtime = Realtime(config, counts, None if faults is None else _faulty_events(faults))
    analyses = Analyses(config.session_ttl, realtime.emit_event, counts)
    fails = (lambda *_names: False) if faults is None else faults.fails
    backend: Backend
    if config.reference:
        from uploader_server.simulation.reference import Reference

        backend = Reference(config, store, realtime.emit, fails)
    else:
        backend = Bundled(Sessions(config, store, realtime.emit, fails), realtime.watched)
    joins = Joins(realtime, config, counts, backend, analyses)
    return UploadApp(State(config, store, faults, backend, realtime, joins, analyses, counts, Memory()))


def _configured_faults(config: ServerConfig) -> Faults:
    from uploader_server.simulation.rules import RuleError
    from uploader_server.simulation.state import Faults

    try:
        return Faults(config)
    except RuleError as error:
        raise StartupError(f"--fault {error}") from None


def _faulty(app: ASGIApp, faults: Faults, config: ServerConfig) -> TrackedApp:
    from uploader_server.simulation.wrapper import FaultyApp

    return FaultyApp(app, faults, control=config.fault_control)


def _faulty_events(faults: Faults) -> Callable[[Deliver], Deliver]:
    from uploader_server.simulation.wrapper import FaultyEvents

    return lambda deliver: FaultyEvents(deliver, faults)
