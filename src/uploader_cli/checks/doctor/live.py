"""Check the live connection over both transports."""

from __future__ import annotations

import base64
import os
import queue
import time
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.checks.doctor.findings import Finding, fine, warning
from uploader_cli.core.events import ChannelReason, Transport
from uploader_cli.realtime.policy import Dial, Dialled, Lost
from uploader_cli.realtime.socket import Connection
from uploader_cli.transfer.http import make_session
from uploader_cli.transfer.wire import Sockets

if TYPE_CHECKING:
    from uploader_cli.checks.doctor.context import Context

DIAL_LIMIT = 3.5
"""Maximum seconds to connect; an upload tries the next transport after 5 (docs/protocol.md section 2)."""
PROBE_LIMIT = 1.0
JOIN_LIMIT = 0.6
"""Seconds to wait for a first message after joining; not all servers send one (docs/protocol.md section 3.7)."""
NO_SOCKET_IO = "no_socket_io"
FULL = 429
"""Status of the handshake at the connection limit of an address."""


def websocket(context: Context) -> Finding:
    """Connect as an upload does first: websocket, handshake, join."""
    reached = _dial(context, Transport.WEBSOCKET)
    if not isinstance(reached, ChannelReason):
        return fine(reached, latency_ms=round(context.live["websocket"], 1))
    if reached is ChannelReason.TIMEOUT:
        return warning(
            f"no answer within {DIAL_LIMIT} s: something on the network path delays websockets", _let_through(context)
        )
    status, server = _probe(context, Transport.WEBSOCKET)
    if status == FULL:
        return _full(context)
    match status:
        case 404:
            cause = "the server has no websocket at /socket.io/ (404)"
            return warning(cause, _switch_on(context), http_status=status, **{NO_SOCKET_IO: True})
        case 101:
            cause = "the websocket opens, but no messages get through"
        case None:
            cause = "the handshake is cut: something on the network path blocks websockets"
        case 401:
            cause = "the websocket is refused (401): it requires a valid token"
            return warning(cause, "Set one with UPLOADER_TOKEN, --token-file or --token-command.", http_status=401)
        case _:
            cause = f"the handshake is answered with {status}: something on the network path blocks websockets"
    return warning(cause, _let_through(context), http_status=status, answered_by=server)


def long_polling(context: Context) -> Finding:
    """Connect over long polling, the transport where websockets are blocked."""
    reached = _dial(context, Transport.POLLING)
    if not isinstance(reached, ChannelReason):
        return fine(reached, latency_ms=round(context.live["polling"], 1))
    if reached is ChannelReason.TIMEOUT:
        return warning(
            f"no answer within {DIAL_LIMIT} s",
            f"Check that no proxy buffers the responses of {context.settings.server}/socket.io/.",
        )
    status, server = _probe(context, Transport.POLLING)
    if status == 404:
        cause = "the server has no Socket.IO at /socket.io/ (404)"
        return warning(cause, _switch_on(context), http_status=status, **{NO_SOCKET_IO: True})
    if status == FULL:
        return _full(context)
    said = "is cut" if status is None else f"is answered with {status}"
    return warning(
        f"the handshake {said}",
        f"Let proxies and firewalls pass {context.settings.server}/socket.io/ to the server.",
        http_status=status,
        answered_by=server,
    )


def _dial(context: Context, transport: Transport) -> str | ChannelReason:
    """Connect, join and leave; return a description, or the reason of a failure."""
    sockets = Sockets()
    news: queue.Queue[Dialled | Lost] = queue.Queue()
    heard: queue.Queue[object] = queue.Queue()
    connection = Connection(
        context.settings.server,
        Dial(1, transport, DIAL_LIMIT),
        session=make_session(context.settings, sockets),
        shut=lambda _session: sockets.shut(),
        headers=lambda: {**context.settings.headers, **context.authorization()},
        report=news.put,
        progress=lambda body, _transport: heard.put(body),
    )
    room = context.opened or context.session
    connection.start()
    leaving: tuple[str, ...] | None = None
    try:
        signal = news.get(timeout=DIAL_LIMIT)
        if not isinstance(signal, Dialled):
            return signal.reason
        context.live[str(transport)] = signal.latency * 1000
        words = f"connected in {signal.latency * 1000:,.0f} ms"
        leaving = ()
        if room:
            leaving = (room,)
            connection.join(room)
            words += _listen(heard)
        return words
    except queue.Empty:
        return ChannelReason.TIMEOUT
    finally:
        connection.end(leaving).join(0.5)


def _listen(heard: queue.Queue[object]) -> str:
    began = time.perf_counter()
    try:
        heard.get(timeout=JOIN_LIMIT)
    except queue.Empty:
        return ", joined (no message yet)"
    return f", joined, first message after {(time.perf_counter() - began) * 1000:,.0f} ms"


def _probe(context: Context, transport: Transport) -> tuple[int | None, str | None]:
    """Return status and Server header of the handshake's response; None without a response."""
    headers = {}
    if transport is Transport.WEBSOCKET:
        key = base64.b64encode(os.urandom(16)).decode()
        headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        headers["Sec-WebSocket-Key"] = key
    try:
        answer = context.http.request(
            "GET",
            f"{context.settings.server}/socket.io/?EIO=4&transport={transport}",
            headers={**context.authorization(), **headers},
            read_timeout=PROBE_LIMIT,
        )
    except errors.NetworkError:
        return None, None
    return answer.status, answer.headers.get("Via") or answer.headers.get("Server")


def _full(context: Context) -> Finding:
    return warning(
        "the server accepts no more connections from this address (429)",
        f"Stop other uploads and watchers at this address, or raise the limit of {context.server} (--max-connections).",
        http_status=FULL,
    )


def _let_through(context: Context) -> str:
    where = f"{context.server}/socket.io/"
    if context.proxy:
        return (
            f"Let the proxy {context.next_hop} pass websockets to {context.server}, or exclude "
            f"{context.server.host} with NO_PROXY."
        )
    return f"Let every proxy and firewall before {where} pass `Upgrade: websocket` and keep the connection open."


def _switch_on(context: Context) -> str:
    where = f"{context.settings.server}/socket.io/"
    return f"Enable Socket.IO at {where}, or let the proxy pass its path."
