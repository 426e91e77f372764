"""What each fault of a request does: layers around the server, by the kinds of the table."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import gzip
import http
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uploader_server.faults.answers import Answer, Interrupted, drop, give

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from uploader_server.faults.rules import Rule
    from uploader_server.faults.state import Faults
    from uploader_server.http.accesslog import Seen

PIECE = 64 << 10
"""Bytes of a made-up body that are sent at once."""


@dataclass(frozen=True)
class Exchange:
    """One request on its way to the server (`app`), and the rule that acts on it."""

    rule: Rule
    faults: Faults
    app: ASGIApp
    scope: Scope
    receive: Receive
    send: Send
    seen: Seen

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
        """The server's answer: the message that starts it, and its body."""
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self.pass_on(send=keep)
        start = next((m for m in messages if m["type"] == "http.response.start"), None)
        if start is None:  # the server gave it up
            raise RuntimeError("the server did not answer")
        return start, b"".join(m.get("body", b"") for m in messages)

    async def reply(self, start: Message, body: bytes, **headers: str) -> None:
        """Answer with another body."""
        await self.send(_with_headers(start, {"content-length": str(len(body)), **headers}))
        await self.send({"type": "http.response.body", "body": body})


def layered(rules: list[Rule], faults: Faults, app: ASGIApp, seen: Seen) -> ASGIApp:
    """The server behind rules; the first one is the outermost."""
    for rule in reversed(rules):
        app = functools.partial(_act, rule, faults, app, seen)
    return app


async def _act(
    rule: Rule, faults: Faults, app: ASGIApp, seen: Seen, scope: Scope, receive: Receive, send: Send
) -> None:
    await LAYERS[rule.kind](Exchange(rule, faults, app, scope, receive, send, seen))


def _with_headers(start: Message, headers: dict[str, str]) -> Message:
    names = {name.encode() for name in headers}
    kept = [(name, value) for name, value in start.get("headers", ()) if name.lower() not in names]
    return {**start, "headers": kept + [(name.encode(), value.encode()) for name, value in headers.items() if value]}


async def _status(exchange: Exchange) -> None:
    code, after = exchange.value("code"), exchange.value("retry-after")
    headers = {"content-type": "application/json; charset=utf-8"}
    if after is not None:
        headers["retry-after"] = str(after)
    try:
        name = http.HTTPStatus(code).phrase.upper().replace(" ", "_").replace("-", "_")
    except ValueError:
        name = "FAULT"
    body = json.dumps({"error": name, "message": f"Made to fail by --fault {exchange.rule.text}"}).encode()
    when = exchange.value("when")
    if code in {204, 304} or exchange.scope["method"] == "HEAD":
        body = b""
    moments = {"before": "before_body", "body": "after_body", "work": "after_store"}
    await exchange.answer(Answer(code, headers, body, moments[when]))  # type: ignore[arg-type]


async def _cut(exchange: Exchange) -> None:
    if exchange.value("side") == "request":
        await _drop(exchange, reset=False)
        return
    start, body = await exchange.collected()
    await exchange.send(_with_headers(start, {"content-length": str(len(body))}))
    await exchange.send({"type": "http.response.body", "body": body[: exchange.value("at")], "more_body": True})
    await asyncio.sleep(0.05)  # until it has left
    drop(exchange.scope, exchange.seen)


async def _reset(exchange: Exchange) -> None:
    await _drop(exchange, reset=True)


async def _drop(exchange: Exchange, *, reset: bool) -> None:
    async def happen() -> Message:
        drop(exchange.scope, exchange.seen, reset=reset)
        return {"type": "http.disconnect"}

    await exchange.interrupt(happen)


async def _lose(exchange: Exchange) -> None:
    await exchange.answer(Answer(when="after_store", close=True))


async def _stall(exchange: Exchange) -> None:
    when = exchange.value("when")

    async def wait() -> None:
        await asyncio.sleep(exchange.value("seconds"))

    if when == "in":
        await exchange.interrupt(wait)
        return
    if when == "before":
        await wait()
        await exchange.pass_on()
        return

    async def late(message: Message) -> None:
        if message["type"] == "http.response.start":
            await wait()
        await exchange.send(message)

    await exchange.pass_on(send=late)


