"""The calls by their paths: what each takes and answers (docs/protocol.md, sections 1 and 4 to 9)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uploader_server.batch.lookup import ENDPOINT as LOOKUP
from uploader_server.batch.packs import ENDPOINT as PACKS
from uploader_server.http.errors import MAX_JSON, SMALL_JSON
from uploader_server.openapi.parts import JSON, Part, answer, body, call, empty, header, in_path, links
from uploader_server.openapi.schemas import COUNT, ID, TEXT, ref
from uploader_server.tus.headers import BODY_TYPE, VERSION
from uploader_server.tus.headers import ENDPOINT as TUS

if TYPE_CHECKING:
    from collections.abc import Sequence

_JSON_BODY = (400, 408, 413)
"""Errors of a call with a JSON body."""
_TUS_HEADERS = {"Tus-Resumable": {"const": VERSION}}
_OFFSET = {"Upload-Offset": COUNT}
_STORED = {"Content-Location": TEXT, "Upload-File-Id": TEXT, "Repr-Digest": TEXT, "Upload-Expires": TEXT}
"""Headers of answers about an upload, where they apply."""


def plain() -> dict[str, Part]:
    """What the server tells of itself, and the stored files."""
    described = {"description": "This document", "content": {JSON: {"schema": {"type": "object"}}}}
    numbers = {"description": "The text format of Prometheus", "content": {"text/plain": {"schema": TEXT}}}
    return {
        "/health": {"get": call("Say that the server is up, and its limits", {200: answer("It is up", "Health")})},
        "/openapi.json": {"get": call("Describe the calls", {200: described})},
        "/metrics": {"get": call("Numbers for monitoring", {200: numbers})},
        "/uploads/{category}/{path}": {
            "get": _file("Read a stored file; the path may have slashes", in_path("category"), in_path("path"))
        },
    }


def _file(summary: str, *parameters: Part, errors: tuple[int, ...] = ()) -> Part:
    """Read a file, with ranges."""
    content: Part = {"*/*": {"schema": {}}}
    optional = {"Repr-Digest": TEXT, "Content-Disposition": TEXT, "Accept-Ranges": TEXT, "ETag": TEXT}
    more = [*parameters, header("Range", TEXT), header("Want-Repr-Digest", TEXT)]
    success = {
        200: {**empty("The file", {}, optional), "content": content},
        206: {**empty("A part of the file", {}, {"Content-Range": TEXT}), "content": content},
    }
    read = call(summary, success, 400, 404, *errors, parameters=more)
    read["responses"]["416"] = {"description": "No such range", "content": {"text/plain": {"schema": TEXT}}}
    return read


def sessions() -> dict[str, Part]:
    """Sessions and batches (docs/protocol.md, section 1)."""
    following = links(progress="progress", cancel="cancel", finish="finish")
    by_id = [in_path(schema=ID)]
    batch = {"required": True, "content": {"multipart/form-data": {"schema": ref("Batch")}}}
    upload = "/api/upload"
    return {
        f"{upload}/validate": {
            "post": call(
                "Ask which files would be refused",
                {200: answer("What is wrong with each file", "Validation")},
                *_JSON_BODY,
                requestBody=body("FilesToValidate", MAX_JSON),
            )
        },
        f"{upload}/session": {
            "post": call(
                "Open a session",
                {201: answer("The session, and the limits", "Session", links=following)},
                *_JSON_BODY,
                requestBody=body("NewSession", SMALL_JSON),
            )
        },
        f"{upload}/session/{{id}}/finish": {
            "post": call(
                "End a session",
                {200: answer("How it ended", "Finished")},
                *(404, 409, *_JSON_BODY),
                operationId="finish",
                parameters=by_id,
                requestBody=body("Finish", SMALL_JSON, required=False),
            )
        },
        f"{upload}/batch": {
            "post": call(
                "Send files of a session",
                {200: answer("What became of each file", "BatchAnswer")},
                *(400, 404, 408, 409, 413, 507),
                requestBody=batch,
            )
        },
        f"{upload}/progress/{{id}}": {
            "get": call(
                "How far a session is",
                {200: answer("The state of the session", "Progress")},
                404,
                operationId="progress",
                parameters=by_id,
            )
        },
        f"{upload}/cancel/{{id}}": {
            "post": call(
                "Cancel a session",
                {200: answer("It is cancelled", "Done")},
                *(404, 408),
                operationId="cancel",
                parameters=by_id,
            )
        },
        f"{upload}/file/{{id}}": {
            "delete": call(
                "Delete a stored file",
                {200: answer("It is deleted", "Done")},
                *(401, 404),
                parameters=by_id,
                security=[{"jwt": []}],
            )
        },
    }


def analyses() -> dict[str, Part]:
    """Analyses (docs/protocol.md, section 4)."""
    signed: list[Part] = [{"jwt": []}]

    def analysis(summary: str, schema: str) -> Part:
        success = {200: answer("The result", "AnalysisAnswer")}
        errors = (401, 404, 409, 422, 504, *_JSON_BODY)
        return {"post": call(summary, success, *errors, requestBody=body(schema, 1 << 20), security=signed)}

    status = call(
        "How far an analysis is, by its id or the sessionId that was chosen",
        {200: answer("Its state", "Analysis")},
        *(401, 404),
        parameters=[in_path()],
        security=signed,
    )
    return {
        "/api/ai/analyze/content": analysis("Analyse a video (simulated)", "ContentAnalysis"),
        "/api/ai/analyze/fusion": analysis("Plan a fusion of two videos (simulated)", "FusionAnalysis"),
        "/api/ai/generate/music-prompt": analysis("Write a prompt for music (simulated)", "MusicPrompt"),
        "/api/ai/analysis/{id}/status": {"get": status},
    }


def uploads() -> dict[str, Part]:
    """Resumable uploads (tus 1.0; docs/protocol.md, sections 5 and 7)."""
    named = ("Tus-Version", "Tus-Extension", "Tus-Max-Size", "Tus-Checksum-Algorithm")
    offered = empty("See the headers", _TUS_HEADERS | dict.fromkeys(named, TEXT))
    options = call("What of tus is offered", {204: offered})
    collection = {"options": options, "post": _creation()}
    one = {
        "options": {**options, "parameters": [in_path()]},
        "get": _file("Read a finished upload", in_path(schema=ID), errors=(409, 410)),
        "head": _upload(
            "Ask for the offset",
            {200: empty("The offset", _TUS_HEADERS | _OFFSET | {"Cache-Control": TEXT}, _STORED)},
        ),
        "patch": _upload(
            "Append bytes",
            {204: empty("The new offset", _TUS_HEADERS | _OFFSET, _STORED)},
            *(400, 403, 408, 409, 413, 415, 423, 460),
            headers=[
                header("Upload-Offset", COUNT, required=True),
                header("Upload-Length", COUNT),
                header("Upload-Checksum", TEXT),
            ],
            requestBody=_bytes(required=True),
        ),
        "delete": _upload(
            "Remove an upload, and its file if it became one",
            {204: empty("It is removed", _TUS_HEADERS)},
            401,
            security=[{}, {"jwt": []}],
        ),
    }
    return {TUS.rstrip("/"): collection, TUS: {**collection}, TUS + "{id}": one}


def _upload(summary: str, success: dict[int, Part], *errors: int, headers: Sequence[Part] = (), **more: Any) -> Part:
    """A call for one upload."""
    parameters = [in_path(schema=ID), _version(), *headers]
    return call(summary, success, *(400, 404, 410, 412, 507, *errors), parameters=parameters, **more)


def _creation() -> Part:
    made = _TUS_HEADERS | _OFFSET | {"Location": TEXT}
    success = {
        201: empty("The upload", made, _STORED),
        200: empty("The upload that was made with this uploadKey before", made, _STORED),
    }
    parameters = [
        _version(),
        header("Upload-Length", COUNT),
        header("Upload-Defer-Length", {"const": "1"}),
        header("Upload-Metadata", TEXT),
        header("Upload-Concat", TEXT),
        header("Upload-Checksum", TEXT),
    ]
    return call(
        "Create an upload; send Upload-Length or Upload-Defer-Length, or neither for a final upload",
        success,
        *(400, 404, 408, 409, 410, 412, 413, 415, 423, 460, 507),
        parameters=parameters,
        requestBody=_bytes(required=False),
    )


def _version() -> Part:
    return header("Tus-Resumable", {"const": VERSION}, required=True)


def _bytes(*, required: bool) -> Part:
    return {"required": required, "content": {BODY_TYPE: {"schema": {}}}}


def packs() -> dict[str, Part]:
    """Packs and the lookup (docs/protocol.md, sections 6 and 9)."""
    key = {"type": "string", "pattern": "^[!-~]{1,200}$"}
    content = {"multipart/form-data": {"schema": ref("Pack"), "encoding": {"manifest": {"contentType": JSON}}}}
    return {
        PACKS: {
            "post": call(
                "Send many small files at once; the two parts in this order",
                {200: answer("What became of each file", "PackAnswer")},
                *(400, 404, 408, 409, 411, 413, 422, 507),
                parameters=[header("Idempotency-Key", key, required=True)],
                requestBody={"required": True, "content": content},
            )
        },
        PACKS + "/{key}": {
            "get": call(
                "Repeat the answer to a pack",
                {200: answer("The answer that was given", "PackAnswer")},
                *(400, 404, 409),
                parameters=[in_path("key", key)],
            )
        },
        LOOKUP: {
            "post": call(
                "Ask which files are stored",
                {200: answer("What is known of each file", "LookupAnswer")},
                *_JSON_BODY,
                requestBody=body("Lookup", MAX_JSON),
            )
        },
    }
