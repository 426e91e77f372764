"""Connections that know about uploads: the only place that reaches into urllib3.

What the stock connection can't do, and this one does while a body is on its way:

- count bytes as the kernel takes them, not as they are read from disk;
- notice an answer that comes before the body is through (a refusal), instead of sending on for minutes;
- give up when the kernel takes nothing for `WRITE_STALL` seconds: urllib3 applies the connect timeout to `sendall`;
- stop within a quarter of a second when asked to.
"""

from __future__ import annotations

import io
import select
import socket
import ssl
import time
import weakref
from typing import Any, Protocol

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

PIECE = 256 * 1024
"""Bytes offered to the kernel at a time: small enough to look up between two, large enough not to matter."""
WRITE_STALL = 60.0
"""Seconds without the kernel taking a byte after which the connection counts as lost."""
IDLE_LIMIT = 4.0
"""Seconds after which an idle connection is not used again: the reference backend closes them at 5 (contract 3.16)."""
_TICK = 0.25


class Body(Protocol):
    """What a request streams. `requests` asks for `__len__` and `__iter__`, urllib3 calls `read`."""

    started: bool
    """True once the first byte was read: what is sent from then on is body."""

    def __len__(self) -> int: ...

    def read(self, amount: int) -> memoryview:
        """The next piece; empty at the end."""

    def taken(self, count: int) -> None:
        """The kernel took `count` more bytes."""

    def check(self) -> None:
        """Raise to stop sending."""


class Sockets:
    """The open sockets of one client, so that another thread can end whatever waits on them."""

    def __init__(self) -> None:
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def add(self, sock: socket.socket) -> None:
        """Remember `sock` as long as it lives."""
        self._open.add(sock)

    def shut(self) -> None:
        """Shut all of them down: blocked reads and writes end at once with an error."""
        for sock in list(self._open):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


class _Uploading(HTTPConnection):
    """The behaviour that plain and TLS connections share."""

    sockets: Sockets

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._body: Body | None = None
        self._spent = False
        self._used = time.monotonic()

    def connect(self) -> None:
        super().connect()
        self._spent = False
        self._used = time.monotonic()
        self.sockets.add(self.sock)

    @property
    def is_connected(self) -> bool:
        fresh = not self._spent and time.monotonic() - self._used < IDLE_LIMIT
        return fresh and super().is_connected

    def request(self, method: str, url: str, body: Any = None, *args: Any, **kwargs: Any) -> None:
        self._body = body if hasattr(body, "taken") else None
        try:
            super().request(method, url, body, *args, **kwargs)
        finally:
            self._body = None

    def send(self, data: Any) -> None:
        body = self._body
        if body is None or not body.started or self.sock is None:
            super().send(data)
            return
        view = memoryview(data)
        while view:
            self._wait_until_writable(body)
            count = self.sock.send(view[:PIECE])
            body.taken(count)
            view = view[count:]

    def getresponse(self) -> Any:
        response = super().getresponse()
        self._used = time.monotonic()
        return response

    def _wait_until_writable(self, body: Body) -> None:
        """Return when the kernel takes more; `BrokenPipeError` makes urllib3 read the answer that came early."""
        deadline = time.monotonic() + WRITE_STALL
        while True:
            body.check()
            readable, writable, _ = select.select([self.sock], [self.sock], [], _TICK)
            if readable and self._answered():
                self._spent = True
                raise BrokenPipeError("the server answered before the body was through")
            if writable:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"the server took no byte for {WRITE_STALL:.0f} s")

    def _answered(self) -> bool:
        """True where what can be read is an answer. Under TLS it may be a session ticket: only a byte tells."""
        sock = self.sock
        if not isinstance(sock, ssl.SSLSocket):
            return isinstance(sock, socket.socket)
        timeout = sock.gettimeout()
        sock.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        try:
            first = sock.recv(1)
        except ssl.SSLWantReadError:
            return False
        except OSError:
            return True
        finally:
            sock.settimeout(timeout)
        self.sock = _PushedBack(sock, first)
        return True


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
