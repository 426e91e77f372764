"""Socket.IO (wire contract 2): rooms, joins and events, on both transports."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import engineio  # type: ignore[import-untyped]
import socketio  # type: ignore[import-untyped]

from server_stub.wire import is_uuid

if TYPE_CHECKING:
    from server_stub.config import ServerConfig
    from server_stub.rest import Backend

# Both ends refuse a polling payload of more than 16 packets by default: a burst would end the connection.
engineio.payload.Payload.max_decode_packets = 1000

HEARTBEAT = {"bundled": (4, 4), "reference": (25, 20)}
"""Seconds between pings, and to wait for a pong: the bundled server notices a frozen peer within 8 s."""


class Realtime:
    """The Socket.IO server of one application."""

    def __init__(self, config: ServerConfig) -> None:
        interval, timeout = HEARTBEAT[config.flavour]
        self._reference = config.reference
        self._backend: Backend | None = None
        self.server: Any = socketio.AsyncServer(
            async_mode="asgi",
            always_connect=True,  # keeps what is emitted in a connect handler in order
            ping_interval=interval,
            ping_timeout=timeout,
            logger=False,
            engineio_logger=False,
        )
        self.app: Any = socketio.ASGIApp(self.server, socketio_path=None)
        self.server.on("join-session", self._join)
        self.server.on("leave-session", self._leave)

    def serve(self, backend: Backend) -> None:
        """Answer joins from this flavour's sessions."""
        self._backend = backend

    async def emit(self, session_id: str, event: dict[str, Any]) -> None:
        """Send an `upload-progress` event to everybody in the session's room."""
        await self.server.emit("upload-progress", event, room=f"session:{session_id}")

    async def _join(self, sid: str, session_id: object = None, *_: object) -> Any:
        if self._reference:  # 3.7: never acknowledged, no replay, any id will do
            if isinstance(session_id, str):
                await self.server.enter_room(sid, f"session:{session_id}")
            return self.server.not_handled
        if not isinstance(session_id, str) or not is_uuid(session_id):
            return {"ok": False, "error": "INVALID_SESSION_ID"}
        snapshot = self._backend.snapshot(session_id) if self._backend is not None else None
        if snapshot is None:
            return {"ok": False, "error": "SESSION_NOT_FOUND"}
        await self.server.enter_room(sid, f"session:{snapshot['sessionId']}")
        await self.server.emit("upload-progress", snapshot, to=sid)
        return {"ok": True}

    async def _leave(self, sid: str, session_id: object = None, *_: object) -> Any:
        if isinstance(session_id, str) and (self._reference or is_uuid(session_id)):
            await self.server.leave_room(sid, f"session:{session_id.lower()}")
            return self.server.not_handled if self._reference else {"ok": True}
        return self.server.not_handled if self._reference else {"ok": False, "error": "INVALID_SESSION_ID"}

    def drop(self, *, websockets_only: bool = False) -> None:
        """Forget live connections without a word, as a server does that was cut off from its clients."""
        for connection in list(self.server.eio.sockets.values()):
            if connection.upgraded or not websockets_only:
                closing = asyncio.ensure_future(connection.close(wait=False, abort=True))
                closing.add_done_callback(lambda _, c=connection: c.queue.put_nowait(None))  # ends its poll

    async def close(self) -> None:
        """Disconnect everybody and end the server's own tasks."""
        await self.server.shutdown()
