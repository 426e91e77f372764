"""The Socket.IO server (docs/protocol.md, section 2): its connections, and events to rooms."""

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

from uploader_server.config import ServerConfig
from uploader_server.counts import Counts
from uploader_server.errors import Refusal
from uploader_server.http.connections import cut
from uploader_server.http.errors import ApiError, before, read_body, refuse
from uploader_server.realtime.strict import MAX_PACKET, MAX_PACKETS, StrictServer, are_packets, checked_packets
from uploader_server.shares import holder_of, share_used

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

Deliver = Callable[..., Awaitable[None]]
"""Sends an event; called with `(name, event, room=… or to=…)`."""


class Realtime:
    def __init__(
        self, config: ServerConfig, counts: Counts, changed: Callable[[Deliver], Deliver] | None = None
    ) -> None:
        """`changed` replaces the function that sends events."""
        interval, timeout = HEARTBEAT[config.flavour]
        self._config = config
        self._counts = counts
        self._upgrades: dict[str, Scope] = {}  # websockets of upgraded connections, by Engine.IO id
        self._handshakes: dict[int, tuple[Scope, asyncio.Future[None]]] = {}
        """Scope and task of each handshake (of a websocket until its end), by the `id()` of the scope."""
        self.server: Any = StrictServer(
            self.close,
            self._overflow,
            self._ended,
            async_mode="asgi",
            ping_interval=interval,
            ping_timeout=timeout,
            cors_allowed_origins=[],  # `http.middleware` checks origins
            logger=False,
            engineio_logger=False,
        )
        self.deliver: Deliver = self.server.emit if changed is None else changed(self.server.emit)
        self._app: Any = socketio.ASGIApp(self.server, socketio_path=None)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a Socket.IO request or websocket; JSONP, by which pages could read foreign answers, is refused."""
        refusal = self._refusal(scope)
        if refusal is not None:
            await refuse(refusal, scope, receive, send)
            return
        if "j" in _query(scope):
            await refuse(400, scope, receive, send)
            return
        if not _is_handshake(scope):
            await self._serve_known(scope, receive, send)
            return
        receive = checked_packets(receive) if scope["type"] == "websocket" else receive
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
        if not self._is_live(scope):
            await refuse(400, scope, receive, send)
        elif scope["type"] == "websocket":
            await self._upgrade(scope, checked_packets(receive), send)
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

    def _refusal(self, scope: Scope) -> Refusal | None:
        """Return the answer to the handshake of a client that has reached `max_connections`."""
        limit = self._config.max_connections
        if not limit or not _is_handshake(scope):
            return None
        connected = [environ["asgi.scope"] for environ in self.server.environ.values()]
        scopes = {id(known): known for known in [*connected, *(known for known, _ in self._handshakes.values())]}
        count = sum(holder_of(known) == holder_of(scope) for known in scopes.values())
        if count < limit:
            return None
        self._counts("refused", "limit")
        return share_used(limit, "realtime connections")

    async def emit(self, session_id: str, event: dict[str, Any]) -> None:
        """Send an `upload-progress` event to the room of a session."""
        await self.emit_event(session_id, "upload-progress", event)

    async def emit_event(self, session_id: str, name: str, event: dict[str, Any]) -> None:
        await self.send(name, event, room=room_of(session_id))

    async def send(self, name: str, event: dict[str, Any], **target: str) -> None:
        """Send an event to a `room`, or to one connection (`to`)."""
        self._counts("events", name)
        await self.deliver(name, event, **target)

    def close(self, eio_sid: str) -> None:
        """Close a connection without a disconnect packet."""
        connection, environ = self.server.eio.sockets.get(eio_sid), self.server.environ.get(eio_sid)
        if connection is not None:
            _end(connection)
        if environ is not None and id(environ["asgi.scope"]) in self._handshakes:
            self._handshakes[id(environ["asgi.scope"])][1].cancel()  # else it ends only at the client's next packet

    def _overflow(self, eio_sid: str) -> None:
        """Close the connection of a client that doesn't read; if it reads again at once, it is told to poll."""
        self._counts("refused", "slow")
        self.server.eio.sockets[eio_sid].queue.close(*(() if self._config.reference else (TOO_SLOW,)), CLOSE)
        self.server.start_background_task(self.server._handle_disconnect, eio_sid, "/")  # leaves the rooms  # noqa: SLF001
        asyncio.get_running_loop().call_later(GRACE, self.close, eio_sid)

    def _ended(self, eio_sid: str) -> None:
        """Cut the websocket of a connection that has ended if it stays open: its client doesn't read."""
        scope = self._upgrades.get(eio_sid) or self.server.environ[eio_sid]["asgi.scope"]
        if scope["type"] == "websocket":
            asyncio.get_running_loop().call_later(GRACE, self._cut_open, scope)

    def _cut_open(self, scope: Scope) -> None:
        if id(scope) in self._handshakes or any(scope is known for known in self._upgrades.values()):
            asyncio.get_running_loop().run_in_executor(None, cut, scope)  # lists all descriptors

    def watched(self, session_id: str) -> bool:
        return bool(self.server.manager.rooms.get("/", {}).get(room_of(session_id)))

    def sockets(self) -> dict[str, int]:
        """Return the number of connections by transport."""
        upgraded = [s.upgraded for s in list(self.server.eio.sockets.values()) if not s.closed]
        return {"websocket": sum(upgraded), "polling": len(upgraded) - sum(upgraded)}

    def drop(self, *, websockets: bool | None = None) -> None:
        """Close live connections without a disconnect packet: all, or only (no) websockets."""
        for connection in list(self.server.eio.sockets.values()):
            if websockets is None or connection.upgraded is websockets:
                _end(connection)


def room_of(session_id: str) -> str:
    return f"session:{session_id}"


def _end(connection: Any) -> None:
    """Close an Engine.IO connection without a close packet."""
    closing = asyncio.ensure_future(connection.close(wait=False, abort=True))
    closing.add_done_callback(lambda _: connection.queue.put_nowait(None))  # ends a waiting poll


def _is_handshake(scope: Scope) -> bool:
    return "sid" not in _query(scope)


def _query(scope: Scope) -> dict[str, list[str]]:
    return parse_qs(scope["query_string"].decode("latin-1"))
