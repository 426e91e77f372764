"""A server of bare sockets: a script plays each connection byte by byte, or rules say how each request is answered."""

from __future__ import annotations

import contextlib
import fnmatch
import http.client
import json
import math
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from time_limits import PATIENCE

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable


class Peer:
    """One accepted connection."""

    def __init__(self, sock: socket.socket, number: int, over: threading.Event) -> None:
        self.sock, self.number, self.over = sock, number, over
        self.received = 0
        self._ahead = b""

    def head(self) -> tuple[str, dict[str, str]]:
        """The request line and the headers (names in lower case); `EOFError` where no request comes."""
        while b"\r\n\r\n" not in self._ahead:
            piece = self.sock.recv(65536)
            if not piece:
                raise EOFError
            self._ahead += piece
        raw, _, self._ahead = self._ahead.partition(b"\r\n\r\n")
        line, *lines = raw.decode("latin-1").split("\r\n")
        headers = {}
        for item in lines:
            name, _, value = item.partition(":")
            assert name.lower() not in headers, f"{name} is sent twice"
            headers[name.lower()] = value.strip()
        return line, headers

    def read(self, count: int) -> bytes:
        """Exactly `count` bytes, or fewer where the connection ends."""
        pieces, have = [self._ahead[:count]], len(self._ahead[:count])
        self._ahead = self._ahead[count:]
        while have < count and (piece := self.sock.recv(min(65536, count - have))):
            pieces.append(piece)
            have += len(piece)
        self.received += have
        return b"".join(pieces)

    def request(self) -> tuple[str, dict[str, str], bytes]:
        """Request line, headers and the whole body."""
        line, headers = self.head()
        return line, headers, self.read(int(headers.get("content-length", 0)))

    def answer(self, status: int, body: object = b"", **headers: str) -> None:
        """A whole answer; what is no bytes goes as JSON. Underscores in header names are hyphens."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{name.replace('_', '-')}: {headers[name]}" for name in headers)]
        self.sock.sendall("\r\n".join([*lines, f"Content-Length: {len(data)}", "", ""]).encode() + data)

    def hold(self) -> None:
        """Neither read nor write, until the test is over."""
        self.over.wait(PATIENCE)

    def reset(self) -> None:
        """End the connection the hard way."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.sock.close()


@dataclass
class Request:
    """A request; header names in lower case. The body is shorter than announced where the connection ended."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    over: threading.Event
    """Set at the end of the test: a rule that waits ends then."""


@dataclass
class Answer:
    """An answer; a body that is no bytes is JSON."""

    status: int = 200
    body: object = b""
    headers: dict[str, object] = field(default_factory=dict)

    def sent_to(self, method: str) -> bytes:
        """Return the bytes of the answer to a request with this method."""
        data = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        has_length = self.status in (204, 304) or "content-length" in map(str.lower, self.headers)
        length = {} if has_length else {"Content-Length": len(data)}
        lines = [f"{name}: {value}" for name, value in {**length, **self.headers}.items()]
        head = "\r\n".join([f"HTTP/1.1 {self.status} {http.client.responses.get(self.status, '')}", *lines, "", ""])
        return head.encode("latin-1") + (b"" if method == "HEAD" else data)


@dataclass
class Rule:
    """Answers the first `times` requests that match; a function that returns None closes the connection."""

    answer: Answer | Callable[[Request], Answer | None]
    request: str = "*"
    """A pattern as of a shell for `METHOD PATH`."""
    times: float = math.inf

    def is_for(self, request: Request) -> bool:
        """Return True if this rule answers the request."""
        return self.times > 0 and fnmatch.fnmatchcase(f"{request.method} {request.path}", self.request)


class ScriptedServer:
    """Plays a script for each connection, or answers by rules. A context manager; failures are raised at the end."""

    def __init__(
        self, *script: Callable[[Peer], Any] | Rule, tls: ssl.SSLContext | None = None, buffer: int = 0
    ) -> None:
        self.rules = [rule for rule in script if isinstance(rule, Rule)]
        """May be changed at any time; the first one that matches answers, without one the status is 404."""
        self.requests: list[Request] = []
        """Those that were answered by rules, in order."""
        self._script: Any = script[0] if script and not self.rules else self._answer_by_rules
        self._tls, self._choosing = tls, threading.Lock()
        self._listener = socket.socket()
        if buffer:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.over = threading.Event()
        self.peers: list[Peer] = []
        self.failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> ScriptedServer:
        self._start(self._accept)
        return self

    def close_door(self) -> None:
        """Take no connection any more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def __exit__(self, kind: object, *_: object) -> None:
        self.over.set()
        self.close_door()
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(PATIENCE)
            assert not thread.is_alive()
        if self.failures and kind is None:
            raise self.failures[0]

    def _answer_by_rules(self, peer: Peer) -> None:
        while True:
            line, headers = peer.head()
            method, path, _ = line.split(" ")
            request = Request(method, path, headers, peer.read(int(headers.get("content-length", 0))), self.over)
            self.requests.append(request)
            with self._choosing:
                rule = next((rule for rule in self.rules if rule.is_for(request)), Rule(Answer(404)))
                rule.times -= 1
            answer = rule.answer(request) if callable(rule.answer) else rule.answer
            if answer is None:
                return
            peer.sock.sendall(answer.sent_to(method))
            if "close" in (headers.get("connection"), answer.headers.get("Connection")):
                return

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._play, sock, self._added(sock) if self._tls is None else None)

    def _added(self, sock: socket.socket) -> Peer:
        with self._choosing:
            peer = Peer(sock, len(self.peers) + 1, self.over)
            self.peers.append(peer)
        return peer

    def _play(self, sock: socket.socket, peer: Peer | None) -> None:
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            with sock:
                peer = peer or self._added(sock)
                if not self.over.is_set():  # else `__exit__` may not have seen it
                    self._script(peer)
        except (OSError, EOFError):
            sock.close()
        except BaseException as error:  # noqa: BLE001 - raised at the end
            self.failures.append(error)
            sock.close()
