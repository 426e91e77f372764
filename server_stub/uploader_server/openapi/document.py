"""The OpenAPI 3.1 document of a bundled server: its calls, with requests and responses (docs/protocol.md)."""

from __future__ import annotations

import re
from typing import Any

from uploader_server.config import ServerConfig
from uploader_server.feature import provided
from uploader_server.http.bodies import ref
from uploader_server.http.errors import MAX_JSON
from uploader_server.http.middleware import free_paths
from uploader_server.openapi.parts import (
    FORM,
    JSON,
    JSON_ERRORS,
    JWT,
    MAYBE_JWT,
    Part,
    body,
    both,
    call,
    error_of,
    file_call,
    json_body,
    ok,
    success,
)
from uploader_server.openapi.schemas import ALL_TYPES, all_schemas
from uploader_server.simulation.analysis import MAX_FIELDS
from uploader_server.tus.headers import BODY_TYPE
from uploader_server.wire import BATCH, LOOKUP, PACKS, TUS

_RESUMABLE = "Tus-Resumable:version"
_MAYBE_RESUMABLE = "Tus-Resumable?:version"  # the IETF protocol has none
_WRITER = "X-Session-Secret?"  # of the client that created the session, if it sent one
_STORED = "Content-Location? Upload-File-Id? Repr-Digest? Upload-Expires?"  # headers of responses about an upload


def _upload(summary: str, answers: Part, *errors: int, headers: str = "", **more: Any) -> Part:
    return call(summary, answers, 400, 404, 410, 412, *errors, headers=f"{_RESUMABLE} {headers}", **more)


def _analysis(summary: str, schema: str) -> Part:
    errors = (*JSON_ERRORS, 401, 404, 409, 422, 504)
    return call(summary, ok("AnalysisAnswer"), *errors, **json_body(schema, MAX_FIELDS), **MAYBE_JWT)


def _rest_calls() -> dict[str, Part]:
    """Return the calls by method and path, without tus, packs and the lookup.

    `document` adds path parameters, HEAD and the token.
    """
    session = ok("Session", 201)
    session["201"]["links"] = {
        name: {"operationId": name, "parameters": {"id": "$response.body#/sessionId"}}
        for name in ("progress", "cancel", "finish")
    }
    return {
        "GET /health": call("Get status and limits", ok("Health")),
        "GET /openapi.json": call("Get this document", success(200, {"type": "object"})),
        "GET /uploads/{category}/{path}": file_call("Get a stored file; the path may have slashes"),
        "POST /api/upload/validate": call(
            "Check files against the limits", ok("Validation"), *JSON_ERRORS, **json_body("FilesToValidate", MAX_JSON)
        ),
        "POST /api/upload/session": call(
            "Create a session",
            session,
            *JSON_ERRORS,
            headers=f"{_WRITER}:secret X-Expected-Bytes?:announced",
            **json_body("NewSession"),
        ),
        "POST /api/upload/session/{id}/finish": call(
            "End a session",
            ok("Finished"),
            *(400, 404, 408, 409, 413),
            headers=_WRITER,
            operationId="finish",
            **json_body("Finish", required=False),
        ),
        f"POST {BATCH}": call(
            "Upload files of a session",
            ok("BatchAnswer"),
            *(400, 404, 408, 409, 413),
            headers=_WRITER,
            **body(ref("Batch"), FORM),
        ),
        "GET /api/upload/progress/{id}": call(
            "Get the progress of a session", ok("Progress"), 404, operationId="progress"
        ),
        "POST /api/upload/cancel/{id}": call(
            "Cancel a session", ok("Done"), 404, 408, headers=_WRITER, operationId="cancel"
        ),
        "DELETE /api/upload/file/{id}": call("Delete a stored file", ok("Done"), 401, 404, **JWT),
        "POST /api/ai/analyze/content": _analysis("Analyse a video (simulated)", "ContentAnalysis"),
        "POST /api/ai/analyze/fusion": _analysis("Plan a fusion of two videos (simulated)", "FusionAnalysis"),
        "POST /api/ai/generate/music-prompt": _analysis("Write a prompt for music (simulated)", "MusicPrompt"),
        "GET /api/ai/analysis/{id}/status": call(
            "Get the status of an analysis, by its id or the client's sessionId",
            ok("Analysis"),
            401,
            404,
            **MAYBE_JWT,
        ),
    }


