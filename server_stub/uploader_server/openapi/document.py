"""The OpenAPI 3.1 document of a bundled server with its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_server.http.middleware import FREE
from uploader_server.openapi import calls
from uploader_server.openapi.parts import Part, error
from uploader_server.openapi.schemas import schemas

if TYPE_CHECKING:
    from uploader_server.config import ServerConfig


def document(config: ServerConfig, offers: Part) -> Part:
    """Build the document for a configuration; `offers` is as in `/health`."""
    paths = {**calls.plain(), **calls.sessions(), **calls.analyses()}
    if "tus" in offers:
        paths |= calls.uploads()
    if "packs" in offers:
        paths |= calls.packs()
    bearer = {"type": "http", "scheme": "bearer"}
    schemes: Part = {"jwt": {**bearer, "bearerFormat": "JWT", "description": "Signed by the server (--print-token)"}}
    if config.auth_token is not None:
        schemes["token"] = {**bearer, "description": "The token of --auth-token-file"}
        _require_token(paths)
    for methods in paths.values():
        if "get" in methods:
            methods.setdefault("head", _without_content(methods["get"]))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Upload server",
            "version": "1",
            "description": "Sessions, batches, resumable uploads (tus 1.0), packs. docs/protocol.md explains each call;"
            " progress comes over Socket.IO at /socket.io/, which this document leaves out.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": schemas(config.limits, offers), "securitySchemes": schemes},
    }


def _require_token(paths: dict[str, Part]) -> None:
    """Add the security requirement of the auth token to all calls that need it."""
    for path, methods in paths.items():
        for method, call in methods.items():
            if path in FREE:
                continue
            call["security"] = [{"token": []}]
            if method == "delete" or path.startswith("/api/ai/"):
                call["security"].append({"jwt": []})
            call["responses"].setdefault("401", error(401))


def _without_content(call: Part) -> Part:
    """Return the description of HEAD for a GET: the same responses without content."""
    answers = {
        status: {key: value for key, value in answer.items() if key != "content"}
        for status, answer in call["responses"].items()
    }
    kept = {key: value for key, value in call.items() if key != "operationId"}
    return {**kept, "responses": answers}
