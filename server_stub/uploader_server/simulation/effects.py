"""The effects of faults on requests: functions of an exchange and the parameters of the rule, as in `table`."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gzip
import json
import os
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from starlette.types import Message

from uploader_server.simulation.exchange import Answer, Exchange, Kept, changed_headers, interrupted, until_gone

GENERATED = 64 << 10  # bytes per message of a generated body


async def _status(exchange: Exchange, code: int, retry_after: int | None, when: str) -> None:
    try:
        name = HTTPStatus(code).phrase.upper().replace(" ", "_").replace("-", "_")
    except ValueError:
        name = "FAULT"
    headers = {"content-type": "application/json; charset=utf-8"}
    if retry_after is not None:
        headers["retry-after"] = str(retry_after)
    body = json.dumps({"error": name, "message": f"Failed by --fault {exchange.rule}"}).encode()
    if code in {204, 304} or exchange.scope["method"] == "HEAD":
        body = b""
    moments = {"before": "before_body", "body": "after_body", "work": "after_store"}
    await exchange.answer(Answer(code, headers, body, moments[when]))  # type: ignore[arg-type]


async def _cut(exchange: Exchange, at: int, side: str) -> None:
    if side == "request":
        await exchange.interrupt(at, exchange.drop)
        return
    start, body = await exchange.collected()
    await exchange.send(changed_headers(start, {"content-length": str(len(body))}))
    await exchange.send({"type": "http.response.body", "body": body[:at], "more_body": True})
    await asyncio.sleep(0.05)  # until it is sent
    await exchange.drop()


async def _reset(exchange: Exchange, at: int) -> None:
    await exchange.interrupt(at, lambda: exchange.drop(reset=True))


async def _lose(exchange: Exchange) -> None:
    await exchange.answer(Answer(when="after_store", close=True))


async def _stall(exchange: Exchange, when: str, seconds: float, at: int) -> None:
    if when == "in":
        await exchange.interrupt(at, lambda: asyncio.sleep(seconds))
        return
    if when == "before":
        await asyncio.sleep(seconds)
        await exchange.pass_on()
        return

    async def late(message: Message) -> None:
        if message["type"] == "http.response.start":
            await asyncio.sleep(seconds)
        await exchange.send(message)

    await exchange.pass_on(send=late)


async def _slow(exchange: Exchange, rate: int) -> None:
    piece = max(1, rate // 20)
    waiting: list[Message] = []

    async def receive() -> Message:
        message = waiting.pop() if waiting else await exchange.receive()
        body = message.get("body", b"")
        if len(body) > piece:
            waiting.append({**message, "body": body[piece:]})
            message = {"type": "http.request", "body": body[:piece], "more_body": True}
        await asyncio.sleep(len(message.get("body", b"")) / rate)
        return message

    async def send(message: Message) -> None:
        body = message.get("body", b"")
        for start in range(0, max(0, len(body) - piece), piece):
            await exchange.send({**message, "body": body[start : start + piece], "more_body": True})
            await asyncio.sleep(piece / rate)
            message = {**message, "body": body[start + piece :]}
        await exchange.send(message)

    await exchange.pass_on(receive=receive, send=send)


async def _flip(exchange: Exchange, at: int, side: str) -> None:
    passed = 0

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

    await (exchange.pass_on(receive=receive) if side == "request" else exchange.pass_on(send=send))


async def _disk_full(exchange: Exchange, at: int) -> None:
    async def happen() -> Message:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    try:
        await exchange.pass_on(receive=interrupted(exchange.receive, at, happen))
    except OSError as error:
        raise RuntimeError("the server did not handle the full disk") from error


async def _offset(exchange: Exchange, difference: int) -> None:
    async def send(message: Message) -> None:
        offset = dict(message.get("headers", ())).get(b"upload-offset")
        if offset is not None:
            message = changed_headers(message, {"upload-offset": str(max(0, int(offset) + difference))})
        await exchange.send(message)

    await exchange.pass_on(send=send)


async def _truncated(exchange: Exchange) -> None:
    start, body = await exchange.collected()
    await exchange.reply(start, body[: len(body) // 2])


async def _empty(exchange: Exchange) -> None:
    start, _ = await exchange.collected()
    await exchange.reply(start, b"")


async def _types(exchange: Exchange, key: str | None) -> None:
    start, body = await exchange.collected()
    with contextlib.suppress(ValueError):  # not JSON
        body = json.dumps(with_wrong_types(json.loads(body), key)).encode()
    await exchange.reply(start, body)


async def _html(exchange: Exchange, code: int) -> None:
    page = b"<!doctype html>\n<html><head><title>Welcome</title></head><body><div id=root></div></body></html>\n"
    await exchange.answer(Answer(code, {"content-type": "text/html; charset=utf-8"}, page, "after_body"))


async def _gigantic(exchange: Exchange, size: int, zipped: str) -> None:
    start, _ = await exchange.collected()
    headers = {"content-length": str(size)} if zipped == "no" else {"content-length": "", "content-encoding": "gzip"}
    await exchange.send(changed_headers(start, {"content-type": "application/json", **headers}))
    compress = bytes if zipped == "no" else gzip.compress  # a gzip file may have any number of members
    block = b"a" * GENERATED
    packed = compress(block)
    gone = asyncio.Event()
    async with until_gone(exchange.receive, gone):
        for left in range(size, 0, -GENERATED):
            if gone.is_set():
                break
            piece = packed if left >= GENERATED else compress(block[:left])
            await exchange.send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0)
    await exchange.send({"type": "http.response.body", "body": b""})


async def _endless(exchange: Exchange, rate: int) -> None:
    start, _ = await exchange.collected()
    size = min(GENERATED, max(1, rate // 20))
    await exchange.send(changed_headers(start, {"content-type": "application/json", "content-length": ""}))
    gone = asyncio.Event()
    async with until_gone(exchange.receive, gone):
        while not gone.is_set():
            await exchange.send({"type": "http.response.body", "body": b" " * size, "more_body": True})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(gone.wait(), size / rate)


async def _restart(exchange: Exchange, memory: Kept, at: int, down: float) -> None:
    reached = False

    async def happen() -> Message:
        nonlocal reached
        reached = True
        return await exchange.drop()

    await exchange.interrupt(at, happen)
    if reached:
        exchange.restart(memory, down)


def with_wrong_types(content: Any, key: str | None) -> Any:
    """Change the types of JSON values: of all at the top level, or of one key at any depth."""
    if isinstance(content, dict):
        return {
            name: _other_type(value) if key in {None, name} else with_wrong_types(value, key)
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


EFFECTS: dict[str, Callable[..., Awaitable[None]]] = {
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
"""Effects by the kind of the fault."""
