"""One kept connection: a request out, its answer in.

Head and body are written here in one place, also for the polling of Socket.IO, by `requests`. Bytes are counted as the
kernel takes them, early answers are noticed, interim ones (1xx) passed on; a stop ends a request within a quarter of a
second, `WRITE_STALL` seconds without progress fail it, and answers have a deadline.
"""

from __future__ import annotations

import errno
import io
import math
import os
import re
import select
import selectors
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse, IncompleteRead, LineTooLong, RemoteDisconnected, UnknownProtocol
from typing import IO, TYPE_CHECKING, Any, cast

from uploader_cli.core.bottleneck import Waits
from uploader_cli.core.protocol import whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from uploader_cli.transfer.bodies import Body

    OnInterim = Callable[[int, Mapping[str, str]], None]  # status, headers

PIECE = 1 << 20  # bytes offered to the kernel at a time: smaller pieces take more CPU time
SMALL = 64 << 10  # most bytes of a body that is sent with its headers in one write
TLS_PIECE = 64 << 10  # four records: OpenSSL reports a piece only when all of it is sent
WRITE_STALL = 60.0  # seconds without a sent byte after which the connection is lost
IDLE_LIMIT = 4.0
"""Seconds after which an idle connection is not reused: the reference backend closes it at 5 (section 3.16)."""
ANSWER_TIME = 60.0  # seconds from an answer's first byte to its last, beyond the read timeout
HEAD = 64 << 10  # most bytes of an answer's head while a body is sent, and of one line of it later
MOST_LINES = 100  # most lines of an answer's headers, with the empty one at their end
# Statuses of interim answers (RFC 9110, section 15.2): not 101, after which the connection has another protocol.
INTERIM = frozenset(range(100, 200)) - {HTTPStatus.SWITCHING_PROTOCOLS}
_INTERIM = re.compile(rb"HTTP/1\.\d 1(?!01)\d\d.*?\n\r?\n", re.DOTALL)
_INTERIM_LINE = re.compile(rb"HTTP/1\.\d 1(?!01)")
_END = (b"\r\n", b"\n", b"")  # of headers, or of the connection
_FOLD = re.compile(rb"\r?\n[ \t]+")
_TICK = 0.25
SOCKET_OPTIONS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(  # a lost peer is noticed after a minute, also where sent bytes were not acknowledged
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (
            ("TCP_KEEPIDLE", 30),
            ("TCP_KEEPINTVL", 10),
            ("TCP_KEEPCNT", 3),
            ("TCP_USER_TIMEOUT", 60_000),
        )
        if hasattr(socket, name)
    ),
]
PEER_GONE = (BrokenPipeError, ConnectionResetError, ssl.SSLError)
"""Errors of a server that takes no more: its answer may be there all the same."""


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
        with self._lock:
            self.open.add(sock)

    def shut(self) -> None:
        """Shut all open sockets: blocked reads and writes end at once with an error."""
        with self._lock:
            self.are_shut, sockets = True, list(self.open)
        for sock in sockets:
            with suppress(OSError):  # below TLS: an `SSLSocket` would continue without encryption
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


class NotReachable(ValueError):
    """No request can be sent to a URL: it is no URL for HTTP, or the proxy for it is none."""


class NotConnected(OSError):
    """No connection to a name and port."""


class NoProxy(OSError):
    """No connection through a proxy."""


class NotSecured(OSError):
    """The handshake of TLS failed."""


def dial(address: tuple[str, int], timeout: float | None, sockets: Sockets) -> socket.socket:
    """Connect to a name, or to an address, and a port; known to `sockets` before. Raise `NotConnected`."""
    failure: Exception = OSError("the name has no address")
    try:
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: a label of the name is empty or too long
        found, failure = [], error
    for family, kind, protocol, _, where in found:
        try:
            return _connected(socket.socket(family, kind, protocol), where, timeout, sockets)
        except OSError as error:
            failure = error
    raise NotConnected(str(failure)) from failure


def _connected(sock: socket.socket, where: Any, timeout: float | None, sockets: Sockets) -> socket.socket:
    try:
        for option in SOCKET_OPTIONS:
            sock.setsockopt(*option)
        sock.settimeout(timeout)
        sockets.opened(sock)
        sock.connect(where)
    except OSError:
        sock.close()
        raise
    return sock


