"""One request on its way to the server, and what a fault may do with it."""

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
    """Nothing is left to do for a fault: another one, or the server, has given up the request."""


@dataclass(frozen=True)
class Exchange:
    """One request on its way to the server (`app`), and the rule that acts on it."""

    rule: Rule
    faults: Faults
    app: ASGIApp
    scope: Scope
    receive: Receive
    send: Send
    seen: TrackedRequest

    def value(self, name: str) -> Any:
        """A parameter of the rule."""
        return self.rule.values[name]

    async def answer(self, answer: Answer) -> None:
        """Answer as scripted."""
        await give(answer, self.app, self.scope, self.receive, self.send, self.seen)

    async def pass_on(self, *, receive: Receive | None = None, send: Send | None = None) -> None:
        """Let the server work, with another body, or on another answer."""
        scope = self.scope if send is None else {**self.scope, "extensions": {}}  # it must not send files by itself
        await self.app(scope, receive or self.receive, send or self.send)

    async def interrupt(self, happen: Callable[[], Awaitable[Message | None]]) -> None:
        """Let the server work until `at` bytes of the body have come, and call `happen` then (see `Interrupted`)."""
        at = self.value("at")
        if at == 0 and await happen() is not None:
            return
        await self.pass_on(receive=Interrupted(self.receive, at, happen) if at else None)

    async def collected(self) -> tuple[Message, bytes]:
        """The server's answer: the message that starts it, and its body. Raises Unanswered."""
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self.pass_on(send=keep)
        start = next((m for m in messages if m["type"] == "http.response.start"), None)
        if start is None:
            raise Unanswered
        return start, b"".join(m.get("body", b"") for m in messages)

    async def reply(self, start: Message, body: bytes, **headers: str) -> None:
        """Answer with another body."""
        await self.send(with_headers(start, {"content-length": str(len(body)), **headers}))
        await self.send({"type": "http.response.body", "body": body})


def with_headers(start: Message, headers: dict[str, str]) -> Message:
    """The message that starts an answer, with other headers; an empty value removes one."""
    names = {name.encode() for name in headers}
    kept = [(name, value) for name, value in start.get("headers", ()) if name.lower() not in names]
    return {**start, "headers": kept + [(name.encode(), value.encode()) for name, value in headers.items() if value]}
