"""Connections for uploads. The only import of urllib3's internals.

They count bytes as the kernel takes them, notice early answers, skip interim ones (1xx), stop within a quarter of a
second, and fail after `WRITE_STALL` seconds without progress. Answers have a deadline.
"""

from __future__ import annotations

import errno
import io
import math
import os
import re
import selectors
import socket
import ssl
import threading
import time
import weakref
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPResponse, parse_headers
from typing import TYPE_CHECKING, Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError

from uploader_cli.core.bottleneck import Waits

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_cli.transfer.bodies import Body

PIECE = 1 << 20  # bytes offered to the kernel at a time: smaller pieces take more CPU time
SMALL = 64 << 10  # most bytes of a body that is sent with its headers in one write
TLS_PIECE = 64 << 10  # four records: OpenSSL reports a piece only when all of it is sent
WRITE_STALL = 60.0  # seconds without a sent byte after which the connection is lost
ANSWER_TIME = 60.0  # seconds from an answer's first byte to its last, beyond the read timeout
IDLE_LIMIT = 4.0
"""Seconds after which an idle connection is not reused: the reference backend closes it at 5 (section 3.16)."""
HEAD = 64 << 10  # most bytes of an answer's headers
# Statuses of interim answers (RFC 9110, section 15.2): not 101, after which the connection has another protocol.
INTERIM = frozenset(range(100, 200)) - {HTTPStatus.SWITCHING_PROTOCOLS}
_INTERIM = re.compile(rb"HTTP/1\.\d 1(?!01)\d\d.*?\n\r?\n", re.DOTALL)
_INTERIM_LINE = re.compile(rb"HTTP/1\.\d 1(?!01)")
_TICK = 0.25


class Sockets:
    """What the connections of one client share. Another thread can shut them."""

    answer_time = ANSWER_TIME

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
            sockets = list(self.open)
        for sock in sockets:
            with suppress(OSError):  # below TLS: an `SSLSocket` would continue without encryption
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