class Connection:
    """A connection for one request at a time: `write`, then `answer`. It is not reused after `IDLE_LIMIT`."""

    _began = 0.0
    _sent: float | None = None  # when the last byte of a file's body was sent
    _asks = False  # whether the request has no body: the time to its answer is a round trip
    _early = b""  # what was read of an answer while the body was sent
    _spent = False

    def __init__(self, sock: socket.socket, sockets: Sockets) -> None:
        """`sock` is connected, to a server or through a proxy; it becomes known to `sockets`."""
        self.sock: socket.socket | None = sock
        self._sockets, self._used = sockets, time.monotonic()  # when an answer last arrived
        sockets.opened(getattr(sock, "socket", sock))  # TLS within TLS wraps the socket

    @property
    def is_idle(self) -> bool:
        """Whether a request can be sent: it is open, and nothing has arrived since the last answer."""
        return (
            self.sock is not None
            and not self._spent
            and time.monotonic() - self._used < IDLE_LIMIT
            and not _has_arrived(self.sock)
        )

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
        self.sock = None

    def write(self, method: str, target: str, headers: Mapping[str, str], body: Body | bytes | None = None) -> None:
        """Send a request. Where the server answers before its end, the rest is not sent: the answer says why.

        Raise what `Body.checkpoint` and `Body.read` raise, and `TimeoutError` for a server that takes no more.
        """
        head, sock = _head(method, target, headers), cast("Any", self.sock)
        self._sent, self._asks, self._began = None, body is None, time.monotonic()
        if body is None or isinstance(body, bytes):
            try:
                sock.sendall(head + (body or b""))
            except PEER_GONE:
                self._spent = True
            return
        body.checkpoint()
        view, uncounted = memoryview(head + body.read(SMALL) if len(body) <= SMALL else head), len(head)
        can_wait = isinstance(sock, socket.socket)  # urllib3's TLS within TLS can't
        if can_wait:
            sock.settimeout(0)
        most = TLS_PIECE if isinstance(sock, ssl.SSLSocket) else PIECE
        deadline = self._began + WRITE_STALL
        waiting: selectors.BaseSelector | None = None
        ready = selectors.EVENT_WRITE  # before the first byte there is no answer
        waits = self._sockets.waits
        while view:
            body.checkpoint()
            if ready & selectors.EVENT_READ and self._answered(sock):
                self._spent = True
                return
            try:
                count = sock.send(view[:most]) if ready & selectors.EVENT_WRITE else 0
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                count = 0
            except PEER_GONE:
                self._spent = True
                return
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
            if view and can_wait:
                waiting = waiting or _selector(sock)
                began = time.monotonic()
                ready = sum(events for _, events in waiting.select(_TICK))
                waits.sending += time.monotonic() - began
        self._sent = time.monotonic()

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

    def answer(self, method: str, timeout: float | None, on_interim: OnInterim | None = None) -> Response:
        """Return the final answer, whose body is still to be read.

        `on_interim` gets the interim answers before it, but those that arrive while the body of a file is sent.
        """
        sock: Any = self.sock
        sock.settimeout(timeout)
        response = Response(sock, method, timeout, self._sockets.answer_time, self._early)
        response.on_interim, self._early = on_interim, b""
        try:
            response.begin()
        except ConnectionError:
            self.close()
            raise
        self._used = time.monotonic()
        if self._asks:
            self._sockets.answered(self._used - self._began)
        if self._sent is not None:
            self._sockets.waits.answer += self._used - self._sent
        if response.will_close or self._spent:
            self.close()  # its socket ends with the answer
        return response


class Response(HTTPResponse):
    """The final answer: `http.client` takes interim ones except 100 for it, and reads headers as those of mails."""

    headers: Fields  # type: ignore[assignment]
    on_interim: OnInterim | None = None
    _method: str | None

    def __init__(
        self, sock: Any, method: str | None, timeout: float | None, answer_time: float, first: bytes = b""
    ) -> None:
        """`first` was read of it before. It fails where it takes `answer_time` more seconds than `timeout`."""
        super().__init__(sock, method=method)
        deadline = time.monotonic() + (timeout or math.inf) + answer_time
        self.fp = io.BufferedReader(_Incoming(first, self.fp.detach(), deadline))

    def begin(self) -> None:
        """Read status and headers, with the limits of `http.client`. Raise `HTTPException` for what is not HTTP."""
        version, self.status, reason = self._read_status()
        if version not in ("HTTP/1.0", "HTTP/0.9") and not version.startswith("HTTP/1."):
            raise UnknownProtocol(version)
        self.code, self.reason, self.version = self.status, reason.strip(), 11 if version > "HTTP/1.0" else 10
        self.headers = self.msg = read_fields(self.fp)  # type: ignore[assignment]
        self.chunked, self.chunk_left = self.headers.get("Transfer-Encoding", "").lower() == "chunked", None
        self.will_close, self.length = self._check_close(), None  # type: ignore[attr-defined]
        lengths = set(map(str.strip, self.headers.get("Content-Length", "").split(",")))
        if self._method == "HEAD" or self.status < 200 or self.status in (204, 304):
            self.length = 0
        elif not self.chunked and len(lengths) > 1:
            raise HTTPException("an answer with two lengths")
        elif not self.chunked:
            self.length = whole(lengths.pop())
            self.will_close = self.will_close or self.length is None

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            line: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if line[1] not in INTERIM:
                return line
            fields = read_fields(self.fp)
            if self.on_interim is not None:
                self.on_interim(line[1], fields)

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the body as it is sent, in pieces of at most `size` bytes."""
        while piece := self.read(size):
            yield piece
        if self.length:
            raise IncompleteRead(b"", self.length)


class BrokenOff(OSError):
    """The body of an answer ended too soon, or can't be decoded."""


