"""Sockets that another thread can shut, also while they are dialled."""

from __future__ import annotations

import socket
import ssl
import threading
import time
import weakref
from contextlib import suppress
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError, NewConnectionError, ProxyError, SSLError

from uploader_cli.core.bottleneck import Waits

if TYPE_CHECKING:
    from collections.abc import Callable

ANSWER_TIME = 60.0  # seconds from an answer's first byte to its last, beyond the read timeout
IDLE_LIMIT = 4.0
"""Seconds after which an idle connection is not reused: the reference backend closes it at 5 (section 3.16)."""


class Sockets:
    """What the connections of one client share. Another thread can shut them."""

    answer_time = ANSWER_TIME
    are_shut = False

    def __init__(self, answered: Callable[[float], None] = lambda _seconds: None) -> None:
        """`answered(seconds)` is called with the time from a request without a body to its answer."""
        self.answered = answered
        self.waits = Waits()
        self.open: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.Lock()  # a set can't be listed while another thread connects

    def opened(self, sock: socket.socket) -> None:
        """Record a socket, so that it can be shut."""
        with self._lock:
            self.open.add(sock)

    def shut(self) -> None:
        """Shut all open sockets: blocked reads and writes end at once with an error."""
        with self._lock:
            self.are_shut, sockets = True, list(self.open)
        for sock in sockets:
            with suppress(OSError):  # below TLS: an `SSLSocket` would continue without encryption
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


class Dialled(HTTPConnection):
    """A connection that is known to `sockets` from its first packet on, and not reused after `IDLE_LIMIT`."""

    sockets: Sockets
    used = 0.0  # when an answer last arrived
    _dialling: socket.socket | None = None

    def connect(self) -> None:
        """Connect. Raise urllib3's `ProxyError` for a proxy that does not connect, its `SSLError` for a handshake."""
        try:
            super().connect()
        except (OSError, HTTPException, HTTPError) as error:
            if self.proxy is not None and not self.has_connected_to_proxy:
                raise ProxyError("no connection through the proxy", error) from error
            if isinstance(error, ssl.SSLError):
                raise SSLError(error) from error
            raise
        finally:
            if self._dialling is not None:
                self._dialling.close()
        self.used = time.monotonic()
        self.sockets.opened(getattr(self.sock, "socket", self.sock))  # TLS within TLS wraps the socket

    def _new_conn(self) -> socket.socket:
        """Connect as urllib3 does, with a socket that can be shut meanwhile."""
        failure: Exception = OSError("the name has no address")
        try:
            addresses = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # UnicodeError: a label of the name is empty or too long
            addresses, failure = [], error
        for family, kind, protocol, _, address in addresses:
            try:
                return self._dial(socket.socket(family, kind, protocol), address)
            except OSError as error:
                failure = error
        raise NewConnectionError(self, str(failure)) from failure

    def _dial(self, sock: socket.socket, address: Any) -> socket.socket:
        try:
            for option in self.socket_options or ():
                sock.setsockopt(*option)
            sock.settimeout(self.timeout)
            # A duplicate: the TLS handshake uses another object, unknown until its end.
            self._dialling = sock.dup()
            self.sockets.opened(self._dialling)
            sock.connect(address)
        except OSError:
            sock.close()
            raise
        return sock

    @property
    def is_connected(self) -> bool:
        """Whether the next request may use the connection."""
        return time.monotonic() - self.used < IDLE_LIMIT and super().is_connected
