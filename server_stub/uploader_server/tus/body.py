"""Receiving the body of a tus request: partial bodies are kept, unless there is a checksum."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from typing import Any

from starlette.requests import Request

from uploader_server.errors import Refusal
from uploader_server.http.errors import ApiError, pieces
from uploader_server.session import Session
from uploader_server.storage.writing import Appender
from uploader_server.tus.checksums import CHECKSUMS
from uploader_server.tus.headers import Checksum
from uploader_server.tus.upload import Upload
from uploader_server.tus.uploads import Uploads

COUNTED_EVERY = 3 << 20  # bytes between two saves of the offset; about as many may arrive during a save


class Body:
    """The body of a request, as its headers describe it."""

    def __init__(self, request: Request) -> None:
        length = request.headers.get("content-length", "")
        self.length = int(length) if length.isdigit() else None  # Content-Length in bytes; None if chunked
        self.present = bool(self.length) or (self.length is None and "transfer-encoding" in request.headers)
        self.kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        self.receive = request.receive


class Receiving:
    """Appends one body to an upload; the caller holds the upload's lock (`Uploads.turn`)."""

    def __init__(self, uploads: Uploads, upload: Upload, body: Body, checksum: Checksum | None) -> None:
        self._uploads = uploads
        self._upload = upload
        self._body = body
        self._checksum = checksum
        self._digest: Any = None if checksum is None else CHECKSUMS[checksum.algorithm]()
        self._start = upload.offset
        self._limit = uploads.most(upload) - upload.offset  # maximum bytes of the body
        self._counts = upload.place is not None or uploads.store.durable
        """Whether the database row has the offset; else it is the length of the data file."""
        self._session: Session | None = uploads.session_of(upload)
        self._began = time.monotonic()
        self._saved = 0  # bytes of the body that are saved in the row, or being saved
        self._saving: asyncio.Task[None] | None = None
        self._failure: OSError | sqlite3.Error | None = None

    async def run(self) -> None:
        """Receive the body.

        Raises ApiError: 408 for a slow body, 409 if the session has ended, 410 if it is cancelled meanwhile, 413 for
        too many bytes, 423 if another request took over, 460 for a wrong checksum; ClientDisconnect if the connection
        closed, OSError or sqlite3.Error if the disk failed.
        """
        self._uploads.check_session(self._upload)
        if (self._body.length or 0) > self._limit:
            raise self._too_large()
        if self._upload.waiting:
            raise self._ended()
        appender = await self._open()
        reading = asyncio.create_task(self._read(appender))
        self._upload.writer = reading
        try:
            if self._session is not None:
                self._session.attach(reading)
            await asyncio.wait({reading})
        finally:
            reading.cancel()  # still running only if the server stops
            await asyncio.wait({reading})
            self._upload.writer = None
            if self._session is not None:
                self._session.detach(reading)
            kept = await self._close(appender, reading)
        if reading.cancelled():
            raise self._ended()
        reading.result()
        if self._failure is not None:
            raise self._failure
        if not kept:
            raise ApiError(460, "CHECKSUM_MISMATCH", "The bytes don't match Upload-Checksum")

    async def _open(self) -> Appender:
        upload = self._upload
        counted = self._start if self._checksum is not None or self._counts else None
        if upload.counted != counted:
            await self._uploads.store.save(upload, counted=counted)
            upload.counted = counted
        appender = await self._uploads.store.appender(upload, [] if self._digest is None else [self._digest])
        upload.claimed = self._start + (self._limit if self._body.length is None else self._body.length)
        return appender

    async def _close(self, appender: Appender, reading: asyncio.Task[None]) -> bool:
        """Make file, offset and row consistent; return whether the bytes are kept."""
        upload, store = self._upload, self._uploads.store
        whole = not reading.cancelled() and reading.exception() is None
        try:
            try:
                await self._wait_for_save()
            finally:
                await appender.close()
        except (OSError, sqlite3.Error) as error:
            self._failure, whole = error, False
        kept = self._checksum is None or (whole and self._digest.digest() == self._checksum.expected)
        if kept:
            upload.offset = self._start + appender.safe
            if self._checksum is not None and self._checksum.algorithm == "sha256" and not self._start:
                upload.sha256 = self._checksum.expected if upload.complete else b""
        if upload.offset < self._start + appender.written:
            await asyncio.to_thread(store.cut, upload, upload.offset)
        upload.touched, upload.file.size, upload.claimed = self._uploads.clock.now(), upload.offset, 0
        if self._session is not None:
            self._session.measure(upload.file)
            if upload.file_id in self._session.parts:
                self._session.parts[upload.file_id] = upload.offset
        if upload.counted is not None:
            upload.counted = upload.offset
            if not upload.complete:  # a complete upload is saved when it is finished
                await store.save(upload)
        return kept

    async def _read(self, appender: Appender) -> None:
        async for piece in pieces(self._body.receive, self._uploads.sessions.config.pace):
            if appender.taken + len(piece) > self._limit:
                raise self._too_large()
            if piece:
                await appender.write(piece)
                if self._counts and self._checksum is None:
                    await self._count(appender)
                await self._report(self._start + appender.taken)

    async def _count(self, appender: Appender) -> None:
        """Save the offset regularly, so that the row is less than 8 MiB behind."""
        written = appender.written
        if written - self._saved >= COUNTED_EVERY:
            await self._wait_for_save()
            self._saved = written
            self._saving = asyncio.create_task(self._save(appender))

    async def _wait_for_save(self) -> None:
        if self._saving is not None:
            await asyncio.wait({self._saving})  # cancelling this wait doesn't cancel the save
            self._saving.result()

    async def _save(self, appender: Appender) -> None:
        await appender.flush()
        self._upload.counted = self._start + appender.safe
        await self._uploads.store.save(self._upload)

    async def _report(self, taken: int) -> None:
        """Report the progress of the file; parts are counted, without events."""
        upload = self._upload
        upload.file.size = taken
        if self._session is not None and upload.is_part:
            self._session.parts[upload.file_id] = taken
        elif self._session is not None:
            percent = 100 * taken // upload.length if upload.length else 0
            speed = (taken - self._start) / max(time.monotonic() - self._began, 1e-6)
            await self._uploads.sessions.arriving(self._session, upload.file, percent, speed)

    def _too_large(self) -> ApiError:
        return ApiError(413, "FILE_TOO_LARGE", f"The upload has at most {self._start + self._limit} bytes")

    def _ended(self) -> Refusal:
        if self._session is not None and self._session.status == "cancelled":
            return ApiError(410, "CANCELLED", "The session was cancelled")
        try:
            self._uploads.check_session(self._upload)
        except Refusal as error:
            return error
        return ApiError(423, "UPLOAD_TAKEN_OVER", "Another request took over this upload; send HEAD for the offset")
