"""Validation of a creation request (tus 1.0, creation and concatenation)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_server.http.errors import ApiError
from uploader_server.storage.paths import UnsafePathError, safe_parts
from uploader_server.storage.store import ANONYMOUS
from uploader_server.tus.finish import parts_of
from uploader_server.tus.headers import BODY_TYPE, check_length, creation_length, parse_metadata, parse_place
from uploader_server.tus.upload import Upload
from uploader_server.wire import extension

if TYPE_CHECKING:
    from starlette.requests import Request

    from uploader_server.session import Session
    from uploader_server.tus.body import Body
    from uploader_server.tus.uploads import Uploads


MAX_OPEN = 10_000
"""Maximum unfinished uploads."""


async def new_upload(uploads: Uploads, request: Request, body: Body, owner: str) -> Upload:
    """Return a new, unregistered upload for a creation request. Raises ApiError."""
    if body.present and body.kind != BODY_TYPE:
        raise ApiError(415, "WRONG_CONTENT_TYPE", f"A body of a creation has Content-Type: {BODY_TYPE}")
    if len(uploads.open) >= MAX_OPEN:
        raise ApiError(503, "TOO_MANY_UPLOADS", f"There are {MAX_OPEN} unfinished uploads", retry_after=60)
    metadata = request.headers.get("upload-metadata") or None
    session = _session(uploads, parse_metadata(metadata or "").get("sessionId"))
    upload = Upload(
        owner=owner,
        session=session.id if session is not None else "",
        category=session.category if session is not None else ANONYMOUS,
        metadata=metadata,
        concat_header=request.headers.get("upload-concat"),
        length=None,
    )
    parts = await parts_of(uploads, upload.concat)
    upload.length = upload.file.announced = _length(uploads, request, body, parts)
    if upload.is_part:
        upload.place = parse_place(upload.fields)
        upload.counted = None if upload.place is None else 0
        await uploads.gather(upload)
    else:
        _check_file(uploads, upload, session)
    if parts:
        shared = uploads.shared.joined_by(upload, parts)
        upload.data = upload.data if shared is None else shared.name
    if upload.length is not None and (body.length or 0) > upload.length:
        raise ApiError(413, "FILE_TOO_LARGE", "The body is longer than Upload-Length")
    return upload


def _session(uploads: Uploads, session_id: str | None) -> Session | None:
    if session_id is not None:
        return uploads.sessions.find_open(session_id)
    if not uploads.sessions.config.anonymous_tus:
        raise ApiError(403, "SESSION_REQUIRED", "This server requires a session: send sessionId in Upload-Metadata")
    return None


def _length(uploads: Uploads, request: Request, body: Body, parts: list[Upload]) -> int | None:
    if not parts:
        return creation_length(request.headers, uploads.limits.max_size)
    if body.present or "upload-length" in request.headers:
        raise ApiError(400, "INVALID_HEADER", "A final upload has neither a body nor an Upload-Length")
    length = sum(part.length or 0 for part in parts)
    check_length(length, uploads.limits.max_size)
    return length


def _check_file(uploads: Uploads, upload: Upload, session: Session | None) -> None:
    """Raise ApiError 400 for a file that the session can't accept, as a batch does."""
    try:
        safe_parts(upload.file.wanted_path)
    except UnsafePathError as error:
        raise ApiError(400, "INVALID_PATH", str(error)) from error
    name, limits = upload.file.original_name, uploads.limits
    ending = extension(name)
    if not limits.allows(ending):
        formats = [f".{kind}" for kind in limits.types]
        message = f"Files of this type are not accepted: {name}"
        raise ApiError(400, "INVALID_FILE_FORMAT", message, allowedFormats=formats)
    if session is not None and session.file_count >= limits.max_files:
        raise ApiError(400, "TOO_MANY_FILES", f"A session has at most {limits.max_files} files")
    if session is not None and not limits.mixed_types and ending != (session.ending or ending):
        raise ApiError(400, "INVALID_FILE_FORMAT", "All files of a session must have the same type")
