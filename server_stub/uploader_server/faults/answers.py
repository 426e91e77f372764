"""Scripted responses and interrupted bodies."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from uploader_server.http.connections import cut

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from uploader_server.http.accesslog import TrackedRequest


@dataclass(frozen=True)
class Answer:
    """A scripted response to one HTTP request.

    `when`: `before_body` responds without reading the body, `after_body` reads and drops it first, `after_store`
    replaces the server's own response. `close` cuts the connection instead. `after_bytes` cuts the connection after
    that many bytes of the body.

    `during_body` passes an interrupted body to the server: after `after_bytes` bytes the connection is cut (`close`) or
    the body pauses for `stall` seconds.
    """

    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    when: Literal["before_body", "after_body", "after_store", "during_body"] = "before_body"
    close: bool = False
    after_bytes: int | None = None
    stall: float = 0.0


async def give(answer: Answer, app: ASGIApp, scope: Scope, receive: Receive, send: Send, seen: TrackedRequest) -> None:
    """Respond to a request as scripted; `app` is the server."""
    if answer.when == "during_body":
        await app(scope, _misbehaving(answer, scope, receive, seen), send)
        return
    if answer.when == "after_store":
        await app(scope, receive, nowhere)
    elif answer.after_bytes is not None:
        received = 0
        while received < answer.after_bytes:
            message = await receive()
            received += len(message.get("body", b""))
            if not message.get("more_body"):
                break
    elif answer.when == "after_body":
        while (await receive()).get("more_body"):
            pass
    if answer.close or answer.after_bytes is not None:
        drop(scope, seen)
        return
    headers = [(name.lower().encode(), value.encode()) for name, value in answer.headers.items()]
    headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def _misbehaving(answer: Answer, scope: Scope, receive: Receive, seen: TrackedRequest) -> Receive:
    async def happen() -> Message | None:
        if answer.close:
            drop(scope, seen)
            return {"type": "http.disconnect"}
        await asyncio.sleep(answer.stall)
        return None

    return Interrupted(receive, answer.after_bytes or 0, happen)


def drop(scope: Scope, seen: TrackedRequest, *, reset: bool = False) -> None:
    """Record a request without a response, and close its connection."""
    seen.note()
    cut(scope, reset=reset)


async def nowhere(_: Message) -> None:
    """Drop a message."""


class Interrupted:
    """A `receive` that calls `happen` once after `at` bytes of a body.

    The message that `happen` returns replaces the rest of the body; after None the rest follows. A shorter body is
    unchanged.
    """

    def __init__(self, receive: Receive, at: int, happen: Callable[[], Awaitable[Message | None]]) -> None:
        self._receive = receive
        self._left = at
        self._happen = happen
        self._rest: Message | None = None
        self._over = False

    async def __call__(self) -> Message:
        """Return the next message of the body."""
        if self._left == 0 and not self._over:
            self._over = True
            instead = await self._happen()
            if instead is not None:
                return instead
        message, self._rest = self._rest or await self._receive(), None
        body = message.get("body", b"")
        if self._over or message["type"] != "http.request":
            return message
        if len(body) >= self._left:
            self._rest = {**message, "body": body[self._left :]}
            message = {"type": "http.request", "body": body[: self._left], "more_body": True}
        self._left -= len(message["body"])
        return message
