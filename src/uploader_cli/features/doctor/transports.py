"""Check the live connection over both transports."""

from __future__ import annotations

import base64
import os
import time
from typing import Any

from uploader_cli import errors
from uploader_cli.core.events import ChannelReason, Transport
from uploader_cli.features.checks.check import Finding, check, passed, warning
from uploader_cli.features.checks.target import Listener
from uploader_cli.features.doctor.context import DoctorContext
from uploader_cli.features.doctor.uploads import GIVE_TOKEN, OTHER_TOKEN

CONNECT_LIMIT = 3.5  # maximum seconds to connect; uploads try the next transport after 5 (docs/protocol.md section 2)
PROBE_LIMIT = 1.0
NO_SOCKET_IO = "no_socket_io"
FULL = 429  # status of the handshake at the connection limit of an address


@check("websocket", "websocket", rests_on="polling", required=False)
def websocket(context: DoctorContext) -> Finding:
    """Connect as an upload does first: websocket, handshake, join."""
    found = _connected(context, Transport.WEBSOCKET, "websocket")
    if isinstance(found, Finding):
        return found
    said, details = found
    cause = f"{said}: something on the network path {'blocks' if details else 'delays'} websockets"
    match details.get("http_status"):
        case 401:
            given = context.token or context.own_authorization
            cause = f"the websocket is refused (401): the server {'refuses the token' if given else 'requires a token'}"
            return warning(cause, OTHER_TOKEN if given else GIVE_TOKEN, http_status=401)
        case 101:
            cause = "the websocket opens, but no messages get through"
    return warning(cause, _let_through(context), **details)


@check("long_polling", "long polling", rests_on="polling", required=False)
def long_polling(context: DoctorContext) -> Finding:
    """Connect over long polling, the transport where websockets are blocked."""
    found, where = _connected(context, Transport.POLLING, "Socket.IO"), f"{context.settings.server}/socket.io/"
    if isinstance(found, Finding):
        return found
    said, details = found
    buffered = f"Check that no proxy buffers the responses of {where}."
    return warning(said, f"Let proxies and firewalls pass {where} to the server." if details else buffered, **details)


def _connected(context: DoctorContext, transport: Transport, name: str) -> Finding | tuple[str, dict[str, Any]]:
    """Connect, join and leave; return a finding, or what failed, with details of the handshake if it was answered."""
    with Listener(context, transport, CONNECT_LIMIT) as listener:
        reason = listener.dial()
        if reason is None:
            ms = context.live[str(transport)] = listener.latency * 1000
            return passed(f"connected in {ms:,.0f} ms{_joined(context, listener)}", latency_ms=round(ms, 1))
    if reason is ChannelReason.TIMEOUT:
        return f"no answer within {CONNECT_LIMIT} s", {}
    status, server = _probe(context, transport)
    if status == FULL:
        cause = "the server accepts no more connections from this address (429)"
        hint = "Stop other uploads and watchers at this address, or raise the limit of"
        return warning(cause, f"{hint} {context.server} (--max-connections).", http_status=FULL)
    if status == 404:
        hint = f"Enable Socket.IO at {context.settings.server}/socket.io/, or let the proxy pass its path."
        missing = {"http_status": 404, NO_SOCKET_IO: True}
        return warning(f"the server has no {name} at /socket.io/ (404)", hint, **missing)
    said = "is cut" if status is None else f"is answered with {status}"
    return f"the handshake {said}", {"http_status": status, "answered_by": server}


def _joined(context: DoctorContext, listener: Listener) -> str:
    """Join the room of the session, if there is one."""
    room = context.opened or context.session
    if not room:
        return ""
    began = time.perf_counter()
    heard = listener.join(room)
    took = (time.perf_counter() - began) * 1000
    return f", joined, first message after {took:,.0f} ms" if heard else ", joined (no message yet)"


def _probe(context: DoctorContext, transport: Transport) -> tuple[int | None, str | None]:
    """Return status and Server header of the handshake's response; None without a response."""
    headers = {}
    if transport is Transport.WEBSOCKET:
        headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        headers["Sec-WebSocket-Key"] = base64.b64encode(os.urandom(16)).decode()
    path = f"/socket.io/?EIO=4&transport={transport}"
    try:
        answer = context.call("GET", path, headers=headers, limit=PROBE_LIMIT)
    except errors.NetworkError:
        return None, None
    return answer.status, answer.headers.get("Via") or answer.headers.get("Server")


def _let_through(context: DoctorContext) -> str:
    server = context.server
    if context.proxy:
        proxy = context.next_hop
        return f"Let the proxy {proxy} pass websockets to {server}, or exclude {server.host} with NO_PROXY."
    hops = f"every proxy and firewall before {server}/socket.io/"
    return f"Let {hops} pass `Upgrade: websocket` and keep the connection open."
