"""Helpers that build OpenAPI parameters, bodies and responses."""

from __future__ import annotations

from typing import Any

from uploader_server.openapi.schemas import TEXT, ref

Part = dict[str, Any]

JSON = "application/json"

_ERRORS = {
    400: "The request is invalid",
    401: "The token is missing or invalid",
    403: "Not allowed, or called by a web page of another origin",
    404: "Not found",
    408: "Timeout while receiving the body",
    409: "Conflict with the current state",
    410: "Gone",
    411: "Content-Length is missing",
    412: "Tus-Resumable is missing or has an unsupported version",
    413: "Too large",
    415: "Unsupported Content-Type",
    421: "The Host is not allowed",
    422: "The content can't be processed",
    423: "Another request took over this upload",
    429: "Too many requests or connections from one address",
    460: "The checksum doesn't match",
    500: "Server error or disk error",
    503: "Too busy (see Retry-After), or the server is stopping",
    504: "Timeout of the analysis",
    507: "The server's disk is full",
}
_ALWAYS = (403, 421, 429, 500, 503)
"""Errors that every call can return."""


def call(summary: str, success: dict[int, Part], *errors: int, **more: Any) -> Part:
    """Describe a call with its responses; `more` are further keys of the OpenAPI operation."""
    answers = {**success, **{status: error(status) for status in sorted({*errors, *_ALWAYS})}}
    return {"summary": summary, **more, "responses": {str(status): one for status, one in answers.items()}}


def error(status: int) -> Part:
    """Describe an error response."""
    content: Part = {JSON: {"schema": ref("Error")}}
    if status in {400, 429}:  # for an invalid Range, and for too many connections
        content["text/plain"] = {"schema": TEXT}
    return {"description": _ERRORS[status], "content": content}


def answer(description: str, schema: str, **more: Any) -> Part:
    """Describe a response with a JSON body."""
    return {"description": description, "content": {JSON: {"schema": ref(schema)}}, **more}


def empty(description: str, required: Part, optional: Part | None = None) -> Part:
    """Describe a response by its headers; `required` are always present."""
    headers = {name: {"required": True, "schema": schema} for name, schema in required.items()}
    headers |= {name: {"schema": schema} for name, schema in (optional or {}).items()}
    return {"description": description, "headers": headers}


def body(schema: str, most: int, *, required: bool = True) -> Part:
    """Describe a JSON request body of at most `most` bytes."""
    content = {JSON: {"schema": ref(schema)}}
    return {"description": f"At most {most} bytes", "required": required, "content": content}


def in_path(name: str = "id", schema: Part | None = None) -> Part:
    """Describe a path parameter."""
    return {"name": name, "in": "path", "required": True, "schema": schema or TEXT}


def header(name: str, schema: Part, *, required: bool = False) -> Part:
    """Describe a request header."""
    return {"name": name, "in": "header", "required": required, "schema": schema}


def links(**calls: str) -> Part:
    """Describe links to calls whose path has the `sessionId` of a response."""
    return {
        name: {"operationId": operation, "parameters": {"id": "$response.body#/sessionId"}}
        for name, operation in calls.items()
    }