async def _slow(exchange: Exchange) -> None:
    rate = exchange.value("rate")
    slice_of = max(1, rate // 20)
    waiting: list[Message] = []

    async def receive() -> Message:
        message = waiting.pop() if waiting else await exchange.receive()
        body = message.get("body", b"")
        if len(body) > slice_of:
            waiting.append({**message, "body": body[slice_of:]})
            message = {"type": "http.request", "body": body[:slice_of], "more_body": True}
        await asyncio.sleep(len(message.get("body", b"")) / rate)
        return message

    async def send(message: Message) -> None:
        body = message.get("body", b"")
        for start in range(0, max(0, len(body) - slice_of), slice_of):
            await exchange.send({**message, "body": body[start : start + slice_of], "more_body": True})
            await asyncio.sleep(slice_of / rate)
            message = {**message, "body": body[start + slice_of :]}
        await exchange.send(message)

    await exchange.pass_on(receive=receive, send=send)


async def _flip(exchange: Exchange) -> None:
    at, passed = exchange.value("at"), 0

    def flipped(message: Message) -> Message:
        nonlocal passed
        body = message.get("body", b"")
        position, passed = at - passed, passed + len(body)
        if not 0 <= position < len(body):
            return message
        changed = bytearray(body)
        changed[position] ^= 1
        return {**message, "body": bytes(changed)}

    async def receive() -> Message:
        return flipped(await exchange.receive())

    async def send(message: Message) -> None:
        await exchange.send(flipped(message))

    if exchange.value("side") == "request":
        await exchange.pass_on(receive=receive)
    else:
        await exchange.pass_on(send=send)


async def _disk_full(exchange: Exchange) -> None:
    async def happen() -> Message:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    try:
        await exchange.pass_on(receive=Interrupted(exchange.receive, exchange.value("at"), happen))
    except OSError as error:
        raise RuntimeError("the server does not survive a full disk") from error


async def _offset(exchange: Exchange) -> None:
    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            told = dict(message.get("headers", ())).get(b"upload-offset")
            if told is not None:
                wrong = max(0, int(told) + exchange.value("bytes"))
                message = _with_headers(message, {"upload-offset": str(wrong)})
        await exchange.send(message)

    await exchange.pass_on(send=send)


async def _truncated(exchange: Exchange) -> None:
    start, body = await exchange.collected()
    await exchange.reply(start, body[: len(body) // 2])


async def _empty(exchange: Exchange) -> None:
    start, _ = await exchange.collected()
    await exchange.reply(start, b"")


async def _types(exchange: Exchange) -> None:
    start, body = await exchange.collected()
    try:
        content = json.loads(body)
    except ValueError:  # it has no types
        await exchange.reply(start, body)
        return
    await exchange.reply(start, json.dumps(with_wrong_types(content, exchange.value("key"))).encode())


async def _html(exchange: Exchange) -> None:
    page = b"<!doctype html>\n<html><head><title>Welcome</title></head><body><div id=root></div></body></html>\n"
    headers = {"content-type": "text/html; charset=utf-8"}
    await exchange.answer(Answer(exchange.value("code"), headers, page, "after_body"))


async def _gigantic(exchange: Exchange) -> None:
    start, _ = await exchange.collected()
    size, zipped = exchange.value("size"), exchange.value("gzip") == "yes"
    headers = {"content-type": "application/json", "content-length": "" if zipped else str(size)}
    headers["content-encoding"] = "gzip" if zipped else ""
    await exchange.send(_with_headers(start, headers))
    block = b"a" * ((1 << 20) if zipped else PIECE)
    packed = gzip.compress(block) if zipped else block  # a gzip file may have any number of members
    left = size
    async with _until_gone(exchange.receive) as gone:
        while left > 0 and not gone.is_set():
            piece = packed if left >= len(block) else block[:left]
            if zipped and piece is not packed:
                piece = gzip.compress(piece)
            await exchange.send({"type": "http.response.body", "body": piece, "more_body": True})
            left -= len(block)
            await asyncio.sleep(0)
    await exchange.send({"type": "http.response.body", "body": b""})


async def _endless(exchange: Exchange) -> None:
    start, _ = await exchange.collected()
    rate = exchange.value("rate")
    size = min(PIECE, max(1, rate // 20))
    await exchange.send(_with_headers(start, {"content-type": "application/json", "content-length": ""}))
    async with _until_gone(exchange.receive) as gone:
        while not gone.is_set():
            await exchange.send({"type": "http.response.body", "body": b" " * size, "more_body": True})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(gone.wait(), size / rate)


@contextlib.asynccontextmanager
async def _until_gone(receive: Receive) -> AsyncIterator[asyncio.Event]:
    """An event that is set when the client closes the connection."""
    gone = asyncio.Event()

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    watching = asyncio.ensure_future(watch())
    try:
        yield gone
    finally:
        watching.cancel()
        await asyncio.wait({watching})


async def _restart(exchange: Exchange) -> None:
    reached = False

    async def happen() -> Message:
        nonlocal reached
        reached = True
        drop(exchange.scope, exchange.seen)
        return {"type": "http.disconnect"}

    await exchange.interrupt(happen)
    if reached:
        exchange.faults.restart(exchange.value("memory"), exchange.value("down"))


LAYERS: dict[str, Callable[[Exchange], Awaitable[None]]] = {
    "status": _status,
    "cut": _cut,
    "reset": _reset,
    "lose": _lose,
    "stall": _stall,
    "slow": _slow,
    "flip": _flip,
    "disk-full": _disk_full,
    "offset": _offset,
    "truncated": _truncated,
    "gigantic": _gigantic,
    "endless": _endless,
    "html": _html,
    "empty": _empty,
    "types": _types,
    "restart": _restart,
}
"""What each kind of fault does to a request."""


def with_wrong_types(content: Any, key: str = "") -> Any:
    """JSON whose values have other types: all at the top, or those of one key at any depth."""
    if isinstance(content, dict):
        return {
            name: _other_type(value) if key in {"", name} else with_wrong_types(value, key)
            for name, value in content.items()
        }
    if isinstance(content, list):
        return [with_wrong_types(item, key) if key else _other_type(item) for item in content]
    return content if key else _other_type(content)


def _other_type(value: Any) -> Any:
    match value:
        case bool() | None:
            return "maybe"
        case str():
            return 7
        case int() | float():
            return "many"
        case list():
            return {"0": "many"}
        case _:
            return ["many"]
