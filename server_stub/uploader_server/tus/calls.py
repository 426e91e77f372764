"""tus 1.0 over HTTP at `/api/upload/files/` (docs/protocol.md, section 5).

Responses for a finished upload have `Content-Location: /uploads/{category}/{fileName}`, `Upload-File-Id` (the id in
events, `/progress` and DELETE) and, if known, `Repr-Digest`. `Location` is a path here; `http.proxies` makes a URL of
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import formatdate
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from uploader_server.http.auth import owner_of
from uploader_server.http.errors import ApiError, as_api_error
from uploader_server.http.files import Download, digest_header, repr_digest
from uploader_server.http.memory import held_by
from uploader_server.http.shares import holder_of
from uploader_server.session import Session
from uploader_server.storage.paths import UnsafePathError, check_short, safe_parts
from uploader_server.storage.store import ANONYMOUS
from uploader_server.storage.writing import SMALL
from uploader_server.tus.body import Body, Receiving
from uploader_server.tus.checksums import CHECKSUMS
from uploader_server.tus.finish import parts_of, settle
from uploader_server.tus.headers import (
    BODY_TYPE,
    EXTENSIONS,
    TUS_VERSION,
    Checksum,
    capabilities,
    check_length,
    creation_length,
    is_upload_id,
    number,
    parse_checksum,
    parse_metadata,
    parse_place,
)
from uploader_server.tus.upload import FINISHED, OPEN, Upload
from uploader_server.tus.uploads import Uploads
from uploader_server.wire import TUS

METADATA = 6  # bytes of memory for each character of Upload-Metadata, encoded and decoded
ON_ENDPOINT = ["OPTIONS", "POST"]
ON_UPLOAD = ["OPTIONS", "HEAD", "PATCH", "DELETE", "GET"]


class Tus:
    def __init__(self, uploads: Uploads) -> None:
        self.uploads = uploads
        self.limits = uploads.limits
        self.config = uploads.sessions.config
        self.store = uploads.sessions.store

    def described(self) -> dict[str, Any]:
        """Return `tus` of the session response and of `/health` (docs/protocol.md, section 5)."""
        return {
            "endpoint": TUS,
            "version": TUS_VERSION,
            "extensions": list(EXTENSIONS),
            "checksumAlgorithms": list(CHECKSUMS),
            "maxSize": self.limits.max_size,
        }

    def routes(self) -> list[Route]:
        places = [(TUS.rstrip("/"), ON_ENDPOINT), (TUS, ON_ENDPOINT), (TUS + "{id}", ON_UPLOAD)]
        everything = {*ON_ENDPOINT, *ON_UPLOAD}
        return [
            *(Route(path, self.serve, methods=methods) for path, methods in places),
            # Other methods get 405.
            *(Route(path, self.serve, methods=everything, include_in_schema=False) for path, _ in places),
        ]

    async def serve(self, request: Request) -> Response:
        try:
            answer = await self._answer(request.method, request, Body(request))
        except Exception as error:
            refusal = as_api_error(error)
            refusal.headers["tus-resumable"] = TUS_VERSION
            raise refusal from error
        answer.headers["tus-resumable"] = TUS_VERSION
        return answer

    async def _answer(self, method: str, request: Request, body: Body) -> Response:
        if method == "OPTIONS":
            return Response(status_code=204, headers=capabilities(self.limits.max_size))
        if method != "GET" and request.headers.get("tus-resumable") != TUS_VERSION:
            raise ApiError(
                412, "UNSUPPORTED_VERSION", f"Send Tus-Resumable: {TUS_VERSION}", headers={"tus-version": TUS_VERSION}
            )
        upload_id = request.path_params.get("id")
        allowed = ON_ENDPOINT if upload_id is None else ON_UPLOAD
        if method not in allowed:
            allow = {"allow": ", ".join(allowed)}
            raise ApiError(405, "METHOD_NOT_ALLOWED", "The method is not allowed", headers=allow)
        if upload_id is None:
            return await self._create(request, body)
        upload = await self.uploads.find(upload_id if is_upload_id(upload_id) else "")
        match method:
            case "HEAD":
                return await self._head(upload, request)
            case "PATCH":
                return await self._append(upload, request, body)
            case "DELETE":
                await self.uploads.terminate(upload, request.headers.get("authorization"))
                return Response(status_code=204)
            case _:
                return self._bytes(upload)

    # Creation

    async def _create(self, request: Request, body: Body) -> Response:
        headers = request.headers
        held_by(request).add(METADATA * len(headers.get("upload-metadata", "")))
        fields = parse_metadata(headers.get("upload-metadata", ""))
        self.uploads.sessions.check_writer(fields.get("sessionId", ""), headers)
        owner = owner_of(headers.get("authorization"), self.config.jwt_secret)
        known = await self.uploads.find_key(owner, fields.get("uploadKey", ""))
        if known is not None:
            return await self._known(known, fields.get("sessionId", ""))
        checksum = parse_checksum(headers.get("upload-checksum"))
        upload = await new_upload(self.uploads, request, body, owner)
        while not upload.concat.parts and (empty := self.uploads.share.make_room(upload.holder)) is not None:
            await self.uploads.retire(empty, "expired")
        if upload.concat.parts:  # a concurrent request may have finished one with this key
            known = await self.uploads.find_key(owner, upload.key)
        known = known or self.uploads.unfinished(owner, upload.key)
        if known is not None:
            return await self._known(known, upload.session)
        if self.uploads.store.durable or (body.present and checksum is not None):
            upload.counted = 0
        self.uploads.shared.check(upload, self.limits.max_size)
        self.uploads.keep(upload)
        location = {"location": TUS + upload.id}
        try:
            async with self.uploads.turn(upload):
                await self._begin(upload, body, checksum)
        except ApiError as error:
            error.headers.update(location)
            raise
        return Response(status_code=201, headers={**location, **self._state(upload)})

    async def _begin(self, upload: Upload, body: Body, checksum: Checksum | None) -> None:
        """Save a new upload and receive the body of its creation; a small whole file is saved only once."""
        late = body.length == upload.length and 0 < (body.length or 0) <= SMALL and not upload.is_part
        await self.uploads.add(upload, save=not late)
        try:
            if body.present:
                await Receiving(self.uploads, upload, body, checksum).run()
            await settle(self.uploads, upload)
        finally:
            if late and upload.status == OPEN:
                await self.uploads.store.make(upload)
                await self.uploads.store.save(upload)

    async def _known(self, upload: Upload, session_id: str) -> Response:
        """Respond to a repeated creation: 200, the same Location, the offset; its body is dropped."""
        async with self.uploads.turn(upload):
            await self.uploads.adopt(upload, session_id)
            await settle(self.uploads, upload)
        headers = {"location": TUS + upload.id, **self._state(upload)}
        return Response(headers=headers)

    # Other methods

    async def _append(self, upload: Upload, request: Request, body: Body) -> Response:
        headers = request.headers
        if body.kind != BODY_TYPE:
            raise ApiError(415, "WRONG_CONTENT_TYPE", f"A PATCH has Content-Type: {BODY_TYPE}")
        offset, length = number(headers, "Upload-Offset"), number(headers, "Upload-Length")
        if offset is None:
            raise ApiError(400, "INVALID_HEADER", "Upload-Offset is missing")
        checksum = parse_checksum(headers.get("upload-checksum"))
        if upload.concat.parts:
            raise ApiError(403, "FINAL_UPLOAD", "A final upload accepts no bytes")
        async with self.uploads.turn(upload):
            if offset != upload.offset:
                now = {"upload-offset": str(upload.offset)}
                raise ApiError(409, "WRONG_OFFSET", f"The offset of the upload is {upload.offset}", headers=now)
            if length is not None:
                await self.uploads.set_length(upload, length)
            if body.present and upload.complete:
                await settle(self.uploads, upload)
                raise ApiError(413, "FILE_TOO_LARGE", f"The upload has at most {upload.length} bytes")
            if body.present:
                await Receiving(self.uploads, upload, body, checksum).run()
            await settle(self.uploads, upload)
        return Response(status_code=204, headers=self._state(upload))

    async def _head(self, upload: Upload, request: Request) -> Response:
        async with self.uploads.turn(upload):
            await settle(self.uploads, upload)
        headers = {**self._state(upload), "cache-control": "no-store"}
        if upload.path is not None and not upload.sha256:
            headers |= await digest_header(self.store, self.store.root / upload.path, request)
        if upload.length is None:
            headers["upload-defer-length"] = "1"
        else:
            headers["upload-length"] = str(upload.length)
        if upload.metadata is not None:
            headers["upload-metadata"] = upload.metadata
        if upload.concat_header is not None:
            headers["upload-concat"] = upload.concat_header
        return Response(headers=headers)

    def _bytes(self, upload: Upload) -> Response:
        """Serve `GET`: the finished file, with ranges; parts get 404."""
        if upload.is_part:
            raise ApiError(404, "UPLOAD_NOT_FOUND", "The bytes of a part can't be read")
        if upload.path is None:
            raise ApiError(409, "UPLOAD_UNFINISHED", "The upload is not finished yet")
        return Download(self.store.root / upload.path, {"cache-control": "no-cache", **self._where(upload)})

    def _state(self, upload: Upload) -> dict[str, str]:
        headers = {"upload-offset": str(upload.offset), **self._where(upload)}
        if upload.has_data:
            headers["upload-expires"] = formatdate(self.store.clock.date(self.uploads.expires(upload)), usegmt=True)
        return headers

    def _where(self, upload: Upload) -> dict[str, str]:
        if upload.status != FINISHED or upload.path is None:
            return {}
        return {
            "content-location": "/uploads/" + quote(upload.path),
            "upload-file-id": upload.file_id,
            **repr_digest(upload.sha256),
        }


async def new_upload(uploads: Uploads, request: Request, body: Body, owner: str) -> Upload:
    """Return a new, unregistered upload for a creation request. Raises ApiError."""
    if body.present and body.kind != BODY_TYPE:
        raise ApiError(415, "WRONG_CONTENT_TYPE", f"A body of a creation has Content-Type: {BODY_TYPE}")
    metadata = request.headers.get("upload-metadata") or None
    session = _session(uploads, parse_metadata(metadata or "").get("sessionId"), request.headers)
    upload = Upload(
        owner=owner,
        session=session.id if session is not None else "",
        category=session.category if session is not None else ANONYMOUS,
        metadata=metadata,
        concat_header=request.headers.get("upload-concat"),
        length=None,
        holder=holder_of(request.scope),
        touched=uploads.clock.now(),
    )
    _check_path(upload)
    parts = await parts_of(uploads, upload.concat)
    upload.length = upload.file.announced = _length(uploads, request, body, parts)
    if upload.is_part:
        upload.place = parse_place(upload.fields)
        upload.counted = None if upload.place is None else 0
    else:
        _check_file(uploads, upload, session)
    if parts:
        shared = uploads.shared.joined_by(upload, parts)
        upload.data = upload.data if shared is None else shared.name
    if upload.length is not None and (body.length or 0) > upload.length:
        raise ApiError(413, "FILE_TOO_LARGE", "The body is longer than Upload-Length")
    return upload


def _session(uploads: Uploads, session_id: str | None, headers: Mapping[str, str]) -> Session | None:
    if session_id is not None:
        return uploads.sessions.find_open(session_id, headers)
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


def _check_file(uploads: Uploads, upload: Upload, session: Session | None) -> None:
    """Raise ApiError 400 for a file that the session can't accept, as a batch does."""
    name, limits = upload.file.original_name, uploads.limits
    refusal = limits.refusal(name, None if session is None else session.ending)
    if refusal is not None:
        raise ApiError(**refusal)
    if session is not None and session.file_count >= limits.max_files:
        raise ApiError(400, "TOO_MANY_FILES", f"A session has at most {limits.max_files} files")
