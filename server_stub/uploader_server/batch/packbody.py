"""The multipart body of a pack: the parts `manifest` and `data`, in this order."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from multipart import parse_options_header  # type: ignore[import-untyped]
from starlette.requests import ClientDisconnect

from uploader_server.batch.manifest import MAX_MANIFEST, too_large
from uploader_server.http.errors import ApiError

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_HEAD = 16 << 10
"""Maximum bytes of the headers of a part."""
FRAMING = 64 << 10
"""Maximum bytes of a body besides manifest and data."""
_NAME = re.compile(rb'^content-disposition:[^\r\n]*;[ \t]*name="?([^";\r\n]*)"?', re.IGNORECASE | re.MULTILINE)


class PackBody:
    """Reads `manifest`, then `data`. Every call raises as `_more`, and ApiError 400 for a malformed body."""

    def __init__(self, request: Request, idle_timeout: float) -> None:
        self._headers = request.headers
        self._receive = request.receive
        self._idle_timeout = idle_timeout
        self._delimiter = b""
        self._left = 0
        """Bytes of the body that are not consumed from `_buffer`."""
        self._buffer = bytearray()
        self.complete = False
        """Whether the whole body was received."""

    def check(self, most: int) -> None:
        """Check the request headers. Raises ApiError: 400, 411 without a length, 413 over `most` bytes."""
        kind, options = parse_options_header(self._headers.get("content-type", ""))
        if kind != "multipart/form-data" or not options.get("boundary"):
            raise _malformed("send multipart/form-data with a boundary")
        self._delimiter = b"\r\n--" + options["boundary"].encode("utf-8", "replace")
        length = self._headers.get("content-length", "")
        if not length.isascii() or not length.isdigit():
            raise ApiError(411, "LENGTH_REQUIRED", "A pack needs Content-Length")
        if int(length) > most:
            raise too_large(f"the body has at most {most} bytes")
        self._left = int(length)

    async def manifest(self) -> bytes:
        """Return the first part."""
        if bytes(await self._take(len(self._delimiter))) != self._delimiter[2:] + b"\r\n":
            raise _malformed("the body does not begin with its boundary")
        await self._head(b"manifest")
        return bytes(await self._until(self._delimiter + b"\r\n", MAX_MANIFEST, "manifest"))

    async def begin_data(self, total: int) -> None:
        """Read the headers of the second part. Raises ApiError 400 if it can't have `total` bytes."""
        await self._head(b"data")
        end = len(self._delimiter) + 2
        if not end <= self._left - total <= end + 2:
            raise _malformed(f"the part data must have {total} bytes, and be the last one")

    async def data(self, total: int) -> bytearray:
        """Read the rest of the body and return the second part, which has `total` bytes."""
        data = bytearray(total)
        filled = min(total, len(self._buffer))
        data[:filled] = self._buffer[:filled]
        del self._buffer[:filled]
        view = memoryview(data)
        while filled < total:
            piece = await self._more()
            wanted = total - filled
            if len(piece) > wanted:
                self._buffer += memoryview(piece)[wanted:]
                piece = piece[:wanted]
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
        view.release()
        self._left -= total
        end = bytes(await self._take(self._left))
        if not self.complete:  # read the final message, to keep the connection open
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
        """Return the bytes before `end` and consume both. Raises ApiError 413 for more than `most` bytes."""
        start = 0
        while (position := self._buffer.find(end, start)) < 0:
            start = max(0, len(self._buffer) - len(end) + 1)
            if start > most:
                break
            await self._fill()
        if position < 0 or position > most:
            raise too_large(f"the {what} of a pack has at most {most} bytes")
        taken = await self._take(position + len(end))
        return taken[:position]

    async def _take(self, count: int) -> bytearray:
        while len(self._buffer) < count:
            await self._fill()
        taken = self._buffer[:count]
        del self._buffer[:count]
        self._left -= count
        return taken

    async def _fill(self) -> None:
        self._buffer += await self._more()

    async def _more(self) -> bytes:
        """Return the next bytes of the body.

        Raises ClientDisconnect if the connection closed, ApiError: 408 after the idle timeout, 400 after the end.
        """
        if self.complete:
            raise _malformed("it ends too early")
        try:
            async with asyncio.timeout(self._idle_timeout):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(408, "UPLOAD_FAILED", "The request stopped sending") from None
        if message["type"] != "http.request":
            raise ClientDisconnect
        self.complete = not message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        return piece


def _malformed(details: str) -> ApiError:
    return ApiError(400, "VALIDATION_ERROR", "The body of the pack is malformed", details=details)
