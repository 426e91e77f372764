"""Validation of Socket.IO packets: the connection of a client that sends anything but short text packets is closed.

So is that of a client that doesn't read (`backlog`).

python-socketio and python-engineio log tracebacks for bad packets, buffer binary attachments without a limit, and treat
an event named `connect` as a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import socketio  # type: ignore[import-untyped]
from socketio import packet
from starlette.types import Message, Receive

from uploader_server.realtime.backlog import Engine

MAX_PACKET = 64 << 10  # maximum bytes of a websocket message or a long-polling body
MAX_PACKETS = 1000  # maximum packets in a long-polling body
MOST_NAME = 100  # most characters of a namespace that is refused by its name
CONNECT_WITHIN = 10.0  # maximum seconds until a client connects to the namespace
_TYPES = frozenset("123456")  # Engine.IO packet types of clients: close, ping, pong, message, upgrade, noop
_RESERVED = frozenset({"connect", "disconnect", "connect_error", "*"})


class StrictServer(socketio.AsyncServer):  # type: ignore[misc]
    """Calls `close(eio_sid)` after a bad packet, `overflow(eio_sid)` for a client that doesn't read.

    `ended(eio_sid)` is called when a connection ends.
    """

    def __init__(
        self,
        close: Callable[[str], None],
        overflow: Callable[[str], None],
        ended: Callable[[str], None],
        **options: Any,
    ) -> None:
        super().__init__(max_http_buffer_size=MAX_PACKET, **options)
        self.eio.overflow = overflow
        self._close = close
        self.ended = ended

    def _engineio_server_class(self) -> type[Engine]:
        return Engine

    async def _handle_eio_connect(self, eio_sid: str, environ: dict[str, Any]) -> Any:
        asyncio.get_running_loop().call_later(CONNECT_WITHIN, self._close_unconnected, eio_sid)
        return await super()._handle_eio_connect(eio_sid, environ)

    async def _handle_eio_disconnect(self, eio_sid: str, reason: Any) -> None:
        self.eio.sockets[eio_sid].queue.clear()
        self.ended(eio_sid)
        await super()._handle_eio_disconnect(eio_sid, reason)

    def _close_unconnected(self, eio_sid: str) -> None:
        if self.manager.sid_from_eio_sid(eio_sid, "/") is None:
            self._close(eio_sid)

    async def _handle_eio_message(self, eio_sid: str, data: Any) -> None:
        if eio_sid not in self.environ:  # its connection has ended: each message is handled in a task of its own
            return
        found = parsed(data)
        if is_message(found):
            await super()._handle_eio_message(eio_sid, data)
        elif found is not None and found.packet_type == packet.CONNECT and len(found.namespace) <= MOST_NAME:
            refusal = packet.Packet(packet.CONNECT_ERROR, {"message": "Invalid namespace"}, found.namespace)
            await self._send_packet(eio_sid, refusal)
        else:
            self._close(eio_sid)


def checked_packets(receive: Receive) -> Receive:
    """Wrap a websocket's `receive` to disconnect at the first invalid packet."""

    async def checking() -> Message:
        message = await receive()
        if message["type"] == "websocket.receive" and not _is_packet(message.get("text") or ""):
            return {"type": "websocket.disconnect", "code": 1003}
        return message

    return checking


def _is_packet(text: str) -> bool:
    return text[:1] in _TYPES and len(text) <= MAX_PACKET


def are_packets(body: bytes) -> bool:
    """Return whether a long-polling body consists of valid packets and separators."""
    try:
        packets = body.decode().split("\x1e")
    except UnicodeDecodeError:
        return False
    return len(packets) <= MAX_PACKETS and all(_is_packet(text) for text in packets)


def parsed(data: Any) -> packet.Packet | None:
    """Return the Socket.IO packet of a message; None for a binary or malformed one."""
    try:
        return packet.Packet(encoded_packet=data) if isinstance(data, str) else None
    except (ValueError, RecursionError):
        return None


def is_message(found: packet.Packet | None) -> bool:
    """Return whether a packet connects, disconnects or has an event, in the namespace that there is."""
    if found is None or found.namespace not in {None, "/"}:
        return False
    if found.packet_type == packet.EVENT:
        event = found.data[0] if isinstance(found.data, list) and found.data else None
        return isinstance(event, str) and event not in _RESERVED
    return found.packet_type in {packet.CONNECT, packet.DISCONNECT}
