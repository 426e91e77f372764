"""The calls by path, with requests and responses (docs/protocol.md, sections 1 and 4 to 9)."""

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
"""Optional headers of responses about an upload."""


def plain() -> dict[str, Part]:
    """Return the calls for monitoring, the OpenAPI document and stored files."""
    described = {"description": "This document", "content": {JSON: {"schema": {"type": "object"}}}}
    numbers = {"description": "Prometheus text format", "content": {"text/plain": {"schema": TEXT}}}
    return {
        "/health": {"get": call("Get status and limits", {200: answer("Status and limits", "Health")})},
        "/openapi.json": {"get": call("Get the OpenAPI document", {200: described})},
        "/metrics": {"get": call("Get Prometheus metrics", {200: numbers})},
        "/uploads/{category}/{path}": {
            "get": _file("Get a stored file; the path may have slashes", in_path("category"), in_path("path"))
        },
    }


def _file(summary: str, *parameters: Part, errors: tuple[int, ...] = ()) -> Part:
    """Describe a call that returns a file, with ranges."""
    content: Part = {"*/*": {"schema": {}}}
    optional = {"Repr-Digest": TEXT, "Content-Disposition": TEXT, "Accept-Ranges": TEXT, "ETag": TEXT}
    more = [*parameters, header("Range", TEXT), header("Want-Repr-Digest", TEXT)]
    success = {
        200: {**empty("The file", {}, optional), "content": content},
        206: {**empty("A range of the file", {}, {"Content-Range": TEXT}), "content": content},
    }
    read = call(summary, success, 400, 404, *errors, parameters=more)
    read["responses"]["416"] = {"description": "Range not satisfiable", "content": {"text/plain": {"schema": TEXT}}}
    return read


def sessions() -> dict[str, Part]:
    """Return the calls of sessions and batches (docs/protocol.md, section 1)."""
    following = links(progress="progress", cancel="cancel", finish="finish")
    by_id = [in_path(schema=ID)]
    batch = {"required": True, "content": {"multipart/form-data": {"schema": ref("Batch")}}}
    upload = "/api/upload"
    return {
        f"{upload}/validate": {
            "post": call(
                "Check files against the limits",
                {200: answer("The errors of each file", "Validation")},
                *_JSON_BODY,
                requestBody=body("FilesToValidate", MAX_JSON),
            )
        },
        f"{upload}/session": {
            "post": call(
                "Create a session",
                {201: answer("The session and the limits", "Session", links=following)},
                *_JSON_BODY,
                requestBody=body("NewSession", SMALL_JSON),
            )
        },
        f"{upload}/session/{{id}}/finish": {
            "post": call(
                "End a session",
                {200: answer("The result of the session", "Finished")},
                *(404, 409, *_JSON_BODY),
                operationId="finish",
                parameters=by_id,
                requestBody=body("Finish", SMALL_JSON, required=False),
            )
        },
        f"{upload}/batch": {
            "post": call(
                "Upload files of a session",
                {200: answer("The result of each file", "BatchAnswer")},
                *(400, 404, 408, 409, 413, 507),
                requestBody=batch,
            )
        },
        f"{upload}/progress/{{id}}": {
            "get": call(
                "Get the progress of a session",
                {200: answer("The state of the session", "Progress")},
                404,
                operationId="progress",
                parameters=by_id,
            )
        },
        f"{upload}/cancel/{{id}}": {
            "post": call(
                "Cancel a session",
                {200: answer("The session was cancelled", "Done")},
                *(404, 408),
                operationId="cancel",
                parameters=by_id,
            )
        },
        f"{upload}/file/{{id}}": {
            "delete": call(
                "Delete a stored file",
                {200: answer("The file was deleted", "Done")},
                *(401, 404),
                parameters=by_id,
                security=[{"jwt": []}],
            )
        },
    }


def analyses() -> dict[str, Part]:
    """Return the calls of analyses (docs/protocol.md, section 4)."""
    signed: list[Part] = [{"jwt": []}]

    def analysis(summary: str, schema: str) -> Part:
        success = {200: answer("The result", "AnalysisAnswer")}
        errors = (401, 404, 409, 422, 504, *_JSON_BODY)
        return {"post": call(summary, success, *errors, requestBody=body(schema, 1 << 20), security=signed)}

    status = call(
        "Get the status of an analysis, by its id or the client's sessionId",
        {200: answer("The state of the analysis", "Analysis")},
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
    """Return the calls of resumable uploads (tus 1.0; docs/protocol.md, sections 5 and 7)."""
    named = ("Tus-Version", "Tus-Extension", "Tus-Max-Size", "Tus-Checksum-Algorithm")
    offered = empty("The capabilities, in the headers", _TUS_HEADERS | dict.fromkeys(named, TEXT))
    options = call("Get the tus capabilities", {204: offered})
    collection = {"options": options, "post": _creation()}
    one = {
        "options": {**options, "parameters": [in_path()]},
        "get": _file("Get the file of a finished upload", in_path(schema=ID), errors=(409, 410)),
        "head": _upload(
            "Get the offset of an upload",
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
            "Remove an upload and its file",
            {204: empty("The upload was removed", _TUS_HEADERS)},
            401,
            security=[{}, {"jwt": []}],
        ),
    }
    return {TUS.rstrip("/"): collection, TUS: {**collection}, TUS + "{id}": one}


def _upload(summary: str, success: dict[int, Part], *errors: int, headers: Sequence[Part] = (), **more: Any) -> Part:
    """Describe a call for one upload."""
    parameters = [in_path(schema=ID), _version(), *headers]
    return call(summary, success, *(400, 404, 410, 412, 507, *errors), parameters=parameters, **more)


def _creation() -> Part:
    made = _TUS_HEADERS | _OFFSET | {"Location": TEXT}
    success = {
        201: empty("The upload", made, _STORED),
        200: empty("The existing upload with this uploadKey", made, _STORED),
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
    """Return the calls of packs and the lookup (docs/protocol.md, sections 6 and 9)."""
    key = {"type": "string", "pattern": "^[!-~]{1,200}$"}
    content = {"multipart/form-data": {"schema": ref("Pack"), "encoding": {"manifest": {"contentType": JSON}}}}
    return {
        PACKS: {
            "post": call(
                "Upload many small files; send manifest before data",
                {200: answer("The result of each file", "PackAnswer")},
                *(400, 404, 408, 409, 411, 413, 422, 507),
                parameters=[header("Idempotency-Key", key, required=True)],
                requestBody={"required": True, "content": content},
            )
        },
        PACKS + "/{key}": {
            "get": call(
                "Get the saved response to a pack",
                {200: answer("The saved response", "PackAnswer")},
                *(400, 404, 409),
                parameters=[in_path("key", key)],
            )
        },
        LOOKUP: {
            "post": call(
                "Look up which files are stored",
                {200: answer("The state of each file", "LookupAnswer")},
                *_JSON_BODY,
                requestBody=body("Lookup", MAX_JSON),
            )
        },
    }
