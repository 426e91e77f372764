"""A relay that reads HTTP/1.1 between client and server, and lets a test act at exact moments.

It counts independently of the client which bytes of which upload were sent how often. It runs in threads on a free
loopback port; its target may change after a restart of the server, while the client's URL stays the same.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import select
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from time_limits import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

UPLOADS = "/api/upload/files/"
BLOCK = 1 << 18


class Cut(Exception):
    """Raised by a test to close this connection on both sides."""


@dataclass(eq=False)
class Request:
    """One request, as far as it was forwarded. Header names are in lower case; `bytes` counts the client's bytes."""

    number: int
    epoch: int
    """How many accidents had been when it came (`CountingProxy.epoch`), and ..."""
    born: int
    """... when its connection was made."""
    method: str
    target: str
    headers: Mapping[str, str]
    mark: int | None = None
    """Set by a test: `Onlooker.at_mark` is called when so many bytes of the body have come."""
    passed: int = 0
    status: int = 0
    """0: never answered."""
    answer: Mapping[str, str] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """The length of the body in bytes."""
        return int(self.headers.get("content-length", 0))

    @property
    def kind(self) -> str:
        """`create`, `patch`, `finish`, `batch`, or `other`."""
        path = urlsplit(self.target).path
        if path == UPLOADS and self.method == "POST":
            return "create"
        if path.startswith(UPLOADS) and self.method == "PATCH":
            return "patch"
        if path == "/api/upload/batch":
            return "batch"
        return "finish" if path.startswith("/api/upload/session/") and path.endswith("/finish") else "other"

    @property
    def created(self) -> str:
        """The path of the file that a creation names, or the key of a part."""
        pairs = (pair.partition(" ") for pair in self.headers.get("upload-metadata", "").split(","))
        fields = {key: base64.b64decode(value).decode() for key, _, value in pairs}
        return fields.get("relativePath") or fields.get("uploadKey", "")


class Onlooker:
    """Hooks of a test, called in the thread of the connection before data is forwarded.

    Each may raise `Cut`.
    """

    def head(self, request: Request) -> None:
        """Handle the start of a request."""

    def at_mark(self, request: Request, piece: bytes) -> bytes:
        """Handle a body that has reached `mark`; return the bytes to forward instead of the last piece."""
        return piece

    def at_answer(self, request: Request) -> None:
        """Handle an answer that has not been forwarded yet."""


