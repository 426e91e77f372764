"""Resumable uploads of the IETF (draft-ietf-httpbis-resumable-upload) at the endpoint of tus.

docs/protocol.md, section 11. An upload answers only the protocol that created it. No interim response (104) is sent:
ASGI has no message for it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response

from uploader_server.errors import Refusal
from uploader_server.http.errors import ApiError, as_api_error
from uploader_server.http.files import digest_header
from uploader_server.http.memory import held_by
from uploader_server.tus.body import Body, Receiving
from uploader_server.tus.creation import METADATA, begin, check_file, new_upload
from uploader_server.tus.finish import EXPECTED_DIGEST, settle
from uploader_server.tus.headers import Checksum, check_length, encode_metadata, is_upload_id, parse_metadata
from uploader_server.tus.upload import FINISHED, OPEN, Upload, stored
from uploader_server.tus.uploads import Uploads
from uploader_server.wire import TUS

CURRENT, OLDEST = 9, 6  # interop versions
VERSION = "upload-draft-interop-version"
BODY_TYPE = "application/partial-upload"
COMPLETE = "upload-complete"
KEYS = "ietf "  # prefix of the keys of these uploads: those of tus are others
PROBLEMS = {
    "WRONG_OFFSET": "mismatching-upload-offset",
    "INCONSISTENT_LENGTH": "inconsistent-upload-length",
    "CHECKSUM_MISMATCH": "digest-mismatching-values",
}
"""Types of problems (RFC 9457), below http-problem-types of IANA, by codes of errors."""
_INTEGER = re.compile(r" *(\d{1,15}) *(;.*)?")
_BOOLEAN = re.compile(r" *\?([01]) *(;.*)?")
_SHA256 = re.compile(r"(?:^|,)[ \t]*sha-256[ \t]*=[ \t]*:([^:]*):")
_PARAMETER = re.compile(r';[ \t]*([^\s=;"]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*+)"|([^;"]*))[ \t]*')


async def is_ietf(request: Request, uploads: Uploads) -> bool:
    """Return whether a request is one of this protocol. RFC clients do not send the version of a draft."""
    headers = request.headers
    if request.method == "OPTIONS" or "tus-resumable" in headers:
        return False
    if VERSION in headers or COMPLETE in headers:
        return True
    upload_id = request.path_params.get("id", "")
    if request.method in {"HEAD", "DELETE"} and is_upload_id(upload_id):
        with suppress(Refusal):
            return (await uploads.find(upload_id)).by_ietf
    return False


class IetfCall:
    """One request and its response."""

    upload: Upload | None = None  # the upload that it is about, once it is known

    def __init__(self, uploads: Uploads, request: Request) -> None:
        self.uploads, self.request, self.headers = uploads, request, request.headers
        self.body = Body(request)
        self.version = _integer(self.headers, VERSION)

    async def answer(self) -> Response:
        try:
            return await self._answer()
        except Exception as error:
            refusal = as_api_error(error)
            await self._describe(refusal)
            raise refusal from error

    async def _answer(self) -> Response:
        if VERSION in self.headers and self.version not in range(OLDEST, CURRENT + 1):
            message = f"This server implements the interop versions {OLDEST} to {CURRENT} of the draft"
            raise ApiError(412, "UNSUPPORTED_VERSION", message, headers={VERSION: str(CURRENT)})
        upload_id = self.request.path_params.get("id")
        if upload_id is None:
            if self.request.method != "POST":
                raise ApiError(405, "METHOD_NOT_ALLOWED", "The method is not allowed", headers={"allow": "POST"})
            return await self._create()
        upload = await self.uploads.find(upload_id if is_upload_id(upload_id) else "")
        if not upload.by_ietf:
            raise ApiError(404, "UPLOAD_NOT_FOUND", "This upload belongs to tus 1.0: send Tus-Resumable")
        self.upload = upload
        match self.request.method:
            case "HEAD" | "GET":
                return await self._offset(upload)
            case "PATCH":
                return await self._append(upload)
            case "DELETE":
                await self.uploads.terminate(upload, self.headers)
                return Response(status_code=204)
            case _:
                allow = {"allow": "HEAD, GET, PATCH, DELETE"}
                raise ApiError(405, "METHOD_NOT_ALLOWED", "The method is not allowed", headers=allow)

    async def _create(self) -> Response:
        uploads, completes = self.uploads, self._completes()
        held_by(self.request).add(METADATA * len(self.headers.get("upload-metadata", "")))
        if self.headers.get("content-encoding", "identity").lower() != "identity":
            raise ApiError(415, "WRONG_CONTENT_TYPE", "This server stores bytes as they are: send no Content-Encoding")
        fields = _fields(self.headers)
        session_id = fields.get("sessionId", "")
        uploads.sessions.check_writer(session_id, self.headers)
        owner = uploads.sessions.owner(self.headers)
        length = self._stated_length(0, completes)
        if length is not None:
            check_length(length, uploads.limits.max_size)
            if (self.body.length or 0) > length:
                raise ApiError(413, "FILE_TOO_LARGE", "The body is longer than Upload-Length")
        metadata, checksum = encode_metadata(fields), _digest(self.headers, "content-digest")
        parse_metadata(metadata)  # raises for one that is too long with what was added
        known = await uploads.find_key(owner, fields.get("uploadKey", ""))
        if known is None:
            upload, session = new_upload(uploads, self.request, metadata or None, owner)
            upload.completes, upload.length = completes, length
            upload.file.announced = length
            check_file(uploads, upload, session)
            self.upload = upload
            known = await begin(uploads, upload, self.body, checksum)
        if known is not None:
            return await self._known(known, session_id)
        end = upload.offset
        if completes and length is None and upload.status == OPEN:
            async with uploads.turn(upload):
                if upload.offset == end:  # no other request has appended to it
                    await uploads.set_length(upload, end)
                    await settle(uploads, upload)
        return self._created(upload, 201)

    async def _known(self, upload: Upload, session_id: str) -> Response:
        """Respond to a repeated creation with the state of its upload; its body is dropped."""
        self.upload = upload
        async with self.uploads.turn(upload):
            await self.uploads.adopt(upload, session_id)
            await settle(self.uploads, upload)
        return self._created(upload, 200)

    async def _offset(self, upload: Upload) -> Response:
        async with self.uploads.turn(upload):
            await settle(self.uploads, upload)
        headers = {**self._state(upload), "cache-control": "no-store"}
        store = self.uploads.sessions.store
        if upload.path is not None and not upload.sha256:
            headers |= await digest_header(store, store.digests.identify(upload.path), self.request)
        return Response(status_code=204, headers=headers)

    async def _append(self, upload: Upload) -> Response:
        uploads, completes, offset = self.uploads, self._completes(), _integer(self.headers, "upload-offset")
        if self.body.kind != BODY_TYPE:
            raise ApiError(415, "WRONG_CONTENT_TYPE", f"A PATCH has Content-Type: {BODY_TYPE}")
        if offset is None:
            raise ApiError(400, "INVALID_HEADER", "Upload-Offset is missing, or it is no number of bytes")
        checksum = _digest(self.headers, "content-digest")
        async with uploads.turn(upload):
            if offset != upload.offset:
                both = {"expected-offset": upload.offset, "provided-offset": offset}
                headers = {"upload-offset": str(upload.offset)}
                message = f"The offset of the upload is {upload.offset}"
                raise ApiError(409, "WRONG_OFFSET", message, headers=headers, **both)
            if upload.status == FINISHED:
                if self.body.present or not completes:
                    raise ApiError(400, "UPLOAD_COMPLETE", "The upload is complete: nothing can be appended")
                return self._created(upload, 201)
            await self._declare(upload, completes)
            if self.body.present:
                await Receiving(uploads, upload, self.body, checksum).run()
            if completes and upload.length is None:
                await uploads.set_length(upload, upload.offset)
            if completes and not upload.complete:
                raise _inconsistent(f"the content ended at byte {upload.offset} of {upload.length}")
            await settle(uploads, upload)
        if upload.status == FINISHED:  # as if the creation had had all of it
            return self._created(upload, 201)
        return Response(status_code=204, headers=self._state(upload))

    async def _declare(self, upload: Upload, completes: bool) -> None:
        """Save what a request says about the end of the upload."""
        stated = self._stated_length(upload.offset, completes)
        if stated is not None and (stated < upload.offset or upload.length not in (None, stated)):
            known = upload.offset if upload.length is None else upload.length
            raise _inconsistent(f"the request states {stated} bytes, and the upload has {known}")
        changed, upload.completes = upload.completes != completes, completes
        if stated is not None and upload.length is None:
            await self.uploads.set_length(upload, stated)
        elif changed:
            await self.uploads.store.save(upload)

    def _stated_length(self, offset: int, completes: bool) -> int | None:
        """Return the length that this request states, or None. Raises ApiError 400 if it states two."""
        length = _integer(self.headers, "upload-length")
        content = self.body.length if self.body.present else 0
        if not completes or content is None:
            return length
        if length not in (None, offset + content):
            raise _inconsistent(f"Upload-Length is {length}, and the content ends at byte {offset + content}")
        return offset + content

    def _completes(self) -> bool:
        found = _BOOLEAN.fullmatch(self.headers.get(COMPLETE, ""))
        if found is None:
            raise ApiError(400, "INVALID_HEADER", "Upload-Complete is missing, or neither ?0 nor ?1")
        return found[1] == "1"

    def _created(self, upload: Upload, status: int) -> Response:
        return Response(status_code=status, headers={"location": TUS + upload.id, **self._state(upload)})

    def _state(self, upload: Upload) -> dict[str, str]:
        length = {} if upload.length is None else {"upload-length": str(upload.length)}
        done = upload.status == FINISHED
        state = {"upload-offset": str(upload.offset), COMPLETE: "?1" if done else "?0", **length}
        return {**state, "upload-limit": self._limits(upload), **stored(upload)}

    def _limits(self, upload: Upload | None) -> str:
        size = f"max-size={self.uploads.limits.max_size}"
        if upload is None or upload.status != OPEN:
            return size
        seconds = max(0, int(self.uploads.expires(upload) - self.uploads.clock.now()))
        return f"{size}, {'expires' if self.version == OLDEST else 'max-age'}={seconds}"

    async def _describe(self, refusal: ApiError) -> None:
        """Make a refusal one of this protocol: a problem (RFC 9457), and the state of the upload."""
        upload = self.upload
        if upload is not None and upload.status == OPEN and upload.length is not None and refusal.status == 413:
            with suppress(Refusal):  # the content is longer than the upload, which must not be used any more
                async with self.uploads.turn(upload):
                    await self.uploads.retire(upload, "failed")
        failed = upload is not None and upload.status == "failed"  # nothing can be resumed
        refusal.headers |= {"content-type": "application/problem+json", COMPLETE: "?1" if failed else "?0"}
        if upload is not None and upload.status == OPEN:
            refusal.headers["upload-offset"] = str(upload.offset)
        if refusal.status == 413:
            refusal.headers["upload-limit"] = self._limits(None)
        if refusal.status == 410 and self.version == OLDEST:
            refusal.status = 404
        if refusal.status == 460:  # the status of tus
            refusal.status, refusal.message = 400, "The content doesn't match Content-Digest"
        refusal.extra |= {"title": refusal.message, "status": refusal.status}
        if refusal.code in PROBLEMS:
            refusal.extra["type"] = f"https://iana.org/assignments/http-problem-types#{PROBLEMS[refusal.code]}"


def _fields(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata of a new upload: those of tus, and the file name of Content-Disposition."""
    fields = parse_metadata(headers.get("upload-metadata", ""))
    name = file_name(headers.get("content-disposition", ""))
    if name and not fields.get("filename"):
        fields["filename"] = name
    if fields.get("uploadKey"):
        fields["uploadKey"] = KEYS + fields["uploadKey"]
    expected = _digest(headers, "repr-digest")
    fields.pop(EXPECTED_DIGEST, None)
    if expected is not None:
        fields[EXPECTED_DIGEST] = expected.expected.hex()
    return fields


