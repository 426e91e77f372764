"""Connections that know about uploads: the only place that reaches into urllib3.

What the stock connection can't do, and this one does while a body is on its way:

- count bytes as the kernel takes them, not as they are read from disk;
- notice an answer that comes before the body is through (a refusal), instead of sending on for minutes;
- give up when the kernel takes nothing for `WRITE_STALL` seconds: urllib3 applies the connect timeout to `sendall`;
- stop within a quarter of a second when asked to.
"""

from __future__ import annotations

import errno
import io
import os
import selectors
import socket
import ssl
import time
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

if TYPE_CHECKING:
    from collections.abc import Callable

PIECE = 1 << 20
"""Bytes offered to the kernel at a time: `sendfile` takes as much CPU time, and smaller pieces take more."""
SMALL = 64 << 10
"""Bytes of a body that goes with its headers in one write."""
TLS_PIECE = 64 * 1024
"""Four records: OpenSSL tells of a piece only when all of it is out, and a slow line is no stalled one."""
WRITE_STALL = 60.0
"""Seconds without the kernel taking a byte after which the connection counts as lost."""
IDLE_LIMIT = 4.0
"""Seconds after which an idle connection is not used again: the reference backend closes them at 5 (contract 3.16)."""
_TICK = 0.25


class Body(Protocol):
    """What a request streams."""

    def __len__(self) -> int: ...

    def read(self, amount: int) -> memoryview:
        """Return the next piece of at most `amount` bytes, valid until the next call; empty at the end."""

    def taken(self, count: int) -> None:
        """Count `count` more bytes that the kernel took."""

    def check(self) -> None:
        """Raise to stop sending."""


class Sockets:
    """The open sockets of one client, so that another thread can end whatever waits on them."""

    def __init__(self, answered: Callable[[float], None] = lambda _seconds: None) -> None:
        """`answered(seconds)` is called with the time from a request without a body to its answer."""
        self.answered = answered
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def add(self, sock: socket.socket) -> None:
        """Remember `sock` as long as it lives."""
        self._open.add(sock)

    def shut(self) -> None:
        """Shut all of them down: blocked reads and writes end at once with an error.

        Beneath TLS: an `SSLSocket` would drop its encryption first, and what is being sent would go on without.
        """
        for sock in list(self._open):
            try:
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except OSError:
                continue


