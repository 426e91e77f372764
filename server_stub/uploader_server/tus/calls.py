"""tus 1.0 over HTTP at `/api/upload/files/` (docs/resumable-uploads.md).

Responses for a finished upload have `Content-Location: /uploads/{category}/{fileName}`, `Upload-File-Id` (the id in
events, `/progress` and DELETE) and, if known, `Repr-Digest`. `Location` is a path here; `http.proxies` makes a URL of
it.
"""

from __future__ import annotations

from email.utils import formatdate
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from uploader_server.http.errors import ApiError, as_api_error
from uploader_server.http.files import Download, digest_header
from uploader_server.http.memory import held_by
from uploader_server.tus.body import Body, Receiving
from uploader_server.tus.checksums import CHECKSUMS
from uploader_server.tus.creation import METADATA, begin, check_file, new_upload
from uploader_server.tus.finish import parts_of, settle
from uploader_server.tus.headers import (
    BODY_TYPE,
    EXTENSIONS,
    TUS_VERSION,
    capabilities,
    check_length,
    creation_length,
    is_upload_id,
    number,
    parse_checksum,
    parse_metadata,
    parse_place,
)
from uploader_server.tus.ietf import IetfCall, is_ietf
from uploader_server.tus.upload import Upload, stored
from uploader_server.tus.uploads import Uploads
from uploader_server.wire import TUS

ON_ENDPOINT = ["OPTIONS", "POST"]
ON_UPLOAD = ["OPTIONS", "HEAD", "PATCH", "DELETE", "GET"]


class Tus:
    def __init__(self, uploads: Uploads) -> None:
        self.uploads = uploads
        self.limits = uploads.limits
        self.store = uploads.sessions.store

    def described(self) -> dict[str, Any]:
        """Return `tus` of the session response and of `/health` (docs/resumable-uploads.md)."""
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
        if await is_ietf(request, self.uploads):
            return await IetfCall(self.uploads, request).answer()
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
        if upload.by_ietf and method != "GET":
            raise ApiError(404, "UPLOAD_NOT_FOUND", "This upload belongs to the IETF protocol, not to tus 1.0")
        match method:
            case "HEAD":
                return await self._head(upload, request)
            case "PATCH":
                return await self._append(upload, request, body)
            case "DELETE":
                await self.uploads.terminate(upload, request.headers)
                return Response(status_code=204)
            case _:
                return self._bytes(upload)

    # Creation

    async def _create(self, request: Request, body: Body) -> Response:
        headers = request.headers
        held_by(request).add(METADATA * len(headers.get("upload-metadata", "")))
        fields = parse_metadata(headers.get("upload-metadata", ""))
        self.uploads.sessions.check_writer(fields.get("sessionId", ""), headers)
        owner = self.uploads.sessions.owner(headers)
        known = await self.uploads.find_key(owner, fields.get("uploadKey", ""))
        if known is not None:
            return await self._known(known, fields.get("sessionId", ""))
        checksum = parse_checksum(headers.get("upload-checksum"))
        upload = await self._new_upload(request, body, owner)
        known = await begin(self.uploads, upload, body, checksum)
        if known is not None:
            return await self._known(known, upload.session)
        return Response(status_code=201, headers={"location": TUS + upload.id, **self._state(upload)})

    async def _new_upload(self, request: Request, body: Body, owner: str) -> Upload:
        """Return a new, unregistered upload for a creation request. Raises ApiError."""
        if body.present and body.kind != BODY_TYPE:
            raise ApiError(415, "WRONG_CONTENT_TYPE", f"A body of a creation has Content-Type: {BODY_TYPE}")
        metadata, concat = request.headers.get("upload-metadata") or None, request.headers.get("upload-concat")
        upload, session = new_upload(self.uploads, request, metadata, owner, concat)
        parts = await parts_of(self.uploads, upload.concat)
        upload.length = upload.file.announced = self._length(request, body, parts)
        if upload.is_part:
            upload.place = parse_place(upload.fields)
            upload.counted = None if upload.place is None else 0
        else:
            check_file(self.uploads, upload, session)
        if parts:
            shared = self.uploads.shared.joined_by(upload, parts)
            upload.data = upload.data if shared is None else shared.name
        if upload.length is not None and (body.length or 0) > upload.length:
            raise ApiError(413, "FILE_TOO_LARGE", "The body is longer than Upload-Length")
        return upload

    def _length(self, request: Request, body: Body, parts: list[Upload]) -> int | None:
        if not parts:
            return creation_length(request.headers, self.limits.max_size)
        if body.present or "upload-length" in request.headers:
            raise ApiError(400, "INVALID_HEADER", "A final upload has neither a body nor an Upload-Length")
        length = sum(part.length or 0 for part in parts)
        check_length(length, self.limits.max_size)
        return length

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
            headers |= await digest_header(self.store, self.store.digests.identify(upload.path), request)
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
        found = self.store.categories.open(upload.path)
        return Download(upload.path, found, {"cache-control": "no-cache", **stored(upload)})

    def _state(self, upload: Upload) -> dict[str, str]:
        headers = {"upload-offset": str(upload.offset), **stored(upload)}
        if upload.has_data:
            headers["upload-expires"] = formatdate(self.store.clock.date(self.uploads.expires(upload)), usegmt=True)
        return headers
