"""Responses with stored files, and their digest header."""

from __future__ import annotations

import asyncio
import base64
import errno
import functools
import mimetypes
import os
import re
from collections.abc import Mapping
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

from uploader_server.http.answers import LARGEST_PIECE, PIECE, QUEUED, PacedSend
from uploader_server.http.errors import ApiError
from uploader_server.shares import holder_of
from uploader_server.storage.categories import OpenFile
from uploader_server.storage.disk import in_memory
from uploader_server.storage.reading import StoredFile
from uploader_server.storage.store import Store

_WANTED = re.compile(r"(?:^|,)\s*sha-256\s*=\s*0*[1-9]\d*\s*(?:,|$)", re.IGNORECASE)


def repr_digest(sha256: bytes) -> dict[str, str]:
    """Return the `Repr-Digest` header (RFC 9530), or no header for an unknown digest."""
    return {"repr-digest": f"sha-256=:{base64.b64encode(sha256).decode()}:"} if sha256 else {}


async def digest_header(store: Store, file: StoredFile, request: Request) -> dict[str, str]:
    """Return `Repr-Digest` of a stored file if it is known or requested by `Want-Repr-Digest` (RFC 9530).

    Raises ApiError 503 while the digest is being computed, OSError and sqlite3.Error if the disk fails. A file that
    can't be read has no digest.
    """
    if _WANTED.search(request.headers.get("want-repr-digest", "")) is None:
        return repr_digest((await store.digests.known([file])).get(file, b""))
    sha256 = (await store.digests.compute([file], holder_of(request.scope))).get(file)
    if sha256 is None:
        raise ApiError(503, "DIGEST_PENDING", "The digest is being computed; ask again", retry_after=10)
    return repr_digest(sha256)


MOST_BUFFERS = 4
_buffers: list[bytearray] = []
"""Large buffers of ended downloads: memory that is new to the process costs as much time as the bytes."""
UNWATCHED = QUEUED * LARGEST_PIECE
"""Bytes of a file that are sent without a look at the client: the ASGI server takes as many for one that is gone."""


class Download(FileResponse):
    """A response with an open file, which it closes, and with range support; the type is guessed from the name.

    Uploaded files are untrusted: headers make browsers download them and run no scripts.
    """

    chunk_size = LARGEST_PIECE  # of ranges; each is read in a thread

    def __init__(self, path: str, file: OpenFile, headers: Mapping[str, str]) -> None:
        name = path.rpartition("/")[2]
        guarded = {
            "content-disposition": f"attachment; filename*=UTF-8''{quote(os.fsencode(name), safe='')}",
            "x-content-type-options": "nosniff",
            "content-security-policy": "sandbox",
        }
        self._fd, self._size, self._device = file.fd, file.status.st_size, file.status.st_dev
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        opened = f"/dev/fd/{file.fd}"  # not its name, which may lead elsewhere by now
        super().__init__(opened, headers={**guarded, **headers}, media_type=kind, stat_result=file.status)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response.

        The ASGI server doesn't send the file itself, which would be no quicker: it takes a path, and opens that after
        this call, when the descriptor is closed and its number may be that of another file.
        """
        try:
            if scope["method"] == "GET" and "range" not in Headers(scope=scope):
                await self._send_whole(scope["answer"], receive, send)
            else:
                await super().__call__({**scope, "extensions": {}}, receive, send)
        finally:
            os.close(self._fd)

    async def _send_whole(self, answer: PacedSend, receive: Receive, send: Send) -> None:
        """Send as many bytes as the file had when it was opened, until the client disconnects.

        Where the file has become shorter, the ASGI server closes the connection.
        """
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        buffer = bytearray(min(self._size, PIECE))
        gone = asyncio.ensure_future(_disconnect(receive)) if self._size > UNWATCHED else None
        try:
            at, more = 0, True
            while more and (gone is None or not gone.done()):
                if answer.piece != len(buffer) and at:
                    buffer = _buffer(buffer, answer.piece)
                piece = await self._read(buffer, at)
                at += len(piece)
                more = at < self._size
                if more and not piece:
                    break
                await send({"type": "http.response.body", "body": piece, "more_body": more})
                if gone is not None:
                    await asyncio.sleep(0)  # the ASGI server takes the pieces for a client that is gone at once
        finally:
            if gone is not None:
                gone.cancel()
        _buffer(buffer, 0)  # not after an error: a thread may be reading into it

    async def _read(self, buffer: bytearray, at: int) -> bytes | bytearray:
        """Return the next bytes of the file: the buffer itself if they fill it.

        They are read in a thread, unless the system has them in its cache or the file system is in memory.
        """
        try:
            count = self._read_at_once(buffer, at)
        except (OSError, AttributeError):  # not in the cache, or not on this system
            count = await asyncio.get_running_loop().run_in_executor(None, os.preadv, self._fd, [buffer], at)
        count = min(count, self._size - at)
        return buffer if count == len(buffer) else bytes(memoryview(buffer)[:count])

    def _read_at_once(self, buffer: bytearray, at: int) -> int:
        """Read without a wait for the disk; return the number of bytes. Raises OSError where this is not possible."""
        try:
            return os.preadv(self._fd, [buffer], at, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP or not self._in_memory:  # tmpfs does not support it
                raise
            return os.preadv(self._fd, [buffer], at)

    @functools.cached_property
    def _in_memory(self) -> bool:
        return in_memory(self._device)


def _buffer(old: bytearray, size: int) -> bytearray:
    """Return a buffer in exchange for another one; large ones are kept for others."""
    if len(old) == LARGEST_PIECE and len(_buffers) < MOST_BUFFERS:
        _buffers.append(old)
    return _buffers.pop() if size == LARGEST_PIECE and _buffers else bytearray(size)


async def _disconnect(receive: Receive) -> None:
    """Return when the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass
