"""The end of a tus upload whose bytes are all there.

A plain or final upload becomes a file exactly as one of a batch does (wire contract 1), under the upload's own id. A
part (concatenation) is never a file; it is bound to its session only for cancel.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from server_stub.sessions import file_row
from server_stub.tus_upload import FINISHED, OPEN
from server_stub.wire import ApiError

if TYPE_CHECKING:
    from server_stub.tus_headers import Concat
    from server_stub.tus_upload import Upload
    from server_stub.tus_uploads import Uploads


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
    server, file = uploads.server, upload.file
    await asyncio.sleep(uploads.limits.processing)
    if upload.hasher is None:  # its state went with an earlier server
        await asyncio.to_thread(uploads.store.hash, upload)
    file.size, file.sha256 = upload.offset, upload.hasher.digest()
    if _cancelled(uploads, upload):
        uploads.retire(upload, "cancelled")
        uploads.check(upload)
    file.temporary = uploads.store.spare(upload)
    await asyncio.to_thread(server.place, upload.category, [file])
    if file.temporary is not None:
        file.temporary.unlink(missing_ok=True)
    session = uploads.session_of(upload)
    if session is not None:
        await server.account(session, [file])
    else:
        server.store.save_files([file_row("", 0, file)])
    if file.path is None:
        uploads.retire(upload, "failed")
        raise ApiError(400, file.error_code or "UPLOAD_FAILED", file.error or "The file can't be stored")
    uploads.finished(upload, Path(file.path), file.sha256)


def _cancelled(uploads: Uploads, upload: Upload) -> bool:
    session = uploads.server.sessions.get(upload.session)
    return session is not None and session.status == "cancelled"
