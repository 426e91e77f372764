"""A proxy for HTTP/1.1 on a free loopback port: it records requests, and a test changes what passes.

It is a reverse proxy of one server, also with TLS in front of it, and a forward proxy: CONNECT and absolute URLs go to
that server, too. An `Onlooker` says what happens when. Each connection has a thread.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from time_limits import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import trustme

BLOCK = 1 << 18
TUS = "application/offset+octet-stream"


class Cut(Exception):
    """Raised by a test to close this connection on both sides; with `reset` as a crashed process does."""

    def __init__(self, *, reset: bool = False) -> None:
        super().__init__()
        self.reset = reset


@dataclass(eq=False)
class Request:
    """One request, as far as it was forwarded. Header names are in lower case; `passed` counts bytes of the body."""

    head: bytes
    """As the client sent it; a test may change what is forwarded."""
    epoch: int
    """`Proxy.epoch` when it came, and ..."""
    born: int
    """... when its connection was made."""
    mark: int | None = None
    """Set by a test: `Onlooker.at_mark` is called when so many bytes of the body have come."""
    passed: int = 0
    status: int = 0
    """0: never answered."""
    answer: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.line, self.headers = _parsed(self.head)
        self.method, self.target, _ = self.line.split(" ", 2)
        assert "transfer-encoding" not in self.headers, "the proxy reads bodies by their lengths"

    @property
    def length(self) -> int:
        """The length of the body in bytes."""
        return int(self.headers.get("content-length", 0))

    @property
    def carries(self) -> bool:
        """Whether the body has bytes of a file, by tus."""
        return self.headers.get("content-type") == TUS


class Onlooker:
    """Hooks of a test, called in the thread of the connection. Each may raise `Cut`."""

    proxy: Proxy
    """The one that calls them."""

    def head(self, request: Request) -> bytes | None:
        """Handle the start of a request; an answer that is returned is sent instead of the server's.

        It is sent after the body, or at once if it closes the connection.
        """

    def at_mark(self, request: Request, piece: bytes) -> bytes:
        """Handle a body that has reached `mark`; return the bytes to forward instead of the last piece."""
        return piece

    def at_answer(self, request: Request) -> None:
        """Handle an answer that has not been forwarded yet."""

    def passing(self, piece: bytes, *, to_server: bool) -> bytes:
        """Handle any bytes, also those of tunnels and websockets; return what to forward."""
        return piece

    def closing(self) -> None:
        """Handle the end of a connection before the other side hears of it."""


class Proxy:
    """A context manager; `target`, the URL of the server, may be exchanged. Without it CONNECT goes where it asks."""

    def __init__(self, target: str, onlooker: Onlooker | None = None, *, tls: ssl.SSLContext | None = None) -> None:
        self.target, self.onlooker, self.epoch = target, onlooker or Onlooker(), 0
        self.onlooker.proxy = self
        self.requests: list[Request] = []
        """All requests in the order of their heads."""
        self.connections = 0
        self._tls, self._counting = tls, threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Take no more connections, and cut the open ones."""
        self.close_door()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(PATIENCE)

    def close_door(self) -> None:
        """Take no connection any more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def of(self, method: str) -> list[Request]:
        """Return the requests with one method."""
        return [request for request in list(self.requests) if request.method == method]

    def count(self, part: str) -> int:
        """Return how many request lines contain `part`."""
        return sum(part in request.line for request in list(self.requests))

    @property
    def carried(self) -> int:
        """The number of bytes of files that passed by tus."""
        return sum(request.passed for request in list(self.requests) if request.carries)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client, self.epoch), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket, born: int) -> None:
        streams: list[_Stream] = []
        reset = False
        try:
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            self._open.add(client)
            with self._counting:
                self.connections += 1
            streams.append(_Stream(client, self.onlooker, to_server=False))
            while self._serve_request(streams, born):
                pass
            self.onlooker.closing()
        except Cut as cut:
            reset = cut.reset
        except OSError:
            self.onlooker.closing()  # one side has closed: close the other
        finally:
            for stream in streams:
                self._open.discard(stream.sock)
                stream.close(reset=reset)
            client.close()

    def _serve_request(self, streams: list[_Stream], born: int) -> bool:
        """Forward one request and its answer. Return True if another one may follow on the connection."""
        front = streams[0]
        if len(streams) > 1 and streams[1] in _readable(*streams):  # idle for too long: the server has closed it
            self._drop(streams.pop())
        head = front.head()
        if not head:
            return False
        request = Request(head, self.epoch, born)
        self.requests.append(request)
        instead = self.onlooker.head(request)
        if instead is not None:
            return self._answer(request, front, instead)
        if len(streams) > 1 and streams[1].target != self.target:
            self._drop(streams.pop())
        if len(streams) == 1:
            streams.append(self._connect(request))
        back = streams[1]
        if request.method == "CONNECT":
            front.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            return _tunnel(front, back)
        back.send(request.head)
        self._pass_body(request, front, back)
        return self._pass_answer(request, front, back)

    def _connect(self, request: Request) -> _Stream:
        target = self.target
        parts = urlsplit(target or f"//{request.target}")
        sock = socket.create_connection((parts.hostname or "", parts.port or 80))
        self._open.add(sock)
        return _Stream(sock, self.onlooker, to_server=True, target=target)

    def _drop(self, stream: _Stream) -> None:
        self._open.discard(stream.sock)
        stream.close()

    def _answer(self, request: Request, front: _Stream, instead: bytes) -> bool:
        """Answer in the server's place."""
        closes = b"connection: close" in instead.lower()
        while not closes and request.passed < request.length:
            piece = front.some(request.length - request.passed)
            if not piece:
                raise Cut
            request.passed += len(piece)
        front.send(instead)
        if closes:
            front.drain()
        return not closes

    def _pass_body(self, request: Request, front: _Stream, back: _Stream) -> None:
        """Forward the body until its end or the server's answer."""
        while request.passed < request.length and back not in _readable(front, back):
            stops = (stop for stop in (request.mark, request.length) if stop is not None and stop > request.passed)
            piece = front.some(min(stops) - request.passed)
            if not piece:
                raise OSError
            request.passed += len(piece)
            if request.passed == request.mark:
                piece = self.onlooker.at_mark(request, piece)
            back.send(piece)

    def _pass_answer(self, request: Request, front: _Stream, back: _Stream) -> bool:
        complete = request.passed == request.length
        if complete and back not in _readable(front, back):
            raise OSError  # the client did not wait
        while True:
            head = back.head()
            if not head:
                raise OSError
            first, headers = _parsed(head)
            request.answer, request.status = headers, int(first.split(" ")[1])
            if request.status >= 200 or request.status == 101:
                break
            front.send(head)
        self.onlooker.at_answer(request)
        front.send(head)
        if request.status == 101:
            return _tunnel(front, back)
        for piece in back.body(headers, empty=request.method == "HEAD" or request.status in (204, 304)):
            front.send(piece)
        if not complete:
            front.drain()
        return complete and "close" not in headers.get("connection", "")


