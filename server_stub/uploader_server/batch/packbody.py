"""The multipart body of a pack: two parts in a fixed order, whose bytes are counted."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from multipart import parse_options_header  # type: ignore[import-untyped]

from uploader_server.batch.manifest import MAX_MANIFEST, too_large
from uploader_server.http.errors import ApiError, ClientGoneError

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_HEAD = 16 << 10
"""Bytes of the headers of a part."""
FRAMING = 64 << 10
"""Bytes of a body that are neither manifest nor data, at most."""
_NAME = re.compile(rb'^content-disposition:[^\r\n]*;[ \t]*name="?([^";\r\n]*)"?', re.IGNORECASE | re.MULTILINE)


class PackBody:
    """Reads `manifest`, then `data`. Every call may raise what `_more` raises, and ApiError 400 for a wrong form."""

    def __init__(self, request: Request, idle_timeout: float) -> None:
        self._headers = request.headers
        self._receive = request.receive
        self._idle_timeout = idle_timeout
        self._delimiter = b""
        self._left = 0
        """Bytes of the body that have not been taken out of `_held`."""
        self._held = bytearray()
        self.complete = False
        """Whether nothing of it is still on its way."""

    def check(self, most: int) -> None:
        """Look at the headers. Raises ApiError: 400, 411 without a length, 413 for more than `most` bytes."""
        kind, options = parse_options_header(self._headers.get("content-type", ""))
        if kind != "multipart/form-data" or not options.get("boundary"):
            raise _malformed("send multipart/form-data with a boundary")
        self._delimiter = b"\r\n--" + options["boundary"].encode("utf-8", "replace")
        length = self._headers.get("content-length", "")
        if not length.isascii() or not length.isdigit():
            raise ApiError(411, "LENGTH_REQUIRED", "A pack is sent with Content-Length")
        if int(length) > most:
            raise too_large(f"the body has at most {most} bytes")
        self._left = int(length)

    async def manifest(self) -> bytes:
        """The first part."""
        if bytes(await self._take(len(self._delimiter))) != self._delimiter[2:] + b"\r\n":
            raise _malformed("the body does not begin with its boundary")
        await self._head(b"manifest")
        return bytes(await self._until(self._delimiter + b"\r\n", MAX_MANIFEST, "manifest"))

    async def begin_data(self, total: int) -> None:
        """Read the headers of the second part. Raises ApiError 400 where it can't have `total` bytes."""
        await self._head(b"data")
        end = len(self._delimiter) + 2
        if not end <= self._left - total <= end + 2:
            raise _malformed(f"the part data must have {total} bytes, and be the last one")

    async def data(self, total: int) -> bytearray:
        """The second part, which has `total` bytes, once the whole body is here."""
        data = bytearray(total)
        filled = min(total, len(self._held))
        data[:filled] = self._held[:filled]
        del self._held[:filled]
        view = memoryview(data)
        while filled < total:
            piece = await self._more()
            wanted = total - filled
            if len(piece) > wanted:
                self._held += memoryview(piece)[wanted:]
                piece = piece[:wanted]
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
        view.release()
        self._left -= total
        end = bytes(await self._take(self._left))
        if not self.complete:  # the end may be a message of its own; unread, it would cost the connection
            await self._more()
        if end.removesuffix(b"\r\n") != self._delimiter + b"--":
            raise _malformed(f"the part data does not end after {total} bytes")
        return data

    async def _head(self, name: bytes) -> None:
        head = b"\r\n" + bytes(await self._until(b"\r\n\r\n", MAX_HEAD, "head"))
        found = _NAME.search(head)
        if found is None or found[1] != name:
            raise _malformed("its parts are manifest and data, in this order")

    async def _until(self, end: bytes, most: int, what: str) -> bytearray:
        """The bytes before `end`, which are taken together with it. Raises ApiError 413 for more than `most`."""
        start = 0
        while (position := self._held.find(end, start)) < 0:
            start = max(0, len(self._held) - len(end) + 1)
            if start > most:
                break
            await self._fill()
        if position < 0 or position > most:
            raise too_large(f"the {what} of a pack has at most {most} bytes")
        taken = await self._take(position + len(end))
        return taken[:position]

    async def _take(self, count: int) -> bytearray:
        while len(self._held) < count:
            await self._fill()
        taken = self._held[:count]
        del self._held[:count]
        self._left -= count
        return taken

    async def _fill(self) -> None:
        self._held += await self._more()

    async def _more(self) -> bytes:
        """The next bytes of the body.

        Raises ClientGoneError where the connection broke off, ApiError: 408 where nothing came for the idle timeout,
        400 where the body has ended.
        """
        if self.complete:
            raise _malformed("it ends too early")
        try:
            async with asyncio.timeout(self._idle_timeout):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(408, "UPLOAD_FAILED", "The request stopped sending") from None
        if message["type"] != "http.request":
            raise ClientGoneError
        self.complete = not message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        return piece


def _malformed(details: str) -> ApiError:
    return ApiError(400, "VALIDATION_ERROR", "The body of the pack is malformed", details=details)
