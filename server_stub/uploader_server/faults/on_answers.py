"""Faults of responses: the server processes the request, then the response is changed."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from typing import TYPE_CHECKING, Any

from uploader_server.faults.answers import Answer
from uploader_server.faults.exchange import with_headers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.types import Message, Receive

    from uploader_server.faults.exchange import Exchange

PIECE = 64 << 10
"""Bytes per message of a generated body."""


async def _offset(exchange: Exchange) -> None:
    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            offset = dict(message.get("headers", ())).get(b"upload-offset")
            if offset is not None:
                wrong = max(0, int(offset) + exchange.value("bytes"))
                message = with_headers(message, {"upload-offset": str(wrong)})
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
    except ValueError:  # not JSON
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
    await exchange.send(with_headers(start, headers))
    block = b"a" * ((1 << 20) if zipped else PIECE)
    packed = gzip.compress(block) if zipped else block  # gzip allows any number of members
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
    await exchange.send(with_headers(start, {"content-type": "application/json", "content-length": ""}))
    async with _until_gone(exchange.receive) as gone:
        while not gone.is_set():
            await exchange.send({"type": "http.response.body", "body": b" " * size, "more_body": True})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(gone.wait(), size / rate)


@contextlib.asynccontextmanager
async def _until_gone(receive: Receive) -> AsyncIterator[asyncio.Event]:
    """Provide an event that is set when the client closes the connection."""
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


def with_wrong_types(content: Any, key: str = "") -> Any:
    """Change the types of JSON values: of all at the top level, or of one key at any depth."""
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


ON_ANSWERS: dict[str, Callable[[Exchange], Awaitable[None]]] = {
    "offset": _offset,
    "truncated": _truncated,
    "gigantic": _gigantic,
    "endless": _endless,
    "html": _html,
    "empty": _empty,
    "types": _types,
}
"""Function of each kind of fault."""
