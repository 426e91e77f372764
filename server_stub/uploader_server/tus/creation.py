"""Creation of uploads, whose requests may have the first bytes of the file, or all of them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping

from starlette.requests import Request

from uploader_server.errors import Refusal
from uploader_server.http.errors import ApiError, as_api_error
from uploader_server.session import Session
from uploader_server.shares import holder_of
from uploader_server.storage.paths import UnsafePathError, check_short, is_shallow, safe_parts
from uploader_server.storage.put import refusal
from uploader_server.storage.store import ANONYMOUS
from uploader_server.storage.writing import SMALL
from uploader_server.tus.body import Body, Receiving
from uploader_server.tus.finish import settle
from uploader_server.tus.headers import Checksum, parse_metadata
from uploader_server.tus.saved import UNSAVED
from uploader_server.tus.upload import OPEN, Upload
from uploader_server.tus.uploads import Uploads
from uploader_server.wire import TUS

METADATA = 6  # bytes of memory for each character of Upload-Metadata, encoded and decoded


def new_upload(
    uploads: Uploads, request: Request, metadata: str | None, owner: str, concat: str | None = None
) -> tuple[Upload, Session | None]:
    """Return a new, unregistered upload without a length, and its session. Raises ApiError."""
    session = _session(uploads, parse_metadata(metadata or "").get("sessionId"), request.headers)
    upload = Upload(
        owner=owner,
        session=session.id if session is not None else "",
        category=session.category if session is not None else ANONYMOUS,
        metadata=metadata,
        concat_header=concat,
        length=None,
        holder=holder_of(request.scope),
        touched=uploads.clock.now(),
    )
    _check_path(upload)
    return upload, session


def check_file(uploads: Uploads, upload: Upload, session: Session | None) -> None:
    """Raise Refusal for a file that the session can't accept, as a batch does."""
    if session is not None:
        session.check_file(upload.file.original_name, uploads.limits)  # again when it is added
    else:
        uploads.limits.check(upload.file.original_name, None)


async def begin(uploads: Uploads, upload: Upload, body: Body, checksum: Checksum | None) -> Upload | None:
    """Register a new upload and receive the body of its creation. Return the upload that has its key already, if any.

    Raises ApiError, with `Location` once the upload is registered.
    """
    while not upload.concat.parts and (empty := uploads.share.make_room(upload.holder)) is not None:
        await uploads.retire(empty, "expired")
    known = None
    if upload.concat.parts:  # a concurrent request may have finished one with this key
        known = await uploads.find_key(upload.owner, upload.key)
    known = known or uploads.unfinished(upload.owner, upload.key)
    if known is not None:
        return known
    await _check_place(uploads, upload)
    if uploads.store.durable or (body.present and checksum is not None):
        upload.counted = 0
    uploads.shared.check(upload, uploads.limits.max_size)
    uploads.keep(upload)
    try:
        async with uploads.turn(upload):
            await _receive(uploads, upload, body, checksum)
    except Refusal as error:
        refused = as_api_error(error)
        refused.headers["location"] = TUS + upload.id
        raise refused from error
    return None


async def _receive(uploads: Uploads, upload: Upload, body: Body, checksum: Checksum | None) -> None:
    """Save a new upload and receive the body of its creation; a small whole file is saved only once."""
    late = body.length == upload.length and 0 < (body.length or 0) <= SMALL and not upload.is_part
    if late:
        upload.data = UNSAVED + upload.data
    await uploads.add(upload, save=not late)
    try:
        if body.present:
            await Receiving(uploads, upload, body, checksum).run()
        await settle(uploads, upload)
    finally:
        if late and upload.status == OPEN:
            await uploads.store.make(upload)
            await uploads.store.save(upload)


def _session(uploads: Uploads, session_id: str | None, headers: Mapping[str, str]) -> Session | None:
    if session_id is not None:
        return uploads.sessions.find_open(session_id, headers)
    if not uploads.sessions.config.anonymous_tus:
        raise ApiError(403, "SESSION_REQUIRED", "This server requires a session: send sessionId in Upload-Metadata")
    return None


async def _check_place(uploads: Uploads, upload: Upload) -> None:
    """Raise ApiError 400 for a file that can't be stored: its client would send all its bytes in vain.

    A part has the path of its file if it is written in place; otherwise its path means nothing.
    """
    if upload.is_part and upload.place is None:
        return
    check = functools.partial(refusal, uploads.sessions.store, upload.file, upload.category)
    refused = check() if is_shallow(upload.file.wanted_path) else await asyncio.to_thread(check)
    if refused is not None:
        raise ApiError(400, *refused)


def _check_path(upload: Upload) -> None:
    """Raise ApiError 400 for a name or path that is too long or, except of a part, leads out of the category."""
    try:
        check_short(upload.file.original_name)
        if upload.is_part:
            check_short(upload.file.wanted_path)
        else:
            safe_parts(upload.file.wanted_path)
    except UnsafePathError as error:
        raise ApiError(400, "INVALID_PATH", str(error)) from error
