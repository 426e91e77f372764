"""What a client may send over Socket.IO: short text packets; for anything else its connection is closed.

python-socketio and python-engineio answer bad packets with tracebacks in the log, hold binary attachments without a
limit, and take an event named `connect` for a connection.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import socketio  # type: ignore[import-untyped]
from socketio import packet

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Message, Receive

MAX_PACKET = 64 << 10
"""Bytes of a message of a websocket, or of the body of a long-polling client."""
MAX_PACKETS = 1000
"""Packets in the body of a long-polling client."""
CONNECT_WITHIN = 10.0
"""Seconds that a client has to connect to the namespace, with its token where one is needed."""
_TYPES = frozenset("123456")
"""Engine.IO packets of clients: close, ping, pong, message, upgrade, noop."""
_RESERVED = frozenset({"connect", "disconnect", "connect_error", "*"})


class StrictServer(socketio.AsyncServer):  # type: ignore[misc]
    """A Socket.IO server that closes the connection of a client with a bad packet, by `close(eio_sid)`."""

    def __init__(self, close: Callable[[str], None], **options: Any) -> None:
        super().__init__(**options)
        self._close = close

    async def _handle_eio_connect(self, eio_sid: str, environ: dict[str, Any]) -> Any:
        asyncio.get_running_loop().call_later(CONNECT_WITHIN, self._close_unconnected, eio_sid)
        return await super()._handle_eio_connect(eio_sid, environ)

    def _close_unconnected(self, eio_sid: str) -> None:
        if self.manager.sid_from_eio_sid(eio_sid, "/") is None:
            self._close(eio_sid)

    async def _handle_eio_message(self, eio_sid: str, data: Any) -> None:
        if is_message(data):
            await super()._handle_eio_message(eio_sid, data)
        else:
            self._close(eio_sid)


class Checked:
    """A `receive` of a websocket that ends with the first message that is no packet."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive

    async def receive(self) -> Message:
        """The next message."""
        message = await self._receive()
        if message["type"] == "websocket.receive" and not _is_packet(message.get("text") or ""):
            return {"type": "websocket.disconnect", "code": 1003}
        return message


def _is_packet(text: str) -> bool:
    return text[:1] in _TYPES and len(text) <= MAX_PACKET


def are_packets(body: bytes) -> bool:
    """Whether this is a body that a long-polling client may send: packets with separators between them."""
    try:
        packets = body.decode().split("\x1e")
    except UnicodeDecodeError:
        return False
    return len(packets) <= MAX_PACKETS and all(_is_packet(text) for text in packets)


def is_message(data: Any) -> bool:
    """Whether Socket.IO can make something of a message: a connection, its end, an event or an acknowledgement."""
    try:
        parsed = packet.Packet(encoded_packet=data) if isinstance(data, str) else None
    except (ValueError, RecursionError, json.JSONDecodeError):
        return False
    if parsed is None or parsed.namespace not in {None, "/"}:
        return False
    if parsed.packet_type == packet.EVENT:
        event = parsed.data[0] if isinstance(parsed.data, list) and parsed.data else None
        return isinstance(event, str) and event not in _RESERVED
    return parsed.packet_type in {packet.CONNECT, packet.DISCONNECT}
