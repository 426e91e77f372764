"""A relay that records HTTP requests and can corrupt bodies of tus requests."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from relays import Relay, address

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

TUS = "application/offset+octet-stream"


@dataclass
class Request:
    """One request; `body` counts the received bytes, which may be fewer than announced."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: int = 0

    @property
    def carries(self) -> bool:
        """Whether the body has bytes of a file, by tus."""
        return self.headers.get("content-type") == TUS


class Recorder(Relay):
    """A relay with its `requests` in the order of their heads; `spoil` is the number of tus bodies to corrupt next."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.requests: list[Request] = []
        self.spoil = 0
        super().__init__(target)

    def of(self, method: str) -> list[Request]:
        """Return the requests with one method."""
        return [request for request in list(self.requests) if request.method == method]

    @property
    def carried(self) -> int:
        """The number of bytes of files that were received by tus."""
        return sum(request.body for request in list(self.requests) if request.carries)

    def _connect(self, client: socket.socket) -> tuple[socket.socket, socket.socket]:
        client, upstream = super()._connect(client)
        return client, _Tap(upstream, self)  # type: ignore[return-value] # as much of a socket as a relay needs


class _Tap:
    """The socket to the server; it records what the relay sends."""

    def __init__(self, sock: socket.socket, recorder: Recorder) -> None:
        self._sock, self._recorder = sock, recorder
        self._head = b""
        self._left = 0
        self._now: Request | None = None
        self._raw = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def sendall(self, piece: bytes) -> None:
        out = bytearray(piece)
        at = 0
        while at < len(out) and not self._raw:
            at = self._body(out, at) if self._left else self._read_head(out, at)
        self._sock.sendall(out)

    def _body(self, out: bytearray, at: int) -> int:
        size = min(self._left, len(out) - at)
        request = self._now
        assert request is not None
        if request.carries and not request.body and self._recorder.spoil:
            self._recorder.spoil -= 1
            out[at] ^= 1
        request.body += size
        self._left -= size
        return at + size

    def _read_head(self, out: bytearray, at: int) -> int:
        before = len(self._head)
        head, end, _ = (self._head + bytes(out[at:])).partition(b"\r\n\r\n")
        if not end:
            self._head = head
            return len(out)
        self._head = b""
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self._now = Request(method, path, headers)
        self._recorder.requests.append(self._now)
        self._left = int(headers.get("content-length", "0"))
        self._raw = "upgrade" in headers  # from here on it is a websocket's
        return at + len(head) + 4 - before


@contextlib.contextmanager
def recorder(url: str) -> Iterator[tuple[str, Recorder]]:
    """Start a recording relay in front of `url`; return it and its URL."""
    relay = Recorder(address(url))
    try:
        yield f"http://127.0.0.1:{relay.port}", relay
    finally:
        relay.close()
