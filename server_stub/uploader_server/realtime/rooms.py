"""The Socket.IO server (docs/protocol.md, section 2): connections, rooms and events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

import engineio  # type: ignore[import-untyped]
import socketio  # type: ignore[import-untyped]
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send

from uploader_server.bundled import Bundled
from uploader_server.config import ServerConfig
from uploader_server.http.auth import bearer, same_token
from uploader_server.http.connections import cut
from uploader_server.http.errors import ApiError, before, read_body, refuse
from uploader_server.http.shares import Share, holder_name, holder_of, share_used
from uploader_server.http.tracking import client_address
from uploader_server.metrics import Metrics
from uploader_server.realtime.strict import MAX_PACKET, MAX_PACKETS, StrictServer, are_packets, checked
from uploader_server.simulation.analyses import Analyses
from uploader_server.simulation.reference import Reference
from uploader_server.wire import is_uuid

# By default a polling payload with more than 16 packets ends the connection.
engineio.payload.Payload.max_decode_packets = MAX_PACKETS

HEARTBEAT = {"bundled": (2, 4), "reference": (25, 20)}
"""Ping interval and pong timeout in seconds.

A client detects a frozen bundled server within 6 s, the server a frozen client within 10 s. The timeout is twice the
interval because load on either side may delay a pong.
"""
GRACE = 2.0  # seconds in which a client that didn't read may read the end of its connection
CLOSE = engineio.packet.Packet(engineio.packet.CLOSE)
TOO_SLOW = engineio.packet.Packet(
    engineio.packet.MESSAGE,
    socketio.packet.Packet(
        socketio.packet.EVENT,
        [
            "connection-dropped",
            {"error": "TOO_SLOW", "message": "Too many events wait for this connection: GET /api/upload/progress/{id}"},
        ],
    ).encode(),
)
"""What a client gets whose waiting events were dropped."""
CLOSE_REFUSED = 1.0  # seconds until the transport of a refused connection is closed, after the refusal was sent
LONGEST_ROOM = 200  # maximum characters of a joined id; the reference backend accepts any text


class Realtime:
    """The Socket.IO server of one application."""

    def __init__(self, config: ServerConfig, metrics: Metrics) -> None:
        interval, timeout = HEARTBEAT[config.flavour]
        self._config = config
        self._metrics = metrics
        self._backend: Bundled | Reference
        self._analyses: Analyses
        self._joined: dict[str, set[str]] = {}  # rooms by connection; python-socketio has no index for this
        self._holders: dict[str, str] = {}  # the client of each connection
        self._share: Share[str] = Share("joins", config.max_share)  # connections, counted once for each of their joins
        self._upgrades: dict[str, Scope] = {}  # websockets of upgraded connections, by Engine.IO id
        self._handshakes: dict[int, tuple[Scope, asyncio.Future[None]]] = {}
        """Scope and task of each handshake (of a websocket until its end), by the `id()` of the scope."""
        self.server: Any = StrictServer(
            self._close,
            self._overflow,
            self._ended,
            async_mode="asgi",
            ping_interval=interval,
            ping_timeout=timeout,
            cors_allowed_origins=[],  # `http.middleware` checks origins
            logger=False,
            engineio_logger=False,
        )
        self.deliver: Callable[..., Awaitable[None]] = self.server.emit
        """Sends an event; called with `(name, event, room=… or to=…)`."""
        self._app: Any = socketio.ASGIApp(self.server, socketio_path=None)
        self.server.on("connect", self._connect)
        self.server.on("disconnect", self._disconnect)
        self.server.on("join-session", self._join)
        self.server.on("leave-session", self._leave)
        metrics.gauge("uploader_sockets", "Realtime connections", "transport", self._sockets)

    def serve(self, backend: Bundled | Reference, analyses: Analyses) -> None:
        """Set the sources of the state that joining clients receive."""
        self._backend, self._analyses = backend, analyses

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a Socket.IO request or websocket; JSONP, by which pages could read foreign answers, is refused."""
        if "j" in _query(scope):
            await refuse(400, scope, receive, send)
            return
        if not _is_handshake(scope):
            await self._serve_known(scope, receive, send)
            return
        receive = checked(receive) if scope["type"] == "websocket" else receive
        serving = asyncio.ensure_future(self._app(scope, receive, send))
        self._handshakes[id(scope)] = scope, serving
        try:
            await asyncio.wait({serving})
        finally:
            del self._handshakes[id(scope)]
            serving.cancel()  # still running only if the server stops; its error is ignored then
            serving.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        with contextlib.suppress(asyncio.CancelledError):
            await serving

    async def _serve_known(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of an existing connection."""
        if not self._is_live(scope):
            await refuse(400, scope, receive, send)
        elif scope["type"] == "websocket":
            await self._upgrade(scope, checked(receive), send)
        elif scope["method"] == "POST":
            await self._receive_packets(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _upgrade(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the websocket of a long-polling connection."""
        eio_sid = _query(scope)["sid"][0]
        if eio_sid in self._upgrades:
            await refuse(400, scope, receive, send)
            return
        self._upgrades[eio_sid] = scope
        try:
            await self._app(scope, receive, send)
        finally:
            del self._upgrades[eio_sid]

    def _is_live(self, scope: Scope) -> bool:
        connection = self.server.eio.sockets.get(_query(scope)["sid"][0])
        return connection is not None and not connection.closed

    async def _receive_packets(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read and validate the whole body of a long-polling client before Engine.IO parses it."""
        end = asyncio.get_running_loop().time() + self._config.body_timeout
        try:
            body = await read_body(Request(scope, lambda: before(end, receive)), MAX_PACKET)
        except ClientDisconnect:
            return
        except ApiError as error:
            await refuse(error.status, scope, receive, send)
            return
        if not are_packets(body) or not self._is_live(scope):
            await refuse(400, scope, receive, send)
            return

        async def again() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, send)

    def refusal(self, scope: Scope) -> ApiError | None:
        """Return the answer to the handshake of a client that has reached `max_connections`."""
        limit = self._config.max_connections
        if not limit or not _is_handshake(scope):
            return None
        connected = [environ["asgi.scope"] for environ in self.server.environ.values()]
        scopes = {id(known): known for known in [*connected, *(known for known, _ in self._handshakes.values())]}
        count = sum(holder_of(known) == holder_of(scope) for known in scopes.values())
        if count < limit:
            return None
        self._metrics.refused.labels("limit").inc()
        return share_used(limit, "realtime connections")

    async def emit(self, session_id: str, event: dict[str, Any]) -> None:
        """Send an `upload-progress` event to the room of a session."""
        await self.emit_event(session_id, "upload-progress", event)

    async def emit_event(self, session_id: str, name: str, event: dict[str, Any]) -> None:
        """Send an event to the room of an id."""
        self._metrics.events.labels(name).inc()
        await self.deliver(name, event, room=f"session:{session_id}")

    def _connect(self, sid: str, environ: dict[str, Any], auth: object = None) -> None:
        """Accept a connection; check the auth token, from the header or `auth: {token}`, if one is configured."""
        expected = self._config.auth_token
        if expected is not None:
            given = [bearer(environ.get("HTTP_AUTHORIZATION"))]
            if isinstance(auth, dict) and isinstance(auth.get("token"), str):
                given.append(auth["token"])
            if not any([same_token(token, expected) for token in given]):  # noqa: C419 - compare all, in constant time
                self._metrics.refused.labels("token").inc()
                eio_sid = self.server.manager.eio_sid_from_sid(sid, "/")
                asyncio.get_running_loop().call_later(CLOSE_REFUSED, self._close, eio_sid)
                raise socketio.exceptions.ConnectionRefusedError("INVALID_TOKEN" if any(given) else "UNAUTHORIZED")
        self._joined[sid] = set()
        scope, token = environ["asgi.scope"], auth.get("token") if isinstance(auth, dict) else None
        if isinstance(token, str):
            scope["holder"] = holder_name(f"Bearer {token}", client_address(scope), self._config.jwt_secret)
        self._holders[sid] = holder_of(scope)

    def _close(self, eio_sid: str) -> None:
        """Close a connection without a disconnect packet."""
        connection, environ = self.server.eio.sockets.get(eio_sid), self.server.environ.get(eio_sid)
        if connection is not None:
            _end(connection)
        if environ is not None and id(environ["asgi.scope"]) in self._handshakes:
            self._handshakes[id(environ["asgi.scope"])][1].cancel()  # else it ends only at the client's next packet

    def _overflow(self, eio_sid: str) -> None:
        """Close the connection of a client that doesn't read; if it reads again at once, it is told to poll."""
        self._metrics.refused.labels("slow").inc()
        self.server.eio.sockets[eio_sid].queue.close(*(() if self._config.reference else (TOO_SLOW,)), CLOSE)
        self.server.start_background_task(self.server._handle_disconnect, eio_sid, "/")  # leaves the rooms
        asyncio.get_running_loop().call_later(GRACE, self._close, eio_sid)

    def _ended(self, eio_sid: str) -> None:
        """Cut the websocket of a connection that has ended if it stays open: its client doesn't read."""
        scope = self._upgrades.get(eio_sid) or self.server.environ[eio_sid]["asgi.scope"]
        if scope["type"] == "websocket":
            asyncio.get_running_loop().call_later(GRACE, self._cut_open, scope)

    def _cut_open(self, scope: Scope) -> None:
        if id(scope) in self._handshakes or any(scope is known for known in self._upgrades.values()):
            asyncio.get_running_loop().run_in_executor(None, cut, scope)  # lists all descriptors

    def _disconnect(self, sid: str, *_: object) -> None:
        joined, holder = self._joined.pop(sid, set()), self._holders.pop(sid, "")
        self._share.remove(holder, sid, len(joined))

    async def _join(self, sid: str, session_id: object = None, *_: object) -> Any:
        if self._config.reference:  # docs/protocol.md, section 3.7: no acknowledgement, no replay, any id
            if isinstance(session_id, str) and self._refused_join(sid, session_id) is None:
                await self.server.enter_room(sid, f"session:{session_id}")
            return self.server.not_handled
        answer = await self._join_bundled(sid, session_id)
        self._metrics.joins.labels(answer.get("error", "ok")).inc()
        return answer

    async def _join_bundled(self, sid: str, session_id: object) -> dict[str, Any]:
        """Enter the room and send the current state.

        The room of an unknown id is entered, too, with an error in the acknowledgement: clients join the room of an
        analysis before it exists (docs/protocol.md, section 4).
        """
        if not isinstance(session_id, str) or not is_uuid(session_id):
            return {"ok": False, "error": "INVALID_SESSION_ID"}
        session_id = session_id.lower()
        refused = self._refused_join(sid, session_id)
        if refused is not None:
            return {"ok": False, "error": refused}
        snapshot, known = self._backend.snapshot(session_id), self._analyses.find(session_id) is not None
        await self.server.enter_room(sid, f"session:{session_id}")
        if snapshot is not None:
            await self._emit_to(sid, "upload-progress", snapshot)
        analysis = self._analyses.snapshot(session_id)
        if analysis is not None:
            await self._emit_to(sid, *analysis)
        return {"ok": True} if known or snapshot is not None else {"ok": False, "error": "SESSION_NOT_FOUND"}

    def _refused_join(self, sid: str, session_id: str) -> str | None:
        """Count a join, or return the code of its refusal."""
        rooms, limit = self._joined.get(sid), self._config.max_joins
        if rooms is not None and session_id in rooms:
            return None
        if rooms is None or (limit and len(rooms) >= limit) or len(session_id) > LONGEST_ROOM:  # None: disconnecting
            return "TOO_MANY_JOINS"
        refusal = self._share.refusal(self._holders[sid])
        if refusal is not None:
            return refusal.code
        rooms.add(session_id)
        self._share.add(self._holders[sid], sid)
        return None

    def watched(self, session_id: str) -> bool:
        """Return whether a connection has joined a session."""
        return bool(self.server.manager.rooms.get("/", {}).get(f"session:{session_id}"))

    async def _emit_to(self, sid: str, name: str, event: dict[str, Any]) -> None:
        self._metrics.events.labels(name).inc()
        await self.deliver(name, event, to=sid)

    async def _leave(self, sid: str, session_id: object = None, *_: object) -> Any:
        reference = self._config.reference
        valid = isinstance(session_id, str) and (reference or is_uuid(session_id))
        if valid:
            room = str(session_id) if reference else str(session_id).lower()
            rooms = self._joined.get(sid, set())
            if room in rooms:
                rooms.discard(room)
                self._share.remove(self._holders[sid], sid)
            await self.server.leave_room(sid, f"session:{room}")
        if reference:
            return self.server.not_handled
        return {"ok": True} if valid else {"ok": False, "error": "INVALID_SESSION_ID"}

    def _sockets(self) -> dict[str, int]:
        upgraded = [s.upgraded for s in list(self.server.eio.sockets.values()) if not s.closed]
        return {"websocket": sum(upgraded), "polling": len(upgraded) - sum(upgraded)}

    def drop(self, *, websockets: bool | None = None) -> None:
        """Close live connections without a disconnect packet: all, or only (no) websockets."""
        for connection in list(self.server.eio.sockets.values()):
            if websockets is None or connection.upgraded is websockets:
                _end(connection)


def _end(connection: Any) -> None:
    """Close an Engine.IO connection without a close packet."""
    closing = asyncio.ensure_future(connection.close(wait=False, abort=True))
    closing.add_done_callback(lambda _: connection.queue.put_nowait(None))  # ends a waiting poll


def _is_handshake(scope: Scope) -> bool:
    """Return whether this is the handshake of a new connection."""
    return "sid" not in _query(scope)


def _query(scope: Scope) -> dict[str, list[str]]:
    return parse_qs(scope["query_string"].decode("latin-1"))