class _Uploading(HTTPConnection):
    """The behaviour that plain and TLS connections share."""

    sockets: Sockets

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head: bytearray | None = None
        """The headers of a request with a body, until its first bytes go with them."""
        self._asked: float | None = None
        """When the sending of a request without a body began."""
        self._spent = False
        self._used = time.monotonic()
        self._dialling: socket.socket | None = None

    def connect(self) -> None:
        try:
            super().connect()
        finally:
            if self._dialling is not None:
                self._dialling.close()
        self._spent = False
        self._used = time.monotonic()
        self.sockets.add(getattr(self.sock, "socket", self.sock))  # urllib3's TLS within TLS holds the real one

    def _new_conn(self) -> socket.socket:
        """As urllib3's, but it can be shut while it connects."""
        try:
            return self._dial()
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"no answer within {self.timeout} s") from error
        except (OSError, UnicodeError) as error:  # UnicodeError: a label of the name is empty or too long
            raise NewConnectionError(self, str(error)) from error

    def _dial(self) -> socket.socket:
        failure = OSError("the name has no address")
        found = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, address in found:
            sock = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(self.timeout)
                # A twin, because the TLS handshake is made on another object, which nobody has before it is through.
                self._dialling = sock.dup()
                self.sockets.add(self._dialling)
                sock.connect(address)
            except OSError as error:
                sock.close()
                failure = error
            else:
                return sock
        raise failure

    @property
    def is_connected(self) -> bool:
        fresh = not self._spent and time.monotonic() - self._used < IDLE_LIMIT
        return fresh and super().is_connected

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, **how: Any) -> None:
        self._asked = None
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

    def send(self, data: Any) -> None:
        if self._head is None:
            super().send(data)
        else:
            self._head += data

    def _stream(self, body: Body, head: bytes) -> None:
        """Send headers and body; `BrokenPipeError` makes urllib3 read the answer that came early."""
        body.check()
        view = memoryview(head + body.read(SMALL) if len(body) <= SMALL else head)
        if isinstance(self.sock, socket.socket):
            timeout = self.sock.gettimeout()
            self.sock.settimeout(0)
            try:
                self._feed(self.sock, body, view, len(head))
            finally:
                if isinstance(self.sock, socket.socket):
                    self.sock.settimeout(timeout)
            return
        while view:  # TLS within the TLS of a proxy is urllib3's own: it can't be polled
            body.check()
            super().send(view)
            body.taken(len(view) - len(head))
            head, view = b"", body.read(PIECE)

    def _feed(self, sock: socket.socket, body: Body, view: memoryview, uncounted: int) -> None:
        """Give `view` and the rest of the body to the kernel; the first `uncounted` bytes are headers."""
        most = TLS_PIECE if isinstance(sock, ssl.SSLSocket) else PIECE
        deadline = time.monotonic() + WRITE_STALL
        waiting, ready = None, selectors.EVENT_WRITE  # before the first byte there is no answer
        while view:
            body.check()
            if ready & selectors.EVENT_READ and self._answered(sock):
                self._spent = True
                raise BrokenPipeError("the server answered before the body was through")
            count = _offer(sock, view[:most]) if ready & selectors.EVENT_WRITE else 0
            if count:
                if count > uncounted:
                    body.taken(count - uncounted)
                uncounted = max(0, uncounted - count)
                view = view[count:] or body.read(PIECE)
                deadline = time.monotonic() + WRITE_STALL
            elif time.monotonic() > deadline:
                raise TimeoutError(f"the server took no byte for {WRITE_STALL:.0f} s")
            if view:
                waiting = waiting or _waiting(sock)
                ready = sum(events for _, events in waiting.select(_TICK))

    def getresponse(self) -> Any:
        try:
            response = super().getresponse()
        except ssl.SSLError as error:
            raise _broken(error) from error
        self._used = time.monotonic()
        if self._asked is not None:
            self.sockets.answered(self._used - self._asked)
        return response

    def _answered(self, sock: socket.socket) -> bool:
        """True where what can be read is an answer. Under TLS it may be a session ticket: only a byte tells."""
        if not isinstance(sock, ssl.SSLSocket):
            return True
        try:
            first = sock.recv(1)
        except ssl.SSLWantReadError:
            return False
        except OSError:
            return True
        self.sock = _PushedBack(sock, first)
        return True


def _waiting(sock: socket.socket) -> selectors.BaseSelector:
    """Return a selector for reading and writing that holds no descriptor."""
    waiting: selectors.BaseSelector = getattr(selectors, "PollSelector", selectors.SelectSelector)()
    waiting.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
    return waiting


def _offer(sock: socket.socket, piece: memoryview) -> int:
    """How many bytes the kernel takes now."""
    try:
        return sock.send(piece)
    except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
        return 0
    except ssl.SSLError as error:
        raise _broken(error) from error


def _broken(error: ssl.SSLError) -> OSError:
    """After the handshake it is not the certificates: the connection broke, which TLS has no word of its own for."""
    return ConnectionResetError(errno.ECONNRESET, error.reason or os.strerror(errno.ECONNRESET))


class _PlainConnection(_Uploading):
    pass


class _TlsConnection(_Uploading, HTTPSConnection):
    pass


class _PushedBack:
    """A TLS socket whose first answer byte was read already, for the response parser."""

    def __init__(self, sock: ssl.SSLSocket, first: bytes) -> None:
        self._sock = sock
        self._first = first

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def makefile(self, *_args: Any, **_kwargs: Any) -> io.BufferedReader:
        first, raw = self._first, self._sock.makefile("rb", buffering=0)
        return io.BufferedReader(_Prefixed(first, raw))


class _Prefixed(io.RawIOBase):
    def __init__(self, first: bytes, raw: Any) -> None:
        self._first = first
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._first:
            buffer[:1], self._first = self._first, b""
            return 1
        count: int | None = self._raw.readinto(buffer)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def pool_classes(sockets: Sockets) -> dict[str, type[HTTPConnectionPool]]:
    """urllib3 pool classes whose connections behave as above and register with `sockets`."""
    plain = type("PlainPool", (HTTPConnectionPool,), {"ConnectionCls": _bound(_PlainConnection, sockets)})
    tls = type("TlsPool", (HTTPSConnectionPool,), {"ConnectionCls": _bound(_TlsConnection, sockets)})
    return {"http": plain, "https": tls}


def _bound(connection: type[_Uploading], sockets: Sockets) -> type[_Uploading]:
    return type(connection.__name__, (connection,), {"sockets": sockets})
