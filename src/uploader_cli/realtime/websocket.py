"""A websocket of the realtime channel: reported when dialled, shut from any thread, with limits for received data.

websocket-client has no limits for the size and duration of a message.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import websocket

from uploader_cli.core.events import CallMade

MOST_RECEIVED = 1 << 20  # bytes of one message, with the headers of its frames
MESSAGE_TIME = 30.0  # seconds from the first byte of a message, which may have many frames, to its last
_FIRST_CONTROL = websocket.ABNF.OPCODE_CLOSE


class WebSocket(websocket.WebSocket):
    """A websocket that can be shut while connecting. Reading fails beyond `MOST_RECEIVED` and `MESSAGE_TIME`."""

    _raw: socket.socket | None = None
    _is_cut = False
    _size = 0
    _began: float | None = None

    def __init__(self, *, called: Callable[[CallMade], None], **options: Any) -> None:
        super().__init__(**options)
        self._called = called

    def connect(self, url: str, **options: Any) -> None:
        """Dial `url` and report it. Without a proxy the socket is one that `cut` can shut, else the library's own."""
        began, status, error = time.monotonic(), None, None
        try:
            if not options.get("http_proxy_host"):
                parts = urlsplit(url)
                secure = parts.scheme == "wss"
                port = parts.port or (443 if secure else 80)
                options["socket"] = self._open(parts.hostname or "", port, secure=secure)
            super().connect(url, **options)  # type: ignore[no-untyped-call]
            status = self.status
        except Exception as failure:
            status = getattr(failure, "status_code", None)
            error = type(failure).__name__
            raise
        finally:
            headers = options.get("header") or {}
            name = next((value for header, value in headers.items() if header.lower() == "x-request-id"), None)
            took = round(time.monotonic() - began, 6)
            self._called(CallMade("GET", url.partition("?")[0], name, status, took, error))

    def recv_frame(self) -> Any:
        """Read one frame. A control frame (ping, pong) may come within a message and is no part of it."""
        size, began = self._size, self._began
        frame = super().recv_frame()  # type: ignore[no-untyped-call]
        if frame.opcode >= _FIRST_CONTROL:
            self._size, self._began = size, began
        elif frame.fin:
            self._size, self._began = 0, None
        return frame

    def _recv(self, bufsize: int) -> bytes:
        """Read at most `bufsize` bytes of the message under way. Raise a `WebSocketException` beyond the limits."""
        data: bytes = super()._recv(bufsize)  # type: ignore[no-untyped-call]
        now = time.monotonic()
        self._size += len(data)
        self._began = self._began or now
        if self._size > MOST_RECEIVED or now - self._began > MESSAGE_TIME:
            raise websocket.WebSocketException("the message does not end")
        return data

    def cut(self) -> None:
        """Make the thread that reads, writes or connects fail; that thread closes the socket."""
        self._is_cut = True
        raw = self._raw or self.sock
        if raw is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(raw, socket.SHUT_RDWR)  # not the TLS one: it changes state under its reader

    def shutdown(self) -> None:
        """Shut the socket where the library would close it under a thread that is about to wait for it.

        The descriptor of a closed socket is soon that of another one, and the thread would wait for that.
        """
        self.cut()

    def release(self) -> None:
        """Close the socket, after the last thread that uses it."""
        super().shutdown()  # type: ignore[no-untyped-call]

    def _open(self, host: str, port: int, *, secure: bool) -> socket.socket:
        failure: OSError = ConnectionAbortedError()
        for family, kind, proto, _, address in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM):
            self._raw = raw = socket.socket(family, kind, proto)
            try:
                if self._is_cut:
                    raise ConnectionAbortedError
                raw.settimeout(self.timeout)
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                raw.connect(address)
                return self._wrap(raw, host) if secure else raw
            except OSError as error:
                raw.close()
                failure = error
        raise failure

    def _wrap(self, raw: socket.socket, host: str) -> socket.socket:
        """Wrap the socket in TLS, by engineio's options: a CA file, a client certificate, no verification."""
        asked = self.sock_opt.sslopt
        bundle = asked.get("ca_certs")
        directory = bundle if bundle is not None and Path(bundle).is_dir() else None
        context = ssl.create_default_context(cafile=None if directory else bundle, capath=directory)
        if asked.get("cert_reqs") == ssl.CERT_NONE:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if asked.get("certfile"):
            context.load_cert_chain(asked["certfile"], asked.get("keyfile"))
        self._raw = wrapped = context.wrap_socket(raw, server_hostname=host, do_handshake_on_connect=False)
        wrapped.do_handshake()
        return wrapped
