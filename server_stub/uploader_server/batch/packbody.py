"""The multipart body of a pack: the parts `manifest` and `data`, in this order."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from multipart import parse_options_header  # type: ignore[import-untyped]

from uploader_server.batch.manifest import MAX_MANIFEST, too_large
from uploader_server.http.errors import ApiError, pieces

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_HEAD = 16 << 10  # maximum bytes of the headers of a part
FRAMING = 64 << 10  # maximum bytes of a body besides manifest and data
_NAME = re.compile(rb'^content-disposition:[^\r\n]*;[ \t]*name="?([^";\r\n]*)"?', re.IGNORECASE | re.MULTILINE)


class PackBody:
    """Reads `manifest`, then `data`. Every call raises as `pieces`, and ApiError 400 for a malformed body."""

    def __init__(self, request: Request, idle_timeout: float) -> None:
        self._headers = request.headers
        self._pieces = pieces(request.receive, idle_timeout)
        self._delimiter = b""
        self._left = 0  # bytes of the body that are not consumed from `_buffer`
        self._buffer = bytearray()

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
        if await self._take(len(self._delimiter)) != self._delimiter[2:] + b"\r\n":
            raise _malformed("the body does not begin with its boundary")
        await self._head(b"manifest")
        return await self._until(self._delimiter + b"\r\n", MAX_MANIFEST, "manifest")

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
        with memoryview(data) as view:
            while filled < total:
                piece = await self._more()
                used = min(len(piece), total - filled)
                view[filled : filled + used] = piece[:used]
                self._buffer += piece[used:]
                filled += used
        self._left -= total
        end = await self._take(self._left)
        async for _ in self._pieces:  # read the final message, to keep the connection open
            pass
        if end.removesuffix(b"\r\n") != self._delimiter + b"--":
            raise _malformed(f"the part data does not end after {total} bytes")
        return data

    async def _head(self, name: bytes) -> None:
        found = _NAME.search(b"\r\n" + await self._until(b"\r\n\r\n", MAX_HEAD, "head"))
        if found is None or found[1] != name:
            raise _malformed("its parts are manifest and data, in this order")

    async def _until(self, end: bytes, most: int, what: str) -> bytes:
        """Return the bytes before `end` and consume both. Raises ApiError 413 for more than `most` bytes."""
        start = 0
        while (position := self._buffer.find(end, start)) < 0:
            start = max(0, len(self._buffer) - len(end) + 1)
            if start > most:
                break
            self._buffer += await self._more()
        if not 0 <= position <= most:
            raise too_large(f"the {what} of a pack has at most {most} bytes")
        return (await self._take(position + len(end)))[:position]

    async def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._buffer += await self._more()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        self._left -= count
        return taken

    async def _more(self) -> bytes:
        try:
            return await anext(self._pieces)
        except StopAsyncIteration:
            raise _malformed("it ends too early") from None


def _malformed(details: str) -> ApiError:
    return ApiError(400, "VALIDATION_ERROR", "The body of the pack is malformed", details=details)
