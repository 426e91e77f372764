"""A request that a fault acts on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uploader_server.faults.answers import Answer, Interrupted, give

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from uploader_server.faults.rules import Rule
    from uploader_server.faults.state import Faults
    from uploader_server.http.accesslog import TrackedRequest


class Unanswered(Exception):
    """The server, or another fault, has ended the request without a response."""


@dataclass(frozen=True)
class Exchange:
    """One request to the server (`app`), and the rule that acts on it."""

    rule: Rule
    faults: Faults
    app: ASGIApp
    scope: Scope
    receive: Receive
    send: Send
    seen: TrackedRequest

    def value(self, name: str) -> Any:
        """Return a parameter of the rule."""
        return self.rule.values[name]

    async def answer(self, answer: Answer) -> None:
        """Send a scripted response."""
        await give(answer, self.app, self.scope, self.receive, self.send, self.seen)

    async def pass_on(self, *, receive: Receive | None = None, send: Send | None = None) -> None:
        """Pass the request to the server, optionally with a changed `receive` or `send`."""
        scope = self.scope if send is None else {**self.scope, "extensions": {}}  # disables granian's own file sending
        await self.app(scope, receive or self.receive, send or self.send)

    async def interrupt(self, happen: Callable[[], Awaitable[Message | None]]) -> None:
        """Pass the request to the server; call `happen` after `at` bytes of the body (see `Interrupted`)."""
        at = self.value("at")
        if at == 0 and await happen() is not None:
            return
        await self.pass_on(receive=Interrupted(self.receive, at, happen) if at else None)

    async def collected(self) -> tuple[Message, bytes]:
        """Return the server's response: its start message and body. Raises Unanswered."""
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self.pass_on(send=keep)
        start = next((m for m in messages if m["type"] == "http.response.start"), None)
        if start is None:
            raise Unanswered
        return start, b"".join(m.get("body", b"") for m in messages)

    async def reply(self, start: Message, body: bytes, **headers: str) -> None:
        """Send a response with another body."""
        await self.send(with_headers(start, {"content-length": str(len(body)), **headers}))
        await self.send({"type": "http.response.body", "body": body})


def with_headers(start: Message, headers: dict[str, str]) -> Message:
    """Return a start message with changed headers; an empty value removes a header."""
    names = {name.encode() for name in headers}
    kept = [(name, value) for name, value in start.get("headers", ()) if name.lower() not in names]
    return {**start, "headers": kept + [(name.encode(), value.encode()) for name, value in headers.items() if value]}
