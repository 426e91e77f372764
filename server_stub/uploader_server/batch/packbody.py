"""The body of a pack (docs/extensions.md): the parts `manifest` and `data`, in this order."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from typing import NamedTuple

from multipart import parse_options_header  # type: ignore[import-untyped]
from starlette.requests import Request

from uploader_server.config import Limits
from uploader_server.http.bodies import Bodies, PackLimits, schemas
from uploader_server.http.errors import ApiError, check_segments, parse_json, pieces
from uploader_server.http.memory import held_by
from uploader_server.pace import Pace
from uploader_server.storage.paths import MAX_NAME, UnsafePathError, check_short, shortened
from uploader_server.storage.store import packed_mark

MAX_MANIFEST = 4 << 20  # maximum bytes of a manifest
_BODIES = Bodies(schemas(Limits(), large_packs=True))  # what is too large for a pack is a 413
ENTRY = 1 << 10  # bytes of memory for each file besides its path: its entry, result, row and answer
MAX_PART_HEAD = 16 << 10  # maximum bytes of the headers of a part
FRAMING = 64 << 10  # maximum bytes of a body besides manifest and data
_NAME = re.compile(rb'^content-disposition:[^\r\n]*;[ \t]*name="?([^";\r\n]*)"?', re.IGNORECASE | re.MULTILINE)


class Entry(NamedTuple):
    path: str  # path below the category; not checked for safety yet
    size: int  # bytes
    sha256: str  # 64 lower-case hex digits
    modified: int  # milliseconds since the epoch


class Manifest(NamedTuple):
    session: str
    entries: list[Entry]
    total: int  # bytes of the data
    may_rename: bool  # whether a file gets another name if its own is taken
    digest: bytes  # SHA-256 of the files; requests with the same key must have the same digest
    kept: int  # bytes of memory that the manifest and the results of its files need
    refused: dict[int, str]  # reasons by index of the entries whose path is too long; only its beginning is kept
    marks: list[int]  # of the entries, for `Session.counted`


def parse_manifest(text: bytes, limits: PackLimits) -> Manifest:
    """Parse a manifest. Raises ApiError: 400 if it is invalid, 413 if the pack is too large."""
    try:
        body = parse_json(text)
    except ValueError as error:
        raise _wrong(f"it is not JSON in UTF-8: {error}") from error
    if problems := _BODIES.problems("Manifest", body):
        raise _wrong(problems[0])
    files = body["files"]
    if len(files) > limits.files:
        raise too_large(f"a pack has at most {limits.files} files")
    entries = [Entry(file["relativePath"], file["size"], file["sha256"], file["lastModified"]) for file in files]
    if max(entry.size for entry in entries) > limits.file_size:
        raise too_large(f"a file of a pack has at most {limits.file_size} bytes")
    total = sum(entry.size for entry in entries)
    if total > limits.bytes:
        raise too_large(f"a pack has at most {limits.bytes} bytes")
    digest, refused = _digest(entries), _refuse_paths(entries)
    check_segments((entry.path for entry in entries), "PACK_TOO_LARGE")
    kept = ENTRY * len(entries) + sum(map(sys.getsizeof, [entry.path for entry in entries]))
    may_rename = body.get("ifExists") != "fail"
    marks = [packed_mark(entry.path, entry.sha256) for entry in entries]
    return Manifest(body["sessionId"], entries, total, may_rename, digest, kept, refused, marks)


def _refuse_paths(entries: list[Entry]) -> dict[int, str]:
    """Shorten the paths that are too long; return the reasons by their index."""
    refused = {}
    for index, entry in enumerate(entries):
        if len(entry.path) <= MAX_NAME and entry.path.isascii():
            continue  # it is short enough
        try:
            check_short(entry.path)
        except UnsafePathError as error:
            entries[index] = entry._replace(path=shortened(entry.path))
            refused[index] = str(error)
    return refused


def _digest(entries: list[Entry]) -> bytes:
    try:
        text = json.dumps(entries, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise _wrong("a relativePath is not valid Unicode: it has a lone surrogate") from error
    return hashlib.sha256(text).digest()


def _wrong(details: str) -> ApiError:
    return ApiError(400, "INVALID_MANIFEST", "The manifest of the pack is invalid", details=details)


def too_large(details: str) -> ApiError:
    """Return a 413 that asks for a smaller pack."""
    return ApiError(413, "PACK_TOO_LARGE", "Send a smaller pack", details=details)


class PackBody:
    """Reads `manifest`, then `data`, and adds what arrives to what the request holds.

    Every call raises as `pieces` and `Held.add`, and ApiError 400 for a malformed body.
    """

    def __init__(self, request: Request, pace: Pace) -> None:
        self.held = held_by(request)
        self._headers = request.headers
        self._pieces = pieces(request.receive, pace)
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
        if await self._take(len(self._delimiter)) != self._delimiter[2:] + b"\r\n":
            raise _malformed("the body does not begin with its boundary")
        await self._head(b"manifest")
        return await self._until(self._delimiter + b"\r\n", MAX_MANIFEST, "manifest")

    def forget_manifest(self, kept: int) -> None:
        """Hold only `kept` bytes of the manifest, besides what follows it."""
        self.held.resize(kept + len(self._buffer))

    async def begin_data(self, total: int) -> None:
        """Read the headers of the second part.

        Raises ApiError: 400 if it can't have `total` bytes, 503 if there is no room for them now.
        """
        self.held.check(total - len(self._buffer))
        await self._head(b"data")
        end = len(self._delimiter) + 2
        if not end <= self._left - total <= end + 2:
            raise _malformed(f"the part data must have {total} bytes, and be the last one")

    async def data(self, total: int) -> bytearray:
        """Read the rest of the body and return the second part, which has `total` bytes."""
        data = self._buffer
        while len(data) < total:
            data += await self._more()
        self._buffer = data[total:]
        del data[total:]
        self._left -= total
        end = await self._take(self._left)
        async for _ in self._pieces:  # read the final message, to keep the connection open
            pass
        if end.removesuffix(b"\r\n") != self._delimiter + b"--":
            raise _malformed(f"the part data does not end after {total} bytes")
        return data

    async def _head(self, name: bytes) -> None:
        found = _NAME.search(b"\r\n" + await self._until(b"\r\n\r\n", MAX_PART_HEAD, "head"))
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
        found = await self._take(position)
        await self._take(len(end))
        return found

    async def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._buffer += await self._more()
        with memoryview(self._buffer) as view:
            taken = bytes(view[:count])
        del self._buffer[:count]
        self._left -= count
        return taken

    async def _more(self) -> bytes:
        try:
            piece = await anext(self._pieces)
            self.held.add(len(piece))
            return piece
        except StopAsyncIteration:
            raise _malformed("it ends too early") from None


def _malformed(details: str) -> ApiError:
    return ApiError(400, "VALIDATION_ERROR", "The body of the pack is malformed", details=details)
