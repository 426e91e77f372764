"""How `/openapi.json` describes a call: its requests, headers and responses."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from uploader_server.http.bodies import ref
from uploader_server.http.errors import SMALL_JSON
from uploader_server.openapi.schemas import ALL_TYPES

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
JSON_ERRORS = (400, 408, 413)  # errors of a call with a JSON body
JWT: Part = {"security": [{"jwt": []}]}
MAYBE_JWT: Part = {"security": [{}, *JWT["security"]]}


def headers_of(text: str) -> Part:
    """Describe headers: words like `Name:type`, or `Name?:type` for an optional one; the default type is text."""
    words = [word.partition(":") for word in text.split()]
    return {
        name.rstrip("?"): {"required": not name.endswith("?"), "schema": ALL_TYPES[kind or "text"]}
        for name, _, kind in words
    }


def success(status: int, schema: Part | None = None, media: str = JSON, *, headers: str = "") -> Part:
    """Describe a successful response; without `schema` it has no body."""
    content = {} if schema is None else {"content": {media: {"schema": schema}}}
    return {str(status): {"description": HTTPStatus(status).phrase, "headers": headers_of(headers), **content}}


def both(of_tus: int, of_ietf: int, headers: str) -> Part:
    """Describe the successful responses of tus and of the IETF protocol to the same call."""
    return success(of_tus, headers=headers) | success(of_ietf, headers=headers)


def ok(name: str, status: int = 200) -> Part:
    """Describe a successful response with the JSON of this schema."""
    return success(status, ref(name))


def error_of(status: int) -> Part:
    content = {JSON: {"schema": ref("Error")}, "text/plain": {"schema": ALL_TYPES["text"]}}
    if status == 416:
        del content[JSON]
    elif status not in {400, 429}:  # plain text for an invalid Range, and for too many connections
        del content["text/plain"]
    return {"description": _ERRORS[status], "content": content}


def call(summary: str, answers: Part, *errors: int, headers: str = "", **more: Any) -> Part:
    """Describe a call with its request headers (see `headers_of`); `more` are keys of an OpenAPI operation."""
    parameters = [{"name": name, "in": "header", **header} for name, header in headers_of(headers).items()]
    responses = answers | {str(status): error_of(status) for status in sorted({*errors, *_ALWAYS})}
    return {"summary": summary, **more, "parameters": parameters, "responses": responses}


def body(schema: Part, media: str, *, required: bool = True, **more: Part) -> Part:
    """Return the description of a request body, as a keyword of `call`."""
    return {"requestBody": {"required": required, "content": {media: {"schema": schema, **more}}}}


def json_body(name: str, most: int = SMALL_JSON, *, required: bool = True) -> Part:
    """Return the description of a JSON request body of at most `most` bytes, as a keyword of `call`."""
    content = {JSON: {"schema": ref(name)}}
    return {"requestBody": {"description": f"At most {most} bytes", "required": required, "content": content}}


def file_call(summary: str, *errors: int) -> Part:
    """Describe a call that returns a file, with ranges."""
    whole = success(200, {}, "*/*", headers="Repr-Digest? Content-Disposition? Accept-Ranges? ETag?")
    part = success(206, {}, "*/*", headers="Content-Range?")
    return call(summary, whole | part, 400, 404, 416, *errors, headers="Range? Want-Repr-Digest?")