class _Stream:
    """A socket with methods to read heads, lines and sizes."""

    def __init__(self, sock: socket.socket, onlooker: Onlooker, *, to_server: bool, target: str = "") -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock, self.held, self.target = sock, b"", target
        self._onlooker, self._to_server = onlooker, to_server

    def fileno(self) -> int:
        return self.sock.fileno()

    @property
    def has_more(self) -> bool:
        """Whether there are bytes that `select` does not know of."""
        return bool(self.held) or (isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0)

    def send(self, data: bytes) -> None:
        self.sock.sendall(self._onlooker.passing(data, to_server=self._to_server))

    def until(self, end: bytes) -> bytes:
        """Return the bytes up to and including `end`; empty if the stream ends before."""
        while end not in self.held:
            piece = self.sock.recv(BLOCK)
            if not piece:
                return b""
            self.held += piece
        found, _, self.held = self.held.partition(end)
        return found + end

    def head(self) -> bytes:
        return self.until(b"\r\n\r\n")

    def some(self, most: int) -> bytes:
        """Return the available bytes, at most `most`; empty at the end of the stream."""
        if not self.held:
            return self.sock.recv(min(BLOCK, most))
        found, self.held = self.held[:most], self.held[most:]
        return found

    def body(self, headers: Mapping[str, str], *, empty: bool) -> Iterator[bytes]:
        """Return the body of an answer, including its framing."""
        if empty:
            return
        if "chunked" not in headers.get("transfer-encoding", ""):
            yield from self._exactly(int(headers.get("content-length", 0)))
            return
        size = -1
        while size != 0:
            line = self.until(b"\r\n")
            if not line:
                raise OSError
            size = int(line, 16)
            yield line
            yield from self._exactly(size + 2)

    def _exactly(self, count: int) -> Iterator[bytes]:
        while count:
            piece = self.some(count)
            if not piece:
                raise OSError
            count -= len(piece)
            yield piece

    def drain(self) -> None:
        """Send the end of the stream, and read what comes: closed at once, it could lose what was sent before."""
        self.sock.shutdown(socket.SHUT_WR)
        while self.some(BLOCK):
            pass

    def close(self, *, reset: bool = False) -> None:
        with contextlib.suppress(OSError):
            if reset:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            else:
                self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