class CountingProxy:
    """The relay, a context manager. `requests` lists all requests in order."""

    def __init__(self, target: tuple[str, int], onlooker: Onlooker | None = None) -> None:
        self.target, self.onlooker = target, onlooker or Onlooker()
        self.requests: list[Request] = []
        self.epoch = 0
        self.arrivals: list[tuple[float, int]] = []
        """(monotonic seconds, bytes) of each piece of a body."""
        self._numbers = itertools.count()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._open: set[socket.socket] = {self._listener}
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)

    def _accept(self) -> None:
        with self._listener:
            while True:
                try:
                    client, _ = self._listener.accept()
                except OSError:
                    return
                thread = threading.Thread(target=self._serve, args=(client, self.epoch), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket, born: int) -> None:
        front, back = _Stream(client), None
        self._open.add(client)
        try:
            while True:
                if back is not None and back in _readable(front, back):  # idle for too long: the server has closed it
                    back = self._drop(back)
                head = front.head()
                if not head:
                    return
                request = self._note(head, born)
                self.onlooker.head(request)
                if back is None:
                    back = _Stream(socket.create_connection(self.target))
                    self._open.add(back.sock)
                back.send(head)
                self._pass_body(request, front, back)
                if not self._pass_answer(request, front, back):
                    return
        except (Cut, OSError):
            pass  # one side has closed: close the other
        finally:
            self._drop(front)
            if back is not None:
                self._drop(back)

    def _drop(self, stream: _Stream) -> None:
        self._open.discard(stream.sock)
        stream.close()

    def _note(self, head: bytes, born: int) -> Request:
        first, headers = _parsed(head)
        method, target, _ = first.split(" ", 2)
        request = Request(next(self._numbers), self.epoch, born, method, target, headers)
        self.requests.append(request)
        return request

    def _pass_body(self, request: Request, front: _Stream, back: _Stream) -> None:
        """Forward the body until its end or the server's answer."""
        while request.passed < request.length and back not in _readable(front, back):
            stops = (stop for stop in (request.mark, request.length) if stop is not None and stop > request.passed)
            piece = front.some(min(stops) - request.passed)
            if not piece:
                raise Cut
            request.passed += len(piece)
            self.arrivals.append((time.monotonic(), len(piece)))
            if request.passed == request.mark:
                piece = self.onlooker.at_mark(request, piece)
            back.send(piece)

    def _pass_answer(self, request: Request, front: _Stream, back: _Stream) -> bool:
        """Return True if another request may follow on the connection."""
        complete = request.passed == request.length
        if complete and back not in _readable(front, back):
            raise Cut  # the client did not wait
        head = back.head()
        if not head:
            raise Cut
        first, headers = _parsed(head)
        request.answer, request.status = headers, int(first.split(" ")[1])
        self.onlooker.at_answer(request)
        front.send(head)
        if request.status == 101:
            _pump(front, back)
            return False
        for piece in back.body(headers, empty=request.method == "HEAD" or request.status in (204, 304)):
            front.send(piece)
        return complete and "close" not in headers.get("connection", "")


class _Stream:
    """A socket with methods to read heads, lines and sizes."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock, self.held = sock, b""

    def fileno(self) -> int:
        return self.sock.fileno()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

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
            size = int(line, 16)
            yield line
            yield from self._exactly(size + 2)

    def _exactly(self, count: int) -> Iterator[bytes]:
        while count:
            piece = self.some(count)
            if not piece:
                raise Cut
            count -= len(piece)
            yield piece

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


def _readable(*streams: _Stream) -> Sequence[_Stream]:
    """Wait for sockets with data (or at their end) and return them."""
    held = [stream for stream in streams if stream.held]
    return held or select.select(streams, (), ())[0]


def _pump(front: _Stream, back: _Stream) -> None:
    """Copy bytes in both directions until one side ends."""
    while True:
        for source in _readable(front, back):
            piece = source.some(BLOCK)
            if not piece:
                return
            (back if source is front else front).send(piece)


def _parsed(head: bytes) -> tuple[str, dict[str, str]]:
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return first, {name.strip().lower(): value.strip() for name, _, value in pairs}


def uploads(requests: Iterable[Request]) -> Iterator[tuple[Request, str, int]]:
    """Return the requests with bytes of resumable uploads, with the file (or key of a part) and the offset.

    Raises KeyError for an upload without a creation.
    """
    requests = list(requests)
    names = {urlsplit(r.answer["location"]).path: r.created for r in requests if "location" in r.answer}
    for request in requests:
        if request.kind in ("create", "patch") and request.passed:
            name = request.created if request.kind == "create" else names[urlsplit(request.target).path]
            yield request, name, int(request.headers.get("upload-offset", 0))


def sent_again(requests: Iterable[Request]) -> dict[int, Counter[str]]:
    """Return for each epoch and file how many bytes were resent, without files that resent none.

    A file is sent from front to back: all bytes below the highest one were sent. Raises AssertionError for a gap.
    """
    ends: Counter[str] = Counter()
    again: dict[int, Counter[str]] = {}
    for request, name, start in uploads(requests):
        end = start + request.passed
        assert start <= ends[name], f"{name}: {start} follows on {ends[name]}"
        if start < ends[name]:
            again.setdefault(request.epoch, Counter())[name] += min(end, ends[name]) - start
        ends[name] = max(end, ends[name])
    return again