def file_name(disposition: str) -> str:
    """Return the file name of a Content-Disposition (RFC 6266), as far as it is well-formed; empty without one."""
    names, at = dict[str, str](), len(disposition.partition(";")[0])
    while (found := _PARAMETER.match(disposition, at)) is not None:
        name, quoted, token = found.groups()
        names.setdefault(name.lower(), token.strip() if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
        at = found.end()
    charset, _, extended = names.get("filename*", "").partition("'")  # RFC 8187: charset'language'escaped
    if charset.lower() in {"utf-8", "iso-8859-1"}:
        return unquote(extended.partition("'")[2], charset, errors="replace").rpartition("/")[2]
    return names.get("filename", "").rpartition("/")[2]


def _digest(headers: Mapping[str, str], name: str) -> Checksum | None:
    """Return the SHA-256 of a digest field (RFC 9530); None without one: other algorithms are ignored."""
    found = _SHA256.search(headers.get(name, ""))
    if found is None:
        return None
    try:
        expected = base64.b64decode(found[1], validate=True)
    except binascii.Error:
        expected = b""
    if len(expected) != 32:
        raise ApiError(400, "INVALID_HEADER", f"{name}: the value of sha-256 is no SHA-256 in base64")
    return Checksum("sha256", expected)


def _integer(headers: Mapping[str, str], name: str) -> int | None:
    """Return a structured field that is a non-negative integer; other values are ignored, as the draft says."""
    found = _INTEGER.fullmatch(headers.get(name, ""))
    return None if found is None else int(found[1])


def _inconsistent(details: str) -> ApiError:
    return ApiError(400, "INCONSISTENT_LENGTH", "The lengths of the upload are inconsistent", details=details)
