"""The OpenAPI 3.1 document of a bundled server: its calls, with requests and responses (docs/protocol.md)."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from uploader_server.config import ServerConfig
from uploader_server.http.bodies import ref
from uploader_server.http.errors import MAX_JSON, SMALL_JSON
from uploader_server.http.middleware import FREE
from uploader_server.openapi.schemas import ALL_TYPES, all_schemas
from uploader_server.simulation.analysis import MAX_FIELDS
from uploader_server.tus.headers import BODY_TYPE
from uploader_server.wire import BATCH, LOOKUP, PACKS, TUS

Part = dict[str, Any]

JSON, FORM = "application/json", "multipart/form-data"
_ERRORS = {
    400: "The request is invalid",
    401: "The token is missing or invalid",
    403: "Not allowed, the session of another client, or called by a web page of another origin",
    404: "Not found",
    408: "Timeout while receiving the body",
    409: "Conflict with the current state",
    410: "Gone",
    411: "Content-Length is missing",
    412: "Tus-Resumable is missing or has an unsupported version",
    413: "Too large",
    415: "Unsupported Content-Type",
    416: "Range not satisfiable",
    421: "The Host is not allowed",
    422: "The content can't be processed",
    423: "Another request took over this upload",
    429: "Too many requests, or the client holds its share (SHARE_USED)",
    460: "The checksum doesn't match",
    500: "Server error or disk error",
    431: "A header, or the whole head, is too long",
    503: "Too busy (see Retry-After), or the server is stopping",
    504: "Timeout of the analysis",
    507: "The server's disk is full",
}
_ALWAYS = (403, 421, 429, 431, 500, 503, 507)  # errors of every call
_JSON_ERRORS = (400, 408, 413)  # errors of a call with a JSON body
_JWT: Part = {"security": [{"jwt": []}]}
_MAYBE_JWT: Part = {"security": [{}, *_JWT["security"]]}
_RESUMABLE = "Tus-Resumable:version"
_MAYBE_RESUMABLE = "Tus-Resumable?:version"  # the IETF protocol has none
_WRITER = "X-Session-Secret?"  # of the client that created the session, if it sent one
_STORED = "Content-Location? Upload-File-Id? Repr-Digest? Upload-Expires?"  # headers of responses about an upload


def _headers(text: str) -> Part:
    """Describe headers: words like `Name:type`, or `Name?:type` for an optional one; the default type is text."""
    words = [word.partition(":") for word in text.split()]
    return {
        name.rstrip("?"): {"required": not name.endswith("?"), "schema": ALL_TYPES[kind or "text"]}
        for name, _, kind in words
    }


def _success(status: int, schema: Part | None = None, media: str = JSON, *, headers: str = "") -> Part:
    """Describe a successful response; without `schema` it has no body."""
    content = {} if schema is None else {"content": {media: {"schema": schema}}}
    return {str(status): {"description": HTTPStatus(status).phrase, "headers": _headers(headers), **content}}


def _both(of_tus: int, of_ietf: int, headers: str) -> Part:
    """Describe the successful responses of tus and of the IETF protocol to the same call."""
    return _success(of_tus, headers=headers) | _success(of_ietf, headers=headers)


def _ok(name: str, status: int = 200) -> Part:
    """Describe a successful response with the JSON of this schema."""
    return _success(status, ref(name))


def _error(status: int) -> Part:
    content = {JSON: {"schema": ref("Error")}, "text/plain": {"schema": ALL_TYPES["text"]}}
    if status == 416:
        del content[JSON]
    elif status not in {400, 429}:  # plain text for an invalid Range, and for too many connections
        del content["text/plain"]
    return {"description": _ERRORS[status], "content": content}


def _call(summary: str, success: Part, *errors: int, headers: str = "", **more: Any) -> Part:
    """Describe a call with its request headers (see `_headers`); `more` are keys of an OpenAPI operation."""
    parameters = [{"name": name, "in": "header", **header} for name, header in _headers(headers).items()]
    responses = success | {str(status): _error(status) for status in sorted({*errors, *_ALWAYS})}
    return {"summary": summary, **more, "parameters": parameters, "responses": responses}


def _body(schema: Part, media: str, *, required: bool = True, **more: Part) -> Part:
    """Return the description of a request body, as a keyword of `_call`."""
    return {"requestBody": {"required": required, "content": {media: {"schema": schema, **more}}}}


def _json(name: str, most: int = SMALL_JSON, *, required: bool = True) -> Part:
    """Return the description of a JSON request body of at most `most` bytes, as a keyword of `_call`."""
    content = {JSON: {"schema": ref(name)}}
    return {"requestBody": {"description": f"At most {most} bytes", "required": required, "content": content}}


def _file(summary: str, *errors: int) -> Part:
    """Describe a call that returns a file, with ranges."""
    whole = _success(200, {}, "*/*", headers="Repr-Digest? Content-Disposition? Accept-Ranges? ETag?")
    part = _success(206, {}, "*/*", headers="Content-Range?")
    return _call(summary, whole | part, 400, 404, 416, *errors, headers="Range? Want-Repr-Digest?")


def _upload(summary: str, success: Part, *errors: int, headers: str = "", **more: Any) -> Part:
    return _call(summary, success, 400, 404, 410, 412, *errors, headers=f"{_RESUMABLE} {headers}", **more)


def _analysis(summary: str, schema: str) -> Part:
    errors = (*_JSON_ERRORS, 401, 404, 409, 422, 504)
    return _call(summary, _ok("AnalysisAnswer"), *errors, **_json(schema, MAX_FIELDS), **_MAYBE_JWT)


def _rest_calls() -> dict[str, Part]:
    """Return the calls by method and path, without tus, packs and the lookup.

    `document` adds path parameters, HEAD and the token.
    """
    session = _ok("Session", 201)
    session["201"]["links"] = {
        name: {"operationId": name, "parameters": {"id": "$response.body#/sessionId"}}
        for name in ("progress", "cancel", "finish")
    }
    return {
        "GET /health": _call("Get status and limits", _ok("Health")),
        "GET /openapi.json": _call("Get this document", _success(200, {"type": "object"})),
        "GET /metrics": _call("Get metrics for Prometheus", _success(200, ALL_TYPES["text"], "text/plain")),
        "GET /api/activity": _call("List the newest sessions and analyses", _ok("Activity")),
        "GET /uploads/{category}/{path}": _file("Get a stored file; the path may have slashes"),
        "POST /api/upload/validate": _call(
            "Check files against the limits", _ok("Validation"), *_JSON_ERRORS, **_json("FilesToValidate", MAX_JSON)
        ),
        "POST /api/upload/session": _call(
            "Create a session",
            session,
            *_JSON_ERRORS,
            headers=f"{_WRITER}:secret X-Expected-Bytes?:announced",
            **_json("NewSession"),
        ),
        "POST /api/upload/session/{id}/finish": _call(
            "End a session",
            _ok("Finished"),
            *(400, 404, 408, 409, 413),
            headers=_WRITER,
            operationId="finish",
            **_json("Finish", required=False),
        ),
        f"POST {BATCH}": _call(
            "Upload files of a session",
            _ok("BatchAnswer"),
            *(400, 404, 408, 409, 413),
            headers=_WRITER,
            **_body(ref("Batch"), FORM),
        ),
        "GET /api/upload/progress/{id}": _call(
            "Get the progress of a session", _ok("Progress"), 404, operationId="progress"
        ),
        "POST /api/upload/cancel/{id}": _call(
            "Cancel a session", _ok("Done"), 404, 408, headers=_WRITER, operationId="cancel"
        ),
        "DELETE /api/upload/file/{id}": _call("Delete a stored file", _ok("Done"), 401, 404, **_JWT),
        "POST /api/ai/analyze/content": _analysis("Analyse a video (simulated)", "ContentAnalysis"),
        "POST /api/ai/analyze/fusion": _analysis("Plan a fusion of two videos (simulated)", "FusionAnalysis"),
        "POST /api/ai/generate/music-prompt": _analysis("Write a prompt for music (simulated)", "MusicPrompt"),
        "GET /api/ai/analysis/{id}/status": _call(
            "Get the status of an analysis, by its id or the client's sessionId",
            _ok("Analysis"),
            401,
            404,
            **_MAYBE_JWT,
        ),
    }


def _tus_calls() -> dict[str, Part]:
    capabilities = "Tus-Version Tus-Extension Tus-Max-Size Tus-Checksum-Algorithm Checksum-Compared Upload-Limit"
    options = _call("Get the tus capabilities", _success(204, headers=f"{_RESUMABLE} {capabilities}"))
    state = f"{_STORED} Upload-Complete? Upload-Length?:count Upload-Limit?"  # also of the IETF protocol
    created = f"{_MAYBE_RESUMABLE} Upload-Offset:count Location {state}"
    create = _call(
        "Create an upload; send Upload-Length or Upload-Defer-Length, or neither for a final upload",
        _success(201, headers=created) | _success(200, headers=created),
        *(400, 404, 408, 409, 410, 412, 413, 415, 423, 460),
        headers=f"{_RESUMABLE} Upload-Length?:count Upload-Defer-Length?:one Upload-Metadata? Upload-Concat?"
        f" Upload-Checksum? {_WRITER}",
        **_body({}, BODY_TYPE, required=False),
    )
    offset = f"{_MAYBE_RESUMABLE} Upload-Offset:count {state}"
    return {
        f"OPTIONS {TUS.rstrip('/')}": options,
        f"POST {TUS.rstrip('/')}": create,
        f"OPTIONS {TUS}": options,
        f"POST {TUS}": create,
        f"OPTIONS {TUS}{{id}}": options,
        f"GET {TUS}{{id}}": _file("Get the file of a finished upload", 409, 410),
        f"HEAD {TUS}{{id}}": _upload("Get the offset of an upload", _both(200, 204, f"Cache-Control {offset}")),
        f"PATCH {TUS}{{id}}": _upload(
            "Append bytes",
            _both(204, 201, offset),
            *(403, 408, 409, 413, 415, 423, 460),
            headers="Upload-Offset:count Upload-Length?:count Upload-Checksum?",
            **_body({}, BODY_TYPE),
        ),
        f"DELETE {TUS}{{id}}": _upload(
            "Remove an upload and its file", _success(204, headers=_MAYBE_RESUMABLE), 401, **_MAYBE_JWT
        ),
    }


def _pack_calls() -> dict[str, Part]:
    return {
        f"POST {PACKS}": _call(
            "Upload many small files; send manifest before data",
            _ok("PackAnswer"),
            *(400, 404, 408, 409, 411, 413, 422),
            headers=f"Idempotency-Key:key {_WRITER}",
            **_body(ref("Pack"), FORM, encoding={"manifest": {"contentType": JSON}}),
        ),
        f"GET {PACKS}/{{key}}": _call(
            "Get the saved response to a pack", _ok("PackAnswer"), 400, 404, 409, headers=_WRITER
        ),
        f"POST {LOOKUP}": _call(
            "Look up which files are stored", _ok("LookupAnswer"), *_JSON_ERRORS, **_json("Lookup", MAX_JSON)
        ),
    }


def document(config: ServerConfig, offers: Part) -> Part:
    """Build the document for a configuration; `offers` is as in `/health`."""
    optional = {"tus": TUS.rstrip("/"), "packs": PACKS, "lookup": LOOKUP}
    absent = tuple(path for name, path in optional.items() if name not in offers)
    absent += () if config.ui else ("/api/activity",)
    absent += () if config.has_analyses else ("/api/ai/",)
    bearer = {"type": "http", "scheme": "bearer"}
    schemes: Part = {"jwt": {**bearer, "bearerFormat": "JWT", "description": "Signed by the server (--print-token)"}}
    if config.auth_token is not None:
        schemes["token"] = {**bearer, "description": "The token of --auth-token-file"}
    paths: dict[str, Part] = {}
    for key, call in (_rest_calls() | _tus_calls() | _pack_calls()).items():
        method, path = key.split()
        if path.startswith(absent):
            continue
        call = {**call, "parameters": [*_path_parameters(method, path), *call["parameters"]]}
        if config.auth_token is not None and path not in FREE:
            jwt: list[Part] = [{"jwt": []}] if method == "DELETE" or path.startswith("/api/ai/") else []
            call |= {"security": [{"token": []}, *jwt], "responses": {**call["responses"], "401": _error(401)}}
        paths.setdefault(path, {})[method.lower()] = call
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
