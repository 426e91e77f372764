"""Requests that are sent in two halves, and all interim answers to them."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from uploader_cli.transfer.connection import Connection, Response, intact, read_fields
from uploader_cli.transfer.dialler import Route
from uploader_cli.transfer.http_client import ANSWER_BLOCK, HttpClient, Received

_INTERIM = re.compile(rb"HTTP/1\.\d (1(?!01)\d\d).*?\n\r?\n", re.DOTALL)
_FINAL = re.compile(rb"HTTP/1\.\d (?!1(?!01))")


class Interim(NamedTuple):
    """An interim answer."""

    status: int
    headers: Mapping[str, str]


class Content:
    """The content of a request, and the interim answers to it.

    `before` is called before the content is sent, `midway` when its first half is; both may send other requests, wait
    for interim answers, and end the request by an exception. `chunked` content has no Content-Length.
    """

    def __init__(
        self,
        data: bytes,
        content_type: str,
        *,
        before: Callable[[Wire], None] | None = None,
        midway: Callable[[Wire], None] | None = None,
        chunked: bool = False,
    ) -> None:
        self.data, self.content_type, self.chunked = data, content_type, chunked
        self.before, self.midway = before, midway
        self.interims: list[Interim] = []
        self.through = False
        """Whether all of it was sent."""

    def __len__(self) -> int:
        return len(self.data)

    def close(self) -> None:
        """Do nothing: it has no file."""

    def with_status(self, status: int) -> list[Mapping[str, str]]:
        """Return the headers of the interim answers with a status."""
        return [interim.headers for interim in self.interims if interim.status == status]


class Wire:
    """A connection in the middle of a request."""

    def __init__(self, connection: Connection, content: Content, timeout: float) -> None:
        self.content, self.timeout, self.first = content, timeout, b""
        """`first` is what was read of the final answer."""
        self._sock: Any = connection.sock

    def send(self, data: bytes) -> None:
        """Send a part of the content; a server that ends the connection may have answered before."""
        if self.content.chunked and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._sock.settimeout(self.timeout)
        with suppress(ConnectionError):
            self._sock.sendall(data)

    def end(self) -> None:
        if self.content.chunked:
            with suppress(ConnectionError):
                self._sock.sendall(b"0\r\n\r\n")
        self.content.through = True

    def wait(self, status: int, seconds: float) -> bool:
        """Wait for an interim answer with this status, at most so long; return whether it came before a final one."""
        until = time.monotonic() + seconds
        while not self.content.with_status(status) and not _FINAL.match(self.first):
            if (left := until - time.monotonic()) <= 0:
                break
            self._sock.settimeout(left)
            try:
                piece = self._sock.recv(64 << 10)
            except TimeoutError:
                break
            self.first += piece
            while (found := _INTERIM.match(self.first)) is not None:
                self.first = self.first[found.end() :]
                lines = io.BytesIO(found[0].partition(b"\n")[2])
                self.content.interims.append(Interim(int(found[1]), read_fields(lines)))
            if not piece:
                break
        return bool(self.content.with_status(status))


class WireClient(HttpClient):
    """A client whose bodies are `Content`."""

    @contextmanager
    def exchange(
        self,
        method: str,
        url: str,
        route: Route,
        headers: Mapping[str, str],
        data: Any,
        timeout: float,
        *,
        block: int = ANSWER_BLOCK,
        **_how: Any,
    ) -> Iterator[Received]:
        content: Content = Content(b"", "") if data is None else data
        if content.chunked:
            own = {name: value for name, value in headers.items() if name != "Content-Length"}
            headers = {**own, "Transfer-Encoding": "chunked"}
        with self.dialler.connection(route) as connection:
            connection.write(method, route.target(url), headers, b"")
            wire = Wire(connection, content, timeout)
            if content.before is not None:
                content.before(wire)
            half = (len(content) + 1) // 2 if content.midway is not None else len(content)
            wire.send(content.data[:half])
            if content.midway is not None:
                content.midway(wire)
            wire.send(content.data[half:])
            wire.end()
            sock: Any = connection.sock
            sock.settimeout(timeout)
            answer = Response(sock, method, timeout, self.sockets.answer_time, wire.first)
            answer.on_interim = lambda status, fields: content.interims.append(Interim(status, fields))
            answer.begin()
            yield Received(answer.status, answer.headers, intact(answer.pieces(block)))
            connection.close()
