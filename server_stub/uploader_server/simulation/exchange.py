"""One request that a fault acts on, and scripted responses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uploader_server.http.connections import cut
from uploader_server.http.errors import raw_headers
from uploader_server.http.tracking import TrackedRequest

Kept = Literal["all", "files", "nothing"]  # what a restart keeps


@dataclass(frozen=True)
class Answer:
    """A scripted response to one HTTP request.

    `when`: `before_body` responds without reading the body, `after_body` reads and drops it first, `after_store`
    replaces the server's own response. `close` cuts the connection instead. `after_bytes` cuts the connection after
    that many bytes of the body.
    """

    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    when: Literal["before_body", "after_body", "after_store"] = "before_body"
    close: bool = False
    after_bytes: int | None = None


class Unanswered(Exception):
    """The server, or another fault, has ended the request without a response."""


@dataclass(frozen=True)
class Exchange:
    """One request to the server (`app`) that a fault acts on."""

    rule: str  # the rule of the fault; empty for a scripted response
    restart: Callable[[Kept, float], None]  # restarts the server, see `Faults.restart`
    app: ASGIApp
    seen: TrackedRequest
    scope: Scope
    receive: Receive
    send: Send

    async def answer(self, answer: Answer) -> None:
        if answer.when == "after_store":
            await self.app(self.scope, self.receive, nowhere)
        elif answer.after_bytes is not None:
            await self._read(answer.after_bytes)
        elif answer.when == "after_body":
            with contextlib.suppress(OSError):  # the full disk of another rule
                while (await self.receive()).get("more_body"):
                    pass
        if answer.close or answer.after_bytes is not None:
            await self.drop()
            return
        headers = raw_headers({name.lower(): value for name, value in answer.headers.items()})
        await self.reply({"type": "http.response.start", "status": answer.status, "headers": headers}, answer.body)

    async def _read(self, size: int) -> None:
        """Read and drop at least `size` bytes of the body, or all of it."""
        while size > 0:
            message = await self.receive()
            size -= len(message.get("body", b""))
            if not message.get("more_body"):
                return

    async def drop(self, *, reset: bool = False) -> Message:
        """Record a request without a response, close its connection, and return the message of a disconnect."""
        self.seen.note()
        cut(self.scope, reset=reset)
        return {"type": "http.disconnect"}

    async def pass_on(self, *, receive: Receive | None = None, send: Send | None = None) -> None:
        """Pass the request to the server, optionally with a changed `receive` or `send`."""
        scope = self.scope if send is None else {**self.scope, "extensions": {}}  # disables granian's own file sending
        await self.app(scope, receive or self.receive, send or self.send)

    async def interrupt(self, at: int, happen: Callable[[], Awaitable[Message | None]]) -> None:
        """Pass the request to the server; call `happen` after `at` bytes of the body (see `interrupted`)."""
        if at == 0 and await happen() is not None:
            return
        await self.pass_on(receive=interrupted(self.receive, at, happen) if at else None)

    async def collected(self) -> tuple[Message, bytes]:
        """Return the server's response: its start message and body. Raises Unanswered."""
        starts: list[Message] = []
        body = bytearray()

        async def keep(message: Message) -> None:
            if message["type"] == "http.response.start":
                starts.append(message)
            body.extend(message.get("body", b""))  # a copy: a download sends all pieces in one buffer

        await self.pass_on(send=keep)
        if not starts:
            raise Unanswered
        return starts[0], bytes(body)

    async def reply(self, start: Message, body: bytes) -> None:
        await self.send(changed_headers(start, {"content-length": str(len(body))}))
        await self.send({"type": "http.response.body", "body": body})


async def nowhere(_: Message) -> None:
    """Drop a message."""


@contextlib.asynccontextmanager
async def until_gone(receive: Receive, gone: asyncio.Event) -> AsyncIterator[None]:
    """Set `gone` when the client disconnects; messages before that are dropped."""

    async def watch() -> None:
        while not (await receive())["type"].endswith(".disconnect"):
            pass
        gone.set()

    watching = asyncio.ensure_future(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait({watching})


def interrupted(receive: Receive, at: int, happen: Callable[[], Awaitable[Message | None]]) -> Receive:
    """Return a `receive` that calls `happen` once after `at` bytes of a body.

    The message that `happen` returns replaces the rest of the body; after None the rest follows. A shorter body is
    unchanged.
    """
    left, over = at, False
    rest: Message | None = None

    async def receiving() -> Message:
        nonlocal left, over, rest
        if left == 0 and not over:
            over = True
            instead = await happen()
            if instead is not None:
                return instead
        message, rest = rest or await receive(), None
        if over or message["type"] != "http.request":
            return message
        body = message.get("body", b"")
        if len(body) >= left:
            rest = {**message, "body": body[left:]}
            message = {"type": "http.request", "body": body[:left], "more_body": True}
        left -= len(message.get("body", b""))
        return message

    return receiving


def changed_headers(start: Message, headers: dict[str, str]) -> Message:
    """Return a start message with changed headers; an empty value removes a header."""
    names = {name.encode() for name in headers}
    kept = [(name, value) for name, value in start.get("headers", ()) if name.lower() not in names]
    return {**start, "headers": kept + raw_headers({name: value for name, value in headers.items() if value})}