class _Connection(HTTPConnection):
    sockets: Sockets
    _head: bytearray | None = None  # headers of a request until they are sent with the body's first bytes
    _asked: float | None = None
    _sent: float | None = None
    _early = b""  # what was read of an answer while the body was sent
    _spent = False
    _used = 0.0
    _dialling: socket.socket | None = None

    def connect(self) -> None:
        try:
            super().connect()
        finally:
            if self._dialling is not None:
                self._dialling.close()
        self._spent, self._early, self._used = False, b"", time.monotonic()
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
        return not self._spent and time.monotonic() - self._used < IDLE_LIMIT and super().is_connected

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, **how: Any) -> None:
        self._asked = self._sent = None
        if not hasattr(body, "taken"):
            began = time.monotonic()
            super().request(method, url, body, headers, **how)
            self._asked = max(began, self._used) if body is None else None  # it may have connected meanwhile
            return
        self._head = bytearray()
        try:
            super().request(method, url, None, {**headers, "Content-Length": str(len(body))}, **how)
            head = bytes(self._head)
        finally:
            self._head = None
        if self.sock is None:
            self.connect()
        self._stream(body, head)
        self._sent = time.monotonic()

    def send(self, data: Any) -> None:
        if self._head is None:
            super().send(data)
        else:
            self._head += data

    def _stream(self, body: Body, head: bytes) -> None:
        """Send headers and body; `BrokenPipeError` makes urllib3 read the answer that came early."""
        body.check()
        view = memoryview(head + body.read(SMALL) if len(body) <= SMALL else head)
        sock = self.sock
        if isinstance(sock, socket.socket):
            timeout = sock.gettimeout()
            sock.settimeout(0)
            try:
                self._feed(sock, body, view, len(head))
            finally:
                sock.settimeout(timeout)
            return
        while view:  # urllib3's TLS within TLS can't be polled
            body.check()
            super().send(view)
            body.taken(len(view) - len(head))
            head, view = b"", body.read(PIECE)

    def _feed(self, sock: socket.socket, body: Body, view: memoryview, uncounted: int) -> None:
        """Send `view` and the rest of the body; the first `uncounted` bytes are headers."""
        most = TLS_PIECE if isinstance(sock, ssl.SSLSocket) else PIECE
        deadline = time.monotonic() + WRITE_STALL
        waiting: selectors.BaseSelector | None = None
        ready = selectors.EVENT_WRITE  # before the first byte there is no answer
        waits = self.sockets.waits
        while view:
            body.check()
            if ready & selectors.EVENT_READ and self._answered(sock):
                self._spent = True
                raise BrokenPipeError("the server answered before the whole body was sent")
            count = _offer(sock, view[:most]) if ready & selectors.EVENT_WRITE else 0
            if count:
                if count > uncounted:
                    body.taken(count - uncounted)
                uncounted = max(0, uncounted - count)
                began = time.monotonic()
                view = view[count:] or body.read(PIECE)
                now = time.monotonic()
                waits.reading += now - began
                deadline = now + WRITE_STALL
            elif time.monotonic() > deadline:
                raise TimeoutError(f"the server took no byte for {WRITE_STALL:.0f} s")
            if view:
                if waiting is None:  # `poll` needs no descriptor
                    waiting = getattr(selectors, "PollSelector", selectors.SelectSelector)()
                    waiting.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
                began = time.monotonic()
                ready = sum(events for _, events in waiting.select(_TICK))
                waits.sending += time.monotonic() - began

    def _answered(self, sock: socket.socket) -> bool:
        """Read what is there; return whether it begins a final answer, or the connection has ended."""
        try:
            piece = sock.recv(HEAD)
        except (BlockingIOError, ssl.SSLWantReadError):  # under TLS a session ticket is readable data, too
            return False
        except OSError:
            return True
        self._early += piece
        while interim := _INTERIM.match(self._early):
            self._early = self._early[interim.end() :]
        is_known = len(self._early) >= len(b"HTTP/1.1 100")
        return not piece or len(self._early) > HEAD or (is_known and not _INTERIM_LINE.match(self._early))

    def getresponse(self) -> Any:
        try:
            response = super().getresponse()
        except ssl.SSLError as error:
            raise _broken(error) from error
        self._used = time.monotonic()
        if self._asked is not None:
            self.sockets.answered(self._used - self._asked)
        if self._sent is not None:
            self.sockets.waits.answer += self._used - self._sent
        return response

    def response_class(self, sock: Any, *args: Any, **how: Any) -> HTTPResponse:  # type: ignore[override]
        """Called by `http.client` as the class that it replaces."""
        response = Response(sock, *args, **how)
        deadline = time.monotonic() + (self.timeout or math.inf) + self.sockets.answer_time
        response.fp = io.BufferedReader(_Incoming(self._early, response.fp.detach(), deadline))
        self._early = b""
        return response


class _TlsConnection(_Connection, HTTPSConnection):
    pass


class Response(HTTPResponse):
    """The final answer; `http.client` takes interim ones except 100 for it."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            line: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if line[1] not in INTERIM:
                return line
            parse_headers(self.fp)


class _Incoming(io.RawIOBase):
    def __init__(self, first: bytes, raw: Any, deadline: float) -> None:
        self._first, self._raw, self._deadline = first, raw, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._first:
            taken = min(len(buffer), len(self._first))
            buffer[:taken], self._first = self._first[:taken], self._first[taken:]
            return taken
        if time.monotonic() > self._deadline:
            raise TimeoutError("the answer does not end")
        count: int | None = self._raw.readinto(buffer)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def _offer(sock: socket.socket, piece: memoryview) -> int:
    try:
        return sock.send(piece)
    except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
        return 0
    except ssl.SSLError as error:
        raise _broken(error) from error


def _broken(error: ssl.SSLError) -> OSError:
    """Return a TLS error after the handshake as a broken connection."""
    reason = (error.reason or "").replace("_", " ").lower()
    return ConnectionResetError(errno.ECONNRESET, reason or os.strerror(errno.ECONNRESET))


def pool_classes(sockets: Sockets) -> dict[str, type[HTTPConnectionPool]]:
    """Return urllib3 pool classes with these connections."""
    plain, tls = (type(kind.__name__, (kind,), {"sockets": sockets}) for kind in (_Connection, _TlsConnection))
    return {
        "http": type("PlainPool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("TlsPool", (HTTPSConnectionPool,), {"ConnectionCls": tls}),
    }