class AnswerTooLarge(OSError):
    """The body of an answer is larger than what was asked for needs."""


def intact(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces of an answer's body. Raise `BrokenOff`; timeouts stay what they are."""
    try:
        yield from pieces
    except TimeoutError:
        raise
    except (OSError, ValueError, HTTPException) as error:  # ValueError: a chunk of -1
        raise BrokenOff("the answer broke off") from error


def _head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", *[f"{name}: {value}" for name, value in headers.items()]]
    head = "\r\n".join([*lines, "", ""])
    if head.count("\n") != len(lines) + 1 or head.count("\r") != len(lines) + 1:
        raise ValueError("a header has a line break")
    return head.encode("latin-1")


def _selector(sock: socket.socket) -> selectors.BaseSelector:
    waiting: selectors.BaseSelector = getattr(selectors, "PollSelector", selectors.SelectSelector)()  # no descriptor
    waiting.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
    return waiting


def _has_arrived(sock: socket.socket) -> bool:
    """Return whether there is something to read, or the end."""
    if not hasattr(select, "poll"):
        return bool(select.select([sock], [], [], 0)[0])
    waiting = select.poll()
    waiting.register(sock, select.POLLIN)
    return bool(waiting.poll(0))


class Fields(Mapping[str, str]):
    """Headers by their names in any case. The values of one name are joined by commas (RFC 9110, section 5.3)."""

    def __init__(self, head: str) -> None:
        """Read them from lines with the end LF. A line without a colon is ignored."""
        self._lines: dict[str, list[str]] = {}  # by the name in lower case: the name as it came first, and its values
        for line in head.split("\n"):
            name, colon, value = line.partition(":")
            if colon:
                name = name.strip()
                self._lines.setdefault(name.lower(), [name]).append(value.strip())  # RFC 9110, section 5.5

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._lines[name.lower()][1:])

    def get(self, name: str, default: Any = None) -> Any:
        known = self._lines.get(name.lower())
        return default if known is None else ", ".join(known[1:])

    def get_all(self, name: str, default: Any = None) -> Any:
        """Return the values of a name one by one, for `http.cookiejar`."""
        known = self._lines.get(name.lower())
        return default if known is None else known[1:]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._lines

    def __iter__(self) -> Iterator[str]:
        return (known[0] for known in self._lines.values())

    def __len__(self) -> int:
        return len(self._lines)


def read_fields(lines: IO[bytes]) -> Fields:
    """Read headers to the empty line after them, each ended by CRLF or a bare LF (RFC 9112, section 2.2).

    A folded value is one line (section 5.2), a line without a colon is ignored. Raise `LineTooLong`, `HTTPException`
    beyond `MOST_LINES`, and `RemoteDisconnected` where the connection ends before: part of a value is another value.
    """
    read = []
    while (line := lines.readline(HEAD + 1)) not in _END:
        if len(line) > HEAD:
            raise LineTooLong("header line")
        read.append(line)
        if len(read) == MOST_LINES:
            raise HTTPException(f"got more than {MOST_LINES} headers")
    if not line:
        raise RemoteDisconnected("Remote end closed connection within the headers of its answer")
    head = b"".join(read)
    if b"\n " in head or b"\n\t" in head:
        head = _FOLD.sub(b" ", head)
    return Fields(head.replace(b"\r", b" ").decode("latin-1"))


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
        try:
            count: int | None = self._raw.readinto(buffer)
        except ssl.SSLError as error:
            reason = (error.reason or "").replace("_", " ").lower()
            raise ConnectionResetError(errno.ECONNRESET, reason or os.strerror(errno.ECONNRESET)) from error
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()
