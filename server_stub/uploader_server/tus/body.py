"""The body of a tus request: kept as far as it came or, with a checksum, whole or not at all."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from typing import TYPE_CHECKING, Any

from uploader_server.http.errors import ApiError, ClientGoneError
from uploader_server.session import EVENT_INTERVAL

if TYPE_CHECKING:
    from starlette.requests import Request

    from uploader_server.session import Session
    from uploader_server.storage.writing import Appender
    from uploader_server.tus.headers import Checksum
    from uploader_server.tus.upload import Upload
    from uploader_server.tus.uploads import Uploads

COUNTED_EVERY = 3 << 20
"""Bytes after which a row that counts them is saved; until that is done about as many may arrive."""


class Body:
    """What a request carries."""

    def __init__(self, request: Request) -> None:
        length = request.headers.get("content-length", "")
        self.length = int(length) if length.isdigit() else None
        """Bytes; None: not announced (chunked)."""
        self.there = bool(self.length) or (self.length is None and "transfer-encoding" in request.headers)
        self.complete = not self.there
        """Whether nothing of it is still on its way."""
        self.kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        self._receive = request.receive

    async def piece(self) -> bytes:
        """The next bytes. Raises ClientGoneError where the connection broke off."""
        message = await self._receive()
        if message["type"] != "http.request":
            raise ClientGoneError
        self.complete = not message.get("more_body", False)
        data: bytes = message.get("body", b"")
        return data


class Receiving:
    """One body, appended to one upload. Whoever starts it has the upload's turn."""

    def __init__(self, uploads: Uploads, upload: Upload, body: Body, checksum: Checksum | None) -> None:
        self._uploads = uploads
        self._upload = upload
        self._body = body
        self._checksum = checksum
        self._digest: Any = None if checksum is None else checksum.hasher()
        self._start = upload.offset
        self._room = uploads.most(upload) - upload.offset
        """Bytes that the body may have."""
        self._counts = upload.place is not None or uploads.store.durable
        """Whether the row says how many bytes count, not the length of the data file."""
        self._session: Session | None = uploads.session_of(upload)
        self._began = time.monotonic()
        self._saved = 0
        """Bytes of the body that the row counts, or is going to."""
        self._saving: asyncio.Task[None] | None = None
        self._failure: OSError | sqlite3.Error | None = None

    async def run(self) -> None:
        """Read to the end of the body, or as far as it comes.

        Raises ApiError: 460 for a checksum that doesn't match, 408 where nothing more came, 413 for too many bytes, 423
        where another request took over, 410 where the session was cancelled; ClientGoneError where the connection
        broke off, OSError or sqlite3.Error where the disk failed.
        """
        if (self._body.length or 0) > self._room:
            raise self._too_large()
        if self._upload.waiting:
            raise self._ended()
        appender = await self._open()
        reading = asyncio.create_task(self._read(appender))
        self._upload.writer = reading
        if self._session is not None:
            self._attach(self._session, reading)
        try:
            await asyncio.wait({reading})
        finally:
            reading.cancel()  # of no effect unless the server stops
            await asyncio.wait({reading})
            self._upload.writer = None
            if self._session is not None:
                self._session.requests.discard(reading)
                self._session.touch()
            kept = await self._close(appender, reading)
        if reading.cancelled():
            raise self._ended()
        reading.result()
        if self._failure is not None:
            raise self._failure
        if not kept:
            raise ApiError(460, "CHECKSUM_MISMATCH", "The bytes are not those that Upload-Checksum was made of")

    async def _open(self) -> Appender:
        upload = self._upload
        counted = self._start if self._checksum is not None or self._counts else None
        if upload.counted != counted:
            await self._uploads.store.save(upload, counted=counted)
            upload.counted = counted
        appender = self._uploads.store.appender(upload, [] if self._digest is None else [self._digest])
        upload.claimed = self._start + (self._room if self._body.length is None else self._body.length)
        return appender

    async def _close(self, appender: Appender, reading: asyncio.Task[None]) -> bool:
        """Bring file, offset and row in line; whether the bytes were kept."""
        upload, store = self._upload, self._uploads.store
        whole = not reading.cancelled() and reading.exception() is None
        try:
            await self._finish(appender)
        except (OSError, sqlite3.Error) as error:
            self._failure, whole = error, False
        kept = self._checksum is None or (whole and self._digest.digest() == self._checksum.expected)
        if kept:
            upload.offset = self._start + appender.safe
            if self._checksum is not None and self._checksum.algorithm == "sha256" and not self._start:
                upload.sha256 = self._checksum.expected if upload.complete else b""
        if upload.offset < self._start + appender.written:
            await asyncio.to_thread(store.cut, upload, upload.offset)
        upload.touched, upload.file.size, upload.claimed = time.time(), upload.offset, 0
        if upload.counted is not None:
            upload.counted = upload.offset
            if not upload.complete:  # else the end of the upload is saved next
                await store.save(upload)
        return kept

    async def _finish(self, appender: Appender) -> None:
        try:
            await self._wait_for_save()
        finally:
            await appender.close()

    def _attach(self, session: Session, reading: asyncio.Task[None]) -> None:
        if not session.requests:
            session.began = self._began
        session.requests.add(reading)
        session.touch()

    async def _read(self, appender: Appender) -> None:
        loop = asyncio.get_running_loop()
        idle_timeout = self._uploads.sessions.config.idle_timeout
        try:
            async with asyncio.timeout(idle_timeout) as idle:
                while not self._body.complete:
                    piece = await self._body.piece()
                    idle.reschedule(loop.time() + idle_timeout)
                    if appender.taken + len(piece) > self._room:
                        raise self._too_large()
                    if piece:
                        await appender.write(piece)
                        if self._counts and self._checksum is None:
                            await self._count(appender)
                        await self._report(self._start + appender.taken)
        except TimeoutError:
            raise ApiError(408, "UPLOAD_FAILED", "The request stopped sending") from None

    async def _count(self, appender: Appender) -> None:
        """Have the row count what is written, so that it is never 8 MiB behind."""
        written = appender.written
        if written - self._saved >= COUNTED_EVERY:
            await self._wait_for_save()
            self._saved = written
            self._saving = asyncio.create_task(self._save(appender))

    async def _wait_for_save(self) -> None:
        if self._saving is not None:
            await asyncio.wait({self._saving})  # unlike an await of the task itself, a cancel of this ends no save
            self._saving.result()

    async def _save(self, appender: Appender) -> None:
        await appender.flush()
        self._upload.counted = self._start + appender.safe
        await self._uploads.store.save(self._upload)

    async def _report(self, taken: int) -> None:
        """Tell the room, at most ten times a second; a part is no file and has nothing to tell."""
        session, file = self._session, self._upload.file
        file.size = taken
        if session is None or self._upload.concat.kind == "partial":
            return
        percent = min(99, 100 * taken // self._upload.length) if self._upload.length else 0
        if percent > file.progress:
            session.advance(file, percent)
        now = time.monotonic()
        if now - session.reported >= EVENT_INTERVAL:
            session.reported = now
            file.speed = (taken - self._start) / max(now - self._began, 1e-6)
            await self._uploads.sessions.emit(session.id, session.event(f"Receiving {file.original_name}", file))

    def _too_large(self) -> ApiError:
        return ApiError(413, "FILE_TOO_LARGE", f"The upload ends at {self._start + self._room} bytes")

    def _ended(self) -> ApiError:
        if self._session is not None and self._session.status == "cancelled":
            return ApiError(410, "CANCELLED", "The session was cancelled")
        return ApiError(423, "UPLOAD_TAKEN_OVER", "Another request for this upload ended this one; ask for the offset")