def _tus_calls() -> dict[str, Part]:
    capabilities = "Tus-Version Tus-Extension Tus-Max-Size Tus-Checksum-Algorithm Checksum-Compared Upload-Limit"
    options = call("Get the tus capabilities", success(204, headers=f"{_RESUMABLE} {capabilities}"))
    state = f"{_STORED} Upload-Complete? Upload-Length?:count Upload-Limit?"  # also of the IETF protocol
    created = f"{_MAYBE_RESUMABLE} Upload-Offset:count Location {state}"
    create = call(
        "Create an upload; send Upload-Length or Upload-Defer-Length, or neither for a final upload",
        success(201, headers=created) | success(200, headers=created),
        *(400, 404, 408, 409, 410, 412, 413, 415, 423, 460),
        headers=f"{_RESUMABLE} Upload-Length?:count Upload-Defer-Length?:one Upload-Metadata? Upload-Concat?"
        f" Upload-Checksum? {_WRITER}",
        **body({}, BODY_TYPE, required=False),
    )
    offset = f"{_MAYBE_RESUMABLE} Upload-Offset:count {state}"
    file = file_call("Get the file of a finished upload; an upload of the IETF protocol tells its offset", 409, 410)
    file["responses"] |= success(204, headers=f"Cache-Control {offset}")
    return {
        f"OPTIONS {TUS.rstrip('/')}": options,
        f"POST {TUS.rstrip('/')}": create,
        f"OPTIONS {TUS}": options,
        f"POST {TUS}": create,
        f"OPTIONS {TUS}{{id}}": options,
        f"GET {TUS}{{id}}": file,
        f"HEAD {TUS}{{id}}": _upload("Get the offset of an upload", both(200, 204, f"Cache-Control {offset}")),
        f"PATCH {TUS}{{id}}": _upload(
            "Append bytes",
            both(204, 201, offset),
            *(403, 408, 409, 413, 415, 423, 460),
            headers="Upload-Offset:count Upload-Length?:count Upload-Checksum?",
            **body({}, BODY_TYPE),
        ),
        f"DELETE {TUS}{{id}}": _upload(
            "Remove an upload and its file", success(204, headers=_MAYBE_RESUMABLE), 401, **MAYBE_JWT
        ),
    }


def _pack_calls() -> dict[str, Part]:
    return {
        f"POST {PACKS}": call(
            "Upload many small files; send manifest before data",
            ok("PackAnswer"),
            *(400, 404, 408, 409, 411, 413, 422),
            headers=f"Idempotency-Key:key {_WRITER}",
            **body(ref("Pack"), FORM, encoding={"manifest": {"contentType": JSON}}),
        ),
        f"GET {PACKS}/{{key}}": call(
            "Get the saved response to a pack", ok("PackAnswer"), 400, 404, 409, headers=_WRITER
        ),
        f"POST {LOOKUP}": call(
            "Look up which files are stored", ok("LookupAnswer"), *JSON_ERRORS, **json_body("Lookup", MAX_JSON)
        ),
    }


def document(config: ServerConfig, offers: Part) -> Part:
    """Build the document for a configuration; `offers` is as in `/health`."""
    optional = {"tus": TUS.rstrip("/"), "packs": PACKS, "lookup": LOOKUP}
    absent = tuple(path for name, path in optional.items() if name not in offers)
    absent += () if config.has_analyses else ("/api/ai/",)
    bearer = {"type": "http", "scheme": "bearer"}
    schemes: Part = {"jwt": {**bearer, "bearerFormat": "JWT", "description": "Signed by the server (--print-token)"}}
    if config.auth_token is not None:
        schemes["token"] = {**bearer, "description": "The token of --auth-token-file"}
    described = _rest_calls() | _tus_calls() | _pack_calls()
    for module in provided("document").values():
        described |= module.calls(config)
    free, paths = free_paths(), dict[str, Part]()
    for key, about in described.items():
        method, path = key.split()
        if path.startswith(absent):
            continue
        about = {**about, "parameters": [*_path_parameters(method, path), *about["parameters"]]}
        if config.auth_token is not None and path not in free:
            jwt: list[Part] = [{"jwt": []}] if method == "DELETE" or path.startswith("/api/ai/") else []
            about |= {"security": [{"token": []}, *jwt], "responses": {**about["responses"], "401": error_of(401)}}
        paths.setdefault(path, {})[method.lower()] = about
    for methods in paths.values():
        if "get" in methods:
            methods.setdefault("head", _head(methods["get"]))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Upload server",
            "version": "1",
            "description": "Sessions, batches, resumable uploads (tus 1.0), packs. docs/protocol.md explains the calls;"
            " progress comes over Socket.IO at /socket.io/, which this document leaves out.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": all_schemas(config.limits, offers), "securitySchemes": schemes},
    }


def _path_parameters(method: str, path: str) -> list[Part]:
    ids = "text" if method == "OPTIONS" or "/ai/" in path else "upload" if path.startswith(TUS) else "id"
    types = {"id": ids, "key": "key"}
    return [
        {"name": name, "in": "path", "required": True, "schema": ALL_TYPES[types.get(name, "text")]}
        for name in re.findall(r"{(\w+)}", path)
    ]


def _head(get: Part) -> Part:
    """Return the description of HEAD for a GET: the same responses without content."""
    responses = {
        status: {key: value for key, value in response.items() if key != "content"}
        for status, response in get["responses"].items()
    }
    return {key: value for key, value in get.items() if key != "operationId"} | {"responses": responses}
