"""Faults of requests: early or missing responses, slow or incomplete bodies."""

from __future__ import annotations

import asyncio
import errno
import http
import json
import os
from typing import TYPE_CHECKING

from uploader_server.faults.answers import Answer, Interrupted, drop
from uploader_server.faults.exchange import with_headers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Message

    from uploader_server.faults.exchange import Exchange


async def _status(exchange: Exchange) -> None:
    code, after = exchange.value("code"), exchange.value("retry-after")
    headers = {"content-type": "application/json; charset=utf-8"}
    if after is not None:
        headers["retry-after"] = str(after)
    try:
        name = http.HTTPStatus(code).phrase.upper().replace(" ", "_").replace("-", "_")
    except ValueError:
        name = "FAULT"
    body = json.dumps({"error": name, "message": f"Failed by --fault {exchange.rule.text}"}).encode()
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
    await exchange.send(with_headers(start, {"content-length": str(len(body))}))
    await exchange.send({"type": "http.response.body", "body": body[: exchange.value("at")], "more_body": True})
    await asyncio.sleep(0.05)  # until it is sent
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
        raise RuntimeError("the server did not handle the full disk") from error


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


ON_REQUESTS: dict[str, Callable[[Exchange], Awaitable[None]]] = {
    "status": _status,
    "cut": _cut,
    "reset": _reset,
    "lose": _lose,
    "stall": _stall,
    "slow": _slow,
    "flip": _flip,
    "disk-full": _disk_full,
    "restart": _restart,
}
"""Function of each kind of fault."""
