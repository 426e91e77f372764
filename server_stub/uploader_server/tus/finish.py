"""The end of a tus upload whose bytes are all there.

A plain or final upload becomes a file as one of a batch does (docs/protocol.md, section 1), under the upload's own id.
A part (concatenation) is never a file; it is bound to its session only for cancel.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from uploader_server.http.errors import ApiError
from uploader_server.session import file_row
from uploader_server.tus.upload import FINISHED, OPEN

if TYPE_CHECKING:
    from uploader_server.tus.headers import Concat
    from uploader_server.tus.upload import Upload
    from uploader_server.tus.uploads import Uploads


def parts_of(uploads: Uploads, concat: Concat) -> list[Upload]:
    """The parts that a final upload names, in order. Raises ApiError where one can't be used."""
    found = [uploads.find(part) for part in concat.parts]
    for part in found:
        if part.concat.kind != "partial":
            raise ApiError(400, "NOT_A_PART", "Only partial uploads can be concatenated", details=part.id)
        if part.status != FINISHED:
            raise ApiError(400, "PART_UNFINISHED", "Every part must be finished first", details=part.id)
    return found


async def settle(uploads: Uploads, upload: Upload) -> None:
    """Finish an upload whose bytes are all there; nothing to do for any other. The caller has the turn.

    It may be repeated after a crash at any step: a file that already has its name is found by its digest. Raises
    ApiError 400 where it can't become a file (then it is gone), OSError where the disk failed (then it is as it was).
    """
    if upload.status != OPEN:
        return
    if upload.concat.parts:
        await _concatenate(uploads, upload)
    elif upload.complete and upload.concat.kind == "partial":
        uploads.finished(upload, None)
    elif upload.complete:
        await _become_file(uploads, upload)


async def _concatenate(uploads: Uploads, upload: Upload) -> None:
    async with contextlib.AsyncExitStack() as turns:
        try:
            parts = parts_of(uploads, upload.concat)
            for part in sorted(set(parts), key=lambda part: part.id):
                await turns.enter_async_context(uploads.turn(part))
        except ApiError:
            uploads.retire(upload, "failed")
            raise
        await asyncio.to_thread(uploads.store.join, upload, parts)
        await _become_file(uploads, upload)
        for part in parts:
            uploads.retire(part, "concatenated")


async def _become_file(uploads: Uploads, upload: Upload) -> None:
    sessions, file = uploads.sessions, upload.file
    await asyncio.sleep(uploads.limits.processing)
    if upload.hasher is None:  # its state went with an earlier server
        await asyncio.to_thread(uploads.store.hash, upload)
    file.size, file.sha256 = upload.offset, upload.hasher.digest()
    if _cancelled(uploads, upload):
        uploads.retire(upload, "cancelled")
        uploads.check(upload)
    file.temporary = uploads.store.spare(upload)
    await asyncio.to_thread(sessions.place, upload.category, [file])
    if file.temporary is not None:
        file.temporary.unlink(missing_ok=True)
    session = uploads.session_of(upload)
    if session is not None:
        await sessions.account(session, [file])
    else:
        sessions.store.save_files([file_row("", 0, file)])
    if file.path is None:
        uploads.retire(upload, "failed")
        raise ApiError(400, file.error_code or "UPLOAD_FAILED", file.error or "The file can't be stored")
    uploads.finished(upload, Path(file.path), file.sha256)


def _cancelled(uploads: Uploads, upload: Upload) -> bool:
    session = uploads.sessions.known.get(upload.session)
    return session is not None and session.status == "cancelled"


async def sweep(uploads: Uploads) -> None:
    """Finish what a crash left complete; then remove what nobody touched for its time to live, until cancelled."""
    for upload in uploads.open_ones():
        with contextlib.suppress(ApiError, OSError):
            async with uploads.turn(upload):
                await settle(uploads, upload)
    while True:
        await asyncio.sleep(min(60.0, uploads.ttl / 4))
        for upload_id in uploads.store.untouched_since(time.time() - uploads.ttl):
            with contextlib.suppress(ApiError):
                uploads.expire(upload_id)
