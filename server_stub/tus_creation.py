"""A creation (tus 1.0, creation and concatenation): everything that is refused before an upload exists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server_stub.store import ANONYMOUS
from server_stub.stored_paths import UnsafePathError, safe_parts
from server_stub.tus_finish import parts_of
from server_stub.tus_headers import BODY_TYPE, check_length, creation_length, parse_concat, parse_metadata
from server_stub.tus_upload import Upload
from server_stub.wire import ApiError, extension

if TYPE_CHECKING:
    from starlette.requests import Request

    from server_stub.sessions import Session
    from server_stub.tus_body import Body
    from server_stub.tus_uploads import Uploads


def new_upload(uploads: Uploads, request: Request, body: Body, owner: str) -> Upload:
    """The upload that a creation asks for, not yet known to anybody. Raises ApiError."""
    if body.there and body.kind != BODY_TYPE:
        raise ApiError(415, "WRONG_CONTENT_TYPE", f"A body of a creation has Content-Type: {BODY_TYPE}")
    metadata = request.headers.get("upload-metadata") or None
    session = _session(uploads, parse_metadata(metadata or "").get("sessionId"))
    upload = Upload(
        owner=owner,
        session=session.id if session is not None else "",
        category=session.category if session is not None else ANONYMOUS,
        metadata=metadata,
        concat_header=request.headers.get("upload-concat"),
        length=_length(uploads, request, body),
    )
    if upload.concat.kind != "partial":
        _check_file(uploads, upload, session)
    if upload.length is not None and (body.length or 0) > upload.length:
        raise ApiError(413, "FILE_TOO_LARGE", "The body is longer than Upload-Length")
    return upload


def _session(uploads: Uploads, session_id: str | None) -> Session | None:
    if session_id is not None:
        return uploads.server.find_open(session_id)
    if not uploads.server.config.anonymous_tus:
        raise ApiError(403, "SESSION_REQUIRED", "This server takes uploads of sessions only: send sessionId")
    return None


def _length(uploads: Uploads, request: Request, body: Body) -> int | None:
    concat = parse_concat(request.headers.get("upload-concat"))
    if concat.kind != "final":
        return creation_length(request.headers, uploads.limits.max_size)
    if body.there or "upload-length" in request.headers:
        raise ApiError(400, "INVALID_HEADER", "A final upload has neither a body nor an Upload-Length")
    length = sum(part.length or 0 for part in parts_of(uploads, concat))
    check_length(length, uploads.limits.max_size)
    return length


def _check_file(uploads: Uploads, upload: Upload, session: Session | None) -> None:
    """Raises ApiError 400 for what could not become a file of its session, as a batch does."""
    try:
        safe_parts(upload.wanted_path)
    except UnsafePathError as error:
        raise ApiError(400, "INVALID_PATH", str(error)) from error
    ending, limits = extension(upload.name), uploads.limits
    if not limits.allows(ending):
        formats = [f".{kind}" for kind in limits.types]
        message = f"Files of this type are not accepted: {upload.name}"
        raise ApiError(400, "INVALID_FILE_FORMAT", message, allowedFormats=formats)
    files = list(session.files.values()) if session is not None else []
    if len(files) >= limits.max_files:
        raise ApiError(400, "TOO_MANY_FILES", f"A session holds at most {limits.max_files} files")
    if files and not limits.mixed_types and ending != extension(files[0].original_name):
        raise ApiError(400, "INVALID_FILE_FORMAT", "All files of a session must have the same type")
