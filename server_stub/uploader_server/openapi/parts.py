"""Parts of a call in `/openapi.json`: parameters, bodies, answers."""

from __future__ import annotations

from typing import Any

from uploader_server.openapi.schemas import TEXT, ref

Part = dict[str, Any]

JSON = "application/json"

_ERRORS = {
    400: "The request is wrong",
    401: "A token is missing or wrong",
    403: "Not allowed, or a web page of another origin calls",
    404: "There is no such thing",
    408: "The body took too long to arrive",
    409: "Not in this state",
    410: "It is gone",
    411: "Content-Length is missing",
    412: "Tus-Resumable is missing or of another version",
    413: "Too large",
    415: "Another Content-Type is needed",
    421: "The server does not go by this name",
    422: "It can't be done with this content",
    423: "Another request for this upload took over",
    429: "Too many requests, or too many connections of one address",
    460: "The bytes have another checksum",
    500: "The server or its disk failed",
    503: "Too busy (Retry-After says when to come again), or the server stops",
    504: "The analysis took too long",
    507: "The server's disk is full",
}
_ALWAYS = (403, 421, 429, 500, 503)
"""Errors of any call."""


def call(summary: str, success: dict[int, Part], *errors: int, **more: Any) -> Part:
    """Describe a call with its answers; `more` are other keys of an OpenAPI operation."""
    answers = {**success, **{status: error(status) for status in sorted({*errors, *_ALWAYS})}}
    return {"summary": summary, **more, "responses": {str(status): one for status, one in answers.items()}}


def error(status: int) -> Part:
    """Describe an answer with the body of an error."""
    content: Part = {JSON: {"schema": ref("Error")}}
    if status in {400, 429}:  # of a Range that is none, and of too many connections
        content["text/plain"] = {"schema": TEXT}
    return {"description": _ERRORS[status], "content": content}


def answer(description: str, schema: str, **more: Any) -> Part:
    """Describe an answer with a JSON body."""
    return {"description": description, "content": {JSON: {"schema": ref(schema)}}, **more}


def empty(description: str, required: Part, optional: Part | None = None) -> Part:
    """Describe an answer by its headers; `required` are always there."""
    headers = {name: {"required": True, "schema": schema} for name, schema in required.items()}
    headers |= {name: {"schema": schema} for name, schema in (optional or {}).items()}
    return {"description": description, "headers": headers}


def body(schema: str, most: int, *, required: bool = True) -> Part:
    """Describe a JSON body of at most so many bytes."""
    content = {JSON: {"schema": ref(schema)}}
    return {"description": f"At most {most} bytes", "required": required, "content": content}


def in_path(name: str = "id", schema: Part | None = None) -> Part:
    """Describe a parameter in the path."""
    return {"name": name, "in": "path", "required": True, "schema": schema or TEXT}


def header(name: str, schema: Part, *, required: bool = False) -> Part:
    """Describe a header of the request."""
    return {"name": name, "in": "header", "required": required, "schema": schema}


def links(**calls: str) -> Part:
    """Name the calls whose path takes the `sessionId` of an answer."""
    return {
        name: {"operationId": operation, "parameters": {"id": "$response.body#/sessionId"}}
        for name, operation in calls.items()
    }
