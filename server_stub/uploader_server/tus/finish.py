"""Finishing tus uploads: a plain or final upload becomes a stored file with the upload's id.

A part (concatenation) never becomes a file; its session matters only for cancel.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Sequence

from uploader_server.errors import Refusal
from uploader_server.http.errors import ApiError
from uploader_server.storage.store import Change
from uploader_server.tus.headers import Concat
from uploader_server.tus.upload import FINISHED, JOINED, OPEN, Upload
from uploader_server.tus.uploads import Uploads

EXPECTED_DIGEST = "reprDigest"
"""Metadata key for the SHA-256 (hex) that a creation of the IETF protocol announced; other creations can't set it."""


async def parts_of(uploads: Uploads, concat: Concat) -> list[Upload]:
    """Return the parts of a final upload in order. Raises ApiError if one can't be joined."""
    found = [await uploads.find(part) for part in concat.parts]
    for number, part in enumerate(found, 1):
        if not part.is_part:
            raise ApiError(400, "NOT_A_PART", "Only partial uploads can be concatenated", details=f"part {number}")
        if part.status != FINISHED:
            raise ApiError(400, "PART_UNFINISHED", "Every part must be finished first", details=f"part {number}")
    return found


async def settle(uploads: Uploads, upload: Upload) -> None:
    """Finish an upload if it is complete. The caller holds its lock.

    Safe to repeat after a crash at any step. Raises ApiError 400 if it can't become a file (the upload is gone then);
    OSError, sqlite3.Error if the disk failed (the upload is unchanged).
    """
    if upload.status != OPEN:
        return
    if upload.concat.parts:
        await _concatenate(uploads, upload)
    elif upload.complete and upload.is_part:
        await uploads.store.save(upload, status=FINISHED)
        await uploads.finished(upload)
    elif upload.complete:
        await _become_file(uploads, upload)


async def _concatenate(uploads: Uploads, upload: Upload) -> None:
    async with contextlib.AsyncExitStack() as turns:
        try:
            parts = await parts_of(uploads, upload.concat)
            for part in sorted(parts, key=lambda part: part.id):
                await turns.enter_async_context(uploads.turn(part))
            shared = uploads.shared.joined_by(upload, parts)
            await _measure(uploads, parts)
        except Refusal:
            await uploads.retire(upload, "failed")
            raise
        if shared is None:
            async with uploads.joining.of(upload.holder):
                await asyncio.to_thread(uploads.store.join, upload, parts)
        else:
            upload.data, upload.offset = shared.name, shared.length
        await _become_file(uploads, upload, parts)


async def _measure(uploads: Uploads, parts: Sequence[Upload]) -> None:
    """Raise ApiError 400 if the data of a part is shorter than confirmed; the part is reopened."""
    for number, part in enumerate(parts, 1):
        size = uploads.store.size(part)
        if size < part.offset:
            part.status, part.offset = OPEN, size
            part.counted = None if part.counted is None else size
            uploads.keep(part)
            await uploads.store.save(part)
            message = "The end of a part is missing on the server's disk"
            raise ApiError(400, "PART_UNFINISHED", message, details=f"part {number}")


async def _become_file(uploads: Uploads, upload: Upload, parts: Sequence[Upload] = ()) -> None:
    """Store the data file and record it; `parts` are the uploads it was joined from.

    Raises ApiError 409 if the session has ended: a repeated creation can move the upload to another one.
    """
    sessions, file = uploads.sessions, upload.file
    await asyncio.sleep(uploads.limits.processing)
    file.size, file.sha256 = upload.offset, upload.sha256
    session = sessions.known.get(upload.session)
    if session is not None and session.status == "cancelled":
        await uploads.retire(upload, "cancelled")
        await uploads.check(upload)
    await _check_digest(uploads, upload)
    file.data = uploads.store.data(upload)  # kept until everything is recorded

    def changes() -> list[Change]:
        if file.path is None:
            return []
        joined = [uploads.store.saved(part, status=JOINED, upload_key=None) for part in parts]
        now = uploads.clock.now()  # joining may have taken long
        return [uploads.store.saved(upload, status=FINISHED, path=file.path, touched=now), *joined]

    async with sessions.storing(session):
        await sessions.put(session, upload.category, [file], changes, client=upload.holder, resumable=True)
        if file.path is None:
            await uploads.retire(upload, "failed")
        else:
            await uploads.finished(upload, parts)
            await _record_digest(uploads, upload)
        if session is not None:
            await sessions.announce(session, [file])
    if file.path is None:
        raise ApiError(400, file.error_code or "UPLOAD_FAILED", file.error or "The file can't be stored")


async def _record_digest(uploads: Uploads, upload: Upload) -> None:
    """Record the digest of a file that this call has linked, now that the data file is no second name of it.

    A file that was linked by an earlier call may have changed since; that of an equal one is recorded by `put`.
    """
    store, file = uploads.sessions.store, upload.file
    if file.sha256 and file.linked and file.path is not None:
        with contextlib.suppress(OSError, sqlite3.Error):  # it is computed when it is asked for
            there = store.digests.identify(file.path)
            await store.save(store.digests.saved([(there, file.sha256)]))


async def _check_digest(uploads: Uploads, upload: Upload) -> None:
    """Raise ApiError 400 if the data have another digest than the creation announced; the upload is gone then."""
    announced = upload.fields.get(EXPECTED_DIGEST, "") if upload.by_ietf else ""
    if not announced:
        return
    async with uploads.joining.of(upload.holder):
        found = await asyncio.to_thread(uploads.store.sha256, upload)
    if found.hex() != announced:
        await uploads.retire(upload, "failed")
        raise ApiError(400, "CHECKSUM_MISMATCH", "The file doesn't match Repr-Digest")
    upload.sha256 = upload.file.sha256 = found