def _readable(*streams: _Stream) -> Sequence[_Stream]:
    """Wait for sockets with data (or at their end) and return them."""
    return [stream for stream in streams if stream.has_more] or select.select(streams, (), ())[0]


def _tunnel(front: _Stream, back: _Stream) -> bool:
    """Copy bytes in both directions until one side ends; return False, since no request follows."""
    while True:
        for source in _readable(front, back):
            piece = source.some(BLOCK)
            if not piece:
                return False
            (back if source is front else front).send(piece)


def _parsed(head: bytes) -> tuple[str, dict[str, str]]:
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return first, {name.strip().lower(): value.strip() for name, _, value in pairs}


class SpoiledBody(Onlooker):
    """Changes the first byte of the next body with bytes of a file."""

    done = False

    def head(self, request: Request) -> None:
        if request.carries and request.length and not self.done:
            self.done, request.mark = True, 1

    def at_mark(self, request: Request, piece: bytes) -> bytes:
        return bytes([piece[0] ^ 1])


class Holding(Onlooker):
    """Holds a request while `waits` says so."""

    def __init__(self, waits: Callable[[Request], bool]) -> None:
        self._waits = waits

    def head(self, request: Request) -> None:
        until = time.monotonic() + PATIENCE
        while self._waits(request) and time.monotonic() < until:
            time.sleep(0.005)


class Without(Onlooker):
    """Removes a header from requests."""

    def __init__(self, name: str) -> None:
        self._header = re.compile(rb"(?im)^%b:[^\r]*\r\n" % name.encode())

    def head(self, request: Request) -> None:
        request.head = self._header.sub(b"", request.head)


class Sniffer(Onlooker):
    """Keeps everything that clients send, as `seen`."""

    def __init__(self) -> None:
        self.seen = bytearray()

    def head(self, request: Request) -> None:
        if request.method == "CONNECT":
            self.seen += request.head

    def passing(self, piece: bytes, *, to_server: bool) -> bytes:
        if to_server:
            self.seen += piece
        return piece


def answer(status: int, *headers: str, body: bytes = b"", close: bool = False) -> bytes:
    """Return an answer for `Onlooker.head`; headers as `Name: value`."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, *(["Connection: close"] if close else []), "", ""]).encode() + body


def tls_of(authority: trustme.CA, *names: str, ask_client: bool = False, **cert: object) -> ssl.SSLContext:
    """Return the side of a server with a certificate of `authority`; `ask_client` requires one of clients."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("localhost", "127.0.0.1")), **cert).configure_cert(context)  # type: ignore[arg-type]
    if ask_client:
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
    return context


@contextlib.contextmanager
def tls_front(url: str, authority: trustme.CA, *names: str, ask_client: bool = False, **cert: object) -> Iterator[str]:
    """Return an https URL of `localhost` in front of `url`; see `tls_of`."""
    with Proxy(url, tls=tls_of(authority, *names, ask_client=ask_client, **cert)) as proxy:
        yield f"https://localhost:{proxy.port}"
