"""A small HTTP/1.1 server: it sends interim responses, and ends connections where a situation says so."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
MOST_HEAD = 64 << 10
"""Maximum bytes of the head of a request."""
MOST_CONTENT = 64 << 20
"""Maximum bytes of the content of a request: more is read no further."""
_PIECE = 16 << 10


class Malformed(Exception):
    """The client sent no HTTP/1.1, or broke the connection off."""


@dataclass(eq=False)
class Request:
    """A request as the server got it, and how it ended. The names of `fields` are in lower case."""

    method: str
    path: str
    fields: Mapping[str, str]
    content: bytearray = field(default_factory=bytearray)
    whole: bool = False
    """The content has arrived to its end."""
    status: int = 0
    """That of the final response; 0: there was none."""
    open: bool = True
    """No final response yet, and the connection exists."""
    beside: tuple[Request, ...] = ()
    """Requests that were open when this one arrived."""
    upload: int = 0
    """The number of the upload whose URL it has, from 1; 0: another URL."""

    ends: bool = False
    """Its answer says that the upload is complete."""

    def __str__(self) -> str:
        if self.status:
            return f"{self.method} {self.status}"
        return f"{self.method} lost after {len(self.content)} bytes" if self.content else f"{self.method} lost"

    @property
    def length(self) -> int | None:
        """What Content-Length says; None without it."""
        text = self.fields.get("content-length", "")
        return int(text) if text.isdecimal() else None

    def number(self, name: str) -> int | None:
        """Return the non-negative integer of a field, without parameters; None without it."""
        text = self.fields.get(name, "").partition(";")[0].strip()
        return int(text) if text.isdecimal() else None

    @property
    def has_content(self) -> bool:
        return bool(self.length) or "transfer-encoding" in self.fields


@dataclass(frozen=True)
class Answer:
    """A response; `status` 0 ends the connection in its place."""

    status: int
    fields: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""


class Exchange(Protocol):
    """One request of a play, from its head to its answer."""

    pause: float
    """Seconds before the content is read."""

    def early(self) -> list[Mapping[str, str]]:
        """Return the fields of interim responses (104) that precede the content."""

    def take(self, piece: bytes) -> bool:
        """Take a piece of the content; return False to end the connection."""

    def late(self) -> list[Mapping[str, str]]:
        """Return the fields of interim responses after the content."""

    def answer(self) -> Answer:
        """Return the final response."""


class HttpServer:
    """Listens on a free loopback port in a thread of its own; `begin` gets each request, with its content to come."""

    def __init__(self, begin: Callable[[Request], Exchange], port: int = 0) -> None:
        """Raises `OSError` if the port is taken."""
        self._begin = begin
        self._requests: list[Request] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self._server = self._call(asyncio.start_server(self._serve, "127.0.0.1", port, limit=MOST_HEAD))
        except OSError:
            self.close()
            raise
        self.port: int = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """End all connections."""
        with suppress(RuntimeError):
            self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def settled(self, seconds: float = 2.0) -> None:
        """Wait until no request is open, at most so long: what a client has sent before it ended may be on its way."""
        until = time.monotonic() + seconds
        while any(request.open for request in self._requests) and time.monotonic() < until:
            time.sleep(0.005)
        self._requests.clear()

    def _call(self, job: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(job, self._loop).result()

    async def _end(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = (Malformed, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)
        with suppress(*ends, asyncio.CancelledError):  # asyncio would print a cancelled one
            while await self._exchange(reader, writer):
                pass
        writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Do one exchange; return whether the connection stays."""
        request = _parsed(await reader.readuntil(b"\r\n\r\n"))
        request.beside = tuple(other for other in self._requests if other.open)
        self._requests.append(request)
        try:
            return await self._answer(request, self._begin(request), reader, writer)
        finally:
            request.open = False

    async def _answer(
        self, request: Request, exchange: Exchange, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        for fields in exchange.early():
            await _send(writer, 104, fields)
        await asyncio.sleep(exchange.pause)
        if request.has_content and request.fields.get("expect", "").lower() == "100-continue":
            await _send(writer, 100, {})
        async for piece in _content(request, reader):
            request.content += piece
            if not exchange.take(piece) or len(request.content) > MOST_CONTENT:
                return False
        request.whole = True
        for fields in exchange.late():
            await _send(writer, 104, fields)
        answer = exchange.answer()
        if not answer.status:
            return False
        request.status = answer.status
        request.open = False
        length = {} if answer.status == HTTPStatus.NO_CONTENT else {"Content-Length": str(len(answer.content))}
        content = b"" if request.method == "HEAD" else answer.content
        await _send(writer, answer.status, {**answer.fields, **length}, content)
        return request.fields.get("connection", "").lower() != "close"


def _parsed(head: bytes) -> Request:
    """Parse the head of a request. Raises `Malformed`."""
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or words[2] != "HTTP/1.1":
        raise Malformed(first)
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise Malformed(line)
        name = name.lower()
        fields[name] = f"{fields[name]}, {value.strip()}" if name in fields else value.strip()
    return Request(words[0], words[1], fields)


async def _content(request: Request, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield the content of a request in pieces. Raises `Malformed` if it ends early."""
    if request.fields.get("transfer-encoding", "").lower() != "chunked":
        async for piece in _pieces(reader, request.length or 0):
            yield piece
        return
    while True:
        size = _size(await reader.readuntil(b"\r\n"))
        if not size:
            break
        async for piece in _pieces(reader, size):
            yield piece
        await reader.readexactly(2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # a trailer


def _size(line: bytes) -> int:
    try:
        return int(line.split(b";")[0].strip(), 16)
    except ValueError:
        raise Malformed(line.decode("latin-1")) from None


async def _pieces(reader: asyncio.StreamReader, count: int) -> AsyncIterator[bytes]:
    while count:
        piece = await reader.read(min(count, _PIECE))
        if not piece:
            raise Malformed("the content ends early")
        count -= len(piece)
        yield piece


async def _send(writer: asyncio.StreamWriter, status: int, fields: Mapping[str, str], content: bytes = b"") -> None:
    reasons = {104: "Upload Resumption Supported", 460: "Checksum Mismatch"}
    reason = reasons.get(status) or HTTPStatus(status).phrase
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in fields.items())]
    writer.write("\r\n".join([*lines, "\r\n"]).encode("latin-1") + content)
    await writer.drain()
